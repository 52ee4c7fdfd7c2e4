//! Tests of the invariants of plans, over random fleets of regions: random fences, capacities, demand, health and
//! readings.
//!
//! Each fleet is made from a seed. `LOAD_FLEETS=10` tests ten times as many fleets.

use super::*;
use crate::geo::CountryCode;
use crate::steer::{Client, PathClass, rank, stand};
use crate::table::{RegionIndex, ServiceIndex, Table};
use crate::testing::Random;
use crate::time::{Millis, Timestamp};

const INTERVAL: Millis = Millis(10_000);
const COUNTRIES: [&str; 10] = ["DE", "FR", "AT", "IE", "GB", "US", "CA", "JP", "SG", "BR"];

/// A random fleet: its rules, the classes of its clients, and the capacities of its regions.
struct Fleet {
    random: Random,
    table: Table,
    classes: Classes,
    capacities: Vec<Option<Amount>>,
}

/// A random rules document.
fn document(random: &mut Random) -> String {
    let regions: Vec<String> = (0..2 + random.below(6))
        .map(|n| {
            let low = 1 + random.below(90);
            let high = low + 1 + random.below(100 - low);
            let (low, high) = (low as f64 / 100.0, high as f64 / 100.0);
            let country = random.pick(&COUNTRIES);
            format!(r#""r{n}": {{ "countries": ["{country}"], "load": {{ "low": {low}, "high": {high} }} }}"#)
        })
        .collect();
    let names: Vec<String> = (0..regions.len()).map(|n| format!("\"r{n}\"")).collect();
    let tier = |random: &mut Random| (*random.pick(&[r#""eu""#, r#""us""#, r#"["eu", "us"]"#, r#""*""#])).to_owned();
    let services: Vec<String> = (0..1 + random.below(2))
        .map(|n| {
            let pattern = random.pick(&["active-active", "active-active", "active-passive", "regional-sharding"]);
            let shed = if *pattern != "regional-sharding" && random.chance(10) { r#""shed": "never","# } else { "" };
            let members = random.some(&names, 1).join(", ");
            let (first, second, third) = (tier(random), tier(random), tier(random));
            format!(
                r#""s{n}": {{ "hosts": ["s{n}.example"], "pattern": "{pattern}", "regions": [{members}], {shed}
                   "residency": [{{ "clients": ["eu"], "process_in": [{first}] }},
                                 {{ "clients": ["us"], "process_in": [{second}] }},
                                 {{ "clients": ["*"], "process_in": [{third}] }}] }}"#
            )
        })
        .collect();
    format!(
        r#"{{ "version": 1, "revision": 1,
           "jurisdictions": {{ "eu": {{ "include": ["EU"] }}, "us": {{ "countries": ["US"] }} }},
           "regions": {{ {} }}, "services": {{ {} }} }}"#,
        regions.join(", "),
        services.join(", ")
    )
}

/// Runs a check over random fleets. Several fleets share a rules document, because compiling documents takes most of
/// the time.
fn for_all(property: &str, fleets: u64, mut check: impl FnMut(&mut Fleet)) {
    const OF_EACH: u64 = 25;
    let times = std::env::var("LOAD_FLEETS").ok().and_then(|times| times.parse().ok()).unwrap_or(1);
    let sets = (fleets * times).div_ceil(OF_EACH);
    for seed in 0..sets {
        let mut random = Random::new(seed);
        let document = document(&mut random);
        let table =
            Table::compile(document.as_bytes()).unwrap_or_else(|violations| panic!("{violations:?} {document}"));
        let mut demand = Demand::new();
        for service in 0..table.services().len() {
            for country in COUNTRIES {
                demand.insert((ServiceIndex::new(service), CountryCode::parse(country)), 1);
            }
        }
        let classes = Classes::new(&table, &demand);
        let mut fleet = Fleet { random, table, classes, capacities: Vec::new() };
        for nth in 0..OF_EACH {
            fleet.shuffle();
            let result = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| check(&mut fleet)));
            assert!(result.is_ok(), "{property}: fences {seed}, fleet {nth}: {document}");
        }
    }
    println!("{property}: {} random fleets", sets * OF_EACH);
}

impl Fleet {
    /// Sets random capacities and demands. The capacity of some regions isn't known.
    fn shuffle(&mut self) {
        let random = &mut self.random;
        let amount = |random: &mut Random| random.below(1_000) as Amount * if random.chance(50) { 1_000 } else { 7 };
        self.capacities = self.table.regions().iter().map(|_| random.chance(90).then(|| amount(random) + 1)).collect();
        for class in 0..self.classes.list().len() {
            self.classes.set_demand(ClassIndex(class), amount(random) / 2);
        }
    }

    /// The demand of each region's own clients, those whose home the region is.
    fn own(&self) -> Vec<Amount> {
        let mut own = vec![0; self.capacities.len()];
        for class in self.classes.list() {
            own[class.home().get()] += class.demand;
        }
        own
    }

    /// The load of each region, with the moves that have arrived.
    fn carried(&self, moves: &[Vec<Move>]) -> Vec<Amount> {
        let mut carried = self.own();
        for (class, moves) in self.classes.list().iter().zip(moves) {
            for planned in moves {
                carried[class.home().get()] -= planned.reached;
                carried[planned.to.get()] += planned.reached;
            }
        }
        carried
    }

    /// All regions as up, with fresh readings of these loads.
    fn inputs(&self, used: &[Amount], at: Timestamp) -> Vec<RegionInput> {
        let input = |(used, capacity): (&Amount, &Option<Amount>)| RegionInput {
            is_up: true,
            capacity: *capacity,
            reading: Some(Reading { used: *used, at }),
            is_drilled: false,
        };
        used.iter().zip(&self.capacities).map(input).collect()
    }

    fn plan(&self, regions: &[RegionInput], previous: Option<&Plan>, now: Timestamp) -> Plan {
        plan(&self.table, &self.classes, &PlanInput { regions, interval: INTERVAL }, previous, now)
    }

    /// Regions in random states: down, or with a stale, missing or random reading.
    fn any(&mut self, now: Timestamp) -> Vec<RegionInput> {
        let own = self.own();
        let mut inputs = self.inputs(&own, now);
        let random = &mut self.random;
        for region in &mut inputs {
            region.is_up = random.chance(85);
            let age = random.below(120_000) as i64;
            region.reading = match random.below(10) {
                0 => None,
                1 | 2 => region.reading.map(|reading| Reading { at: Timestamp(now.0 - age), ..reading }),
                3 => region.reading.map(|reading| Reading { used: random.below(2_000_000) as Amount, ..reading }),
                _ => region.reading,
            };
        }
        inputs
    }

    /// Makes some plans with random states of the regions. Returns the last states, the last two plans and the time.
    fn history(&mut self) -> (Vec<RegionInput>, Plan, Plan, Timestamp) {
        let mut now = Timestamp(1_000_000);
        let first = self.any(now);
        let mut before = self.plan(&first, None, now);
        for _ in 0..self.random.below(4) {
            now = now.after(Millis(self.random.below(90_000) as u64));
            let inputs = self.any(now);
            before = self.plan(&inputs, Some(&before), now);
        }
        now = now.after(Millis(self.random.below(90_000) as u64));
        let inputs = self.any(now);
        let plan = self.plan(&inputs, Some(&before), now);
        (inputs, before, plan, now)
    }

    /// The amount of a region's low mark.
    fn low(&self, region: usize) -> Amount {
        self.marks(region).low.of(self.capacities[region].unwrap_or(0))
    }

    fn marks(&self, region: usize) -> crate::rules::RegionLoad {
        *self.table.regions()[region].load.clone().unwrap()
    }

    /// The amount that a plan moves to each region.
    fn received(&self, plan: &Plan) -> Vec<Amount> {
        let mut amounts = vec![0; self.capacities.len()];
        for index in 0..self.classes.list().len() {
            for planned in plan.moves(ClassIndex(index)) {
                amounts[planned.to.get()] += planned.amount;
            }
        }
        amounts
    }
}

#[test]
fn no_client_is_moved_out_of_its_fence() {
    for_all("fence", 100_000, |fleet| {
        let (_, _, plan, _) = fleet.history();
        for country in COUNTRIES {
            let service = ServiceIndex::new(fleet.random.below(fleet.table.services().len()));
            let client = Client { country: CountryCode::parse(country), ..Client::default() };
            let ranking = rank(&fleet.table, service, &stand(&fleet.table, &client), PathClass::Inference);
            let Some(class) = fleet.classes.find(service, &ranking) else { continue };
            let point = Point::of_bucket(u32::try_from(fleet.random.below(64)).unwrap());
            if let Some(chosen) = plan.choose(class, point) {
                assert!(ranking.order.iter().any(|ranked| ranked.fenced.region == chosen));
                assert_eq!(ranking.only, None, "regional sharding keeps its clients at home");
                assert!(fleet.table.service(service).shedding.moves);
            }
        }
    });
}

#[test]
fn no_bucket_is_moved_out_of_its_fence() {
    let mut moved = 0_u64;
    for_all("fence of buckets", 100_000, |fleet| {
        let (_, _, plan, _) = fleet.history();
        let shares = BucketShares::new(&fleet.classes, &plan, |_| true);
        for class in fleet.classes.list() {
            // Another order with the same home, possibly with fewer regions.
            let mut order = class.order.clone();
            let rest = order.len() - 1;
            for place in 1..rest {
                order.swap(place, place + fleet.random.below(rest - place + 1));
            }
            order.truncate(1 + fleet.random.below(order.len()));
            for (order, is_planned) in [(&class.order, true), (&order, false)] {
                let Some(buckets) = shares.of(class.service, order) else { continue };
                assert!(class.moves, "a class that may not be moved has buckets");
                assert!(buckets.iter().flatten().all(|region| order[1..].contains(region)));
                moved += u64::from(is_planned);
            }
        }
    });
    assert!(moved > 15_000, "only {moved} classes have moved clients");
}

#[test]
fn no_region_takes_more_than_its_room_and_none_takes_clients_without_a_reading() {
    for_all("room", 100_000, |fleet| {
        let (inputs, before, plan, _) = fleet.history();
        let (received, received_before) = (fleet.received(&plan), fleet.received(&before));
        for (index, region) in inputs.iter().enumerate() {
            let state = plan.region(RegionIndex::new(index));
            assert!(received[index] <= state.room, "region {index}: {state:?} is given {}", received[index]);
            match state.standing {
                Standing::Known | Standing::Warming(_) => {
                    assert!(received[index] == 0 || received[index] + state.natural <= fleet.low(index));
                }
                // A stale reading never counts as idle.
                Standing::Held | Standing::Fading => assert!(received[index] <= received_before[index]),
                Standing::Down | Standing::Unknown => assert_eq!(received[index], 0),
            }
            assert!(region.capacity.is_some() || received[index] == 0);
        }
    });
}

#[test]
fn no_region_both_gives_and_takes_clients() {
    for_all("one way", 100_000, |fleet| {
        let (_, _, plan, _) = fleet.history();
        let received = fleet.received(&plan);
        for (index, class) in fleet.classes.list().iter().enumerate() {
            let home = class.home();
            let standing = plan.region(home).standing;
            if standing == Standing::Known && plan.region(home).natural > fleet.low(home.get()) {
                assert!(received[home.get()] == 0, "class {index}");
            }
            assert!(plan.moves(ClassIndex(index)).iter().all(|planned| planned.to != home));
        }
    });
}

#[test]
fn no_more_is_moved_than_is_needed_and_no_faster_than_the_slew() {
    for_all("slew", 100_000, |fleet| {
        let now = Timestamp(0);
        let inputs = fleet.inputs(&fleet.own(), now);
        let plan = fleet.plan(&inputs, None, now);
        let mut moved = vec![0; fleet.capacities.len()];
        for (index, class) in fleet.classes.list().iter().enumerate() {
            assert!(plan.share(ClassIndex(index)).0 <= 50_000, "a first step may be 5 % at most");
            moved[class.home().get()] +=
                plan.moves(ClassIndex(index)).iter().map(|planned| planned.amount).sum::<Amount>();
        }
        for (index, own) in fleet.own().into_iter().enumerate() {
            let Some(capacity) = fleet.capacities[index] else {
                assert_eq!(moved[index], 0);
                continue;
            };
            let marks = fleet.marks(index);
            let need = own - staying(own, capacity, marks.low, marks.high);
            // Shares are rounded up by a millionth.
            assert!(moved[index] <= need + own / 1_000_000 + 1, "{} of {need}", moved[index]);
        }
    });
}

#[test]
fn with_constant_demand_the_plan_settles_and_never_swings() {
    for_all("settles", 1_000, |fleet| {
        let mut now = Timestamp(0);
        let mut plan = fleet.plan(&fleet.inputs(&fleet.own(), now), None, now);
        let mut totals: Vec<Vec<u32>> = Vec::new();
        for _ in 0..60 {
            now = now.after(INTERVAL);
            let arrived = planning::arrived(&fleet.table, &fleet.classes, Some(&plan), INTERVAL);
            let used = fleet.carried(&arrived);
            plan = fleet.plan(&fleet.inputs(&used, now), Some(&plan), now);
            totals.push((0..fleet.classes.list().len()).map(|class| plan.share(ClassIndex(class)).0).collect());
        }
        let last = totals.last().unwrap();
        for class in 0..last.len() {
            let of_class: Vec<i64> = totals.iter().map(|shares| i64::from(shares[class])).collect();
            assert!(of_class[40..].iter().all(|share| (share - of_class[59]).abs() <= 2), "{of_class:?}");
            // A share never swings: once it has shrunk, it doesn't grow again.
            let shrank = of_class.windows(2).position(|pair| pair[1] < pair[0] - 2);
            let grows = |at: usize| of_class[at..].windows(2).any(|pair| pair[1] > pair[0] + 2);
            assert!(!shrank.is_some_and(grows), "{of_class:?}");
        }
    });
}

/// The most of a dead region's demand that fits into the rooms, by trying every cut of the flow network.
fn fits(fleet: &Fleet, rooms: &[Amount], dead: RegionIndex) -> Amount {
    let moving: Vec<&Class> = fleet.classes.list().iter().filter(|class| class.moves && class.home() == dead).collect();
    (0..1_u32 << moving.len())
        .map(|choice| {
            let mut reached = vec![false; rooms.len()];
            let mut cut = 0;
            for (nth, class) in moving.iter().enumerate() {
                match choice >> nth & 1 {
                    0 => cut += class.demand,
                    _ => class.order[1..].iter().for_each(|region| reached[region.get()] = true),
                }
            }
            cut + rooms.iter().zip(reached).filter(|(_, reached)| *reached).map(|(room, _)| room).sum::<Amount>()
        })
        .min()
        .unwrap_or(0)
}

#[test]
fn when_a_region_dies_no_other_rises_above_its_low_mark_and_all_that_fits_is_moved() {
    for_all("death", 100_000, |fleet| {
        let now = Timestamp(0);
        let own = fleet.own();
        let mut inputs = fleet.inputs(&own, now);
        let dead = RegionIndex::new(fleet.random.below(own.len()));
        inputs[dead.get()].is_up = false;
        let plan = fleet.plan(&inputs, None, now);
        let rooms: Vec<Amount> = (0..own.len()).map(|index| plan.region(RegionIndex::new(index)).room).collect();
        let of_dead = |class: &&(usize, &Class)| class.1.moves && class.1.home() == dead;
        let classes: Vec<(usize, &Class)> = fleet.classes.list().iter().enumerate().collect();
        // Clients with only one region in their fence can't be moved.
        let elsewhere = |class: &&(usize, &Class)| class.1.order.len() > 1;
        let wanted: Amount = classes.iter().filter(of_dead).filter(elsewhere).map(|(_, class)| class.demand).sum();
        let left: Amount = classes.iter().filter(of_dead).map(|(index, _)| plan.left(ClassIndex(*index))).sum();
        assert_eq!(wanted - left, fits(fleet, &rooms, dead), "some of the demand that fits isn't moved");
        for (index, amount) in fleet.received(&plan).into_iter().enumerate() {
            let before = own[index];
            assert!(before + amount <= before.max(fleet.low(index)), "region {index}: {before} and {amount}");
        }
    });
}

#[test]
fn a_larger_share_moves_all_clients_that_a_smaller_share_moves() {
    for_all("monotone", 10_000, |fleet| {
        let later = Timestamp(86_400_000); // a day after nothing was moved: the slew allows everything
        let own = fleet.own();
        let more = fleet.random.below(500_000) as Amount;
        // Classes compete for the same room. So only fleets with a single movable class are tested.
        let movable: Vec<usize> =
            (0..fleet.classes.list().len()).filter(|class| fleet.classes.list()[*class].moves).collect();
        let [class] = movable[..] else { return };
        let donor = fleet.classes.list()[class].home().get();
        let settled = |used: Amount| {
            let mut used_by_all = own.clone();
            used_by_all[donor] = used;
            fleet.plan(&fleet.inputs(&used_by_all, later), Some(&Plan::default()), later)
        };
        let (small, large) = (settled(own[donor]), settled(own[donor] + more));
        let moved = |plan: &Plan| plan.moves(ClassIndex(class)).iter().map(|planned| planned.amount).sum::<Amount>();
        let (before, after) = (small.share(ClassIndex(class)), large.share(ClassIndex(class)));
        // If all rooms are full, the same amount is a smaller share of more clients.
        assert!(after >= before || moved(&large) + 10 >= moved(&small), "{before} {after}");
        for point in (0..BUCKETS).map(Point::of_bucket).filter(|_| after >= before) {
            let moves = |plan: &Plan| plan.choose(ClassIndex(class), point).is_some();
            assert!(moves(&large) || !moves(&small));
        }
    });
}

#[test]
fn equal_inputs_give_equal_plans() {
    for_all("equal", 5_000, |fleet| {
        let mut other = Fleet {
            random: fleet.random.clone(),
            table: Table::compile(document(&mut Random::new(0)).as_bytes()).unwrap(),
            classes: fleet.classes.clone(),
            capacities: fleet.capacities.clone(),
        };
        core::mem::swap(&mut other.table, &mut fleet.table);
        let first = other.history();
        core::mem::swap(&mut other.table, &mut fleet.table);
        let second = fleet.history();
        assert_eq!((first.0, first.1, first.2), (second.0, second.1, second.2));
    });
}
