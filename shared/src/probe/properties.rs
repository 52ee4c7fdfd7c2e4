//! What holds for every answer and every budget, tried with random ones.

use std::cell::Cell;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::*;
use crate::rules::{PROBE_TOKENS, ProbeBudget};
use crate::time::{Millis, Timestamp};

/// Reads an answer whose pieces are cut at random.
fn read(kind: &str, bytes: &[u8], cuts: &[usize]) -> Result<(), NoToken> {
    let mut answer = Answer::new(Some(kind), None)?;
    let (mut rest, mut cuts) = (bytes, cuts.iter().cycle());
    while !rest.is_empty() {
        let (piece, after) = rest.split_at((*cuts.next().unwrap_or(&1)).clamp(1, rest.len()));
        rest = after;
        if answer.push(piece)? == TokenProof::Token {
            return Ok(());
        }
    }
    answer.finish()
}

/// Complete and broken lines of a stream, none of which holds a token.
fn worthless() -> impl Strategy<Value = String> {
    let events = prop::sample::select(vec![
        "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}",
        "data: {\"choices\":[],\"prompt_filter_results\":[]}",
        "data: {\"choices\":[{\"delta\":{\"content\":\"\"}}]}",
        "data: {\"usage\":{\"completion_tokens\":0}}",
        "data: {\"usage\":{\"completion_tokens\":NaN}}",
        "data: [DONE]",
        "data: {\"choices\":[{\"delta\":{\"content\":\"cut",
        ": ping",
        "event: message",
        "id: 7",
        "retry: 1",
        "data",
        "data:",
    ]);
    let noise = "[ -9<-z]{0,20}".prop_map(|text| format!("x{text}"));
    let line = prop_oneof![4 => events.prop_map(str::to_owned), 1 => noise];
    let ends = prop::sample::select(vec!["\n", "\r\n", "\r", "\n\n", "\r\n\r\n", "\r\r"]);
    prop::collection::vec((line, ends), 0..20)
        .prop_map(|lines| lines.into_iter().map(|(line, end)| line + end).collect())
}

#[test]
fn nothing_without_a_token_is_proof_and_a_token_is_found_behind_anything() {
    let (cases, with_token) = (Cell::new(0), Cell::new(0));
    let strategy = (worthless(), prop::collection::vec(1..40_usize, 1..8), any::<bool>());
    TestRunner::new(ProptestConfig::with_cases(20_000))
        .run(&strategy, |(text, cuts, has_token)| {
            cases.set(cases.get() + 1);
            let token = "\n\ndata: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";
            let text = if has_token { text + token } else { text };
            let result = read("text/event-stream", text.as_bytes(), &cuts);
            prop_assert_eq!(result, if has_token { Ok(()) } else { Err(NoToken::Ended) });
            with_token.set(with_token.get() + u32::from(has_token));
            Ok(())
        })
        .unwrap();
    println!("streams tried: {}, with a token: {}", cases.get(), with_token.get());
    assert!(with_token.get() > 1_000);
}

#[test]
fn any_bytes_are_read_alike_however_they_are_cut() {
    let cases = Cell::new(0);
    let bytes = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..300),
        "(data: ?|event: error|[{}\\[\\]\",:a-z0-9]|\n|\r){0,60}".prop_map(String::into_bytes),
    ];
    let cuts = prop::collection::vec(1..20_usize, 1..8);
    TestRunner::new(ProptestConfig::with_cases(20_000))
        .run(&(bytes, cuts), |(bytes, cuts)| {
            cases.set(cases.get() + 1);
            for kind in ["text/event-stream", "application/json"] {
                let whole = read(kind, &bytes, &[bytes.len()]);
                prop_assert_eq!(read(kind, &bytes, &cuts), whole);
            }
            for status in [400, 422, 500] {
                if let RefusalMeaning::Raise(limit) = refused(status, &bytes, TokenLimit::default()) {
                    prop_assert!(limit.is_raised() && status != 500);
                }
            }
            Ok(())
        })
        .unwrap();
    println!("bytes tried: {}", cases.get());
}

#[test]
fn no_span_of_a_budget_sees_more_tokens_than_it_has() {
    let (cases, paid) = (Cell::new(0), Cell::new(0_usize));
    let strategy =
        (PROBE_TOKENS..40 * PROBE_TOKENS, 60_000_u64..86_400_000, prop::collection::vec(0.0..0.2_f64, 1..60));
    TestRunner::new(ProptestConfig::with_cases(5_000))
        .run(&strategy, |(tokens, per, waits)| {
            cases.set(cases.get() + 1);
            let mut purse = ProbeTokens::new(ProbeBudget { tokens, per: Millis(per) }, Timestamp(0));
            let (mut now, mut spent) = (0_i64, Vec::new());
            for wait in waits.iter().cycle().take(200) {
                #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
                let wait = (wait * per as f64) as i64;
                now += wait;
                match purse.take(Timestamp(now)) {
                    Ok(()) => spent.push(now),
                    Err(opens) => prop_assert!(opens.0 > now && opens.since(Timestamp(now)).0 <= per, "{opens}"),
                }
            }
            for (index, begin) in spent.iter().enumerate() {
                let end = begin + i64::try_from(per).unwrap();
                let within = spent[index..].iter().filter(|at| **at < end).count() as u64;
                prop_assert!(within * PROBE_TOKENS <= tokens, "{} in one span", within);
            }
            paid.set(paid.get() + spent.len());
            Ok(())
        })
        .unwrap();
    println!("budgets tried: {}, probes paid: {}", cases.get(), paid.get());
    assert!(paid.get() > 5_000);
}

#[test]
fn an_engine_that_makes_tokens_is_never_called_frozen_and_one_that_stands_never_busy() {
    use crate::load::EngineReading;
    let cases = Cell::new(0);
    let strategy = (prop::collection::vec((1..5_000_i64, 0..3_u64), 2..12), 0..30_000_i64, any::<bool>());
    TestRunner::new(ProptestConfig::with_cases(10_000))
        .run(&strategy, |(steps, begun, moves)| {
            cases.set(cases.get() + 1);
            let (mut watch, mut at, mut progress) = (EngineWatch::default(), 0, 100);
            for (step, more) in steps {
                at += step;
                progress += if moves { more + 1 } else { 0 };
                let (waiting, engines) = (Some(1_000), 1);
                let reading = EngineReading { progress: Some(progress), waiting, engines, ..EngineReading::default() };
                watch.take(Timestamp(at), reading);
            }
            let motion = watch.since(Timestamp(begun), Timestamp(at + 1), Millis(10_000));
            let verdict = judge(Finding::Late, Some(motion));
            prop_assert_ne!(verdict, if moves { Verdict::Frozen } else { Verdict::Busy });
            Ok(())
        })
        .unwrap();
    println!("engines tried: {}", cases.get());
}
