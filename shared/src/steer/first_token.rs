//! Orders regions by the expected time to the first token. Takes a steering and the medians that nodes observed;
//! changes the order of the offered regions within each tier of residency. Called by the edge; DNS orders by distance.
//! A fence is the list of the regions that may process a client's data.
//!
//! The expected time is the sum of the network time, 1 ms for each 100 km, and the median observed in the region. A
//! region whose distance or median isn't known keeps its place in the order by distance. Only regions that are offered
//! already change places, so no request can leave its fence.

use std::collections::{BTreeMap, HashMap};

use super::{Ask, Ranked, Ranking, Steering};
use crate::id::{RegionId, ServiceId};
use crate::rules::{Order, Pattern};
use crate::table::{RegionIndex, ServiceIndex, Table, TenantIndex};

/// The median time to the first token in milliseconds, by service and region, as nodes report it.
pub type Medians = BTreeMap<ServiceId, BTreeMap<RegionId, u32>>;

/// The observed medians of a table's services and regions, in milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FirstTokens(HashMap<(ServiceIndex, RegionIndex), u32>);

/// The two parts of the expected time to the first token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The distance to the client in whole kilometres.
    pub km: u32,
    /// The observed median of the region, in milliseconds.
    pub median_ms: u32,
}

impl Expected {
    /// The estimated network time in milliseconds, rounded: 1 ms for each 100 km.
    #[must_use]
    pub fn way_ms(self) -> u32 {
        self.km.saturating_add(50) / 100
    }

    /// The sum of both parts, in hundredths of a millisecond. A kilometre is one hundredth.
    fn total(self) -> u64 {
        u64::from(self.km) + 100 * u64::from(self.median_ms)
    }

    /// Whether this time is shorter than that of a nearer region by at least a fifth, so that this region comes first.
    fn overtakes(self, nearer: Self) -> bool {
        5 * self.total() <= 4 * nearer.total()
    }
}

impl FirstTokens {
    /// Reads medians by name. Names that the table doesn't have are left out.
    #[must_use]
    pub fn read(table: &Table, medians: &Medians) -> Self {
        let of_service = |(service, regions): (&ServiceId, &BTreeMap<RegionId, u32>)| {
            let service = table.service_named(service.as_str())?;
            let by_index =
                |(region, ms): (&RegionId, &u32)| Some(((service, table.region_named(region.as_str())?), *ms));
            Some(regions.iter().filter_map(by_index).collect::<Vec<_>>())
        };
        Self(medians.iter().filter_map(of_service).flatten().collect())
    }

    /// The expected time of a service's client at a region; `None` if one part of the time isn't known.
    #[must_use]
    pub fn expected(&self, service: ServiceIndex, ranked: &Ranked) -> Option<Expected> {
        Some(Expected { km: ranked.km?, median_ms: *self.0.get(&(service, ranked.fenced.region))? })
    }

    /// Orders the offered regions of a steering, if [`applies`]. Returns whether another region is first now.
    pub fn order(&self, table: &Table, ask: &Ask<'_>, ranking: &Ranking, steering: &mut Steering) -> bool {
        if self.0.is_empty() || !applies(table, ask, ranking) {
            return false;
        }
        let first = |steering: &Steering| steering.ordered.first().map(|ranked| ranked.fenced.region);
        let before = first(steering);
        let rank = |ranked: &Ranked| (table.region(ranked.fenced.region).standby, ranked.fenced.tier);
        for same_rank in steering.ordered.chunk_by_mut(|ranked, next| rank(ranked) == rank(next)) {
            self.order_same_rank(ask.service, same_rank);
        }
        first(steering) != before
    }

    /// Orders regions of one tier. A region with a known time moves before all regions that it [`Expected::overtakes`].
    fn order_same_rank(&self, service: ServiceIndex, regions: &mut [Ranked]) {
        let mut sorted: Vec<(Expected, Ranked)> = Vec::new();
        let mut places = Vec::new();
        for (place, ranked) in regions.iter().enumerate() {
            let Some(expected) = self.expected(service, ranked) else { continue };
            let not_overtaken = sorted.iter().rposition(|(nearer, _)| !expected.overtakes(*nearer));
            sorted.insert(not_overtaken.map_or(0, |place| place + 1), (expected, *ranked));
            places.push(place);
        }
        for (place, (_, ranked)) in places.into_iter().zip(sorted) {
            regions[place] = ranked;
        }
    }
}

/// The order of a client's regions: that of its tenant's service tier, or else that of the service.
#[must_use]
pub fn order_of(table: &Table, service: ServiceIndex, tenant: Option<TenantIndex>) -> Order {
    let tier = tenant.and_then(|tenant| table.tier_of(table.tenant(tenant)));
    tier.and_then(|(_, tier)| tier.order).unwrap_or(table.service(service).order)
}

/// Whether a client's regions are ordered by the time to the first token. They aren't if the pattern allows only one
/// region, or uses the order of the rules.
#[must_use]
pub fn applies(table: &Table, ask: &Ask<'_>, ranking: &Ranking) -> bool {
    let is_by_distance = matches!(table.service(ask.service).pattern, Pattern::ActiveActive | Pattern::HubAndSpoke);
    is_by_distance && ranking.only.is_none() && order_of(table, ask.service, ask.client.tenant) == Order::FirstToken
}

/// The medians to use. A median that was used before stays until the reported median differs from it by a fifth, so
/// that an order doesn't change back and forth with every report. Medians that nodes no longer report are dropped.
#[must_use]
pub fn hold(before: &Medians, reported: &Medians) -> Medians {
    let held_for = |service: &ServiceId, region: &RegionId, now: u32| {
        let before = before.get(service).and_then(|regions| regions.get(region)).copied();
        let is_close = |before: &u32| 5 * u64::from(before.abs_diff(now)) < u64::from(*before);
        before.filter(is_close).unwrap_or(now)
    };
    let of_service = |(service, regions): (&ServiceId, &BTreeMap<RegionId, u32>)| {
        let regions = regions.iter().map(|(region, ms)| (region.clone(), held_for(service, region, *ms)));
        (service.clone(), regions.collect())
    };
    reported.iter().map(of_service).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::geo::CountryCode;
    use crate::rules::KeyDigest;
    use crate::steer::{Client, Conditions, Local, PathClass, decide, rank, stand};
    use crate::testing::{Random, ask, conditions, document, limit};
    use crate::time::Timestamp;

    /// Rules with four regions. For a client in Germany, Frankfurt, Paris and Stockholm are in the first tier, nearest
    /// first; Madrid is in the second tier.
    fn table(change: impl Fn(&mut Value)) -> Table {
        let tenant = |key: &str, tier: &str| {
            let digest = KeyDigest::of_key(key).to_string();
            json!({ "key_sha256": [digest], "services": ["chat"], "tier": tier })
        };
        let mut rules = json!({
            "version": 1, "revision": 1,
            "jurisdictions": { "eu": { "include": ["EU"] }, "near": { "countries": ["DE", "FR", "SE"] } },
            "regions": { "fra": { "countries": ["DE"] }, "par": { "countries": ["FR"] },
                         "sto": { "countries": ["SE"] }, "mad": { "countries": ["ES"] } },
            "tiers": { "gold": { "rank": 0, "order": "first-token" }, "plain": { "rank": 1, "order": "distance" },
                       "other": { "rank": 2 } },
            "services": { "chat": { "hosts": ["chat.example"], "pattern": "active-active",
                "regions": ["fra", "par", "sto", "mad"], "order": "first-token",
                "residency": [{ "clients": ["eu"], "process_in": ["near", "eu"] }] } },
            "tenants": { "a": tenant("a", "gold"), "b": tenant("b", "plain"), "c": tenant("c", "other") },
        });
        change(&mut rules);
        Table::compile(rules.to_string().as_bytes()).unwrap()
    }

    fn medians(of: &[(&str, u32)]) -> Medians {
        let regions = of.iter().map(|(region, ms)| (RegionId::parse(region).unwrap(), *ms)).collect();
        Medians::from([(ServiceId::parse("chat").unwrap(), regions)])
    }

    fn ordered(table: &Table, tenant: Option<u32>, of: &[(&str, u32)]) -> Vec<String> {
        let client = Client { country: CountryCode::parse("DE"), tenant: tenant.map(TenantIndex), ..Client::default() };
        let ask = Ask { service: ServiceIndex(0), client, model: None, path_class: PathClass::Inference, needs: None };
        let ranking = rank(table, ask.service, &stand(table, &client), ask.path_class);
        let conditions = Conditions { health: &[], local: &Local::default(), now: Timestamp(0) };
        let mut steering = decide(table, &ranking, None, &conditions);
        let before = steering.clone();
        let is_other = FirstTokens::read(table, &medians(of)).order(table, &ask, &ranking, &mut steering);
        assert_eq!(is_other, steering.ordered[0] != before.ordered[0]);
        steering.ordered.iter().map(|ranked| table.region(ranked.fenced.region).id.to_string()).collect()
    }

    #[test]
    fn the_region_with_the_shortest_expected_time_comes_first_within_its_tier() {
        let table = table(|_| {});
        let by = |of: &[(&str, u32)]| ordered(&table, None, of);
        assert_eq!(by(&[]), ["fra", "par", "sto", "mad"], "without medians distance decides");
        assert_eq!(by(&[("fra", 900), ("par", 500), ("sto", 200), ("mad", 1)]), ["sto", "par", "fra", "mad"]);
        assert_eq!(
            by(&[("fra", 500), ("par", 420), ("sto", 2_000)]),
            ["fra", "par", "sto", "mad"],
            "a time that is 16 % shorter isn't enough"
        );
        assert_eq!(by(&[("fra", 500), ("par", 380), ("sto", 2_000)]), ["par", "fra", "sto", "mad"]);
        assert_eq!(
            by(&[("fra", 10), ("par", 5)]),
            ["fra", "par", "sto", "mad"],
            "the network time outweighs the medians"
        );
    }

    #[test]
    fn a_region_without_a_median_keeps_its_place() {
        let table = table(|_| {});
        assert_eq!(ordered(&table, None, &[("fra", 5_000), ("sto", 100)]), ["sto", "par", "fra", "mad"]);
        assert_eq!(ordered(&table, None, &[("fra", 5_000)]), ["fra", "par", "sto", "mad"]);
    }

    #[test]
    fn the_order_of_a_tenants_tier_counts_more_than_that_of_the_service() {
        let fast_paris = [("fra", 5_000), ("par", 100)];
        let first = |table: &Table, tenant| ordered(table, tenant, &fast_paris).remove(0);
        let by_token = table(|_| {});
        assert_eq!(
            [None, Some(0), Some(1), Some(2)].map(|tenant| first(&by_token, tenant)),
            ["par", "par", "fra", "par"]
        );
        let by_distance = table(|rules| rules["services"]["chat"]["order"] = json!("distance"));
        assert_eq!(
            [None, Some(0), Some(1), Some(2)].map(|tenant| first(&by_distance, tenant)),
            ["fra", "par", "fra", "fra"]
        );
        for pattern in ["active-passive", "regional-sharding"] {
            let written = table(|rules| rules["services"]["chat"]["pattern"] = json!(pattern));
            assert_eq!(first(&written, Some(0)), "fra", "{pattern}");
        }
    }

    #[test]
    fn medians_are_held_until_they_differ_by_a_fifth() {
        let held = |before: u32, now: u32| hold(&medians(&[("fra", before)]), &medians(&[("fra", now)]));
        for (before, now, expected) in
            [(100, 119, 100), (100, 81, 100), (100, 120, 120), (100, 80, 80), (0, 1, 1), (u32::MAX, 1, 1), (7, 7, 7)]
        {
            assert_eq!(held(before, now), medians(&[("fra", expected)]), "{before}, {now}");
        }
        assert_eq!(hold(&medians(&[("fra", 100)]), &Medians::new()), Medians::new(), "fra is no longer reported");
        assert_eq!(hold(&Medians::new(), &medians(&[("par", 3)])), medians(&[("par", 3)]));
    }

    /// With random documents, orders, medians and conditions: the same regions are offered as without medians, tiers
    /// stay in order, and clients whose regions are ordered by distance are steered as without medians.
    #[test]
    fn no_order_leads_out_of_a_fence_nor_of_its_tier() {
        let (mut cases, mut moved) = (0_u32, 0_u32);
        for seed in 0..4_000 {
            let mut random = Random::new(seed);
            let mut document = document(&mut random);
            limit(&mut random, &mut document);
            for service in document["services"].as_object_mut().unwrap().values_mut() {
                service["order"] = json!(random.pick(&["distance", "first-token"]));
                // Wide fences have more to order.
                for rule in service["residency"].as_array_mut().unwrap().iter_mut().filter(|_| random.chance(60)) {
                    rule["process_in"] = json!(["*"]);
                }
            }
            for tier in ["gold", "batch"] {
                if random.chance(50) {
                    document["tiers"][tier]["order"] = json!(random.pick(&["distance", "first-token"]));
                }
            }
            let table = Table::compile(document.to_string().as_bytes()).unwrap();
            for _ in 0..25 {
                let ask = ask(&mut random, &table);
                let (health, local, now) = conditions(&mut random, &table);
                let ranking = rank(&table, ask.service, &stand(&table, &ask.client), ask.path_class);
                let conditions = Conditions { health: &health, local: &local, now };
                let before = decide(&table, &ranking, ask.model, &conditions);
                let known = (0..).map(RegionIndex).zip(table.regions()).filter(|_| random.chance(80));
                let known: Vec<_> = known.map(|(region, _)| (ask.service, region)).collect();
                let ms = known.into_iter().map(|key| (key, 1 << random.below(32)));
                let observed = FirstTokens(ms.collect());
                let mut after = before.clone();
                observed.order(&table, &ask, &ranking, &mut after);
                check(&table, &ask, (&ranking, &before, &after), seed);
                cases += 1;
                moved += u32::from(after != before);
            }
        }
        println!("no order leads out of a fence: {cases} random cases, {moved} of them ordered anew");
        assert!(cases >= 100_000 && moved > 500, "{cases}, {moved}");
    }

    fn check(table: &Table, ask: &Ask<'_>, (ranking, before, after): (&Ranking, &Steering, &Steering), seed: u64) {
        let sorted = |steering: &Steering| {
            let mut regions: Vec<RegionIndex> = steering.ordered.iter().map(|ranked| ranked.fenced.region).collect();
            regions.sort();
            regions
        };
        assert_eq!(sorted(before), sorted(after), "seed {seed}");
        assert_eq!((&before.withheld, before.revived), (&after.withheld, after.revived), "seed {seed}");
        let rank = |ranked: &Ranked| (table.region(ranked.fenced.region).standby, ranked.fenced.tier);
        assert!(after.ordered.is_sorted_by_key(rank), "seed {seed}");
        assert!(after.ordered.iter().all(|ranked| ranking.order.contains(ranked)), "seed {seed}");
        if order_of(table, ask.service, ask.client.tenant) == Order::Distance {
            assert_eq!(before, after, "seed {seed}");
        }
    }
}
