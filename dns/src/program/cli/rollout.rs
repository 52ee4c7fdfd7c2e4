//! `bailiwick rollout`: begins a rollout of the rules, brings it forward step by step, and reports its state. A rollout
//! replaces something old by something new for a growing share of the sessions, region after region; its *arms* are the
//! sessions with the old and with the new thing. Takes the options of a command, returns its [`Report`]. Called by the
//! command line. The decisions are in `bailiwick_rules::rollout`.

mod evals;
mod look;
mod page;
mod progress_store;
mod report;
mod run;
mod status;
mod verify;

use bailiwick_rules::rollout::machine::{Action, after, place, progress_after, start};
use bailiwick_rules::rules::Progress;
use bailiwick_rules::table::Rollout;
use bailiwick_rules::time::Timestamp;
use clap::{Args, Subcommand};

use super::node::NodeArgs;
use super::rules::author::{AuthorArgs, reason};
use super::verify::{VerifyArgs, verify};
use crate::program::report::Report;
use look::LookArgs;
use progress_store::{Current, ProgressStore, Step};

/// What to do with a rollout.
#[derive(Debug, Subcommand)]
pub(crate) enum RolloutCommand {
    /// Begin a rollout: its first region gets the first share.
    ///
    /// It isn't begun during an override of a region of its service, while clients are moved because of load, or if
    /// a fence would be too full without one of its regions.
    #[command(after_help = "Example:
  bailiwick rollout start llama-fp8 --key publisher.key")]
    Start(StartArgs),
    /// Bring a rollout on, step by step, until it has ended.
    ///
    /// It looks at what Workers counted of both arms, judges it, and publishes the next step, or rolls back. It prints
    /// what it waits for. The exit code is 0 when the rollout is done, 1 if it was rolled back.
    ///
    /// It may be killed and started again at any time: where the rollout stands is in the rules. Two that run at once
    /// do no harm, as a step replaces only the document it was decided by. In a fleet with NATS one of them runs it,
    /// and the others wait until it is gone.
    #[command(after_help = "Examples:
  bailiwick rollout run llama-fp8 --key publisher.key
  bailiwick rollout run llama-fp8 --once                one look, for a timer
  bailiwick rollout run llama-fp8 --eval smoke=results  with the eval that its checks ask for")]
    Run(run::RunArgs),
    /// Tell where a rollout stands, what its checks say, and what it waits for.
    #[command(after_help = "Examples:
  bailiwick rollout status llama-fp8
  bailiwick rollout status llama-fp8 --json | jq .action")]
    Status(status::StatusArgs),
    /// Keep a rollout where it is. A check that fails still rolls it back.
    #[command(after_help = "Example:
  bailiwick rollout pause llama-fp8 --reason 'a long weekend'")]
    Pause(ChangeArgs),
    /// Let a paused rollout go on. Its step begins anew.
    Resume(ChangeArgs),
    /// Go on to the next step at once, whatever the checks say.
    #[command(after_help = "Example:
  bailiwick rollout promote llama-fp8 --reason 'tested by hand'")]
    Promote(ChangeArgs),
    /// Roll back: no region keeps any of the new arm.
    #[command(after_help = "Example:
  bailiwick rollout abort llama-fp8 --reason 'answers in the wrong language'")]
    Abort(ChangeArgs),
    /// Write what was possible at each look, as JSON or as a page with pictures.
    #[command(after_help = "Examples:
  bailiwick rollout report llama-fp8 --html llama-fp8.html
  bailiwick rollout report llama-fp8 --html llama-fp8.html --sign-key receipt.key")]
    Report(report::ReportArgs),
    /// Verify a signed report by its public keys, and tell what it says.
    ///
    /// Of a page, all of it is verified: what was signed holds the digest of the rest. Exit codes: 0 if it is to be
    /// believed; 1 if it is not, or can't be read; 2 for wrong usage.
    #[command(after_help = "Examples:
  curl -s https://chat.ai.example.com/.well-known/bailiwick/jwks.json > jwks.json
  bailiwick rollout verify llama-fp8.html --jwks jwks.json")]
    Verify(VerifyArgs),
}

/// Which rollout, where it is published, and by whom.
#[derive(Debug, Clone, Args)]
pub(crate) struct RolloutArgs {
    /// The rollout's name in the rules.
    name: String,
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    author: AuthorArgs,
}

/// Options of `bailiwick rollout start`.
#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    #[command(flatten)]
    rollout: RolloutArgs,
    #[command(flatten)]
    look: LookArgs,
}

/// Options of the commands that need a reason.
#[derive(Debug, Args)]
pub(crate) struct ChangeArgs {
    #[command(flatten)]
    rollout: RolloutArgs,
    /// Why, in one line. It stands in the history, and in the rules.
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    reason: String,
}

/// Runs one of the commands.
pub(super) fn run(command: &RolloutCommand, now: Timestamp) -> Report {
    let done = match command {
        RolloutCommand::Start(args) => begin(args, now),
        RolloutCommand::Run(args) => run::run(args),
        RolloutCommand::Status(args) => status::status(args, now),
        RolloutCommand::Pause(args) => {
            change(args, now, |progress| progress.paused = Some(args.reason.clone()), "is paused")
        }
        RolloutCommand::Resume(args) => change(
            args,
            now,
            |progress| (progress.paused, progress.since) = (None, now),
            "goes on; its step begins anew",
        ),
        RolloutCommand::Promote(args) => promote(args, now),
        RolloutCommand::Abort(args) => abort(args, now),
        RolloutCommand::Report(args) => report::report(args, now),
        RolloutCommand::Verify(args) => verify(args, "rollout", verify::told),
    };
    done.unwrap_or_else(Report::failed)
}

/// Begins a rollout: writes its first step into the rules.
fn begin(args: &StartArgs, now: Timestamp) -> Result<Report, Vec<String>> {
    let RolloutArgs { name, node, author } = &args.rollout;
    let store = ProgressStore::find(node)?;
    let current = store.current()?;
    let rollout = current.rollout(name)?;
    if rollout.rule.progress.as_ref().is_some_and(|progress| progress.ended.is_none()) {
        return Err(vec![format!("the rollout {name} is under way already; `bailiwick rollout status` tells where")]);
    }
    let answer = args.look.report(node, rollout)?;
    let not_served = || vec![format!("the node doesn't serve rules with the rollout {name} yet; publish them first")];
    let action = start(&rollout.rule, &answer.ok_or_else(not_served)?.report.obstacles);
    if let Action::Hold(why) = &action {
        return Err(vec![format!("it isn't begun: {why}")]);
    }
    apply(&store, &current, rollout, &action, &words_for(&action), (author, now))
}

/// Takes the next step of a rollout at once, without waiting for its checks.
fn promote(args: &ChangeArgs, now: Timestamp) -> Result<Report, Vec<String>> {
    under_way(args, |store, current, rollout, progress| {
        if let Some(why) = &progress.paused {
            return Err(vec![format!("it is paused ({why}); `bailiwick rollout resume` first")]);
        }
        let here = place(&rollout.rule).ok_or_else(|| vec!["no region has begun".to_owned()])?;
        let action = after(&rollout.rule, here);
        let reason = format!("{}, by hand: {}", words_for(&action), args.reason);
        apply(store, current, rollout, &action, &reason, (&args.rollout.author, now))
    })
}

fn abort(args: &ChangeArgs, now: Timestamp) -> Result<Report, Vec<String>> {
    under_way(args, |store, current, rollout, _| {
        let action = Action::RollBack(args.reason.clone());
        apply(store, current, rollout, &action, &words_for(&action), (&args.rollout.author, now))
    })
}

/// Changes the progress of a rollout that is under way.
fn change(
    args: &ChangeArgs,
    now: Timestamp,
    change: impl Fn(&mut Progress),
    words: &str,
) -> Result<Report, Vec<String>> {
    under_way(args, |store, current, rollout, progress| {
        let mut progress = progress.clone();
        change(&mut progress);
        let (name, reason) = (&args.rollout.name, format!("{words}: {}", args.reason));
        match store.publish(current, (rollout, &progress), &reason, &args.rollout.author, now)? {
            Step::Published(revision) => Ok(Report::fine(format!("revision {revision}: {name} {words}\n"))),
            Step::Stale => Err(stale()),
        }
    })
}

/// Finds a rollout that has begun and hasn't ended.
fn under_way(
    args: &ChangeArgs,
    then: impl FnOnce(&ProgressStore, &Current, &Rollout, &Progress) -> Result<Report, Vec<String>>,
) -> Result<Report, Vec<String>> {
    let RolloutArgs { name, node, .. } = &args.rollout;
    let store = ProgressStore::find(node)?;
    let current = store.current()?;
    let rollout = current.rollout(name)?;
    let progress = rollout.rule.progress.as_ref();
    let progress = progress.ok_or_else(|| vec![format!("the rollout {name} hasn't begun")])?;
    match &progress.ended {
        Some(ended) => Err(vec![format!("the rollout {name} has ended: {ended}")]),
        None => then(&store, &current, rollout, progress),
    }
}

/// The error if somebody else has published meanwhile.
fn stale() -> Vec<String> {
    vec!["somebody else has published meanwhile; look at `bailiwick rollout status`, and try again".to_owned()]
}

/// Publishes the progress after an action.
fn apply(
    store: &ProgressStore,
    current: &Current,
    rollout: &Rollout,
    action: &Action,
    reason: &str,
    (author, now): (&AuthorArgs, Timestamp),
) -> Result<Report, Vec<String>> {
    let progress =
        progress_after(&rollout.rule, action, now).ok_or_else(|| vec!["nothing is to be done".to_owned()])?;
    match store.publish(current, (rollout, &progress), reason, author, now)? {
        Step::Published(revision) => Ok(Report::fine(format!("revision {revision}: {}\n", words_for(action)))),
        Step::Stale => Err(stale()),
    }
}

/// An action in words.
fn words_for(action: &Action) -> String {
    match action {
        Action::Hold(why) => format!("waits: {why}"),
        Action::Begin(region, share) => format!("{region} begins with {share} %"),
        Action::Advance(region, share) => format!("{region} gets {share} %"),
        Action::NextRegion(region, share) => format!("{region} begins with {share} %, all before have it all"),
        Action::Finish => "done: all regions have it all".to_owned(),
        Action::RollBack(why) => format!("rolled back: {why}"),
        Action::Over(how) => format!("has ended: {how}"),
    }
}
