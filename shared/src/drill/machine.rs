//! What whoever runs a drill does next. Takes the rule, where the drill stands and what was seen, returns the next
//! step. Called by `bailiwick drill run` at each look.
//!
//! The shares of the ramp rise, the last one lasts, and then they fall again the same way. A drill that is broken off
//! gives all clients back at once.

use super::counts::EdgeCounts;
use crate::report::DrillRecord;
use crate::rules::{AbortLimits, Drill};
use crate::time::{Millis, Timestamp};

/// The least number of requests, or of streamed answers, by which a limit is judged.
const LEAST: u64 = 20;
/// The span over which limits are measured.
pub const WINDOW: Millis = Millis(60_000);
/// For how long data may be missing.
pub const PATIENCE: Millis = Millis(15_000);

/// A part of a drill: a share of clients, in per cent, and how long it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The share.
    pub share: u8,
    /// How long it lasts.
    pub lasts: Millis,
    /// Whether it is on the way back.
    pub is_back: bool,
}

/// All steps of a drill, in their order.
#[must_use]
pub fn steps(drill: &Drill) -> Vec<Step> {
    let Some((last, rising)) = drill.ramp.split_last() else { return Vec::new() };
    let step = |share: &u8, is_back| Step { share: *share, lasts: drill.step, is_back };
    let up = rising.iter().map(|share| step(share, false));
    let back = rising.iter().rev().map(|share| step(share, true));
    up.chain([Step { share: *last, lasts: drill.lasts, is_back: false }]).chain(back).collect()
}

/// Where a drill stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The step, from 0.
    pub step: usize,
    /// When it began.
    pub since: Timestamp,
}

/// What was seen at a look.
#[derive(Clone, Copy, Debug)]
pub struct Look<'a> {
    /// What the node tells of the drill; `None` if it knows of none.
    pub record: Option<&'a DrillRecord>,
    /// What Workers counted since the drill began, at most in the last [`WINDOW`].
    pub edge: &'a EdgeCounts,
    /// What is missing, and since when.
    pub missing: Option<(&'a str, Timestamp)>,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing: the share stays what it is, and is renewed.
    Hold,
    /// Go on to this step.
    Go(usize),
    /// The drill is done.
    Finish,
    /// Break it off, for this reason.
    Abort(String),
    /// It was ended by somebody else, for this reason.
    Ended(String),
}

/// Decides what to do next. `began` tells which run this is.
#[must_use]
pub fn decide(drill: &Drill, (began, place): (Timestamp, Place), look: &Look<'_>, now: Timestamp) -> Action {
    let same = look.record.filter(|record| record.began == began);
    match same {
        None => return Action::Ended("the node no longer knows of it".to_owned()),
        Some(DrillRecord { ended: Some(why), .. }) => return Action::Ended(why.clone()),
        Some(record) if !record.is_running(now) => return Action::Ended("it expired".to_owned()),
        Some(_) => {}
    }
    if let Some((what, since)) = look.missing
        && now.since(since) >= PATIENCE
    {
        return Action::Abort(format!("{what}, since {since}"));
    }
    if let Some(why) = beyond(&drill.abort, look.edge) {
        return Action::Abort(why);
    }
    let steps = steps(drill);
    match steps.get(place.step) {
        Some(step) if now.since(place.since) < step.lasts => Action::Hold,
        _ if place.step + 1 < steps.len() => Action::Go(place.step + 1),
        _ => Action::Finish,
    }
}

/// The limit that is exceeded, as a clause.
fn beyond(limits: &AbortLimits, edge: &EdgeCounts) -> Option<String> {
    let (failed, refused) = edge.rates().filter(|_| edge.requests >= LEAST).unwrap_or_default();
    if let Some(most) = limits.error_rate.filter(|most| failed > *most) {
        return Some(format!("{failed} of {} requests failed, more than {most}", edge.requests));
    }
    if let Some(most) = limits.refused.filter(|most| refused > *most) {
        return Some(format!("{refused} of {} requests were refused, more than {most}", edge.requests));
    }
    let p95 = edge.first_token_ms(950).filter(|_| edge.first_token.len() >= LEAST)?;
    let most = limits.first_token_p95.filter(|most| p95 > most.0)?;
    Some(format!(
        "the first token took up to {p95} ms for 95 % of {} answers, more than {most}",
        edge.first_token.len()
    ))
}

#[cfg(test)]
mod tests {
    use super::super::preflight;
    use super::*;
    use crate::observe::Histogram;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn drill(more: &str) -> Drill {
        preflight::tests_table(10, more).drills()[0].1.clone()
    }

    fn record(ended: Option<&str>) -> DrillRecord {
        serde_json::from_value(serde_json::json!({ "name": "one", "region": "fra", "began": NOW, "origin": "ns1",
            "number": 1, "share": 10, "until": NOW.after(Millis(100_000)), "ended": ended }))
        .unwrap()
    }

    fn edge(requests: u64, failed: u64, refused: u64, first_token_ms: u64) -> EdgeCounts {
        let mut first_token = Histogram::default();
        (0..requests).for_each(|_| first_token.count(first_token_ms * 1_000));
        EdgeCounts { sent: requests, requests, failed, refused, first_token }
    }

    fn decided(
        drill: &Drill,
        place: Place,
        edge: &EdgeCounts,
        missing: Option<(&str, Timestamp)>,
        now: Timestamp,
    ) -> Action {
        let record = record(None);
        decide(drill, (NOW, place), &Look { record: Some(&record), edge, missing }, now)
    }

    #[test]
    fn the_ramp_rises_lasts_and_falls_again() {
        let drill = drill(r#", "for": "30s", "step": "5s""#);
        let shares: Vec<_> =
            steps(&drill).iter().map(|step| (step.share, step.lasts.0 / 1_000, step.is_back)).collect();
        assert_eq!(shares, [(10, 5, false), (50, 5, false), (100, 30, false), (50, 5, true), (10, 5, true)]);
        assert_eq!(steps(&drill).iter().map(|step| step.lasts.0).sum::<u64>(), drill.span().0);
        let none = EdgeCounts::default();
        let at = |step, ms| decided(&drill, Place { step, since: NOW }, &none, None, NOW.after(Millis(ms)));
        assert_eq!((at(0, 4_999), at(0, 5_000)), (Action::Hold, Action::Go(1)));
        assert_eq!(at(0, 99_000), Action::Go(1), "no step is skipped, however late one looks");
        assert_eq!(
            (at(2, 29_999), at(2, 30_000), at(4, 4_000), at(4, 5_000)),
            (Action::Hold, Action::Go(3), Action::Hold, Action::Finish)
        );
    }

    #[test]
    fn it_is_broken_off_at_each_limit_and_not_by_a_few_requests() {
        let drill = drill(r#", "abort": { "error_rate": 0.01, "first_token_p95": "4s", "refused": 0.02 }"#);
        let place = Place { step: 0, since: NOW };
        let of = |edge: EdgeCounts| decided(&drill, place, &edge, None, NOW);
        assert_eq!(of(edge(1_000, 10, 20, 3_000)), Action::Hold);
        assert_eq!(of(edge(19, 19, 0, 9_000)), Action::Hold, "too few to judge by");
        let told = |action: Action| if let Action::Abort(why) = action { why } else { format!("{action:?}") };
        assert_eq!(told(of(edge(1_000, 11, 0, 10))), "1.1 % of 1000 requests failed, more than 1 %");
        assert_eq!(told(of(edge(1_000, 0, 21, 10))), "2.1 % of 1000 requests were refused, more than 2 %");
        assert!(
            told(of(edge(20, 0, 0, 9_000))).starts_with("the first token took up to 9"),
            "{:?}",
            of(edge(20, 0, 0, 9_000))
        );
        let without = super::tests::drill("");
        assert_eq!(decided(&without, place, &edge(1_000, 1_000, 0, 9_000), None, NOW), Action::Hold);
    }

    #[test]
    fn it_is_broken_off_when_data_is_missing_for_long() {
        let (drill, none) = (drill(""), EdgeCounts::default());
        let place = Place { step: 0, since: NOW };
        let at = |ms| decided(&drill, place, &none, Some(("no Worker has reported", NOW)), NOW.after(Millis(ms)));
        assert_eq!(at(14_999), Action::Hold);
        assert_eq!(at(15_000), Action::Abort(format!("no Worker has reported, since {NOW}")));
    }

    #[test]
    fn what_the_node_ended_is_over() {
        let (drill, none) = (drill(""), EdgeCounts::default());
        let place = Place { step: 0, since: NOW };
        let told = |record: Option<&DrillRecord>, now| {
            decide(&drill, (NOW, place), &Look { record, edge: &none, missing: None }, now)
        };
        assert_eq!(told(Some(&record(Some("par is down"))), NOW), Action::Ended("par is down".to_owned()));
        assert_eq!(told(Some(&record(None)), NOW.after(Millis(100_000))), Action::Ended("it expired".to_owned()));
        let other = DrillRecord { began: NOW.after(Millis(1)), ..record(None) };
        assert!(matches!(told(Some(&other), NOW), Action::Ended(_)) && matches!(told(None, NOW), Action::Ended(_)));
    }
}
