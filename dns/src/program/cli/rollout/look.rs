//! One look at a rollout. Takes the rules in service, what a node counted and what is remembered, returns what to do.
//! Called by `run`, `status` and `start`.

use std::path::{Path, PathBuf};

use bailiwick_rules::report::{RolloutReport, RolloutsReport};
use bailiwick_rules::rollout::evals::Evaled;
use bailiwick_rules::rollout::machine::{Decision, place, step};
use bailiwick_rules::rollout::record::Record;
use bailiwick_rules::table::Rollout;
use bailiwick_rules::time::Timestamp;
use clap::Args;

use super::evals::EvalFolder;
use crate::program::cli::node::{Node, NodeArgs, Power};
use crate::state::load::read_file;
use crate::system::files::{Mode, replace};

/// Who counts, and where is remembered what was counted.
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

/// What a node told of a rollout.
pub(super) struct Heard {
    pub(super) told: RolloutReport,
    /// The node, and when its process began.
    process: (String, Timestamp),
    /// When it told this, by its clock.
    at: Timestamp,
}

impl LookArgs {
    /// Where the record of a rollout is kept.
    pub(super) fn record(&self, rollout: &str) -> PathBuf {
        self.record.clone().unwrap_or_else(|| PathBuf::from(format!("rollout-{rollout}.json")))
    }

    /// What the node knows of a rollout; `None` if it doesn't serve rules with it yet.
    ///
    /// # Errors
    /// That it can't be asked.
    pub(super) fn report(&self, node: &NodeArgs, rollout: &Rollout) -> Result<Option<Heard>, Vec<String>> {
        let args = match &self.observed_by {
            Some(url) => NodeArgs {
                api: Some(url.clone()),
                token_file: self.observed_token_file.clone(),
                config: node.config.clone(),
            },
            None => node.clone(),
        };
        let text = Node::find(&args, Power::Read)?.read("/v1/rollouts")?;
        let mut report: RolloutsReport = serde_json::from_str(&text)
            .map_err(|error| vec![format!("/v1/rollouts: is no answer of this version: {error}")])?;
        let process = (report.node, report.begun);
        Ok(report.rollouts.remove(&rollout.id).map(|told| Heard { told, process, at: report.at }))
    }
}

/// Reads a record; an empty one if there is no file.
///
/// # Errors
/// That it can't be read: who looks mustn't forget what it says.
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
/// That it can't be written.
pub(super) fn write(file: &Path, record: &Record) -> Result<(), Vec<String>> {
    let text = serde_json::to_vec(record).map_err(|error| vec![format!("the record can't be written: {error}")])?;
    replace(file, &text, Mode::Public).map_err(|error| vec![format!("{}: can't be written ({error})", file.display())])
}

/// Notes what the node and the results of an eval told, and decides.
pub(super) fn look(
    rollout: &Rollout,
    heard: Option<&Heard>,
    (record, evals): (&mut Record, Option<&EvalFolder>),
    now: Timestamp,
) -> Decision {
    let rule = &rollout.rule;
    let here = place(rule).filter(|_| rule.progress.as_ref().is_some_and(|progress| progress.ended.is_none()));
    here.into_iter().for_each(|here| record.begin(rule, here));
    if let (Some(here), Some(heard)) = (here, heard)
        && let Some(told) = heard.told.regions.get(here.region)
    {
        record.note(here, told, &heard.process);
    }
    let problem = here.filter(|_| rule.eval.is_some()).and_then(|here| {
        let files = evals.map(|folder| folder.files(here.region));
        let files = files.as_ref().map(|files| match files {
            Ok(files) => Ok(files.each_ref().map(Vec::as_slice)),
            Err(problem) => Err(problem.clone()),
        });
        record.note_eval(rule, here, files, now)
    });
    let found = here.and_then(|here| record.evaled(rule, here));
    let since = rule.progress.as_ref().map(|progress| progress.since);
    let seen = here.zip(since).and_then(|(here, since)| record.seen(here, since, heard.map(|heard| heard.at)));
    let unheard = ["the node doesn't serve these rules yet".to_owned()];
    let obstacles = heard.map_or(&unheard[..], |heard| &heard.told.obstacles);
    let evaled = Evaled { found, problem: problem.as_deref() };
    step(rule, seen, evaled, obstacles, now)
}
