//! One look at a rollout. Takes the rollout of the rules in service, the counts that a node returns, and the record of
//! earlier looks; returns what to do. Called by `run` and `status`; `start` only asks the node
//! by it, and `report` only reads the record.
//!
//! Workers post to a node what they counted of both arms (the sessions with the old and with the new thing). The record
//! is a file, because a node that is started again has forgotten its counts.

use std::path::{Path, PathBuf};

use bailiwick_host::system::files::{Mode, replace};
use bailiwick_rules::report::{RolloutReport, RolloutsReport};
use bailiwick_rules::rollout::evals::EvalState;
use bailiwick_rules::rollout::machine::{Decision, place, step};
use bailiwick_rules::rollout::record::Record;
use bailiwick_rules::table::Rollout;
use bailiwick_rules::time::Timestamp;
use clap::Args;

use super::evals::EvalFolder;
use crate::program::cli::node::{Access, Node, NodeArgs};
use crate::state::load::read_file;

/// Which node has the counts, and in which file the record is.
#[derive(Debug, Clone, Args)]
pub(crate) struct LookArgs {
    /// The API of a node that Workers post observations to, if it isn't where rules are published.
    #[arg(long, value_name = "URL")]
    observed_by: Option<String>,
    /// The file of the token for that node.
    #[arg(long, value_name = "FILE", requires = "observed_by")]
    observed_token_file: Option<PathBuf>,
    /// Where is remembered what was counted; else rollout-NAME.json in this directory.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
}

/// A node's answer about a rollout.
pub(super) struct NodeAnswer {
    pub(super) report: RolloutReport,
    /// The node's name, and when its process began. A new process counts from zero.
    process: (String, Timestamp),
    /// When the node answered, by its clock.
    at: Timestamp,
}

impl LookArgs {
    /// Where the record of a rollout is kept.
    pub(super) fn record(&self, rollout: &str) -> PathBuf {
        self.record.clone().unwrap_or_else(|| PathBuf::from(format!("rollout-{rollout}.json")))
    }

    /// Asks the node for its counts of a rollout; `None` if it doesn't serve rules with this rollout yet.
    ///
    /// # Errors
    /// If the node can't be asked.
    pub(super) fn report(&self, node: &NodeArgs, rollout: &Rollout) -> Result<Option<NodeAnswer>, Vec<String>> {
        let args = match &self.observed_by {
            Some(url) => NodeArgs {
                api: Some(url.clone()),
                token_file: self.observed_token_file.clone(),
                config: node.config.clone(),
            },
            None => node.clone(),
        };
        let text = Node::find(&args, Access::Read)?.read("/v1/rollouts")?;
        let mut report: RolloutsReport = serde_json::from_str(&text)
            .map_err(|error| vec![format!("/v1/rollouts: is no answer of this version: {error}")])?;
        let (process, at) = ((report.node, report.begun), report.at);
        Ok(report.rollouts.remove(&rollout.id).map(|report| NodeAnswer { report, process, at }))
    }
}

/// Reads a record. If there is no file, the record is empty.
///
/// # Errors
/// If the file can't be read. Then nothing is decided, because the decision may depend on it.
pub(super) fn read(file: &Path) -> Result<Record, Vec<String>> {
    let name = file.display();
    match read_file(file) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
            vec![format!("{name}: is no record of a rollout ({error}); move it away, or name another")]
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Record::default()),
        Err(error) => Err(vec![format!("{name}: can't be read ({error})")]),
    }
}

/// Writes a record.
///
/// # Errors
/// If the file can't be written.
pub(super) fn write(file: &Path, record: &Record) -> Result<(), Vec<String>> {
    let text = serde_json::to_vec(record).map_err(|error| vec![format!("the record can't be written: {error}")])?;
    replace(file, &text, Mode::Public).map_err(|error| vec![format!("{}: can't be written ({error})", file.display())])
}

/// Adds the node's answer and the results of an eval to the record, and decides what to do.
pub(super) fn look(
    rollout: &Rollout,
    answer: Option<&NodeAnswer>,
    (record, evals): (&mut Record, Option<&EvalFolder>),
    now: Timestamp,
) -> Decision {
    let rule = &rollout.rule;
    let here = place(rule).filter(|_| rule.progress.as_ref().is_some_and(|progress| progress.ended.is_none()));
    here.into_iter().for_each(|here| record.begin(rule, here));
    if let (Some(here), Some(answer)) = (here, answer)
        && let Some(sums) = answer.report.regions.get(here.region)
    {
        record.note(here, sums, &answer.process);
    }
    let problem = here.filter(|_| rule.eval.is_some()).and_then(|here| {
        let files = evals.map(|folder| folder.files(here.region));
        let files = files.as_ref().map(|files| match files {
            Ok(files) => Ok(files.each_ref().map(Vec::as_slice)),
            Err(problem) => Err(problem.clone()),
        });
        record.note_eval(rule, here, files, now)
    });
    let found = here.and_then(|here| record.latest_finding(rule, here));
    let since = rule.progress.as_ref().map(|progress| progress.since);
    let observed =
        here.zip(since).and_then(|(here, since)| record.observations(here, since, answer.map(|answer| answer.at)));
    let no_answer = ["the node doesn't serve these rules yet".to_owned()];
    let obstacles = answer.map_or(&no_answer[..], |answer| &answer.report.obstacles);
    let eval_state = EvalState { found, problem: problem.as_deref() };
    step(rule, observed, eval_state, obstacles, now)
}
