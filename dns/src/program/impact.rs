//! Compares two rules documents on all cores. Takes their tables, the places of a GeoIP database and counted queries,
//! returns the [`Impact`]. Called by `rules diff`, and before a document is published.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use bailiwick_host::locate::geoip::Places;
use bailiwick_rules::fleet::impact::{Comparison, Group, Impact, Queries, ServiceImpact};
use bailiwick_rules::geo::countries;
use bailiwick_rules::steer::Client;
use bailiwick_rules::table::Table;
use bailiwick_rules::time::Timestamp;

use crate::locate::population::population;

/// What a new document changes for all clients. `progress` is called with the number of services compared so far, and
/// with the number of all services.
#[must_use]
pub(crate) fn impact(
    old: &Table,
    new: &Table,
    places: &Places,
    queries: Option<&Queries>,
    now: Timestamp,
    progress: &mut dyn FnMut(usize, usize),
) -> Impact {
    compared(old, new, &population(old, new, places), queries, now, progress)
}

/// What a new document changes, without a GeoIP database: for one client of each country, and of each network of the
/// rules. The result says whose fence changes, but not how many clients these are.
#[must_use]
pub(crate) fn impact_by_country(old: &Table, new: &Table, now: Timestamp) -> Impact {
    let group_of = |country| {
        let client = Client { country: Some(country), ..Client::default() };
        Group { client, network: None, ipv4: 0, ipv6: 0 }
    };
    let groups: Vec<Group> =
        population(old, new, &Places::none()).into_iter().chain(countries().map(group_of)).collect();
    compared(old, new, &groups, None, now, &mut |_, _| ())
}

/// Compares all services by several threads. `progress` is called with the number of services that are done, and of
/// all.
fn compared(
    old: &Table,
    new: &Table,
    groups: &[Group],
    queries: Option<&Queries>,
    now: Timestamp,
    progress: &mut dyn FnMut(usize, usize),
) -> Impact {
    let comparison = Comparison::new(old, new, groups, queries, now);
    let all = comparison.len();
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(all);
    let next = AtomicUsize::new(0);
    let services = std::thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel();
        for _ in 0..threads {
            let (sender, next, comparison) = (sender.clone(), &next, &comparison);
            scope.spawn(move || {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= all || sender.send(comparison.service(at)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut services: Vec<ServiceImpact> = Vec::with_capacity(all);
        for service in receiver {
            services.push(service);
            progress(services.len(), all);
        }
        services
    });
    comparison.finish(services)
}

#[cfg(test)]
mod tests {
    use bailiwick_host::locate::geoip::testing::real_database;
    use serde_json::{Value, json};

    use super::*;

    /// How many services the measured document has.
    const SERVICES: usize = 100;
    /// How many regions these services share.
    const REGIONS: usize = 40;

    /// A document whose services have seven different lists of regions. `skipped` changes these lists.
    fn document(revision: u64, skipped: usize) -> Table {
        let countries: Vec<&str> =
            "DE FR NL IE SE PL IT ES AT BE CZ DK FI PT RO HU GB US CA BR MX JP SG KR IN AU NZ ZA KE EG NG AE SA TR IL \
             CL CO AR PE TH"
                .split(' ')
                .collect();
        let regions: serde_json::Map<String, Value> = (0..REGIONS)
            .map(|n| (format!("r{n}"), json!({ "countries": [countries[n]], "answers": { "A": ["192.0.2.1"] } })))
            .collect();
        let services: serde_json::Map<String, Value> = (0..SERVICES)
            .map(|n| {
                let own = (0..REGIONS).filter(|region| (region + n) % 7 != skipped).map(|region| format!("r{region}"));
                let service = json!({ "hosts": [format!("s{n}.example")], "pattern": "active-active",
                    "regions": own.collect::<Vec<_>>(),
                    "residency": [{ "clients": ["eu"], "process_in": ["eu"] },
                                  { "clients": ["*"], "process_in": ["*"] }] });
                (format!("s{n}"), service)
            })
            .collect();
        let rules = json!({ "version": 1, "revision": revision, "jurisdictions": { "eu": { "include": ["EU"] } },
            "regions": regions, "services": services });
        Table::compile(rules.to_string().as_bytes()).unwrap_or_else(|errors| panic!("{errors:?}"))
    }

    #[test]
    fn a_smaller_fence_is_seen_without_a_database() {
        let (old, new) = (document(1, 0), document(2, 3));
        assert!(impact_by_country(&old, &new, Timestamp(0)).is_tightened());
        assert!(!impact_by_country(&old, &document(2, 0), Timestamp(0)).is_tightened());
    }

    /// A release build on a quiet machine has to take less than 10 s. A test build on a busy machine may take longer.
    #[test]
    fn a_hundred_services_are_compared_over_the_whole_country_database() {
        let Some(database) = real_database() else { return };
        let places = Places::read(&std::fs::read(database).unwrap()).unwrap();
        let (old, new) = (document(1, 0), document(2, 3));
        let (mut told, begun) = (Vec::new(), std::time::Instant::now());
        let impact = impact(&old, &new, &places, None, Timestamp(0), &mut |done, all| told.push((done, all)));
        let took = begun.elapsed();
        println!("impact: {} services over {} places took {took:?}", impact.compared, places.all().len());
        assert_eq!((impact.compared, impact.services.len()), (SERVICES, SERVICES));
        assert_eq!((told.len(), told.last()), (SERVICES, Some(&(SERVICES, SERVICES))));
        let bound = if cfg!(debug_assertions) { 100 } else { 10 };
        assert!(took.as_secs() < bound, "{took:?}");
    }
}
