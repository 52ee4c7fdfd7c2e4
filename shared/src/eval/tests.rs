//! Tests of whole comparisons: files in, verdicts out.

use core::fmt::Write;

use serde_json::json;

use super::*;
use crate::testing::Random;

/// A number from 0 to 1.
pub(super) fn unit(random: &mut Random) -> f64 {
    (random.bits() >> 11) as f64 / (1_u64 << 53) as f64
}

const SETTINGS: Settings = Settings { margin: 0.05, alpha: 0.05, seed: 1, sides: Sides::Both };

/// A file of `bailiwick eval run`: the scores of each case.
fn ours(seed: i64, scores: &[&[f64]]) -> Vec<u8> {
    let header = Header {
        bailiwick_eval: VERSION,
        suite: "smoke".into(),
        suite_hash: "00".into(),
        cases: scores.len(),
        service: "chat".into(),
        region: None,
        arm: None,
        begun: None,
        model: "large".into(),
        seed: Some(seed),
        repeat: u32::try_from(scores.first().map_or(1, |one| one.len())).unwrap(),
    };
    let mut text = serde_json::to_string(&header).unwrap() + "\n";
    for (nth, of_case) in scores.iter().enumerate() {
        for (repeat, score) in (0..).zip(*of_case) {
            let hashes = ["p", "q", "r"].map(|name| format!("{name}{nth}"));
            let outcome =
                Outcome { case: format!("c{nth}"), repeat, hashes, score: Some(*score), ..Outcome::default() };
            text += &(serde_json::to_string(&outcome).unwrap() + "\n");
        }
    }
    text.into_bytes()
}

fn run(bytes: &[u8]) -> Run {
    read_run(bytes, None, ResultFilter::default()).unwrap()
}

/// A run of cases with one score each.
fn plain(scores: &[f64]) -> Run {
    let scores: Vec<&[f64]> = scores.iter().map(core::slice::from_ref).collect();
    run(&ours(1, &scores))
}

#[test]
fn equal_runs_are_alike_if_there_are_enough_cases() {
    let right = |n: usize| plain(&vec![1.0; n]);
    let few = compare(&right(20), &right(20), SETTINGS);
    assert_eq!((few.verdict, few.cases), (Verdict::NotShown, 20));
    let many = compare(&right(100), &right(100), SETTINGS);
    assert_eq!(many.verdict, Verdict::Alike, "{many:?}");
    assert!(many.interval[0] > -0.05 && many.interval[1] < 0.05, "{many:?}");
    let scores = |n: usize| plain(&vec![0.5; n]);
    assert_eq!(compare(&scores(50), &scores(50), SETTINGS).verdict, Verdict::NotShown);
    let many = compare(&scores(200), &scores(200), SETTINGS);
    assert_eq!((many.verdict, many.pairs), (Verdict::Alike, None), "{many:?}");
}

#[test]
fn what_got_worse_or_better_is_told() {
    let good = plain(&[1.0; 200]);
    let mut scores = [1.0; 200];
    scores[..40].fill(0.0);
    let bad = plain(&scores);
    let worse = compare(&good, &bad, SETTINGS);
    assert_eq!((worse.verdict, worse.differing), (Verdict::Worse, 40));
    assert_eq!(worse.difference, -0.2);
    assert!(worse.interval[1] < 0.0);
    assert_eq!(compare(&bad, &good, SETTINGS).verdict, Verdict::Better);
    let one_sided = Settings { sides: Sides::NotWorse, ..SETTINGS };
    assert_eq!(compare(&bad, &good, one_sided).verdict, Verdict::Alike);
    assert_eq!(compare(&good, &bad, one_sided).verdict, Verdict::Worse);
    let half = plain(&scores.map(|score| score.max(0.5) * 0.8));
    assert_eq!(compare(&good, &half, SETTINGS).verdict, Verdict::Worse);
}

#[test]
fn scores_without_bounds_are_compared_by_t_tests() {
    let mut random = Random::new(3);
    let line = |nth: usize, value: f64| {
        json!({ "doc_id": nth, "metrics": ["ll"], "ll": value, "filter": "none", "arguments": {},
                "doc_hash": nth.to_string(), "prompt_hash": "p", "target_hash": "t" })
    };
    let (mut a, mut b, mut worse) = (String::new(), String::new(), String::new());
    for nth in 0..300 {
        let value = -50.0 * unit(&mut random);
        let noise = (unit(&mut random) - 0.5) * 0.1;
        let _ = writeln!(a, "{}", line(nth, value));
        let _ = writeln!(b, "{}", line(nth, value + noise));
        let _ = writeln!(worse, "{}", line(nth, value + noise - 0.2));
    }
    let [a, b, worse] = [a, b, worse].map(|text| run(text.as_bytes()));
    assert_eq!(compare(&a, &b, SETTINGS).verdict, Verdict::Alike);
    assert_eq!(compare(&a, &b, SETTINGS).method, "TOST by t tests, bootstrap interval");
    assert_eq!(compare(&a, &worse, SETTINGS).verdict, Verdict::Worse);
    assert_eq!(compare(&a, &a, SETTINGS).verdict, Verdict::NotShown, "no case differs: a t test says nothing");
}

#[test]
fn what_ran_otherwise_is_not_compared() {
    let a = run(&ours(1, &[&[1.0], &[0.0]]));
    assert_eq!(differences(&a, &a), [""; 0]);
    let told = |other: &Run| differences(&a, other).join("; ");
    assert_eq!(told(&run(&ours(2, &[&[1.0], &[0.0]]))), "the seed differs: 1 in the first file, 2 in the second");
    let longer = told(&run(&ours(1, &[&[1.0], &[0.0], &[0.0]])));
    assert!(longer.contains("cases are in the second file alone: \"c2\""), "{longer}");
    let repeated = told(&run(&ours(1, &[&[1.0, 1.0], &[0.0, 0.0]])));
    assert!(repeated.contains("number of repetitions differs: 1 in the first file, 2"), "{repeated}");
    let text = String::from_utf8(ours(1, &[&[1.0], &[0.0]])).unwrap();
    for (from, to, words) in [
        ("\"p1\"", "\"x\"", "the prompt differs in 1 cases: \"c1\""),
        ("\"q0\"", "\"x\"", "the params differs in 1 cases: \"c0\""),
        ("\"r0\"", "\"x\"", "the expectation differs in 1 cases"),
    ] {
        let other = told(&run(text.replace(from, to).as_bytes()));
        assert!(other.contains(words), "{from}: {other}");
    }
    let cut = &text[..text.trim_end().rfind('\n').unwrap() + 10];
    let torn = told(&run(cut.as_bytes()));
    assert!(torn.contains("cases of the second file have no answer: \"1 more that were not asked\""), "{torn}");
    let failed = text.replace("\"score\":0.0", "\"error\":\"no answer\"");
    assert!(told(&run(failed.as_bytes())).contains("the second file have no answer: \"c1\""));
    assert_eq!(differences(&Run::default(), &Run::default()), ["there is no case"]);
}

#[test]
fn repetitions_are_one_sample_and_tell_what_chance_does() {
    let steady = run(&ours(1, &[[1.0, 1.0].as_slice(); 100]));
    let (against_itself, flips) = chance(&steady, SETTINGS).unwrap();
    assert_eq!((against_itself.verdict, flips), (Verdict::Alike, 0));
    let mut scores = vec![[1.0, 1.0].as_slice(); 100];
    scores[..20].fill(&[1.0, 0.0]);
    scores[20..40].fill(&[0.0, 1.0]);
    let noisy = run(&ours(1, &scores));
    let (against_itself, flips) = chance(&noisy, SETTINGS).unwrap();
    assert_eq!((against_itself.verdict, flips, against_itself.differing), (Verdict::NotShown, 40, 40));
    assert_eq!(compare(&noisy, &noisy, SETTINGS).cases, 100, "not 200");
    assert_eq!(chance(&plain(&[1.0; 10]), SETTINGS), None);
}

#[test]
fn the_same_model_asked_twice_is_seldom_called_worse() {
    let mut random = Random::new(5);
    let (runs, mut worse, mut alike) = (400_u32, 0_u32, 0_u32);
    let drawn = |random: &mut Random| -> Run {
        // Easy cases are right nine times of ten, hard ones half of the time.
        let right = |random: &mut Random, nth: usize| unit(random) < if nth.is_multiple_of(5) { 0.5 } else { 0.98 };
        let measured = |random: &mut Random, nth: usize| CaseResult {
            scores: vec![f64::from(u8::from(right(random, nth)))],
            ..CaseResult::default()
        };
        let cases = (0..300).map(|nth| (nth.to_string(), measured(random, nth))).collect();
        Run { cases, ..Run::default() }
    };
    for _ in 0..runs {
        let (a, b) = (drawn(&mut random), drawn(&mut random));
        let both: Vec<_> = a.cases.values().zip(b.cases.values()).collect();
        let mut pairs = pairs::Pairs::default();
        for (one, other) in both {
            pairs.add(one.scores == [1.0], other.scores == [1.0]);
        }
        worse += u32::from(pairs::p_of_no_difference(pairs) <= 0.05 && pairs.difference() < 0.0);
        alike += u32::from(compare(&a, &b, SETTINGS).verdict == Verdict::Alike);
    }
    assert!(worse <= 25, "{worse} of {runs}");
    println!("{worse} called worse, {alike} alike, of {runs} cases");
}

/// Two samples as lm-evaluation-harness 0.4 writes them, shortened.
fn samples(of_first: &str) -> String {
    let sample = |doc: usize, filter: &str, score: &str| {
        format!(
            "{{\"doc_id\": {doc}, \"doc\": {{\"question\": \"q{doc}\"}}, \"target\": \"4\", \"arguments\": \
             {{\"gen_args_0\": {{\"arg_0\": \"q{doc}\", \"arg_1\": {{\"until\": [\"\\n\"], \"temperature\": 0}}}}}}, \
             \"resps\": [[\" 4\"]], \"filtered_resps\": [\"4\"], \"filter\": \"{filter}\", \"metrics\": \
             [\"bleu\", \"exact_match\", \"acc\"], \"doc_hash\": \"d{doc}\", \"prompt_hash\": \"p{doc}\", \
             \"target_hash\": \"t\", \"bleu\": [\"4\", \"4\"], \"exact_match\": {score}, \"acc\": true}}\n"
        )
    };
    [sample(0, "strict", of_first), sample(1, "strict", "1.0"), sample(0, "flexible", "1.0")].concat()
}

#[test]
fn samples_of_lm_eval_are_read() {
    let text = samples("0.0");
    let read = |text: &str, wanted: ResultFilter<'_>| read_run(text.as_bytes(), None, wanted);
    let told = read(&text, ResultFilter::default()).unwrap_err();
    assert_eq!(told, "has several filters; name one by --filter: flexible, strict");
    let strict = ResultFilter { filter: Some("strict"), metric: None };
    let found = read(&text, strict).unwrap();
    assert_eq!(found.about["metric"], "exact_match", "the first that is a number");
    assert_eq!(found.cases["0"].scores, [0.0]);
    assert_eq!(found.cases["1"].hashes["prompt"], "p1");
    let acc = read(&text, ResultFilter { metric: Some("acc"), ..strict }).unwrap();
    assert_eq!(acc.cases["0"].scores, [1.0]);
    assert!(differences(&found, &acc)[0].starts_with("the metric differs: exact_match"));
    assert!(
        read(&text, ResultFilter { metric: Some("bleu"), ..strict })
            .unwrap_err()
            .contains("is no number; name another")
    );
    assert!(read(&text, ResultFilter { filter: Some("x"), metric: None }).unwrap_err().contains("has no filter \"x\""));
    let nan = read(&samples("NaN"), strict).unwrap_err();
    assert!(nan.starts_with("line 1: holds NaN or Infinity"), "{nan}");
    let twice = read(&(samples("0.0") + &text), strict).unwrap_err();
    assert!(twice.contains("document 0 comes twice"), "{twice}");
    let torn = read(&text[..text.len() - 20], strict).unwrap_err();
    assert!(torn.starts_with("line 3: is no JSON"), "{torn}");
    let warmer = text.replace("\"temperature\": 0", "\"temperature\": 1");
    let warmer = read(&warmer, strict).unwrap();
    assert_eq!(differences(&found, &warmer), ["the arguments differs in 2 cases: \"0\", \"1\""]);
    assert!(read("", strict).unwrap_err().starts_with("has no result"));
}

#[test]
fn seeds_and_templates_of_lm_eval_stand_in_its_other_file() {
    let results = |seed: u32, template: &str| {
        let results = json!({ "config": { "random_seed": seed, "fewshot_seed": 1 }, "chat_template_sha": template,
                              "task_hashes": { "gsm8k": "x", "mmlu": "y" } });
        Companion::read(results.to_string().as_bytes(), "gsm8k").unwrap()
    };
    let wanted = ResultFilter { filter: Some("strict"), metric: None };
    let read = |companion: &Companion| read_run(samples("0.0").as_bytes(), Some(companion), wanted).unwrap();
    let (a, b) = (read(&results(1, "t")), read(&results(2, "u")));
    assert_eq!(
        differences(&a, &b),
        [
            "the chat template differs: \"t\" in the first file, \"u\" in the second",
            "the seed differs: 1 in the first file, 2 in the second"
        ]
    );
    assert_eq!(differences(&a, &read(&results(1, "t"))), [""; 0]);
    assert!(Companion::read(b"{", "x").is_err());
    let mut lower = results(1, "t");
    let directions = json!({ "higher_is_better": { "gsm8k": { "exact_match": false } } });
    lower = Companion::read(directions.to_string().as_bytes(), "gsm8k").unwrap_or(lower);
    let told = read_run(samples("0.0").as_bytes(), Some(&lower), wanted).unwrap_err();
    assert!(told.contains("less is better"), "{told}");
}
