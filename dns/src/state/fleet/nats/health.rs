//! Exchanges health over NATS. Takes a connection, sends this node's report at once when it has changed and at every
//! interval, and gives the owner the reports of others. Run by [`super`].
//!
//! A report is sent to `bw.health.<node>`, where only that node's user may send. What comes in is believed no more than
//! what a peer answers. Overrides stand in the bucket too, so that a node that starts alone learns them.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::Message;
use bailiwick_host::system::tasks::Ended;
use bailiwick_rules::report::{HealthReport, OverrideRecord, RegionReport};
use bailiwick_rules::steer::first_token::Medians;
use bailiwick_rules::time::Millis;
use futures_util::StreamExt;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::super::{LARGEST_REPORT, Settings};
use super::bucket::OfNode;
use super::bus::Bus;
use crate::state::fleet_status::PeerReport;
use crate::state::owner::Handle;

/// What the subjects of reports begin with.
const HEALTH: &str = "bw.health.";
/// How soon a report follows another one.
const SOONEST: Duration = Duration::from_millis(100);
/// After how many intervals without a report a node is missing.
const PATIENCE: u64 = 5;
/// The pause after overrides that couldn't be read or kept.
const RETRY: Duration = Duration::from_secs(30);
/// How many nodes are told apart.
pub(super) const MOST_NODES: usize = 256;
/// How often a node writes its entry anew, so that others know it as part of the fleet.
const SIGN_OF_LIFE: Duration = Duration::from_secs(300);

/// Exchanges reports for as long as the connection is used.
pub(super) async fn exchange(bus: &Bus, node: &str, settings: &Settings, handle: &Handle) -> Ended {
    let Ok(mut reports) = bus.client.subscribe(format!("{HEALTH}>")).await else { return Ended::Failed };
    let (mut status, mut last) = (handle.follow_status(), None);
    let (mut soonest, mut latest) = (Instant::now(), Instant::now());
    loop {
        let is_due = tokio::select! {
            message = reports.next() => {
                let Some(message) = message else { return Ended::Failed };
                hear(&message, node, handle).await;
                continue;
            }
            () = sleep_until(latest) => true,
            changed = async { sleep_until(soonest).await; status.changed().await } => {
                if changed.is_err() {
                    return Ended::OnRequest;
                }
                false
            }
        };
        soonest = Instant::now() + SOONEST;
        if is_due {
            latest = Instant::now() + settings.poll.to_std();
            let (now, patience) = (handle.now(), Millis(settings.poll.0 * PATIENCE));
            handle.fleet().with(|view| view.miss(now, patience));
        }
        let report = handle.snapshot_owned().health_report(node, handle.now());
        if is_due || last.as_ref().is_none_or(|last| !says_the_same(last, &report)) {
            tell(bus, node, handle, &report).await;
            last = Some(report);
        }
    }
}

/// Sends this node's report.
async fn tell(bus: &Bus, node: &str, handle: &Handle, report: &HealthReport) {
    // What waits for a connection would arrive as if it were news.
    if !bus.is_connected() {
        return;
    }
    let mut report = report.clone();
    report.about = Some(handle.snapshot_owned().about(handle.now()));
    report.first_token_ms = handle.observed().with(|sums| sums.first_tokens(handle.now()).clone());
    let bytes = serde_json::to_vec(&report).unwrap_or_default();
    if let Err(error) = bus.client.publish(format!("{HEALTH}{node}"), bytes.into()).await {
        tracing::debug!("the health report can't be sent: {error}");
    }
}

/// Takes another node's report.
async fn hear(message: &Message, node: &str, handle: &Handle) {
    let Some(sender) = message.subject.strip_prefix(HEALTH).filter(|sender| *sender != node) else { return };
    if let Some(report) = report(sender, &message.payload) {
        let now = handle.now();
        handle.fleet().with(|view| view.note_report(sender, &PeerReport::of(&report, now), now, MOST_NODES));
        handle.hear(Box::new(report)).await;
    }
}

/// Reads a report that this node sent.
fn report(sender: &str, bytes: &[u8]) -> Option<HealthReport> {
    if bytes.len() > LARGEST_REPORT {
        tracing::debug!("the report of {sender} is larger than {} MiB", LARGEST_REPORT >> 20);
        return None;
    }
    match serde_json::from_slice::<HealthReport>(bytes) {
        Ok(report) if report.node == sender => Some(report),
        Ok(_) => {
            tracing::debug!("the report of {sender} has another node's name");
            None
        }
        Err(error) => {
            tracing::debug!("what {sender} sends is no health report: {error}");
            None
        }
    }
}

/// Keeps this node's overrides in the bucket for as long as the connection is used, after it has learned those of
/// others.
pub(super) async fn keep(bus: &Bus, node: &str, handle: &Handle) -> Ended {
    while let Err(why) = learn(bus, node, handle).await {
        tracing::debug!("overrides can't be read: {why}");
        tokio::time::sleep(super::jittered(RETRY)).await;
    }
    let (mut status, mut last_entry, mut written) = (handle.follow_status(), None, Instant::now());
    loop {
        let report = handle.snapshot_owned().health_report(node, handle.now());
        let entry = of_overrides(node, (report.revision, report.rules_sha256), report.overrides);
        if last_entry.as_ref() != Some(&entry) || written.elapsed() >= SIGN_OF_LIFE {
            match bus.put_node(node, serde_json::to_vec(&entry).unwrap_or_default()).await {
                Ok(()) => (last_entry, written) = (Some(entry), Instant::now()),
                Err(why) => {
                    tracing::debug!("overrides can't be kept: {why}");
                    tokio::time::sleep(super::jittered(RETRY)).await;
                    continue;
                }
            }
        }
        tokio::time::sleep(SOONEST).await;
        if let Ok(Err(_)) = timeout_at(written + SIGN_OF_LIFE, status.changed()).await {
            return Ended::OnRequest;
        }
    }
}

/// Learns the overrides that other nodes kept in the bucket. What they saw is too old to count.
async fn learn(bus: &Bus, node: &str, handle: &Handle) -> Result<(), String> {
    for OfNode { node: name, bytes, .. } in bus.nodes(MOST_NODES).await? {
        // One that is heard tells them itself.
        let is_heard = handle.fleet().with(|view| view.hears(&name));
        if name != node
            && !is_heard
            && let Some(HealthReport { revision, rules_sha256, overrides, .. }) = report(&name, &bytes)
            && !overrides.is_empty()
        {
            handle.hear(Box::new(of_overrides(&name, (revision, rules_sha256), overrides))).await;
        }
    }
    Ok(())
}

/// A report that says nothing but overrides.
fn of_overrides(node: &str, (revision, rules_sha256): (u64, String), overrides: Vec<OverrideRecord>) -> HealthReport {
    HealthReport {
        node: node.to_owned(),
        revision,
        rules_sha256,
        keys_sha256: BTreeMap::new(),
        blind: false,
        regions: BTreeMap::new(),
        fleet: BTreeMap::new(),
        overrides,
        loads: BTreeMap::new(),
        shares: None,
        drill: None,
        ended_drills: Vec::new(),
        first_token_ms: Medians::new(),
        about: None,
    }
}

/// Whether two reports of one node differ only by ages and other things that change all the time.
fn says_the_same(a: &HealthReport, b: &HealthReport) -> bool {
    let head = |report: &HealthReport| (report.revision, report.blind, report.regions.len(), report.overrides.clone());
    let of_regions = a.regions.iter().zip(&b.regions).all(|((id, a), (other_id, b))| {
        let statuses =
            |report: &RegionReport| (report.status, report.probed, report.families.clone(), report.forced.clone());
        let endpoints = |report: &RegionReport| {
            let each = report.endpoints.iter().map(|(id, endpoint)| (id.clone(), endpoint.status, endpoint.probed));
            each.collect::<Vec<_>>()
        };
        let replicas = |report: &RegionReport| {
            let each = report.replicas.iter().map(|(id, copy)| (id.clone(), copy.status, copy.version.clone()));
            each.collect::<Vec<_>>()
        };
        let are_same = statuses(a) == statuses(b) && endpoints(a) == endpoints(b);
        id == other_id && are_same && replicas(a) == replicas(b)
    });
    head(a) == head(b) && of_regions && a.fleet == b.fleet
}
