//! `bailiwick rules watch`: takes the revision in service, looks at every node again and again, and brings the revision
//! to the next stage or gives it up, as `bailiwick_rules::fleet::stages` decides.
//!
//! It remembers nothing that counts: stage and document are the writer's, spans and answers each node's own. So it may
//! be killed at any moment, and whoever starts it again goes on where it was.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant};

use bailiwick_rules::fleet::head::Stage;
use bailiwick_rules::fleet::stages::{Answers, Care, NodeReport, Prediction, Step, next};
use bailiwick_rules::rules::KeyDigest;
use bailiwick_rules::table::Revision;
use bailiwick_rules::time::Millis;
use clap::Args;

use super::author::AuthorArgs;
use super::change::{Change, PlaceArgs, are_known, texts};
use super::stage::{bring_to, give_up};
use super::truth::{Base, Nodes, Truth};
use crate::program::cli::node::{NodeArgs, Power};
use crate::program::fleet_report::FleetReport;
use crate::program::metrics::Served;
use crate::program::report::Report;
use crate::state::load::compile_rules;
use crate::system::clock::Clock;
use crate::text::span::parse_span;

/// A node that gave no answer for so long isn't waited for.
const LATELY: Duration = Duration::from_secs(60);
/// After so many looks in a row that failed it ends.
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

/// A rollout that is watched.
pub(super) struct Watched<'a> {
    /// Where it was published, and where nodes are asked about.
    pub(super) node: &'a NodeArgs,
    /// Who signs what comes next.
    pub(super) author: &'a AuthorArgs,
    /// Where clients are found, for what is predicted.
    pub(super) places: &'a PlaceArgs,
    /// How often nodes are looked at.
    pub(super) pace: PaceArgs,
    /// The revision, if one was just published; else the one in service.
    pub(super) revision: Option<u64>,
}

/// What is known of the nodes, and what was said last.
#[derive(Default)]
struct Sight {
    /// What each node said last, and when, by its URL or its name in NATS; the URL of the writer is empty.
    heard: BTreeMap<String, (Instant, NodeReport)>,
    told: String,
}

/// What came of a look.
enum Look {
    Again(String),
    Ended(Report),
}

/// Watches the revision in service.
pub(super) fn run(args: &WatchArgs) -> Result<Report, Vec<String>> {
    let WatchArgs { node, author, places, pace } = args;
    watch(&Watched { node, author, places, pace: *pace, revision: None })
}

/// Watches a rollout until all nodes have it, or it is given up.
///
/// # Errors
/// When there is nothing to watch, or looking fails for too long.
pub(super) fn watch(watched: &Watched<'_>) -> Result<Report, Vec<String>> {
    let truth = Truth::find(watched.node, Power::Write)?;
    let mut sight = Sight::default();
    let base = in_service(&truth, watched, &mut sight)?;
    let care = truth.limits()?.care();
    let foreseen = Foreseen::find(&truth, &base, watched, &mut sight);
    let mut failures = 0;
    loop {
        match look(&truth, &base, watched, (&foreseen, &care), &mut sight) {
            Ok(Look::Ended(report)) => return Ok(report),
            Ok(Look::Again(line)) => {
                failures = 0;
                sight.tell(&line);
            }
            Err(errors) if failures >= MOST_FAILURES => return Err(errors),
            Err(errors) => {
                failures += 1;
                sight.tell(&errors.join("; "));
            }
        }
        std::thread::sleep(watched.pace.every.to_std());
    }
}

/// The document whose way is watched, as soon as it is in service.
fn in_service(truth: &Truth, watched: &Watched<'_>, sight: &mut Sight) -> Result<Base, Vec<String>> {
    loop {
        let base = truth.base()?;
        if let Some(awaited) = watched.revision.filter(|awaited| base.revision > *awaited) {
            return Err(vec![format!("revision {awaited} is past: revision {} is in service", base.revision)]);
        }
        if watched.revision.is_none_or(|awaited| base.revision == awaited) {
            return match &base.document.head {
                Some(_) => Ok(base),
                None => Err(vec![format!("revision {} came by a file; there is nothing to watch", base.revision)]),
            };
        }
        sight.tell("it waits for the first results of its monitors");
        std::thread::sleep(watched.pace.every.to_std());
    }
}

/// What the revision is to change.
struct Foreseen {
    /// The shares of regions. Without a GeoIP database, or the document before it, nothing is predicted.
    predicted: Prediction,
    /// Whether a fence gets smaller, or nobody knows. To give it up would allow again what it forbids.
    tightens: bool,
}

impl Foreseen {
    fn find(truth: &Truth, base: &Base, watched: &Watched<'_>, sight: &mut Sight) -> Self {
        let mut foreseen = Self { predicted: Prediction::new(), tightens: true };
        if let Err(errors) = foreseen.look(truth, base, watched) {
            sight.tell(&format!("shares of regions aren't judged: {}", errors.join("; ")));
        }
        foreseen
    }

    /// Finds as much as can be.
    fn look(&mut self, truth: &Truth, base: &Base, watched: &Watched<'_>) -> Result<(), Vec<String>> {
        let before = base.document.head.as_ref().and_then(|head| head.based_on);
        let before = before.ok_or_else(|| vec!["it replaces nothing".to_owned()])?;
        let old = compile_rules(truth.document(before)?.bytes, "the rules before").map_err(texts)?;
        let new = compile_rules(base.document.bytes.clone(), "the rules in service").map_err(texts)?;
        let now = Clock::system().now();
        self.tightens = Change::of_fences(&old.table, &new.table, now).impact.is_tightened();
        let places = watched.places.places(watched.node)?;
        if !are_known(&places) {
            return Err(vec!["no GeoIP database is named; name one by --geoip".to_owned()]);
        }
        let queries = truth.queries()?;
        let change = Change::find(&old.table, &new.table, &places, queries.as_ref(), now);
        self.predicted = change.impact.prediction();
        Ok(())
    }
}

/// Looks at all nodes once, and does what is called for.
fn look(
    truth: &Truth,
    begun_with: &Base,
    watched: &Watched<'_>,
    (foreseen, care): (&Foreseen, &Care),
    sight: &mut Sight,
) -> Result<Look, Vec<String>> {
    let base = truth.base()?;
    let head = base.document.head.as_ref().filter(|_| base.revision == begun_with.revision);
    let Some(head) = head else {
        let by = base.document.head.as_ref().map(|head| format!(", by {}: {}", head.author, head.reason));
        let (past, now, by) = (begun_with.revision, base.revision, by.unwrap_or_default());
        return Ok(Look::Ended(Report::error(format!("revision {past} is past: revision {now} is in service{by}"))));
    };
    let nodes = sight.reports(truth.nodes()?, Instant::now());
    let stage = head.stage;
    match next(head, &nodes, &foreseen.predicted, care) {
        Step::Wait(why) => Ok(Look::Again(format!("revision {}, stage {stage}: {why}", head.revision))),
        Step::Advance(stage) => {
            bring_to(truth, head, stage, watched.author)?;
            Ok(Look::Again(format!("revision {} is for nodes of stage {stage} now", head.revision)))
        }
        Step::Done => {
            let done = format!("revision {} is served by all nodes, and baked\n", head.revision);
            Ok(Look::Ended(Report::fine(done)))
        }
        Step::Abort(fault) if foreseen.tightens => {
            let kept = format!(
                "revision {} isn't given up by itself, as it makes a fence smaller: what it forbids would be allowed \
                 again; look, then `bailiwick rules abort`, or `rollback` if all nodes have it",
                head.revision
            );
            Ok(Look::Ended(Report::failed([fault.to_string(), kept])))
        }
        Step::Abort(fault) => {
            let reason = format!("given up by itself: {fault}");
            let done = give_up(truth, &base, &reason, watched.author, Clock::system().now())?;
            Ok(Look::Ended(Report { output: format!("{done}\n"), ..Report::error(fault) }))
        }
    }
}

impl Sight {
    /// Prints a line, unless it was the last.
    fn tell(&mut self, line: &str) {
        if self.told != line {
            line.clone_into(&mut self.told);
            // Whoever reads may have gone; the rollout goes on.
            let _ = writeln!(std::io::stdout(), "{}  {line}", Clock::system().now());
        }
    }

    /// What is known of every node. One that never answered may be of any stage, so it holds up each that nobody else
    /// is known to be of.
    fn reports(&mut self, told: Nodes, now: Instant) -> Vec<NodeReport> {
        for (url, node) in told.answered {
            if let Some(report) = node_report(node) {
                self.heard.insert(url, (now, report));
            }
        }
        let never = told.missing.into_iter().filter(|url| !self.heard.contains_key(url)).flat_map(|url| {
            Stage::ALL.map(|(stage, _)| NodeReport {
                node: url.clone(),
                stage,
                is_live: false,
                serves: Revision { number: 0, sha256: [0; 32] },
                serves_for: Millis(0),
                before: Answers::default(),
                since: Answers::default(),
            })
        });
        let heard = self.heard.values().map(|(at, report)| {
            let is_live = now.duration_since(*at) <= LATELY;
            NodeReport { is_live, ..report.clone() }
        });
        heard.chain(never).collect()
    }
}

/// What a node says of itself; `None` if it says no digest.
fn node_report(node: FleetReport) -> Option<NodeReport> {
    let KeyDigest(sha256) = KeyDigest::parse(&node.sha256)?;
    let served = node.serving.map(Served::from);
    let (serves_for, before, since) =
        served.map(|served| (served.span, served.before, served.since)).unwrap_or_default();
    let serves = Revision { number: node.revision, sha256 };
    Some(NodeReport { node: node.node, stage: node.stage, is_live: true, serves, serves_for, before, since })
}
