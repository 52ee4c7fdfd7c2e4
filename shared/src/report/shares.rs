//! The shares of clients that are moved because of load, as nodes report them. Takes a [`Plan`], returns the JSON that
//! `/v1/health` carries as `shares`. Takes such JSON, returns [`Shares`], which say where one client goes. Called by
//! the DNS node, which writes the JSON, and by the edge, which reads it.
//!
//! ```json
//! { "at": "2026-12-01T06:00:00Z", "interval_ms": 5000,
//!   "services": { "chat": [ { "order": ["eu-frankfurt", "eu-paris", "eu-stockholm"],
//!                             "moves": [ { "to": "eu-paris", "share": 0.12 },
//!                                        { "to": "eu-stockholm", "share": 0.03 } ] } ] } }
//! ```
//!
//! The clients whose fence (the regions that may serve them) has this order form a class. They are at home in the first
//! region. Of them 12 % go to the second region, and 3 % to the third. Classes of which no client is moved aren't
//! listed.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::{FRESH_INTERVALS, Received, ratio};
use crate::id::{RegionId, ServiceId};
use crate::load::{ClassIndex, Classes, Plan, Point};
use crate::rules::Ratio;
use crate::steer::{Ranking, Steering};
use crate::table::{RegionIndex, ServiceIndex, Table};
use crate::time::{Millis, Timestamp};

/// In how many intervals the shares of a plan fade to zero, once the plan is three intervals old.
const FADING_INTERVALS: u64 = 12;

/// The shares of all services by one plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharesReport {
    /// When the plan was made. If several nodes report plans, the newest counts.
    pub at: Timestamp,
    /// Milliseconds between two plans.
    pub interval_ms: u64,
    /// By service, the classes of which clients are moved, no matter whether DNS or the edge moves them.
    pub services: BTreeMap<ServiceId, Vec<ClassShares>>,
}

/// The shares of one class: the clients of a service whose fence has one order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassShares {
    /// The fence of these clients, best region first, before any region is withheld. Clients are moved away from the
    /// first.
    pub order: Vec<RegionId>,
    /// Where parts of the class go. Each client has a point between 0 and 1; the shares take up that range one after
    /// the other, in this order.
    pub moves: Vec<MoveReport>,
}

impl ClassShares {
    /// The region whose clients are moved; `None` if the order is empty, which no node writes.
    #[must_use]
    pub fn from(&self) -> Option<&RegionId> {
        self.order.first()
    }
}

/// A part of a class's clients that is moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveReport {
    /// The region that these clients go to.
    pub to: RegionId,
    /// How large this part of the class is, from 0 to 1.
    #[serde(with = "ratio")]
    pub share: Ratio,
}

impl SharesReport {
    /// The report of a plan.
    #[must_use]
    pub fn new(table: &Table, classes: &Classes, plan: &Plan, interval: Millis) -> Self {
        let name = |region: RegionIndex| table.region(region).id.clone();
        let mut services: BTreeMap<ServiceId, Vec<ClassShares>> = BTreeMap::new();
        for (index, class) in classes.list().iter().enumerate() {
            let moves = plan.moves(ClassIndex(index)).iter().filter(|moved| moved.share > Ratio(0));
            let moves: Vec<_> = moves.map(|moved| MoveReport { to: name(moved.to), share: moved.share }).collect();
            if !moves.is_empty() {
                let order = class.order.iter().map(|region| name(*region)).collect();
                let of_service = services.entry(table.service(class.service).id.clone()).or_default();
                of_service.push(ClassShares { order, moves });
            }
        }
        Self { at: plan.at(), interval_ms: interval.0, services }
    }

    /// The newest of the plans that nodes report, unless it is so old that its shares have faded to zero.
    #[must_use]
    pub fn newest(reports: &[Received], now: Timestamp) -> Option<&Self> {
        let reported = reports.iter().filter_map(|received| received.report.shares.as_ref());
        // A plan with a time in the future comes from a wrong clock. It would hide all other plans.
        let is_fresh =
            |report: &&Self| report.at <= now.after(Millis(report.interval_ms)) && report.left(now) > Ratio(0);
        reported.filter(is_fresh).max_by_key(|report| report.at)
    }

    /// How much of the shares still counts: all for three intervals, then less and less for twelve more. The load isn't
    /// known without new reports, so the clients return to their first region step by step.
    fn left(&self, now: Timestamp) -> Ratio {
        let (held_for, fading) = (
            FRESH_INTERVALS.saturating_mul(self.interval_ms),
            FADING_INTERVALS.saturating_mul(self.interval_ms).max(1),
        );
        let faded = now.since(self.at).0.saturating_sub(held_for);
        Ratio::between(fading.saturating_sub(faded), fading)
    }
}

/// How a client was moved because of load.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shed {
    /// The region that would serve the client without the move, if that region is up.
    pub from: RegionIndex,
    /// The region that is asked first.
    pub to: RegionIndex,
    /// How large the part of the class is that goes there.
    pub share: Ratio,
}

/// A service, and one of its fences as an ordered list of regions.
type Fence = (ServiceIndex, Vec<RegionIndex>);

/// The shares of a report, in a form that is quick to look up per client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shares(HashMap<Fence, Vec<(RegionIndex, Ratio)>>);

impl Shares {
    /// Reads a report by the names of a table's services and regions. A class is left out if it names something that
    /// the table doesn't have, if it moves clients to a region outside of its order, or if its shares add up to more
    /// than 1. The shares of an old report are reduced according to its age.
    #[must_use]
    pub fn read(table: &Table, report: &SharesReport, now: Timestamp) -> Self {
        let left = report.left(now);
        let region = |name: &RegionId| table.region_named(name.as_str());
        let read = |service: ServiceIndex, class: &ClassShares| {
            let order: Vec<RegionIndex> = class.order.iter().map(region).collect::<Option<_>>()?;
            let inside = |to: &RegionIndex| order.iter().skip(1).any(|region| region == to);
            let to_move = |moved: &MoveReport| Some((region(&moved.to).filter(inside)?, moved.share));
            let moves: Vec<_> = class.moves.iter().map(to_move).collect::<Option<_>>()?;
            let total: u64 = moves.iter().map(|(_, share)| u64::from(share.0)).sum();
            let faded = |share: Ratio| Ratio(u32::try_from(left.of(u64::from(share.0))).unwrap_or(0));
            let moves = moves.into_iter().map(|(to, share)| (to, faded(share))).collect();
            (total <= u64::from(Ratio::ONE.0)).then_some(((service, order), moves))
        };
        let shares = report.services.iter().filter_map(|(name, classes)| {
            let service = table.service_named(name.as_str())?;
            Some(classes.iter().filter_map(move |class| read(service, class)))
        });
        Self(shares.flatten().collect())
    }

    /// The moves of one class: the clients of `service` whose fence is `ranking`. Each move is a region and a share.
    #[must_use]
    pub fn moves(&self, service: ServiceIndex, ranking: &Ranking) -> &[(RegionIndex, Ratio)] {
        if self.0.is_empty() {
            return &[];
        }
        self.0.get(&(service, ranking.regions())).map_or(&[], Vec::as_slice)
    }

    /// The region that a client of a class is moved to; `None` if it stays where distance and health send it. The class
    /// is the clients of `service` whose fence is `ranking`; `point` is the client's place in it.
    #[must_use]
    pub fn choose(&self, service: ServiceIndex, ranking: &Ranking, point: Point) -> Option<RegionIndex> {
        point.on(self.moves(service, ranking).iter().copied())
    }

    /// Moves one client: puts the region that it goes to first among those that are offered. `client` is what
    /// identifies the client, such as tenant and session. Returns how it was moved; `None` if it stays, or if that
    /// region isn't offered now.
    #[must_use]
    pub fn shed(
        &self,
        table: &Table,
        service: ServiceIndex,
        ranking: &Ranking,
        client: &[u8],
        steering: &mut Steering,
    ) -> Option<Shed> {
        let moves = self.moves(service, ranking);
        if moves.is_empty() {
            return None;
        }
        let from = ranking.order.first()?.fenced.region;
        let point = Point::of(client, table.region(from).id.as_str());
        let to = point.on(moves.iter().copied())?;
        let place = steering.ordered.iter().position(|ranked| ranked.fenced.region == to)?;
        steering.ordered.get_mut(..=place)?.rotate_right(1);
        let share = moves.iter().find(|(region, _)| *region == to).map_or(Ratio(0), |(_, share)| *share);
        Some(Shed { from, to, share })
    }

    /// Whether no client is moved.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::health::{RegionHealth, Status};
    use crate::load::{PlanInput, Reading, RegionInput, place_of_country, plan, requests};
    use crate::report::HealthReport;
    use crate::steer::{Client, Conditions, Local, PathClass, decide, rank, stand};

    const NOW: Timestamp = Timestamp(1_800_000_000_000);
    const INTERVAL: Millis = Millis(5_000);

    fn table() -> Table {
        Table::compile(
            br#"{ "version": 1, "revision": 1, "jurisdictions": { "eu": { "include": ["EU"] } },
            "regions": { "fra": { "countries": ["DE"], "load": { "capacity": 100, "demand": 90 } },
                         "par": { "countries": ["FR"], "load": { "capacity": 100, "demand": 20 } },
                         "lon": { "countries": ["GB"] } },
            "services": { "chat": { "hosts": ["chat.example"], "pattern": "active-active",
                "regions": ["fra", "par", "lon"], "residency": [{ "clients": ["eu"], "process_in": ["eu"] }] } } }"#,
        )
        .unwrap()
    }

    /// What a node reports while Frankfurt and London are down.
    fn reported(table: &Table) -> SharesReport {
        let classes = Classes::stated(table);
        let seen = |is_up, used| RegionInput {
            is_up,
            capacity: Some(requests(100)),
            reading: Some(Reading { used: requests(used), at: NOW }),
            is_drilled: false,
        };
        let regions = [seen(false, 0), seen(false, 0), seen(true, 20)];
        SharesReport::new(
            table,
            &classes,
            &plan(table, &classes, &PlanInput { regions: &regions, interval: INTERVAL }, None, NOW),
            INTERVAL,
        )
    }

    fn report(shares: &Value) -> SharesReport {
        serde_json::from_value(json!({ "at": NOW.to_string(), "interval_ms": 5000, "services": shares })).unwrap()
    }

    #[test]
    fn the_moves_of_a_plan_are_written_and_read_again() {
        let table = table();
        let reported = reported(&table);
        let json = serde_json::to_value(&reported).unwrap();
        let class = &json["services"]["chat"][0];
        assert_eq!((&class["order"], &class["moves"][0]["to"]), (&json!(["fra", "par"]), &json!("par")));
        let share = class["moves"][0]["share"].as_f64().unwrap();
        assert!((0.5..0.56).contains(&share), "{json}: 50 of 90 fit below the low mark of Paris");
        assert_eq!(serde_json::from_value::<SharesReport>(json).unwrap(), reported, "to the bit");

        let shares = Shares::read(&table, &reported, NOW);
        let chat = ServiceIndex(0);
        let of = |country: &str| {
            let place = place_of_country(&table, crate::geo::CountryCode::parse(country));
            rank(&table, chat, &place, PathClass::Inference)
        };
        let points = || (0..1_000).map(|n: u32| Point::of(&n.to_be_bytes(), "fra"));
        let moved =
            points().filter(|point| shares.choose(chat, &of("DE"), *point) == table.region_named("par")).count();
        assert!((500..600).contains(&moved), "{moved} of 1,000");
        assert!(points().all(|point| shares.choose(chat, &of("FR"), point).is_none()), "Paris keeps its own");
    }

    #[test]
    fn a_report_never_leads_out_of_a_fence() {
        let table = table();
        let read = |class: Value| Shares::read(&table, &report(&json!({ "chat": [class] })), NOW);
        let order = json!(["fra", "par"]);
        assert!(!read(json!({ "order": order, "moves": [{ "to": "par", "share": 1 }] })).is_empty());
        for bad in [
            json!({ "order": order, "moves": [{ "to": "lon", "share": 0.1 }] }),
            json!({ "order": order, "moves": [{ "to": "nowhere", "share": 0.1 }] }),
            json!({ "order": order, "moves": [{ "to": "par", "share": 0.6 }, { "to": "par", "share": 0.5 }] }),
            json!({ "order": ["fra", "gone"], "moves": [{ "to": "par", "share": 0.1 }] }),
            json!({ "order": [], "moves": [{ "to": "par", "share": 0.1 }] }),
        ] {
            assert!(read(bad.clone()).is_empty(), "{bad}");
        }
        let wider = json!({ "order": ["fra", "lon"], "moves": [{ "to": "lon", "share": 1 }] });
        let ranking = rank(
            &table,
            ServiceIndex(0),
            &place_of_country(&table, crate::geo::CountryCode::parse("DE")),
            PathClass::Inference,
        );
        let point = Point::of(b"client", "fra");
        assert_eq!(read(wider).choose(ServiceIndex(0), &ranking, point), None, "this client's fence has another order");
        assert!(Shares::read(&table, &report(&json!({ "gone": [] })), NOW).is_empty());
    }

    #[test]
    fn without_news_shares_hold_for_three_intervals_and_fade_in_twelve() {
        let table = table();
        let class = json!({ "order": ["fra", "par"], "moves": [{ "to": "par", "share": 0.8 }] });
        let reported = report(&json!({ "chat": [class] }));
        let place = place_of_country(&table, crate::geo::CountryCode::parse("DE"));
        let ranking = rank(&table, ServiceIndex(0), &place, PathClass::Inference);
        let share =
            |age: u64| Shares::read(&table, &reported, NOW.after(Millis(age))).moves(ServiceIndex(0), &ranking)[0].1;
        let shares = [0, 15_000, 30_000, 45_000, 74_999, 75_000, u64::MAX].map(|age| share(age).0);
        assert_eq!(shares, [800_000, 800_000, 600_000, 400_000, 12, 0, 0]);
    }

    #[test]
    fn a_client_is_moved_only_to_a_region_that_is_offered() {
        let table = table();
        let (chat, par) = (ServiceIndex(0), table.region_named("par").unwrap());
        let class = json!({ "order": ["fra", "par"], "moves": [{ "to": "par", "share": 0.5 }] });
        let shares = Shares::read(&table, &report(&json!({ "chat": [class] })), NOW);
        let client = Client { country: crate::geo::CountryCode::parse("DE"), ..Client::default() };
        let standing = stand(&table, &client);
        let ranking = rank(&table, chat, &standing, PathClass::Inference);
        let steered = |down: bool, client: &[u8]| {
            let mut health = vec![RegionHealth::default(); 3];
            health[par.get()].probed = if down { Status::Down } else { Status::Up };
            let conditions = Conditions { health: &health, local: &Local::default(), now: NOW };
            let mut steering = decide(&table, &ranking, None, &conditions);
            let before = steering.clone();
            let shed = shares.shed(&table, chat, &ranking, client, &mut steering);
            let first = steering.ordered[0].fenced.region;
            let mut same = [steering.ordered.clone(), before.ordered];
            same.iter_mut().for_each(|regions| regions.sort_by_key(|ranked| ranked.fenced.region));
            assert_eq!(same[0], same[1], "the same regions are offered");
            (shed, first)
        };
        let mut moved = 0;
        for client in (0..1_000_u32).map(u32::to_be_bytes) {
            let (shed, first) = steered(false, &client);
            assert_eq!(shed.is_some(), first == par);
            assert!(shed.is_none_or(|shed| shed.to == par && shed.share == Ratio(500_000)));
            moved += usize::from(shed.is_some());
            assert_eq!(steered(true, &client).0, None, "Paris is down");
        }
        assert!((450..550).contains(&moved), "{moved}");
    }

    #[test]
    fn shares_that_are_no_parts_are_refused_whole() {
        for bad in [json!(-0.1), json!(1e300), json!("0.5"), Value::Null] {
            let class = json!({ "order": ["fra"], "moves": [{ "to": "par", "share": bad }] });
            let json = json!({ "at": NOW.to_string(), "interval_ms": 1, "services": { "chat": [class] } });
            assert!(serde_json::from_value::<SharesReport>(json).is_err(), "{bad}");
        }
    }

    #[test]
    fn of_several_plans_the_newest_counts_unless_it_is_stale_or_of_a_wrong_clock() {
        let received = |at: i64| {
            let shares = SharesReport { at: Timestamp(NOW.0 + at), ..report(&json!({})) };
            let json = json!({ "node": "a", "revision": 1, "rules_sha256": "", "regions": {}, "shares": shares });
            Received { at: NOW, report: serde_json::from_value(json).unwrap() }
        };
        let newest = |ages: &[i64]| {
            let reports: Vec<Received> = ages.iter().copied().map(received).collect();
            SharesReport::newest(&reports, NOW).map(|one| one.at.0 - NOW.0)
        };
        assert_eq!(newest(&[-6_000, -1_000, -3_000]), Some(-1_000));
        assert_eq!((newest(&[-74_999]), newest(&[-75_000])), (Some(-74_999), None));
        assert_eq!(newest(&[60_000, -15_000]), Some(-15_000));
    }

    #[test]
    fn a_node_without_a_plan_tells_no_shares() {
        let json = json!({ "node": "a", "revision": 1, "rules_sha256": "", "regions": {} });
        let report: HealthReport = serde_json::from_value(json.clone()).unwrap();
        assert_eq!((report.shares.is_none(), serde_json::to_value(&report).unwrap()), (true, json));
    }
}
