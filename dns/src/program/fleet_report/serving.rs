//! How a node answers under the revision in service. Takes what its metrics know, returns a part of `/v1/fleet`; and
//! reads that again for whoever drives a rollout.

use std::collections::BTreeMap;

use bailiwick_rules::fleet::stages::Answers;
use bailiwick_rules::time::Millis;
use serde::{Deserialize, Serialize};

use crate::program::metrics::Served;

/// How a node answers under the revision in service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Serving {
    /// For how long it has served it, by its own clock.
    pub(crate) milliseconds: u64,
    /// What it answered in the hour before.
    before: AnswersReport,
    /// What it has answered since.
    since: AnswersReport,
}

/// Answers of a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct AnswersReport {
    /// All of them.
    all: u64,
    /// Those with SERVFAIL.
    servfail: u64,
    /// Steered ones.
    steered: Vec<Steered>,
}

/// Answers of a service from a region.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Steered {
    service: String,
    /// Null: from no region.
    region: Option<String>,
    answers: u64,
}

impl From<Served> for Serving {
    fn from(served: Served) -> Self {
        Self { milliseconds: served.span.0, before: served.before.into(), since: served.since.into() }
    }
}

impl From<Serving> for Served {
    fn from(serving: Serving) -> Self {
        Self { span: Millis(serving.milliseconds), before: serving.before.into(), since: serving.since.into() }
    }
}

impl From<Answers> for AnswersReport {
    fn from(answers: Answers) -> Self {
        let of = |(service, regions): (String, BTreeMap<Option<String>, u64>)| {
            regions.into_iter().map(move |(region, answers)| Steered { service: service.clone(), region, answers })
        };
        let Answers { all, servfail, steered } = answers;
        Self { all, servfail, steered: steered.into_iter().flat_map(of).collect() }
    }
}

impl From<AnswersReport> for Answers {
    fn from(report: AnswersReport) -> Self {
        let mut answers = Self { all: report.all, servfail: report.servfail, ..Self::default() };
        for Steered { service, region, answers: count } in report.steered {
            *answers.steered.entry(service).or_default().entry(region).or_default() += count;
        }
        answers
    }
}
