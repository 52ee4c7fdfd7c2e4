//! A node's answers before and under the revision in service. Takes them from the node's metrics, returns a part of
//! `/v1/fleet`. The command that watches the rollout of a revision reads this part again.

use std::collections::BTreeMap;

use bailiwick_rules::fleet::stages::Answers;
use bailiwick_rules::time::Millis;
use serde::{Deserialize, Serialize};

use crate::program::metrics::AnswersByRevision;

/// A node's answers before and under the revision in service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Serving {
    /// For how long the node has served the revision, by its own clock.
    pub(crate) milliseconds: u64,
    /// The answers in the hour before.
    before: AnswersReport,
    /// The answers since the revision came into service.
    since: AnswersReport,
}

/// Numbers of answers of a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct AnswersReport {
    /// All answers.
    all: u64,
    /// The answers with SERVFAIL.
    servfail: u64,
    /// The steered answers, by service and region.
    steered: Vec<RegionAnswers>,
}

/// The number of a service's answers with the records of a region.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct RegionAnswers {
    service: String,
    /// The region. `None` (null in JSON) stands for answers without a region.
    region: Option<String>,
    answers: u64,
}

impl From<AnswersByRevision> for Serving {
    fn from(served: AnswersByRevision) -> Self {
        Self { milliseconds: served.span.0, before: served.before.into(), since: served.since.into() }
    }
}

impl From<Serving> for AnswersByRevision {
    fn from(serving: Serving) -> Self {
        Self { span: Millis(serving.milliseconds), before: serving.before.into(), since: serving.since.into() }
    }
}

impl From<Answers> for AnswersReport {
    fn from(answers: Answers) -> Self {
        let by_region = |(service, regions): (String, BTreeMap<Option<String>, u64>)| {
            regions.into_iter().map(move |(region, answers)| RegionAnswers {
                service: service.clone(),
                region,
                answers,
            })
        };
        let Answers { all, servfail, steered } = answers;
        Self { all, servfail, steered: steered.into_iter().flat_map(by_region).collect() }
    }
}

impl From<AnswersReport> for Answers {
    fn from(report: AnswersReport) -> Self {
        let mut answers = Self { all: report.all, servfail: report.servfail, ..Self::default() };
        for RegionAnswers { service, region, answers: count } in report.steered {
            *answers.steered.entry(service).or_default().entry(region).or_default() += count;
        }
        answers
    }
}
