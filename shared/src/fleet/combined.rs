//! Replaces the health that one node, or a majority of the nodes that reported, sees by what the voters agree on. Takes
//! health and verdicts, returns the health that steering uses. Called by the owner of the DNS half's state and by the
//! edge.

use super::{Agreed, Ballot, Verdict, VerdictInput, verdicts};
use crate::health::RegionHealth;
use crate::report::{Received, aggregate};
use crate::steer::{Conditions, Local, forced};
use crate::table::Table;
use crate::time::Timestamp;

/// Health by region index for a caller that has no probes of its own: by the voters where the rules name some,
/// otherwise by [`aggregate`]. Overrides by operators apply in both cases.
#[must_use]
pub fn combined(table: &Table, reports: &[Received], agreed: &mut Agreed, now: Timestamp) -> Vec<RegionHealth> {
    let mut health = aggregate(table, reports, now);
    let read = |received: &Received| Ballot::read(table, &received.report, received.at);
    let ballots: Vec<Ballot> = reports.iter().filter_map(read).collect();
    fold(table, &ballots, None, &mut health, agreed, now);
    health
}

/// Puts the verdicts of the voters into the health of all regions, and returns the verdicts. Changes nothing where the
/// rules name no voters. `own` is the position of the voter that this node is, if it is one.
pub fn fold(
    table: &Table,
    ballots: &[Ballot],
    own: Option<usize>,
    health: &mut [RegionHealth],
    agreed: &mut Agreed,
    now: Timestamp,
) -> Vec<Verdict> {
    let verdicts = {
        let conditions = Conditions { health, local: &Local::default(), now };
        let forced = |region| forced(table, region, &conditions).map(|forced| forced.status);
        verdicts(&VerdictInput { table, ballots, own, forced: &forced, now }, agreed)
    };
    for (health, verdict) in health.iter_mut().zip(&verdicts) {
        health.probed = verdict.status;
        health.endpoints.clone_from(&verdict.endpoints);
        for (copy, status) in health.replicas.iter_mut().zip(&verdict.replicas) {
            copy.status = *status;
        }
    }
    verdicts
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::health::Status;
    use crate::report::HealthReport;
    use crate::time::Millis;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn table(voters: usize) -> Table {
        let names: serde_json::Map<_, _> =
            (0..voters).map(|n| (format!("ns{n}"), json!({ "site": format!("s{n}") }))).collect();
        let mut document = json!({ "version": 1, "revision": 1, "regions": { "fra": { "countries": ["DE"],
            "endpoints": { "fra-1": { "url": "https://fra1.example/v1" } } } } });
        if voters > 0 {
            document["fleet"] = json!({ "voters": names });
        }
        Table::compile(document.to_string().as_bytes()).unwrap()
    }

    fn received(node: &str, status: &str, forced: bool) -> Received {
        let forced = forced
            .then(|| json!({ "status": "down", "until": NOW.after(Millis(60_000)).to_string(), "reason": "drill" }));
        let report = json!({ "node": node, "revision": 1, "rules_sha256": "", "regions": { "fra": {
            "status": status, "probed": status, "stale": false, "override": forced, "age_ms": 0, "interval_ms": 5_000,
            "endpoints": { "fra-1": { "status": status } } } } });
        Received { at: NOW, report: serde_json::from_value::<HealthReport>(report).unwrap() }
    }

    #[test]
    fn without_voters_it_is_what_most_of_those_heard_say() {
        for statuses in [&[][..], &["down"], &["down", "up"], &["down", "up", "down"]] {
            let reports: Vec<Received> = statuses.iter().map(|status| received("ns0", status, false)).collect();
            let table = table(0);
            let mut agreed = Agreed::default();
            assert_eq!(combined(&table, &reports, &mut agreed, NOW), aggregate(&table, &reports, NOW));
            assert_eq!(agreed, Agreed::default());
        }
    }

    #[test]
    fn with_voters_one_alone_decides_nothing_and_a_stranger_has_no_vote() {
        let table = table(3);
        let see = |reports: &[Received]| {
            let health = combined(&table, reports, &mut Agreed::default(), NOW).remove(0);
            (health.probed, health.endpoints[0])
        };
        assert_eq!(see(&[received("ns0", "down", false)]), (Status::Unknown, Status::Unknown));
        let strangers = [received("ns0", "down", false), received("ns7", "down", false)];
        assert_eq!(see(&strangers), (Status::Unknown, Status::Unknown));
        let both = [received("ns0", "down", false), received("ns2", "down", false)];
        assert_eq!(see(&both), (Status::Down, Status::Down));
    }

    #[test]
    fn an_override_binds_whoever_tells_it() {
        let (table, mut agreed) = (table(3), Agreed::default());
        let reports = [received("ns0", "up", true), received("ns1", "up", false)];
        let health = combined(&table, &reports, &mut agreed, NOW).remove(0);
        assert_eq!((health.probed, health.forced.unwrap().status), (Status::Up, Status::Down));
    }
}
