//! `bailiwick drill run --scheduled`: waits for the weekly times of the rules' drills, and runs each when it is due. In
//! a fleet with NATS, one of those who wait does, by a lease. All times are UTC.

use std::collections::BTreeMap;

use bailiwick_rules::drill::schedule::due;
use bailiwick_rules::id::DrillId;
use bailiwick_rules::rules::Drill;
use bailiwick_rules::time::{Millis, Timestamp};

use super::node::DrillNode;
use super::report::summary;
use super::run::{RunArgs, Running, say};
use crate::program::cli::node::Power;
use crate::program::cli::rules::rules_store::Buckets;
use crate::program::cli::turn::{Runner, Runs};
use crate::program::config::Config;
use crate::program::report::Report;
use crate::system::clock::Clock;

/// The key of the lease.
const KEY: &str = "drills";
/// For how long one may run drills without renewing the lease: as long as a drill may take. Another one that would
/// begin meanwhile is refused by the nodes.
const LOOK: Millis = Millis(5_000);

/// When each drill began last, or was refused. The next one who runs drills has to know it.
type Begun = BTreeMap<DrillId, Timestamp>;

/// Runs drills for ever.
pub(super) fn run(args: &RunArgs) -> Result<Report, Vec<String>> {
    let store = store(args)?;
    let mut runner = Runner::<Begun>::new(KEY, LOOK);
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

/// The store of the fleet, if it has one.
fn store(args: &RunArgs) -> Result<Option<Box<Buckets>>, Vec<String>> {
    let node = &args.node.node;
    match Config::read_fleet_in_nats(&node.config) {
        Ok(Some(fleet)) if node.api.is_none() => Buckets::open(&fleet).map(|buckets| Some(Box::new(buckets))),
        Err(errors) if node.api.is_none() => Err(errors.iter().map(ToString::to_string).collect()),
        _ => Ok(None),
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
        Runs::This(left) => begun.extend(left.unwrap_or_default()),
    }
    let node = DrillNode::find(&args.node, Power::Write)?;
    let (rules, now) = (node.rules()?, Clock::system().now());
    let is_due = |(id, drill): &&(DrillId, Drill)| due(drill, begun.get(id).copied(), now).is_some();
    let Some((id, _)) = rules.table.drills().iter().find(is_due) else {
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
    begun.insert(id.clone(), now);
    if !runner.renew(store, begun.clone()) {
        return Ok("another process has begun to run the drills; it looks again".to_owned());
    }
    let record = Running::begin(args, node, id.as_str(), true)?.complete()?;
    say(&summary(&record));
    Ok(format!("{id}: {}", record.outcome.as_str()))
}
