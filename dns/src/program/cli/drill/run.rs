//! `bailiwick drill run`: looks first, then sends clients elsewhere step by step as `bailiwick_rules::drill::machine`
//! decides, and brings them back. Writes a record at each look.
//!
//! The node ends a drill that nobody renews. So this process may die at any moment without leaving clients elsewhere.

mod ending;

use std::collections::VecDeque;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bailiwick_rules::drill::counts::Counted;
use bailiwick_rules::drill::machine::{Action, Look, Place, WINDOW, decide, steps};
use bailiwick_rules::drill::preflight::Verdict;
use bailiwick_rules::drill::record::{Outcome, Record, Recorder};
use bailiwick_rules::id::DrillId;
use bailiwick_rules::report::{DrillRecord, LONGEST_HOLD};
use bailiwick_rules::rules::Drill;
use bailiwick_rules::time::{Millis, Timestamp};
use clap::Args;

use super::node::{AskError, DrillNode, DrillNodeArgs};
use super::plan::{of_drill, of_preflight};
use super::report::summary;
use super::{record_file, write};
use crate::program::cli::node::Access;
use crate::program::report::Report;
use crate::text::span::parse_span;

/// The shortest time for which a share is asked for.
const SHORTEST_HOLD: Millis = Millis(15_000);

/// Options of `bailiwick drill run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The drill's name in the rules.
    #[arg(required_unless_present = "scheduled", conflicts_with = "scheduled")]
    name: Option<String>,
    #[command(flatten)]
    pub(super) node: DrillNodeArgs,
    /// Tell whether it could begin and the load that is to be expected, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Wait, and run each drill of the rules at its weekly time. In a fleet with NATS one of those who wait runs it:
    /// --config is that of the publisher then, and --api names the node.
    #[arg(long, conflicts_with = "dry_run")]
    pub(super) scheduled: bool,
    /// How often it looks, at most 30s.
    #[arg(long, value_name = "SPAN", default_value = "5s", value_parser = parse_every)]
    pub(super) every: Millis,
    /// For how long it watches before the first step, to compare with.
    #[arg(long, value_name = "SPAN", default_value = "1m", value_parser = parse_span)]
    before: Millis,
    /// For how long it watches after the last step.
    #[arg(long, value_name = "SPAN", default_value = "1m", value_parser = parse_span)]
    after: Millis,
    /// Where the record is written; else drill-NAME.json in this directory.
    #[arg(long, value_name = "FILE")]
    pub(super) record: Option<PathBuf>,
}

fn parse_every(text: &str) -> Result<Millis, String> {
    parse_span(text).and_then(|span| match span.0 {
        0..=30_000 => Ok(span),
        _ => Err(format!("{text:?} is more than 30s: what goes wrong has to be seen sooner")),
    })
}

/// Runs a drill.
pub(super) fn run(args: &RunArgs) -> Result<Report, Vec<String>> {
    let name = args.name.as_deref().unwrap_or_default();
    if args.dry_run {
        return dry_run(args, name);
    }
    let node = DrillNode::find(&args.node, Access::Write)?;
    let record = Running::begin(args, node, name, None)?.complete()?;
    let text = summary(&record, record.until);
    Ok(Report { is_unwell: record.outcome != Outcome::Done, ..Report::fine(text) })
}

fn dry_run(args: &RunArgs, name: &str) -> Result<Report, Vec<String>> {
    let node = DrillNode::find(&args.node, Access::Read)?;
    let (id, drill) = node.drill(name)?;
    let told = node.drills()?;
    let status = told.drills.get(&id).ok_or_else(|| vec![format!("the node knows no drill {name} yet")])?;
    let is_unwell = status.preflight.verdict != Verdict::Go;
    Ok(Report { is_unwell, ..Report::fine(of_drill(&id, &drill, status)) })
}

/// A drill that this process runs.
pub(super) struct Running<'a> {
    args: &'a RunArgs,
    node: DrillNode,
    id: DrillId,
    drill: Drill,
    recorder: Recorder,
    file: PathBuf,
    /// What was counted at the looks of the last [`WINDOW`].
    window: VecDeque<Counted>,
    /// When the last of them was, by the clock of this machine.
    looked: Instant,
    /// What is missing, and since when anything is.
    missing: Option<(String, Timestamp)>,
    /// Regions whose load was known at first.
    loads: Vec<bailiwick_rules::id::RegionId>,
    /// The node's last answer to a share that was asked for.
    taken: Option<DrillRecord>,
    /// Until when the last share that was asked for may last.
    asked_until: Timestamp,
    /// Whether the record couldn't be written at the last look.
    is_unwritten: bool,
    /// Called at each look: keeps the lease of whoever runs scheduled drills.
    at_look: Option<&'a mut dyn FnMut()>,
}

impl<'a> Running<'a> {
    /// Looks before the first step.
    ///
    /// # Errors
    /// That the node can't be asked, or the record not be written.
    pub(super) fn begin(
        args: &'a RunArgs,
        mut node: DrillNode,
        name: &str,
        at_look: Option<&'a mut dyn FnMut()>,
    ) -> Result<Self, Vec<String>> {
        let (id, drill) = node.drill(name)?;
        let mut told = node.drills()?;
        let status = told.drills.remove(&id).ok_or_else(|| vec![format!("the node knows no drill {name} yet")])?;
        let first = node.look(&id)?.counted;
        let known = first.regions.iter().filter(|(_, region)| region.load.is_some());
        let loads = known.map(|(name, _)| name.clone()).collect();
        let mut recorder = Recorder::new((&id, &drill), status.preflight, first, status.longest_ttl);
        recorder.scheduled(args.scheduled);
        let file = record_file(args.record.as_ref(), id.as_str());
        let running = Self {
            args,
            node,
            id,
            drill,
            recorder,
            file,
            window: VecDeque::new(),
            looked: Instant::now(),
            missing: None,
            loads,
            taken: None,
            asked_until: Timestamp(0),
            is_unwritten: false,
            at_look,
        };
        write(&running.file, running.recorder.record())?;
        Ok(running)
    }

    /// Runs it until it has ended, and watches for a while. Returns the record.
    ///
    /// # Errors
    /// That the record could be kept nowhere.
    pub(super) fn complete(mut self) -> Result<Record, Vec<String>> {
        let preflight = self.recorder.record().preflight.clone();
        if preflight.verdict != Verdict::Go {
            say(&format!("{} doesn't begin\n{}", self.id, of_preflight(&preflight)));
            let outcome = if preflight.verdict == Verdict::Capacity { Outcome::Capacity } else { Outcome::Blocked };
            self.recorder.refused(outcome, preflight.reasons);
            return self.finish();
        }
        say(&format!("{} watches before its first step", self.id));
        self.watch(self.args.before);
        if let Some(began) = self.first_step() {
            let (outcome, why) = self.steps(began);
            self.end(outcome, why);
            self.watch(self.args.after);
        }
        self.finish()
    }

    /// Looks, and writes the record.
    fn look(&mut self) -> Result<Option<DrillRecord>, AskError> {
        let look = self.node.look(&self.id)?;
        self.looked = Instant::now();
        let at = look.counted.at;
        self.window.push_back(look.counted.clone());
        while self.window.front().is_some_and(|oldest| at.since(oldest.at) > WINDOW) {
            self.window.pop_front();
        }
        self.note_missing(&look.counted);
        self.recorder.look(look.counted);
        self.write();
        if let Some(at_look) = &mut self.at_look {
            at_look();
        }
        Ok(look.last)
    }

    /// Writes the record. If it can't be written, a warning says so once, and the drill goes on: the record is complete
    /// again at the next look, and the node gets it at the end.
    fn write(&mut self) {
        let written = write(&self.file, self.recorder.record());
        if let Err(errors) = &written
            && !self.is_unwritten
        {
            eprintln!("warning: {}", errors.join("; "));
        }
        self.is_unwritten = written.is_err();
    }

    /// Notes which data is missing.
    fn note_missing(&mut self, counted: &Counted) {
        let unread = self.loads.iter().find(|name| counted.regions.get(*name).is_none_or(|one| one.load.is_none()));
        let what = if !self.drill.abort.is_empty() && counted.workers == 0 {
            Some("no Worker has reported".to_owned())
        } else {
            unread.map(|name| format!("the load of {name} hasn't been known"))
        };
        self.missing = match (what, self.missing.take()) {
            (None, _) => None,
            // Now this is missing and now that: something has been, all the time.
            (Some(what), Some((_, since))) => Some((what, since)),
            (Some(what), None) => Some((what, counted.at)),
        };
    }

    /// Watches without a step.
    fn watch(&mut self, span: Millis) {
        let end = Instant::now() + span.to_std();
        while Instant::now() < end {
            pause(self.args.every.to_std().min(end.saturating_duration_since(Instant::now())));
            if let Err(error) = self.look() {
                eprintln!("warning: {}", error.reasons().join("; "));
            }
        }
    }

    /// The time at the node, as far as it is known from the last look.
    fn node_now(&self) -> Timestamp {
        let passed = u64::try_from(self.looked.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.recorder.last().at.after(Millis(passed))
    }

    /// For how long a share is asked for.
    fn hold(&self) -> u64 {
        self.args.every.0.saturating_mul(4).clamp(SHORTEST_HOLD.0, LONGEST_HOLD.0)
    }

    /// Asks for the first share. Returns when the drill began; `None` if it didn't.
    fn first_step(&mut self) -> Option<Timestamp> {
        let share = steps(&self.drill).first().map_or(0, |step| step.share);
        if let Err(error) = self.look() {
            let why = match error {
                AskError::Gone(reasons) => reasons.join("; "),
                error => format!("the node gave no answer before the first step: {}", error.reasons().join("; ")),
            };
            say(&format!("{} doesn't begin: {why}", self.id));
            self.recorder.refused(Outcome::Aborted, vec![why]);
            return None;
        }
        match self.ask(None, share) {
            Ok(record) => {
                let began = record.began;
                self.began(share, record);
                Some(began)
            }
            Err(AskError::NoAnswer(reasons)) => {
                self.take_back(share, &reasons);
                None
            }
            Err(AskError::Refused(reasons) | AskError::Gone(reasons)) => {
                let is_capacity = reasons.iter().all(|reason| reason.starts_with(Verdict::Capacity.as_str()));
                say(&format!("{} doesn't begin: {}", self.id, reasons.join("; ")));
                let outcome = if is_capacity { Outcome::Capacity } else { Outcome::Blocked };
                self.recorder.refused(outcome, reasons);
                None
            }
        }
    }

    /// Asks the node for a share.
    fn ask(&mut self, began: Option<Timestamp>, share: u8) -> Result<DrillRecord, AskError> {
        // Also if the answer gets lost, the node may have taken it until then.
        self.asked_until = self.recorder.last().at.after(Millis(self.hold()));
        self.node.ask(&self.id, began, share, self.hold())
    }

    /// Notes that the node took the first share.
    fn began(&mut self, share: u8, run: DrillRecord) {
        let at = run.began;
        self.taken = Some(run);
        self.took(share, at);
    }

    fn took(&mut self, share: u8, at: Timestamp) {
        say(&format!("{at}  {share} % of the clients of {} are sent elsewhere", self.drill.region));
        self.recorder.took(share, at);
    }

    /// Goes step by step. Returns how it ended, and why.
    fn steps(&mut self, began: Timestamp) -> (Outcome, Option<String>) {
        let steps = steps(&self.drill);
        let mut place = Place { step: 0, since: began };
        let revision = self.recorder.record().revision;
        let (mut answered, mut silence) = (Instant::now(), None);
        loop {
            let lasts = steps.get(place.step).map_or(Millis(0), |step| step.lasts);
            let left = Millis(lasts.0.saturating_sub(self.recorder.last().at.since(place.since).0));
            pause(self.args.every.to_std().min(left.to_std().max(Duration::from_millis(100))));
            let last = match self.look() {
                Ok(last) => {
                    (answered, silence) = (Instant::now(), None::<String>);
                    last
                }
                Err(AskError::Gone(reasons)) => return (Outcome::Aborted, Some(gone(&reasons))),
                Err(error) => {
                    let told = error.reasons().join("; ");
                    // By then the node has ended it.
                    if answered.elapsed() > Duration::from_millis(self.hold()) {
                        return (Outcome::Aborted, Some(format!("the node gave no answer: {told}")));
                    }
                    if silence.as_ref() != Some(&told) {
                        say(&format!("the node gives no answer: {told}"));
                        silence = Some(told);
                    }
                    continue;
                }
            };
            let now = self.recorder.last().at;
            if self.recorder.last().revision != revision {
                let new = self.recorder.last().revision;
                return (Outcome::Aborted, Some(format!("revision {new} of the rules came into service")));
            }
            let edge = self.recorder.edge_since(self.window.front());
            let missing = self.missing.as_ref().map(|(what, since)| (what.as_str(), *since));
            let look = Look { record: last.as_ref(), edge: &edge, missing };
            let next = match decide(&self.drill, (began, place), &look, now) {
                Action::Hold => place.step,
                Action::Go(step) => step,
                Action::Finish => return (Outcome::Done, None),
                Action::Abort(why) | Action::Ended(why) => return (Outcome::Aborted, Some(why)),
            };
            let share = steps.get(next).map_or(0, |step| step.share);
            match self.ask(Some(began), share) {
                Ok(record) => {
                    self.taken = Some(record);
                    if next != place.step {
                        place = Place { step: next, since: now };
                        self.took(share, now);
                    }
                }
                Err(AskError::Gone(reasons)) => return (Outcome::Aborted, Some(gone(&reasons))),
                // The next look tells why, or that the node is gone.
                Err(error) => eprintln!("warning: {}", error.reasons().join("; ")),
            }
        }
    }
}

/// Why it has ended: the node did it, when rules without the drill came into service.
fn gone(reasons: &[String]) -> String {
    format!("the node has ended it: {}", reasons.join("; "))
}

/// Says how it goes. Whoever reads may have gone; the drill goes on.
pub(super) fn say(line: &str) {
    let mut out = std::io::stdout();
    let _ = writeln!(out, "{}", line.trim_end()).and_then(|()| out.flush());
}

fn pause(span: Duration) {
    std::thread::sleep(span);
}
