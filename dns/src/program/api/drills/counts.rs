//! What a node counted of the services of a drill. Takes one snapshot, the counters of DNS and the sums of what Workers
//! counted; returns counts by region. Called by the handlers of `/v1/drills`.

use std::collections::BTreeMap;

use bailiwick_rules::audit::Book;
use bailiwick_rules::drill::counts::{Checked, Counted, EdgeCounts, OfRegion};
use bailiwick_rules::geo::CountryCode;
use bailiwick_rules::rules::Drill;
use bailiwick_rules::table::{Service, Table};

use super::Api;
use crate::response::answer::Origin;
use crate::state::snapshot::Snapshot;

/// Counts since this process began.
pub(super) fn counted(api: &Api, snapshot: &Snapshot, book: &Book, drill: &Drill) -> Counted {
    let (table, now) = (snapshot.table(), api.handle.now());
    let services = || table.services().iter().filter(|service| has_region(table, service, drill));
    let is_drilled = |name: &str| services().any(|service| service.id.as_str() == name);
    let loads = snapshot.load_reports(now);
    let regions = services().flat_map(|service| &service.regions).map(|region| table.region(*region).id.clone());
    let of = |region: bailiwick_rules::id::RegionId| {
        let load = loads.get(&region).and_then(|report| report.load).map(|load| f64::from(load.0) / 1e6);
        (region, OfRegion { load, ..OfRegion::default() })
    };
    let mut counted = Counted {
        node: api.node.clone(),
        begun: api.begun,
        at: now,
        revision: table.revision().number,
        rules_sha256: table.revision().sha256_hex(),
        workers: 0,
        regions: regions.map(of).collect::<BTreeMap<_, _>>(),
        nowhere: EdgeCounts::default(),
        checked: Checked::default(),
    };
    api.handle.observed().with(|sums| {
        counted.workers = sums.isolates(now);
        (counted.checked.edge_uncounted, counted.checked.batches_lost) = (sums.dropped(), sums.missed());
        for (key, counts) in sums.totals().filter(|(key, _)| is_drilled(key.service.as_str())) {
            counted.add_edge(book, key, counts);
        }
    });
    for ((service, region, origin), count) in api.metrics.all_steered() {
        let Some(region) = region.filter(|_| is_drilled(service.as_str())) else { continue };
        let country = (CountryCode::numbered(origin.country()), origin != Origin::UNCOUNTED);
        counted.add_dns(book, (&service, &region), country, count);
    }
    counted
}

fn has_region(table: &Table, service: &Service, drill: &Drill) -> bool {
    service.regions.iter().any(|region| table.region(*region).id == drill.region)
}
