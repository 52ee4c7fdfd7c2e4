//! Votes on health. Takes the reports of other nodes and the health that this node's own probes see, returns the health
//! that the voters (nodes that the rules name) agree on. Answers are made from that health. A ballot is one voter's
//! view of all regions. A verdict is the status of a region that most sites agree on. A verdict is held, that is, not
//! changed, while sites disagree or don't report, until `min_hold` is over, or while a guard doesn't allow fewer
//! regions. Held by the owner. If the rules name no voters, health stays as this node sees it. A guard limits how many
//! regions of a service may be taken out of service at the same time.

use std::collections::BTreeMap;
use std::sync::Arc;

use bailiwick_rules::fleet::{Agreed, Ballot, OwnProbes, Verdict, fold};
use bailiwick_rules::health::{AddressFamily, RegionHealth, Status};
use bailiwick_rules::id::RegionId;
use bailiwick_rules::report::{DEFAULT_INTERVAL, HealthReport, HeldBy};
use bailiwick_rules::table::{Fleet, Region, Revision, Table};
use bailiwick_rules::time::{Millis, Timestamp};

use super::monitors::published;
use crate::state::snapshot::{ByFamily, FleetHealth, Health, MonitorView};

/// How often verdicts are made again although no report came, because reports grow old and holds end.
pub(super) const TURN: Millis = Millis(1_000);

/// The known votes, and what the voters agreed on.
#[derive(Debug)]
pub(super) struct Voting {
    /// This node's name.
    node: Arc<str>,
    /// The last report of each other voter, by the voter's name.
    heard: BTreeMap<String, ReceivedReport>,
    /// The revision of the rules by which the ballots were read.
    revision: Option<Revision>,
    agreed: Agreed,
    /// The value of `agreed` that was last handed out to be written.
    last_written: Agreed,
    /// Whether any other node has reported.
    has_heard: bool,
    /// Whether this node was blind in the last turn: most of its probes failed at once, so its own network connection
    /// seemed to be down.
    was_blind: bool,
    /// What was agreed on in the last turn. By the region's name, because its position may change with the rules.
    last: BTreeMap<RegionId, (Status, HeldBy)>,
}

/// A report as it arrived.
#[derive(Debug)]
struct ReceivedReport {
    at: Timestamp,
    report: Box<HealthReport>,
    ballot: Ballot,
}

impl Voting {
    /// No reports yet. `agreed` is what the voters had agreed on when the previous process ended.
    pub(super) fn new(node: Arc<str>, agreed: Agreed) -> Self {
        Self {
            node,
            heard: BTreeMap::new(),
            revision: None,
            last_written: agreed.clone(),
            agreed,
            has_heard: false,
            was_blind: false,
            last: BTreeMap::new(),
        }
    }

    /// Takes the report of another node. A node that isn't a voter of the rules has no vote, so at most one report is
    /// kept for each voter. Another node with the name of this node has no vote either. Returns whether a vote changed,
    /// or whether this is the first report, from which on this node reports its overrides.
    pub(super) fn hear(&mut self, report: Box<HealthReport>, table: &Table, now: Timestamp) -> bool {
        let is_first = !std::mem::replace(&mut self.has_heard, true);
        if *report.node == *self.node {
            tracing::debug!("another node reports health by the name of this one, {}; it has no vote", self.node);
            return is_first;
        }
        let Some(ballot) = Ballot::read(table, &report, now) else { return is_first };
        self.heard.insert(report.node.clone(), ReceivedReport { at: now, report, ballot });
        true
    }

    /// Whether any other node has reported, voter or not.
    pub(super) fn has_heard(&self) -> bool {
        self.has_heard
    }

    /// What is agreed on, if it has changed since the last call.
    pub(super) fn changed_agreement(&mut self) -> Option<Agreed> {
        if self.last_written == self.agreed {
            return None;
        }
        self.last_written = self.agreed.clone();
        Some(self.last_written.clone())
    }

    /// Replaces the statuses in `health` by what the voters agree on. Before the call, `health` is what this node sees
    /// itself.
    pub(super) fn fold(&mut self, table: &Table, health: &mut Health, is_blind: bool, now: Timestamp) {
        let Some(fleet) = table.fleet() else {
            (self.was_blind, self.revision) = (false, None);
            self.last.clear();
            self.heard.clear();
            return;
        };
        self.read_again(table);
        let (own, own_by_family) = (health.regions.clone(), health.by_family.clone());
        let ages = ages(table, &health.monitors, now);
        let families =
            [AddressFamily::Ipv4, AddressFamily::Ipv6].map(|family| Some(of(own_by_family.as_ref()?, family)));
        let voter = fleet.voter_named(&self.node);
        let probes = OwnProbes { regions: &own, families, ages: &ages, is_blind };
        let own_ballot = voter.map(|voter| Ballot::own(table, voter, &probes, now));
        let ballots: Vec<Ballot> = self.heard.values().map(|heard| heard.ballot.clone()).chain(own_ballot).collect();
        let verdicts = fold(table, &ballots, voter, &mut health.regions, &mut self.agreed, now);
        health.by_family = own_by_family.as_deref().map(|own| Arc::new(by_family(table, own, &verdicts)));
        let fresh = ballots.iter().filter(|ballot| ballot.is_fresh(now)).count();
        let fleet_health = Arc::new(FleetHealth { own, own_by_family, verdicts, fresh, is_blind });
        self.log(table, fleet, &fleet_health);
        health.fleet = Some(fleet_health);
    }

    /// Reads the kept reports again once the rules have changed.
    fn read_again(&mut self, table: &Table) {
        if self.revision.replace(table.revision()) == Some(table.revision()) {
            return;
        }
        self.heard.retain(|_, heard| match Ballot::read(table, &heard.report, heard.at) {
            Some(ballot) => {
                heard.ballot = ballot;
                true
            }
            None => false,
        });
    }

    /// Logs whether this node became blind or sees again, and each changed verdict.
    fn log(&mut self, table: &Table, fleet: &Fleet, now: &FleetHealth) {
        if std::mem::replace(&mut self.was_blind, now.is_blind) != now.is_blind {
            match now.is_blind {
                true => tracing::warn!(json.event = "blind", "most probes fail at once: this node votes unknown"),
                false => tracing::info!(json.event = "sees_again", "a probe succeeds: this node votes again"),
            }
        }
        for (index, before) in self.note(table, &now.verdicts) {
            if let (Some(region), Some(verdict)) = (table.regions().get(index), now.verdicts.get(index)) {
                log_verdict(region, verdict, before, fleet);
            }
        }
    }

    /// Notes what is agreed on. Returns the positions of the regions whose verdict differs from the last turn, each
    /// with its status before.
    fn note(&mut self, table: &Table, verdicts: &[Verdict]) -> Vec<(usize, Status)> {
        let (mut changed, mut last) = (Vec::new(), BTreeMap::new());
        for (index, (region, verdict)) in table.regions().iter().zip(verdicts).enumerate() {
            let (status, held_by) = self.last.get(&region.id).copied().unwrap_or_default();
            if status != verdict.status || (held_by == HeldBy::Guard) != (verdict.held_by == HeldBy::Guard) {
                changed.push((index, status));
            }
            last.insert(region.id.clone(), (verdict.status, verdict.held_by));
        }
        self.last = last;
        changed
    }
}

/// Logs the verdict on a region.
fn log_verdict(region: &Region, verdict: &Verdict, before: Status, fleet: &Fleet) {
    let (region, status, held_by) = (region.id.as_str(), verdict.status, verdict.held_by.as_str());
    let (up, down, sites) = (verdict.votes.up, verdict.votes.down, fleet.sites.len());
    if verdict.held_by == HeldBy::Guard || status == Status::Down {
        tracing::warn!(
            json.event = "verdict_changed", json.region = region, json.status = %status, json.before = %before,
            json.held_by = held_by, up, down, sites,
            "{region} is {status} for the fleet, held by {held_by}"
        );
    } else {
        tracing::info!(
            json.event = "verdict_changed", json.region = region, json.status = %status, json.before = %before,
            json.held_by = held_by, up, down, sites,
            "{region} is {status} for the fleet, held by {held_by}"
        );
    }
}

/// For each region: the age of its oldest result, and the interval of its slowest monitor. This node's report has both.
fn ages(table: &Table, monitors: &[MonitorView], now: Timestamp) -> Vec<(Millis, Millis)> {
    let mut ages = vec![(Millis(0), Millis(0)); table.regions().len()];
    for monitor in monitors {
        let Some((age, interval)) = ages.get_mut(monitor.region.get()) else { continue };
        *age = monitor.monitored.last_result.map_or(*age, |last| now.since(last).max(*age));
        *interval = monitor.monitored.interval.max(*interval);
    }
    for (_, interval) in &mut ages {
        if *interval == Millis(0) {
            *interval = DEFAULT_INTERVAL;
        }
    }
    ages
}

/// The health of regions by one family of addresses.
fn of(by_family: &ByFamily, family: AddressFamily) -> &[RegionHealth] {
    match family {
        AddressFamily::Ipv4 => &by_family.ipv4,
        AddressFamily::Ipv6 => &by_family.ipv6,
    }
}

/// Health by family of addresses as the voters see it.
fn by_family(table: &Table, own: &ByFamily, verdicts: &[Verdict]) -> ByFamily {
    let mut agreed = own.clone();
    for ((index, verdict), region) in verdicts.iter().enumerate().zip(table.regions()) {
        let [ipv4, ipv6] = verdict.families;
        let whole = match published(region) {
            Some(AddressFamily::Ipv4) => ipv4,
            Some(AddressFamily::Ipv6) => ipv6,
            None if verdict.families.contains(&Status::Down) => Status::Down,
            None if verdict.families.contains(&Status::Unknown) => Status::Unknown,
            None => Status::Up,
        };
        for (health, status) in [(&mut agreed.ipv4, ipv4), (&mut agreed.ipv6, ipv6), (&mut agreed.whole, whole)] {
            if let Some(health) = health.get_mut(index) {
                health.probed = status;
                for (copy, status) in health.replicas.iter_mut().zip(&verdict.replicas) {
                    copy.status = *status;
                }
            }
        }
    }
    agreed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(regions: &[&str]) -> Table {
        let regions: Vec<String> = regions.iter().map(|id| format!(r#""{id}": {{ "countries": ["DE"] }}"#)).collect();
        let text = format!(r#"{{ "version": 1, "revision": 1, "regions": {{ {} }} }}"#, regions.join(", "));
        Table::compile(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_verdict_is_compared_with_that_of_the_same_region_whatever_the_rules_put_before_it() {
        let mut voting = Voting::new("ns1".into(), Agreed::default());
        let verdict = |status| Verdict { status, ..Verdict::default() };
        let (up, down) = (verdict(Status::Up), verdict(Status::Down));
        let first = voting.note(&table(&["fra", "par"]), &[down.clone(), up.clone()]);
        assert_eq!(first, [(0, Status::Unknown), (1, Status::Unknown)]);
        let more = table(&["ams", "fra", "par"]);
        assert_eq!(voting.note(&more, &[up.clone(), down.clone(), up.clone()]), [(0, Status::Unknown)]);
        assert_eq!(voting.note(&more, &[up.clone(), down, up.clone()]), []);
        assert_eq!(voting.note(&table(&["fra"]), &[up]), [(0, Status::Down)]);
    }
}
