//! `bailiwick drill run --scheduled`: waits for the weekly times of the rules' drills, and runs each when it is due. In
//! a fleet with NATS, one of those who wait does, by a lease. All times are UTC.

use std::collections::BTreeMap;

use bailiwick_host::system::clock::Clock;
use bailiwick_rules::drill::preflight::Preflight;
use bailiwick_rules::drill::schedule::{due, waits};
use bailiwick_rules::id::DrillId;
use bailiwick_rules::rules::Drill;
use bailiwick_rules::time::{Millis, Timestamp};

use super::node::{DrillNode, begun_at};
use super::report::summary;
use super::run::{RunArgs, Running, say};
use super::{read, record_file};
use crate::program::cli::node::Access;
use crate::program::cli::rules::rules_store::Buckets;
use crate::program::cli::turn::{Runner, Runs};
use crate::program::config::Config;
use crate::program::report::Report;

/// The key of the lease.
const KEY: &str = "drills";
/// The lease is renewed at each look of whoever waits, and of a drill that runs: at `--every`, or as often as this.
const LOOK: Millis = Millis(5_000);

/// When each drill began last, or was refused. The next one who runs drills has to know it.
type Begun = BTreeMap<DrillId, Timestamp>;

/// Runs drills for ever.
pub(super) fn run(args: &RunArgs) -> Result<Report, Vec<String>> {
    let store = store(args)?;
    let mut runner = Runner::<Begun>::new(KEY, args.every.max(LOOK));
    let (mut begun, mut last) = (Begun::new(), String::new());
    loop {
        let line = match once(args, store.as_deref(), &mut runner, &mut begun) {
            Ok(line) => line,
            Err(errors) => errors.join("; "),
        };
        if line != last {
            say(&format!("{}  {line}", Clock::system().now()));
            last = line;
        }
        std::thread::sleep(args.every.max(Millis(1_000)).to_std());
    }
}

/// The store of the fleet, if the configuration names one. The node may be named by `--api` nevertheless: the lease is
/// written by the publisher, whose configuration has no API.
fn store(args: &RunArgs) -> Result<Option<Box<Buckets>>, Vec<String>> {
    match Config::read_fleet_in_nats(&args.node.node.config) {
        Ok(Some(fleet)) => Buckets::open(&fleet).map(|buckets| Some(Box::new(buckets))),
        Ok(None) => Ok(None),
        Err(errors) => Err(errors.iter().map(ToString::to_string).collect()),
    }
}

/// Looks once, and runs the drill that is due.
fn once(
    args: &RunArgs,
    store: Option<&Buckets>,
    runner: &mut Runner<Begun>,
    begun: &mut Begun,
) -> Result<String, Vec<String>> {
    match runner.look(store)? {
        Runs::Another(holder) => return Ok(format!("waits: {holder} runs the drills")),
        Runs::This(left) => left.into_iter().flatten().for_each(|(id, at)| note(begun, id, at)),
    }
    let node = DrillNode::find(&args.node, Access::Write)?;
    let (rules, now) = (node.rules()?, Clock::system().now());
    let is_due = |(id, drill): &&(DrillId, Drill)| due(drill, begun.get(id).copied(), now).is_some();
    let Some((id, drill)) = rules.table.drills().iter().find(is_due) else {
        let next = rules
            .table
            .drills()
            .iter()
            .filter_map(|(id, drill)| Some((bailiwick_rules::drill::schedule::next(drill, now)?, id)));
        if !runner.renew(store, begun.clone()) {
            return Ok("another process has begun to run the drills; it looks again".to_owned());
        }
        let next = next.min();
        return Ok(next.map_or("no drill has a weekly time".to_owned(), |(at, id)| format!("waits for {id}, at {at}")));
    };
    // Another process may have begun it, or this one before it was restarted.
    let last = last_begun(args, &node, id)?;
    let due_at = due(drill, begun.get(id).copied().max(last), now);
    if due_at.is_none() {
        last.into_iter().for_each(|last| note(begun, id.clone(), last));
    }
    if !runner.renew(store, begun.clone()) {
        return Ok("another process has begun to run the drills; it looks again".to_owned());
    }
    let Some(due_at) = due_at else { return Ok(format!("{id} has begun already, at {}", begun[id])) };
    // A node that was just restarted knows little. Being refused now would cost the drill its week.
    let looked = node.drills()?.drills.remove(id).map(|status| status.preflight);
    if let Some(looked) = looked.filter(|looked| waits(due_at, looked, now)) {
        return Ok(awaits(id, &looked));
    }
    let noted = begun.clone();
    let mut renew = || {
        if let Ok(Runs::This(_)) = runner.look(store) {
            runner.renew(store, noted.clone());
        }
    };
    // If the node can't be asked now, it is still due at the next look.
    let running = Running::begin(args, node, id.as_str(), Some(&mut renew))?;
    note(begun, id.clone(), now);
    let record = running.complete()?;
    if begun_at(&record).is_none() {
        begun.remove(id);
    }
    say(&summary(&record, record.until));
    Ok(format!("{id}: {}", record.outcome.as_str()))
}

/// What a drill waits for, in words.
fn awaits(id: &DrillId, looked: &Preflight) -> String {
    format!("{id} waits until the node knows more: {}", looked.reasons.join("; "))
}

/// Notes when a drill began, unless it is known to have begun later.
fn note(begun: &mut Begun, id: DrillId, at: Timestamp) {
    let known = begun.entry(id).or_insert(at);
    *known = at.max(*known);
}

/// When a drill began last: by the node, and by the record that a run here has left.
fn last_begun(args: &RunArgs, node: &DrillNode, id: &DrillId) -> Result<Option<Timestamp>, Vec<String>> {
    let file = record_file(args.record.as_ref(), id.as_str());
    let here = read(&file).ok().flatten().filter(|record| record.drill == *id);
    let here = here.and_then(|record| begun_at(&record));
    Ok(node.last_begun(id)?.max(here))
}
