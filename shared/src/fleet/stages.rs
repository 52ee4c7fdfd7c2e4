//! Decides which nodes get a new document next. Takes the head (which names the published document and its stage), what
//! every node reports about itself, and what the change was predicted to do. Returns whether to wait, to go on to the
//! next stage, or to give up and why. Called by `bailiwick rules watch`.
//!
//! Every duration is measured by the node that reports it. No two nodes' clocks are compared, and nothing here reads
//! the time of day. A document that makes a fence smaller (the regions that may process a client) skips the stages: see
//! [`begin`].

#[cfg(test)]
mod tests;

use core::fmt;
use std::collections::BTreeMap;

use super::head::{Head, Stage};
use super::impact::Impact;
use crate::rules::Ratio;
use crate::table::Revision;
use crate::time::Millis;

/// How carefully a document goes through the stages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Care {
    /// How long every node of a stage has to serve the document before the next stage begins.
    pub bake: Millis,
    /// By how much the share of SERVFAIL among a node's answers may rise.
    pub servfail: Ratio,
    /// By how much the share of answers without a region may rise beyond the predicted rise.
    pub denied: Ratio,
    /// How far the change of a region's share may be from the predicted change.
    pub shift: Ratio,
    /// How many answers, before and after, are needed to judge shares: of a node for SERVFAIL, of a service for its
    /// regions.
    pub enough: u64,
}

impl Default for Care {
    fn default() -> Self {
        Self {
            bake: Millis(600_000),
            servfail: Ratio(10_000),
            denied: Ratio(10_000),
            shift: Ratio(50_000),
            enough: 500,
        }
    }
}

/// What a node reports about itself.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeReport {
    /// The node's name.
    pub node: String,
    /// The part of the fleet that it belongs to.
    pub stage: Stage,
    /// Whether it reported lately.
    pub is_live: bool,
    /// Whether the node has reported before, but not lately.
    pub is_gone: bool,
    /// The document that it serves.
    pub serves: Revision,
    /// For how long it has served that document, by its own clock.
    pub serves_for: Millis,
    /// Its answers before it took that document.
    pub before: Answers,
    /// Its answers since it took that document.
    pub since: Answers,
}

/// Counts of the answers of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// All answers.
    pub all: u64,
    /// Answers with SERVFAIL.
    pub servfail: u64,
    /// Answers for steered names, by service and by region; `None`: without a region.
    pub steered: BTreeMap<String, BTreeMap<Option<String>, u64>>,
}

/// The predicted change of each region's share of answers, in millionths, by service and region; `None`: answers
/// without a region. A service for which no queries were counted isn't here.
pub type Prediction = BTreeMap<String, BTreeMap<Option<String>, i64>>;

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Do nothing yet.
    Wait(Waiting),
    /// Publish the same head for this stage.
    Advance(Stage),
    /// Do nothing more: all nodes have the document, and served it for long enough.
    Done,
    /// Publish the old content under a new revision.
    Abort(Fault),
}

/// Why to wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// No node of the stage reported lately.
    Silence(Stage),
    /// These nodes, which reported lately, don't serve the document yet.
    Nodes(Vec<String>),
    /// These nodes answered since the watch began, and don't any more: the document may have killed them.
    Gone(Vec<String>),
    /// The document has to be served for this much longer.
    Bake(Millis),
}

/// Why a document isn't brought to more nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A node answers SERVFAIL more often than before.
    Servfail {
        /// The name of the node.
        node: String,
        /// Its share of SERVFAIL before.
        before: Ratio,
        /// Its share of SERVFAIL now.
        since: Ratio,
    },
    /// More clients of a service get no region than was predicted.
    Denied {
        /// The name of the service.
        service: String,
        /// The predicted change, in millionths of the service's answers.
        predicted: i64,
        /// The observed change, in millionths.
        observed: i64,
    },
    /// The share of a region changed in another way than predicted.
    Shift {
        /// The name of the service.
        service: String,
        /// The name of the region.
        region: String,
        /// The predicted change, in millionths of the service's answers.
        predicted: i64,
        /// The observed change, in millionths.
        observed: i64,
    },
}

/// Why a document can't start with the stage that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StageRefusal {
    /// It makes a fence smaller, and `--tighten` wasn't given.
    Tightens,
    /// `--tighten` was given together with a stage.
    Both,
}

/// The stage with which a document starts: the one asked for, or all nodes at once if `tighten` is set. If no stage is
/// asked for, all nodes get it.
///
/// # Errors
/// If the document has to go to all nodes at once and `tighten` isn't set, or if both a stage and `tighten` are given.
pub fn begin(impact: &Impact, wanted_stage: Option<Stage>, tighten: bool) -> Result<Stage, StageRefusal> {
    match (wanted_stage, tighten) {
        (Some(stage), true) if stage != Stage::Rest => Err(StageRefusal::Both),
        (_, true) => Ok(Stage::Rest),
        (Some(stage), false) if stage != Stage::Rest && impact.is_tightened() => Err(StageRefusal::Tightens),
        (wanted_stage, false) => Ok(wanted_stage.unwrap_or_default()),
    }
}

/// What to do about the document that a head names, given the nodes' reports.
#[must_use]
pub fn next(head: &Head, nodes: &[NodeReport], predicted: &Prediction, care: &Care) -> Step {
    let has_it = |node: &NodeReport| head.names() == Some(node.serves);
    let reached = || nodes.iter().filter(|node| node.stage <= head.stage && node.is_live);
    let serving: Vec<&NodeReport> = reached().filter(|node| has_it(node)).collect();
    let least = serving.iter().map(|node| node.serves_for).min();
    // Once every node has served the document for long enough, a fault has other causes.
    let is_over = head.stage == Stage::Rest && reached().all(has_it) && least.is_some_and(|least| least >= care.bake);
    if let Some(fault) = fault(&serving, predicted, care).filter(|_| !is_over) {
        return Step::Abort(fault);
    }
    let late: Vec<String> = reached().filter(|node| !has_it(node)).map(|node| node.node.clone()).collect();
    if !late.is_empty() {
        return Step::Wait(Waiting::Nodes(late));
    }
    let gone = nodes.iter().filter(|node| node.stage <= head.stage && node.is_gone);
    let gone: Vec<String> = gone.map(|node| node.node.clone()).collect();
    if !gone.is_empty() && head.stage != Stage::Rest {
        return Step::Wait(Waiting::Gone(gone));
    }
    // If no node is known at all, none has the document.
    if nodes.is_empty() {
        return Step::Wait(Waiting::Silence(head.stage));
    }
    // A stage that no node belongs to is skipped. A stage whose nodes are all silent isn't.
    let of_stage = |stage: Stage| nodes.iter().any(|node| node.stage == stage);
    let silent = |stage: &Stage| of_stage(*stage) && !reached().any(|node| node.stage == *stage);
    if let Some(stage) =
        Stage::ALL.into_iter().map(|(stage, _)| stage).filter(|stage| *stage <= head.stage).find(silent)
    {
        return Step::Wait(Waiting::Silence(stage));
    }
    if let Some(least) = least.filter(|least| *least < care.bake) {
        return Step::Wait(Waiting::Bake(Millis(care.bake.0 - least.0)));
    }
    let mut later = Stage::ALL.into_iter().map(|(stage, _)| stage).filter(|stage| *stage > head.stage);
    match later.clone().find(|stage| of_stage(*stage)).or(later.next_back()) {
        Some(stage) => Step::Advance(stage),
        None => Step::Done,
    }
}

/// The first fault of the nodes that have the document.
fn fault(serving: &[&NodeReport], predicted: &Prediction, care: &Care) -> Option<Fault> {
    servfail(serving, care).or_else(|| shares(serving, predicted, care))
}

/// A node that answers SERVFAIL more often since it serves the document.
fn servfail(serving: &[&NodeReport], care: &Care) -> Option<Fault> {
    let share = |answers: &Answers| Ratio::between(answers.servfail, answers.all);
    // A node that has just started has counted too few answers from before.
    let enough = |node: &&&NodeReport| node.since.all >= care.enough && node.before.all >= care.enough;
    serving.iter().filter(enough).find_map(|node| {
        let (before, since) = (share(&node.before), share(&node.since));
        let is_worse = since.0 > before.0.saturating_add(care.servfail.0);
        is_worse.then(|| Fault::Servfail { node: node.node.clone(), before, since })
    })
}

/// Compares the shares of regions, before and since, summed over all nodes that have the document.
fn shares(serving: &[&NodeReport], predicted: &Prediction, care: &Care) -> Option<Fault> {
    let sum = |of: fn(&NodeReport) -> &Answers, service: &str| {
        let mut sum: BTreeMap<Option<&str>, u64> = BTreeMap::new();
        for (region, count) in serving.iter().filter_map(|node| of(node).steered.get(service)).flatten() {
            let sum = sum.entry(region.as_deref()).or_default();
            *sum = sum.saturating_add(*count);
        }
        sum
    };
    predicted.iter().find_map(|(service, predicted)| {
        let (before, since) = (sum(|node| &node.before, service), sum(|node| &node.since, service));
        let total =
            |sum: &BTreeMap<Option<&str>, u64>| sum.values().fold(0_u64, |total, count| total.saturating_add(*count));
        let totals = [total(&before), total(&since)];
        if totals.iter().any(|total| *total < care.enough) {
            return None;
        }
        let share = |counts: &BTreeMap<Option<&str>, u64>, region: Option<&str>, total: u64| {
            i64::from(Ratio::between(counts.get(&region).copied().unwrap_or(0), total).0)
        };
        let regions = before.keys().chain(since.keys()).copied().chain(predicted.keys().map(Option::as_deref));
        regions.into_iter().find_map(|region| {
            let observed = share(&since, region, totals[1]) - share(&before, region, totals[0]);
            let predicted = predicted.get(&region.map(str::to_owned)).copied().unwrap_or(0);
            match region {
                None => (observed - predicted > i64::from(care.denied.0)).then(|| Fault::Denied {
                    service: service.clone(),
                    predicted,
                    observed,
                }),
                Some(region) => ((observed - predicted).unsigned_abs() > u64::from(care.shift.0))
                    .then(|| Fault::Shift { service: service.clone(), region: region.to_owned(), predicted, observed }),
            }
        })
    })
}

impl Impact {
    /// The predicted changes of the regions' shares, for services of which queries were counted.
    #[must_use]
    pub fn prediction(&self) -> Prediction {
        let mut predicted = Prediction::new();
        let plain = self.services.iter().filter(|service| service.tenants.is_empty() && service.total.queries > 0);
        for service in plain {
            let shares = predicted.entry(service.service.to_string()).or_default();
            for way in &service.moves {
                let part = i64::from(Ratio::between(way.who.weight.queries, service.total.queries).0);
                *shares.entry(way.from.as_ref().map(ToString::to_string)).or_default() -= part;
                *shares.entry(way.to.as_ref().map(ToString::to_string)).or_default() += part;
            }
        }
        predicted
    }
}

/// A change of a share in percentage points, such as `+12.5`, from millionths.
fn points(change: i64) -> String {
    let tenths = (change.abs() + 500) / 1_000;
    format!("{}{}.{}", if change < 0 { "-" } else { "+" }, tenths / 10, tenths % 10)
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silence(stage) => write!(f, "no node of stage {stage} was heard lately"),
            Self::Nodes(nodes) => write!(f, "not taken yet by {}", nodes.join(", ")),
            Self::Gone(nodes) => {
                write!(f, "{} answered before, and no longer; it may have killed them", nodes.join(", "))
            }
            Self::Bake(left) => write!(f, "served for another {left} before the next stage"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Servfail { node, before, since } => {
                write!(f, "{node} answers SERVFAIL to {since} of its queries, before it was {before}")
            }
            Self::Denied { service, predicted, observed } => {
                let (predicted, observed) = (points(*predicted), points(*observed));
                write!(
                    f,
                    "{service}: answers without a region changed by {observed} points, {predicted} were predicted"
                )
            }
            Self::Shift { service, region, predicted, observed } => {
                let (predicted, observed) = (points(*predicted), points(*observed));
                write!(f, "{service}: the share of {region} changed by {observed} points, {predicted} were predicted")
            }
        }
    }
}

impl fmt::Display for StageRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tightens => {
                "it makes a fence smaller, and name servers of one zone must not disagree on what is allowed; publish \
                 it with --tighten, to all nodes at once"
            }
            Self::Both => "--tighten brings it to all nodes at once; leave --stage out",
        })
    }
}
