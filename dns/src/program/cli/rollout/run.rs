//! `bailiwick rollout run`: looks at a rollout again and again, and publishes each step as
//! `bailiwick_rules::rollout::machine` decides. Takes the options, returns the report of how the rollout ended.
//!
//! The state of the rollout is in the rules, and each step replaces only the document by which it was decided. So this
//! command may be killed at any moment: if somebody starts it again, it goes on and skips nothing.

use std::io::Write;

use bailiwick_host::system::clock::Clock;
use bailiwick_rules::rollout::machine::{Action, place, progress_after};
use bailiwick_rules::rollout::record::Record;
use bailiwick_rules::time::Millis;
use clap::Args;

use super::evals::{EvalFolder, eval_folder};
use super::look::{LookArgs, look, read, write};
use super::progress_store::{ProgressStore, Step};
use super::{RolloutArgs, words_for};
use crate::program::cli::turn::{Runner, Runs};
use crate::program::report::Report;
use crate::text::span::parse_span;

/// How often the reason for waiting is printed, if nothing but counts changes.
const TELL_AGAIN: Millis = Millis(60_000);
/// The command ends after this many looks in a row that failed.
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

/// The outcome of a look.
enum LookOutcome {
    /// The rollout goes on. This line says what it waits for, or what was published.
    Again(String),
    /// The rollout has ended.
    Ended(Report),
}

/// Runs a rollout until it has ended.
pub(super) fn run(args: &RunArgs) -> Result<Report, Vec<String>> {
    let store = ProgressStore::find(&args.rollout.node)?;
    let mut runner = Runner::new(&args.rollout.name, args.every);
    let done = until_it_has_ended(args, &store, &mut runner);
    if let Ok(record) = read(&args.look.record(&args.rollout.name)) {
        runner.leave(store.store(), record.brief());
    }
    done
}

/// Looks again and again until the rollout has ended. Prints a line when the state changes, and once a minute.
fn until_it_has_ended(
    args: &RunArgs,
    store: &ProgressStore,
    runner: &mut Runner<Record>,
) -> Result<Report, Vec<String>> {
    let (mut last, mut printed_at, mut failures) = (String::new(), None, 0);
    loop {
        let line = match once(args, store, runner) {
            Ok(LookOutcome::Ended(report)) => return Ok(report),
            Ok(LookOutcome::Again(line)) if args.once => return Ok(Report::fine(line + "\n")),
            Err(errors) if args.once || failures >= MOST_FAILURES => return Err(errors),
            Ok(LookOutcome::Again(line)) => {
                failures = 0;
                line
            }
            Err(errors) => {
                failures += 1;
                errors.join("; ")
            }
        };
        // Counts change with every look. They are printed once a minute.
        let (now, reason) = (Clock::system().now(), without_digits(&line));
        if reason != last || printed_at.is_none_or(|at| now.since(at) >= TELL_AGAIN) {
            // The reader of the output may have gone. The rollout goes on without it.
            let _ = writeln!(std::io::stdout(), "{now}  {line}");
            (last, printed_at) = (reason, Some(now));
        }
        std::thread::sleep(args.every.to_std());
    }
}

/// The line without its digits, so that two lines that differ only in counts are equal.
fn without_digits(line: &str) -> String {
    line.chars().filter(|c| !c.is_ascii_digit()).collect()
}

/// Looks once, and publishes what is decided.
fn once(args: &RunArgs, store: &ProgressStore, runner: &mut Runner<Record>) -> Result<LookOutcome, Vec<String>> {
    let RolloutArgs { name, node, author } = &args.rollout;
    let left_behind = match runner.look(store.store())? {
        Runs::This(left_behind) => left_behind,
        Runs::Another(holder) => return Ok(LookOutcome::Again(format!("waits: {holder} runs it"))),
    };
    let current = store.current()?;
    let rollout = current.rollout(name)?;
    // If the node doesn't answer, the rollout is judged nevertheless, so that `max_hold` takes effect.
    let (answer, silence) = match args.look.report(node, rollout) {
        Ok(answer) => (answer, None),
        Err(errors) => (None, Some(errors.join("; "))),
    };
    let (file, now) = (args.look.record(name), Clock::system().now());
    let mut record = read(&file)?;
    left_behind.into_iter().for_each(|left_behind| record.adopt(left_behind));
    if let Some(folder) = &args.eval {
        folder.fits(rollout.rule.eval.as_ref()).map_err(|problem| vec![problem])?;
    }
    let decision = look(rollout, answer.as_ref(), (&mut record, args.eval.as_ref()), now);
    let words = words_for(&decision.action);
    if let Some(here) = place(&rollout.rule).filter(|_| !matches!(decision.action, Action::Over(_))) {
        record.look(&rollout.rule, here, &words, now);
    }
    // First the record: the step after this one may be compared with it.
    match (write(&file, &record), &decision.action) {
        (Err(errors), Action::RollBack(_)) => errors.iter().for_each(|error| eprintln!("warning: {error}")),
        (written, _) => written?,
    }
    if !runner.renew(store.store(), record.brief()) {
        return Ok(LookOutcome::Again("another process has begun to run it; it looks again".to_owned()));
    }
    match (&decision.action, progress_after(&rollout.rule, &decision.action, now)) {
        (Action::Over(how), _) if how == "done" => Ok(LookOutcome::Ended(Report::fine(format!("{name} {words}\n")))),
        (Action::Over(_), _) => Ok(LookOutcome::Ended(Report::error(format!("{name} {words}")))),
        (_, None) => Ok(LookOutcome::Again(silence.unwrap_or(words))),
        (_, Some(progress)) => match store.publish(&current, (rollout, &progress), &words, author, now)? {
            Step::Published(revision) => Ok(LookOutcome::Again(format!("revision {revision}: {words}"))),
            Step::Stale => Ok(LookOutcome::Again("somebody else has published meanwhile; it looks again".to_owned())),
        },
    }
}
