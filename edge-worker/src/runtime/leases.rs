//! Asks DNS nodes for this isolate's part (lease) of the quotas and budgets. Takes from the isolate's [`memory`] how
//! much was spent, and stores there how much a node grants. Called by `serve` for each request that may be sent, if the
//! rules have quotas or budgets and the Worker has `LEASES_URLS`.
//!
//! No request waits for the answer: the exchange runs inside `wait_until`. The nodes are asked in a fixed order, and a
//! node is asked only if those before it don't answer. So usually one node divides all quotas.
//! [`bailiwick_rules::quota::Share`] decides what the isolate may spend while no node answers.

use std::cell::RefCell;
use std::rc::Rc;

use bailiwick_rules::quota::{Asks, Grants};
use bailiwick_rules::table::Table;
use bailiwick_rules::time::{Millis, Timestamp};

use crate::decide::rules_state::ReadError;
use crate::platform::{Background, Env};
use crate::runtime::clock;
use crate::runtime::feed::settings::FeedSource;
use crate::runtime::feed::{self, ask};
use crate::runtime::isolate;
use crate::runtime::memory;
use crate::runtime::metrics::{self, FeedKind};

/// How long a node may take to answer.
const TIMEOUT: Millis = Millis(1_000);
/// For how long a node that didn't answer is asked only after the other nodes.
const AVOIDED_FOR: Millis = Millis(10_000);

thread_local! {
    /// For each node, until when it is asked only after the other nodes.
    static AVOIDED: RefCell<Vec<Timestamp>> = const { RefCell::new(Vec::new()) };
}

/// Asks a node for grants, if an ask is due.
#[inline(never)]
pub(crate) fn refresh(table: &Rc<Table>, env: &Env, background: &Background) {
    let Some(settings) = feed::current_settings().filter(|settings| !settings.leases.is_empty()) else { return };
    if !memory::with(|memory| memory.quotas.is_due(clock::now())) {
        return;
    }
    let (table, env) = (Rc::clone(table), env.clone());
    // The ask is made when this future is first polled. By then the current request has been charged.
    background.run(async move {
        let asks = memory::with(|memory| memory.quotas.asks(&table, isolate::name(), clock::now()));
        if asks.quotas.is_empty() && asks.budgets.is_empty() {
            return;
        }
        let grants = ask_nodes(&settings.leases, &env, &asks).await;
        memory::with(|memory| memory.quotas.note_answer(&table, &asks, grants.as_ref()));
    });
}

/// Asks the nodes one after the other, until one answers.
async fn ask_nodes(nodes: &[FeedSource], env: &Env, asks: &Asks) -> Option<Grants> {
    let token = env.text("HEALTH_TOKEN");
    let body = serde_json::to_string(asks).ok()?;
    for position in order(nodes.len()) {
        let node = nodes.get(position)?;
        let read = ask::post(&node.url, token.as_deref(), &body, TIMEOUT).await;
        let grants = read.and_then(|bytes| serde_json::from_slice(&bytes).map_err(|_| ReadError::Unreadable));
        metrics::fetch(FeedKind::Leases, &node.host, grants.as_ref().err().map_or("granted", |why| why.label()));
        match grants {
            Ok(grants) => return Some(grants),
            Err(_) => avoid(position),
        }
    }
    None
}

/// The order in which nodes are asked: as written, but nodes that recently didn't answer come last.
fn order(count: usize) -> Vec<usize> {
    let now = clock::now();
    AVOIDED.with_borrow_mut(|avoided| {
        avoided.resize(count, Timestamp(i64::MIN));
        let mut order: Vec<usize> = (0..count).collect();
        order.sort_by_key(|position| avoided.get(*position).is_some_and(|until| until.lasts(now, AVOIDED_FOR)));
        order
    })
}

fn avoid(position: usize) {
    AVOIDED.with_borrow_mut(|avoided| {
        if let Some(until) = avoided.get_mut(position) {
            *until = clock::now().after(AVOIDED_FOR);
        }
    });
}
