//! Simulates many isolates of the edge and one node: what is sent is compared with what is allowed.

use std::collections::VecDeque;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::*;
use crate::rules::Ratio;
use crate::time::{Millis, Timestamp};

const NOW: i64 = 1_796_104_800_000;
/// How long an ask takes to the node, and the answer back, each in milliseconds.
const WAY: i64 = 20;

/// A simulation of isolates that share a pool.
struct Run {
    limits: Limits,
    isolates: Vec<(Pool, Share)>,
    ledger: Ledger,
    /// Answers on their way: when they arrive, at which isolate, and the grant; `None` if the node doesn't answer.
    grants: VecDeque<(i64, usize, Option<Grant>)>,
    /// The time during which the node doesn't answer.
    silent: core::ops::Range<i64>,
    /// When a request was sent, in milliseconds, and how many tokens it had.
    sent: Vec<(i64, u64)>,
    refused: u64,
}

impl Run {
    fn new(isolates: usize, requests: u64, tokens: u64) -> Self {
        let limit = |amount, lag| Limit { amount, per: Millis(60_000), burst: Millis(1_000), headroom: Ratio(0), lag };
        Self {
            limits: Limits::new(Some(limit(requests, LEASE)), Some(limit(tokens, LEASE)), Vec::new()),
            isolates: vec![Default::default(); isolates],
            ledger: Ledger::default(),
            grants: VecDeque::new(),
            silent: 0..0,
            sent: Vec::new(),
            refused: 0,
        }
    }

    /// One request at an isolate. Afterwards the isolate asks the node if an ask is due, as the edge does after each
    /// request.
    fn request(&mut self, at: usize, tokens: u64, ms: i64) -> bool {
        let (cost, now) = (Cost { requests: 1, tokens }, Timestamp(NOW + ms));
        let (pool, share) = &mut self.isolates[at];
        let fits =
            pool.check(&self.limits, None, cost, now).is_ok() && share.wait(&self.limits, cost, now) == Millis(0);
        if fits {
            pool.charge(&self.limits, None, cost, now);
            share.charge(&self.limits, cost, now);
            self.sent.push((ms, tokens));
        } else {
            share.note_lack(cost);
            self.refused += 1;
        }
        if share.is_due(now) {
            let ask = share.ask(pool.closed(now), now);
            let then = Timestamp(NOW + ms + WAY);
            let is_answered = !self.silent.contains(&ms);
            let grant = is_answered.then(|| self.ledger.ask(&self.limits, at as u64, &ask, then));
            self.grants.push_back((ms + 2 * WAY, at, grant));
        }
        fits
    }

    fn arrive(&mut self, ms: i64) {
        while let Some((_, at, grant)) = self.grants.front().copied().filter(|(due, _, _)| *due <= ms) {
            self.grants.pop_front();
            match grant {
                Some(grant) => self.isolates[at].1.note_answer(&grant),
                None => self.isolates[at].1.note_failure(),
            }
        }
    }

    /// From one time to another, every isolate sends a request each `pause` milliseconds. `tokens` gives a request's
    /// tokens by time.
    fn load(&mut self, pause: i64, tokens: impl Fn(i64) -> u64, from: i64, to: i64) {
        for ms in from..to {
            self.arrive(ms);
            for at in 0..self.isolates.len() {
                if (ms + 7 * at as i64) % pause == 0 {
                    self.request(at, tokens(ms + at as i64), ms);
                }
            }
        }
    }

    /// How many requests and tokens were sent in a span.
    fn within(&self, from: i64, to: i64) -> (u64, u64) {
        let sent = self.sent.iter().filter(|(at, _)| (from..to).contains(at));
        sent.fold((0, 0), |(requests, tokens), (_, more)| (requests + 1, tokens + more))
    }
}

#[test]
fn eight_isolates_send_together_what_one_may() {
    for (requests, tokens, each, pause) in [(600, 1_000_000, 100, 100), (60_000, 100_000, 300, 400)] {
        let mut run = Run::new(8, requests, tokens);
        run.load(pause, |_| each, 0, 600_000);
        let (mut most, mut all) = (0, 0);
        for minute in 0..10 {
            let (sent, used) = run.within(minute * 60_000, (minute + 1) * 60_000);
            let (part, whole) = if tokens == 100_000 { (used, tokens) } else { (sent, requests) };
            assert!(part * 100 >= whole * 85, "minute {minute}: {part} of {whole}");
            most = most.max(part);
            all += part;
        }
        let whole = if tokens == 100_000 { tokens } else { requests };
        assert!(most <= whole, "{most} of {whole}");
        println!("{requests} requests, {tokens} tokens: at most {most}, in all {all} of {}", whole * 10);
    }
}

#[test]
fn an_isolate_alone_gets_everything_and_new_ones_get_their_part_soon() {
    let mut run = Run::new(2, 6_000, 1_000_000_000);
    for ms in 0..30_000 {
        run.arrive(ms);
        if ms % 5 == 0 {
            run.request(0, 10, ms);
        }
    }
    let (alone, _) = run.within(10_000, 30_000);
    assert!(alone >= 1_750, "{alone} of 1,900 in twenty seconds");
    run.sent.clear();
    for ms in 30_000..50_000 {
        run.arrive(ms);
        run.request(usize::from(ms % 2 == 1), 10, ms);
    }
    let (both, _) = run.within(35_000, 50_000);
    assert!((1_250..=1_500).contains(&both), "{both}");
    let second = run.isolates[1].1.basis(Timestamp(NOW + 50_000));
    assert_eq!(second, Basis::Lease);
}

#[test]
fn silent_nodes_mean_half_of_the_last_share_and_then_headers_alone() {
    let mut run = Run::new(4, 6_000, 1_000_000_000);
    run.silent = 30_000..200_000;
    run.load(20, |_| 10, 0, 30_000);
    run.sent.clear();
    run.load(20, |_| 10, 30_000, 90_000);
    let (half, _) = run.within(35_000, 90_000);
    let allowed = 6_000 * 55 / 60;
    assert!((allowed * 40 / 100..=allowed * 52 / 100).contains(&half), "{half} of {allowed}");
    assert_eq!(run.isolates[0].1.basis(Timestamp(NOW + 90_000)), Basis::Half);
    run.load(20, |_| 10, 90_000, 150_000);
    assert_eq!(run.isolates[0].1.basis(Timestamp(NOW + 150_000)), Basis::Alone);
    run.load(20, |_| 10, 150_000, 230_000);
    assert_eq!(run.isolates[0].1.basis(Timestamp(NOW + 230_000)), Basis::Lease, "nodes are back");
    run.load(20, |_| 10, 230_000, 600_000);
    // First the isolates pay off what they sent while the node was silent; after that the limit holds again.
    let (after, _) = run.within(540_000, 600_000);
    assert!((5_000..=6_000).contains(&after), "{after}");
}

#[test]
fn one_isolates_refusal_stops_all() {
    let mut run = Run::new(3, 6_000, 1_000_000_000);
    run.load(50, |_| 10, 0, 5_000);
    let refusal = Reading { retry_after: Some(Millis(20_000)), ..Reading::default() };
    run.isolates[0].0.note_refused(&refusal, Timestamp(NOW + 5_000));
    run.load(50, |_| 10, 5_000, 8_000);
    run.sent.clear();
    run.load(50, |_| 10, 8_000, 24_000);
    assert_eq!(run.within(8_000, 24_000), (0, 0));
    run.load(50, |_| 10, 24_000, 35_000);
    assert!(run.within(28_000, 35_000).0 > 100);
}

/// The second isolate's leases end long before the provider serves again, and half of its last share would be enough to
/// send.
#[test]
fn one_isolates_refusal_stops_one_that_sends_rarely_too() {
    let mut run = Run::new(2, 60_000, 1_000_000_000);
    run.load(3_000, |_| 10, 0, 9_001);
    let refusal = Reading { retry_after: Some(Millis(30_000)), ..Reading::default() };
    run.isolates[0].0.note_refused(&refusal, Timestamp(NOW + 9_001));
    run.load(3_000, |_| 10, 9_001, 16_000);
    run.sent.clear();
    run.load(3_000, |_| 10, 16_000, 39_000);
    assert_eq!(run.within(16_000, 39_000), (0, 0));
    let left = run.isolates[1].1.closed(Timestamp(NOW + 38_000));
    assert!((900..=1_001).contains(&left.0), "repeated reports don't prolong the wait: {left:?}");
    run.load(3_000, |_| 10, 39_000, 60_000);
    assert!(run.within(39_100, 60_000).0 >= 12);
}

#[test]
fn a_large_request_gets_a_lease_that_is_large_enough() {
    let mut run = Run::new(8, 60_000, 100_000);
    run.load(1_000, |_| 4_000, 0, 120_000);
    let (sent, used) = run.within(60_000, 120_000);
    assert!((20..=25).contains(&sent) && used <= 104_000, "{sent}, {used}");
}

/// Whatever isolates report and nodes answer, nothing panics, and no isolate alone exceeds the pool's own limit.
#[test]
fn lies_are_bounded() {
    let number = || prop_oneof![0..10u64, Just(u64::MAX), any::<u64>()];
    let amounts = move || (number(), number()).prop_map(|(requests, tokens)| Amounts { requests, tokens });
    let ask = (amounts(), amounts(), amounts(), amounts(), number())
        .prop_map(|(spent, returned, want, least, ms)| Ask { spent, returned, want, least, closed_ms: ms });
    let grant = (amounts(), amounts(), number(), number(), number()).prop_map(
        |(granted, share, lasts_ms, wait_ms, closed_ms)| Grant { granted, share, lasts_ms, wait_ms, closed_ms },
    );
    let steps = proptest::collection::vec((ask, grant, 0..5_000i64, any::<u64>()), 1..40);
    TestRunner::new(ProptestConfig::with_cases(2_000))
        .run(&steps, |steps| {
            let run = Run::new(1, 60, 1_000);
            let (mut ledger, mut pool, mut share) = (Ledger::default(), Pool::default(), Share::default());
            let (mut now, mut sent) = (Timestamp(NOW), 0);
            for (ask, grant, pause, holder) in steps {
                let answer = ledger.ask(&run.limits, holder, &ask, now);
                let rate = run.limits.tokens.unwrap();
                let most = rate.burst().max(ask.least.tokens.min(rate.limit()));
                prop_assert!(answer.granted.tokens <= most, "{answer:?}");
                share.ask(pool.closed(now), now);
                share.note_answer(&grant);
                let cost = Cost { requests: 1, tokens: 3 };
                while pool.check(&run.limits, None, cost, now).is_ok()
                    && share.wait(&run.limits, cost, now) == Millis(0)
                {
                    pool.charge(&run.limits, None, cost, now);
                    share.charge(&run.limits, cost, now);
                    sent += 1;
                }
                share.refund(Cost { requests: 0, tokens: holder });
                share.note_lack(Cost { requests: holder, tokens: holder });
                now = now.after(Millis(pause.unsigned_abs()));
            }
            let minutes = now.since(Timestamp(NOW)).0 / 60_000 + 1;
            prop_assert!(sent <= 60 * minutes, "{sent} in {minutes} minutes");
            Ok(())
        })
        .unwrap();
}

#[test]
fn isolates_without_end_are_forgotten() {
    let run = Run::new(1, 600, 1_000);
    let mut ledger = Ledger::default();
    for holder in 0..3 * MAX_HOLDERS as u64 {
        ledger.ask(&run.limits, holder, &Ask::default(), Timestamp(NOW));
    }
    assert_eq!(ledger.holders(), MAX_HOLDERS);
}
