//! `bailiwick rules watch`: takes the revision in service, and asks for the state of every node again and again. Brings
//! the revision to the next stage (a part of the fleet), or gives it up, as `bailiwick_rules::fleet::stages` decides.
//!
//! The command keeps no state that matters: the writer has the stage and the document, and each node has the times and
//! the counts of its answers. So the command may be killed at any moment, and continues when it is started again.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant};

use bailiwick_host::system::clock::Clock;
use bailiwick_rules::fleet::head::Stage;
use bailiwick_rules::fleet::stages::{Answers, Care, NodeReport, Prediction, Step, next};
use bailiwick_rules::rules::KeyDigest;
use bailiwick_rules::table::Revision;
use bailiwick_rules::time::Millis;
use clap::Args;

use super::author::AuthorArgs;
use super::change::{Change, PlaceArgs, are_known, texts};
use super::rules_store::{Base, Nodes, RulesStore};
use super::stage::{bring_to, give_up};
use crate::program::cli::node::{Access, NodeArgs};
use crate::program::fleet_report::FleetReport;
use crate::program::metrics::AnswersByRevision;
use crate::program::report::Report;
use crate::state::load::compile_rules;
use crate::text::span::parse_span;

/// A node that gave no answer for this time counts as not live, and isn't waited for.
const LATELY: Duration = Duration::from_secs(60);
/// The command ends if it fails to ask for the nodes' states more than this number of times in a row.
const MOST_FAILURES: u32 = 60;

/// Options of `bailiwick rules watch`.
#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    author: AuthorArgs,
    #[command(flatten)]
    places: PlaceArgs,
    #[command(flatten)]
    pace: PaceArgs,
}

/// How often nodes are looked at.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct PaceArgs {
    /// How often all nodes are looked at.
    #[arg(long, value_name = "SPAN", default_value = "10s", value_parser = parse_span)]
    every: Millis,
}

/// The revision that is watched on its way to all nodes.
pub(super) struct WatchedRevision<'a> {
    /// Where the revision was published. The states of the nodes are asked for there too.
    pub(super) node: &'a NodeArgs,
    /// Who signs the next heads.
    pub(super) author: &'a AuthorArgs,
    /// Where clients are found, for predicting the shares of regions.
    pub(super) places: &'a PlaceArgs,
    /// How often the nodes' states are asked for.
    pub(super) pace: PaceArgs,
    /// The revision that was just published. `None` stands for the revision in service.
    pub(super) revision: Option<u64>,
}

/// What is known of the nodes, and the line that was printed last.
#[derive(Default)]
struct WatchState {
    /// The last report of each node with its time, by the node's URL or its name in NATS. The URL of the writer is
    /// empty.
    heard: BTreeMap<String, (Instant, NodeReport)>,
    /// The line that was printed last.
    last_line: String,
}

/// The result of one look at all nodes.
enum Look {
    /// The watch continues. Prints this line.
    Again(String),
    /// The watch ends with this result.
    Ended(Report),
}

/// Watches the revision in service.
pub(super) fn run(args: &WatchArgs) -> Result<Report, Vec<String>> {
    let WatchArgs { node, author, places, pace } = args;
    watch(&WatchedRevision { node, author, places, pace: *pace, revision: None })
}

/// Watches a revision until all nodes serve it, or it is given up.
///
/// # Errors
/// If there is nothing to watch, or asking for the nodes' states fails for too long.
pub(super) fn watch(watched: &WatchedRevision<'_>) -> Result<Report, Vec<String>> {
    let store = RulesStore::find(watched.node, Access::Write)?;
    let mut state = WatchState::default();
    let base = in_service(&store, watched, &mut state)?;
    let care = store.limits()?.care();
    let foreseen = PredictedEffect::find(&store, &base, watched, &mut state);
    let mut failures = 0;
    loop {
        match look(&store, &base, watched, (&foreseen, &care), &mut state) {
            Ok(Look::Ended(report)) => return Ok(report),
            Ok(Look::Again(line)) => {
                failures = 0;
                state.tell(&line);
            }
            Err(errors) if failures >= MOST_FAILURES => return Err(errors),
            Err(errors) => {
                failures += 1;
                state.tell(&errors.join("; "));
            }
        }
        std::thread::sleep(watched.pace.every.to_std());
    }
}

/// Waits until the revision to watch is in service at the writer, and returns its document.
fn in_service(store: &RulesStore, watched: &WatchedRevision<'_>, state: &mut WatchState) -> Result<Base, Vec<String>> {
    loop {
        let base = store.base()?;
        if let Some(awaited) = watched.revision.filter(|awaited| base.revision > *awaited) {
            return Err(vec![format!("revision {awaited} is past: revision {} is in service", base.revision)]);
        }
        if watched.revision.is_none_or(|awaited| base.revision == awaited) {
            return match &base.document.head {
                Some(_) => Ok(base),
                None => Err(vec![format!("revision {} came by a file; there is nothing to watch", base.revision)]),
            };
        }
        state.tell("it waits for the first results of its monitors");
        std::thread::sleep(watched.pace.every.to_std());
    }
}

/// The predicted effect of the revision.
struct PredictedEffect {
    /// The predicted shares of regions; empty without a GeoIP database or the document before.
    predicted: Prediction,
    /// Whether a fence gets smaller, or this isn't known. Then the revision isn't given up by itself, because that
    /// would allow again what it forbids.
    tightens: bool,
}

impl PredictedEffect {
    fn find(store: &RulesStore, base: &Base, watched: &WatchedRevision<'_>, state: &mut WatchState) -> Self {
        let mut foreseen = Self { predicted: Prediction::new(), tightens: true };
        if let Err(errors) = foreseen.look(store, base, watched) {
            state.tell(&format!("shares of regions aren't judged: {}", errors.join("; ")));
        }
        foreseen
    }

    /// Finds as much of the prediction as possible, and returns an error for the rest.
    fn look(&mut self, store: &RulesStore, base: &Base, watched: &WatchedRevision<'_>) -> Result<(), Vec<String>> {
        let before = base.document.head.as_ref().and_then(|head| head.based_on);
        let before = before.ok_or_else(|| vec!["it replaces nothing".to_owned()])?;
        let old = compile_rules(store.document(before)?.bytes, "the rules before").map_err(texts)?;
        let new = compile_rules(base.document.bytes.clone(), "the rules in service").map_err(texts)?;
        let now = Clock::system().now();
        self.tightens = Change::of_fences(&old.table, &new.table, now).impact.is_tightened();
        let places = watched.places.places(watched.node)?;
        if !are_known(&places) {
            return Err(vec!["no GeoIP database is named; name one by --geoip".to_owned()]);
        }
        let queries = store.queries()?;
        let change = Change::find(&old.table, &new.table, &places, queries.as_ref(), now);
        self.predicted = change.impact.prediction();
        Ok(())
    }
}

/// Looks at all nodes once, and does the step that their reports require.
fn look(
    store: &RulesStore,
    begun_with: &Base,
    watched: &WatchedRevision<'_>,
    (foreseen, care): (&PredictedEffect, &Care),
    state: &mut WatchState,
) -> Result<Look, Vec<String>> {
    let base = store.base()?;
    let head = base.document.head.as_ref().filter(|_| base.revision == begun_with.revision);
    let Some(head) = head else {
        let by = base.document.head.as_ref().map(|head| format!(", by {}: {}", head.author, head.reason));
        let (past, now, by) = (begun_with.revision, base.revision, by.unwrap_or_default());
        return Ok(Look::Ended(Report::error(format!("revision {past} is past: revision {now} is in service{by}"))));
    };
    let nodes = state.reports(store.nodes()?, Instant::now());
    let stage = head.stage;
    match next(head, &nodes, &foreseen.predicted, care) {
        Step::Wait(why) => Ok(Look::Again(format!("revision {}, stage {stage}: {why}", head.revision))),
        Step::Advance(stage) => {
            bring_to(store, head, stage, watched.author)?;
            Ok(Look::Again(format!("revision {} is for nodes of stage {stage} now", head.revision)))
        }
        Step::Done => {
            let done = format!("revision {} is served by all nodes, and baked\n", head.revision);
            Ok(Look::Ended(Report::fine(done)))
        }
        Step::Abort(fault) if foreseen.tightens => {
            let reason = format!(
                "revision {} isn't given up by itself, as it makes a fence smaller: what it forbids would be allowed \
                 again; look, then `bailiwick rules abort`, or `rollback` if all nodes have it",
                head.revision
            );
            Ok(Look::Ended(Report::failed([fault.to_string(), reason])))
        }
        Step::Abort(fault) => {
            let reason = format!("given up by itself: {fault}");
            let done = give_up(store, &base, &reason, watched.author, Clock::system().now())?;
            Ok(Look::Ended(Report { output: format!("{done}\n"), ..Report::error(fault) }))
        }
    }
}

impl WatchState {
    /// Prints a line, unless the same line was printed last.
    fn tell(&mut self, line: &str) {
        if self.last_line != line {
            line.clone_into(&mut self.last_line);
            // The reader of the output may have closed it. The watch continues.
            let _ = writeln!(std::io::stdout(), "{}  {line}", Clock::system().now());
        }
    }

    /// The reports of all nodes. A node that never answered may belong to any stage, so it is reported for each stage.
    /// A stage without any other node then can't be left.
    fn reports(&mut self, nodes: Nodes, now: Instant) -> Vec<NodeReport> {
        for (url, node) in nodes.answered {
            if let Some(report) = node_report(node) {
                self.heard.insert(url, (now, report));
            }
        }
        let never = nodes.missing.into_iter().filter(|url| !self.heard.contains_key(url)).flat_map(|url| {
            Stage::ALL.map(|(stage, _)| NodeReport {
                node: url.clone(),
                stage,
                is_live: false,
                is_gone: false,
                serves: Revision { number: 0, sha256: [0; 32] },
                serves_for: Millis(0),
                before: Answers::default(),
                since: Answers::default(),
            })
        });
        let heard = self.heard.values().map(|(at, report)| {
            let is_live = now.duration_since(*at) <= LATELY;
            NodeReport { is_live, is_gone: !is_live, ..report.clone() }
        });
        heard.chain(never).collect()
    }
}

/// The report of a node in the form that `next` takes; `None` if it has no valid digest of the rules.
fn node_report(node: FleetReport) -> Option<NodeReport> {
    let KeyDigest(sha256) = KeyDigest::parse(&node.sha256)?;
    let served = node.serving.map(AnswersByRevision::from);
    let (serves_for, before, since) =
        served.map(|served| (served.span, served.before, served.since)).unwrap_or_default();
    let serves = Revision { number: node.revision, sha256 };
    Some(NodeReport {
        node: node.node,
        stage: node.stage,
        is_live: true,
        is_gone: false,
        serves,
        serves_for,
        before,
        since,
    })
}
