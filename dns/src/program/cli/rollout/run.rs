//! `bailiwick rollout run`: looks again and again, and publishes each step as `bailiwick_rules::rollout::machine`
//! decides.
//!
//! Where the rollout stands is in the rules, and each step replaces only the document by which it was decided. So it
//! may be killed at any moment: whoever starts it again goes on, and skips nothing.

use std::io::Write;

use bailiwick_rules::rollout::machine::{Action, place, progress_after};
use bailiwick_rules::time::Millis;
use clap::Args;

use super::desk::{Desk, Step};
use super::evals::{EvalFolder, eval_folder};
use super::look::{LookArgs, look, read, write};
use super::turn::{Runner, Runs};
use super::{RolloutArgs, said};
use crate::program::report::Report;
use crate::system::clock::Clock;
use crate::text::span::parse_span;

/// How often it is told what is waited for, if nothing but counts changes.
const TELL_AGAIN: Millis = Millis(60_000);
/// After so many looks in a row that failed it ends.
const MOST_FAILURES: u32 = 360;

/// Options of `bailiwick rollout run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    rollout: RolloutArgs,
    #[command(flatten)]
    look: LookArgs,
    /// How often it looks.
    #[arg(long, value_name = "SPAN", default_value = "10s", value_parser = parse_span)]
    every: Millis,
    /// Look once, and do what is called for.
    #[arg(long)]
    once: bool,
    /// Where results of the eval are that the rollout's checks ask for: the suite's name and the folder in which
    /// `bailiwick eval run --arm old,new` wrote REGION.old.jsonl and REGION.new.jsonl. It is read at each look, so
    /// results may come later.
    #[arg(long, value_name = "SUITE=FOLDER", value_parser = eval_folder)]
    eval: Option<EvalFolder>,
}

/// What came of a look.
enum Looked {
    /// It goes on; this is to be said.
    Again(String),
    /// It has ended.
    Ended(Report),
}

/// Runs a rollout until it has ended.
pub(super) fn run(args: &RunArgs) -> Result<Report, Vec<String>> {
    let desk = Desk::find(&args.rollout.node)?;
    let mut runner = Runner::new(&args.rollout.name, args.every);
    let done = until_it_has_ended(args, &desk, &mut runner);
    if let Ok(record) = read(&args.look.record(&args.rollout.name)) {
        runner.leave(&desk, &record);
    }
    done
}

fn until_it_has_ended(args: &RunArgs, desk: &Desk, runner: &mut Runner) -> Result<Report, Vec<String>> {
    let (mut last, mut told_at, mut failures) = (String::new(), None, 0);
    loop {
        let line = match once(args, desk, runner) {
            Ok(Looked::Ended(report)) => return Ok(report),
            Ok(Looked::Again(line)) if args.once => return Ok(Report::fine(line + "\n")),
            Err(errors) if args.once || failures >= MOST_FAILURES => return Err(errors),
            Ok(Looked::Again(line)) => {
                failures = 0;
                line
            }
            Err(errors) => {
                failures += 1;
                errors.join("; ")
            }
        };
        // Counts change with every look. They are told once a minute.
        let (now, reason) = (Clock::system().now(), without_digits(&line));
        if reason != last || told_at.is_none_or(|at| now.since(at) >= TELL_AGAIN) {
            // Whoever reads may have gone; the rollout goes on.
            let _ = writeln!(std::io::stdout(), "{now}  {line}");
            (last, told_at) = (reason, Some(now));
        }
        std::thread::sleep(args.every.to_std());
    }
}

/// A line by which it is known again although its counts change.
fn without_digits(line: &str) -> String {
    line.chars().filter(|c| !c.is_ascii_digit()).collect()
}

/// Looks once, and publishes what is decided.
fn once(args: &RunArgs, desk: &Desk, runner: &mut Runner) -> Result<Looked, Vec<String>> {
    let RolloutArgs { name, node, author } = &args.rollout;
    let left = match runner.look(desk)? {
        Runs::This(left) => left,
        Runs::Another(holder) => return Ok(Looked::Again(format!("waits: {holder} runs it"))),
    };
    let current = desk.current()?;
    let rollout = current.rollout(name)?;
    // Who isn't heard is no reason to forget max_hold.
    let (heard, silence) = match args.look.report(node, rollout) {
        Ok(heard) => (heard, None),
        Err(errors) => (None, Some(errors.join("; "))),
    };
    let (file, now) = (args.look.record(name), Clock::system().now());
    let mut record = read(&file)?;
    left.into_iter().for_each(|left| record.adopt(left));
    if let Some(folder) = &args.eval {
        folder.fits(rollout.rule.eval.as_ref()).map_err(|told| vec![told])?;
    }
    let decision = look(rollout, heard.as_ref(), (&mut record, args.eval.as_ref()), now);
    let words = said(&decision.action);
    if let Some(here) = place(&rollout.rule).filter(|_| !matches!(decision.action, Action::Over(_))) {
        record.look(&rollout.rule, here, &words, now);
    }
    // First the record: the step after this one may be compared with it.
    match (write(&file, &record), &decision.action) {
        (Err(errors), Action::RollBack(_)) => errors.iter().for_each(|error| eprintln!("warning: {error}")),
        (written, _) => written?,
    }
    if !runner.renew(desk, &record) {
        return Ok(Looked::Again("another process has begun to run it; it looks again".to_owned()));
    }
    match (&decision.action, progress_after(&rollout.rule, &decision.action, now)) {
        (Action::Over(how), _) if how == "done" => Ok(Looked::Ended(Report::fine(format!("{name} {words}\n")))),
        (Action::Over(_), _) => Ok(Looked::Ended(Report::error(format!("{name} {words}")))),
        (_, None) => Ok(Looked::Again(silence.unwrap_or(words))),
        (_, Some(progress)) => match desk.publish(&current, (rollout, &progress), &words, author, now)? {
            Step::Published(revision) => Ok(Looked::Again(format!("revision {revision}: {words}"))),
            Step::Stale => Ok(Looked::Again("somebody else has published meanwhile; it looks again".to_owned())),
        },
    }
}
