//! The fence at the edge, over random documents with quotas, service tiers, orders and rollouts, and random loads,
//! shares, times to the first token, health and cool-downs: whatever they are, no endpoint outside of a client's fence
//! is asked.

use bailiwick_rules::bundle::Version;
use bailiwick_rules::report::{Shares, SharesReport};
use bailiwick_rules::rollout::Arm;
use bailiwick_rules::rules::Change;
use bailiwick_rules::rules::Ratio;
use bailiwick_rules::steer::first_token::{FirstTokens, Medians};
use bailiwick_rules::steer::{Ask, Ranking, Steering, decide, rank, stand};
use bailiwick_rules::table::{RegionIndex, Table};
use bailiwick_rules::testing::{Random, ask, conditions, document, limit, roll_out, version};
use bailiwick_rules::time::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::decide::admission::check_tier;
use crate::decide::pin::Pin;

/// Documents, and the requests of each.
const DOCUMENTS: u64 = 4_000;
const REQUESTS: u32 = 30;

/// A random valid document with quotas, tiers, orders and rollouts. Some of its fences are wide.
fn table(random: &mut Random) -> Table {
    let mut document = document(random);
    limit(random, &mut document);
    if random.chance(70) {
        roll_out(random, &mut document);
    }
    for service in document["services"].as_object_mut().unwrap().values_mut() {
        service["order"] = json!(random.pick(&["distance", "first-token"]));
        for rule in service["residency"].as_array_mut().unwrap().iter_mut().filter(|_| random.chance(30)) {
            rule["process_in"] = json!(["*"]);
        }
    }
    Table::compile(document.to_string().as_bytes()).unwrap_or_else(|faults| panic!("{faults:#?}"))
}

/// What a node may say of shares: of this client's fence or of another order, to any region.
fn shares(random: &mut Random, table: &Table, ask: &Ask<'_>, ranking: &Ranking, at: Timestamp) -> Shares {
    let name = |region: RegionIndex| table.region(region).id.to_string();
    let all: Vec<String> = table.regions().iter().map(|region| region.id.to_string()).collect();
    let own: Vec<String> = ranking.order.iter().map(|ranked| name(ranked.fenced.region)).collect();
    let order = if random.chance(80) { own } else { random.some(&all, 0) };
    let moves: Vec<Value> = (0..random.below(3))
        .map(|_| json!({ "to": random.pick(&all), "share": random.below(11) as f64 / 10.0 }))
        .collect();
    let service = table.service(ask.service).id.to_string();
    let report = json!({ "at": at.to_string(), "interval_ms": 5000,
                         "services": { service: [{ "order": order, "moves": moves }] } });
    let report: SharesReport = serde_json::from_value(report).unwrap();
    Shares::read(table, &report, at)
}

fn first_tokens(random: &mut Random, table: &Table) -> FirstTokens {
    let mut medians = Medians::new();
    for service in table.services() {
        for region in table.regions() {
            if random.chance(80) {
                medians.entry(service.id.clone()).or_default().insert(region.id.clone(), 1 << random.below(31));
            }
        }
    }
    FirstTokens::read(table, &medians)
}

#[test]
fn whatever_loads_quotas_and_tiers_say_nothing_outside_the_fence_is_asked() {
    let (mut cases, mut planned, mut moved, mut refused, mut arms) = (0_u32, 0_u32, 0_u32, 0_u32, [0_u32; 2]);
    let mut pinned = 0;
    for seed in 0..DOCUMENTS {
        let mut random = Random::new(seed);
        let table = table(&mut random);
        for nth in 0..REQUESTS {
            let ask = ask(&mut random, &table);
            let (health, local, now) = conditions(&mut random, &table);
            let conditions = Conditions { health: &health, local: &local, now };
            let ranking = rank(&table, ask.service, &stand(&table, &ask.client), ask.path_class);
            let mut steering = decide(&table, &ranking, ask.model, &conditions);
            let by_distance = steering.ordered.clone();
            // As `prepare` does.
            let is_elsewhere = first_tokens(&mut random, &table).order(&table, &ask, &ranking, &mut steering);
            if !is_elsewhere {
                let shares = shares(&mut random, &table, &ask, &ranking, now);
                let _ = shares.shed(&table, ask.service, &ranking, &nth.to_be_bytes(), &mut steering);
            }
            cases += 1;
            moved += u32::from(by_distance != steering.ordered);
            let needs = Needs::default();
            let rollout = table.rollout_of(ask.service);
            let affinity = &nth.to_string();
            let version = random.pick(&[None, Some('0'), Some('1'), Some('2'), Some('3')]).map(version);
            let by = *random.pick(&["a", "b", "c", "d", "none"]);
            let choice = version.and_then(|digits| Version::parse(&digits));
            let choice = choice.map(|version| Choice { version, region: table.region_named(by) });
            let request =
                PlanRequest { rollout, model: ask.model, needs: &needs, conditions, arm: None, choice, affinity };
            pinned += check_pin(&mut random, &table, &ranking, &steering, &request, seed);
            let Ok(mut plan) = Plan::from_steering(&table, ask.service, &steering, &request, |_| true) else {
                continue;
            };
            let tenant = ask.client.tenant.map(|tenant| table.tenant(tenant));
            plan.set_tier(tenant.and_then(|tenant| table.tier_of(tenant)));
            planned += 1;
            check(&table, &ranking, &steering, &plan, seed);
            check_arms(&table, &request, &plan, seed);
            let of = |arm: Arm| plan.targets().iter().any(|target| target.arm() == Some(arm));
            arms = [arms[0] + u32::from(of(Arm::Old)), arms[1] + u32::from(of(Arm::New))];
            let loads: Vec<Option<Ratio>> =
                table.regions().iter().map(|_| random.chance(80).then(|| Ratio(1 << random.below(22)))).collect();
            let regions = || plan.targets().iter().map(Target::region);
            let load = |region: RegionIndex| loads[region.get()];
            if let Some(failure) = tenant.and_then(|tenant| check_tier(&table, tenant, regions(), load).err()) {
                assert_eq!(failure.status(), 429, "the only failure is a refusal");
                refused += 1;
            }
        }
    }
    println!(
        "outside the fence: 0 in {cases} random cases; {planned} plans, {moved} in another order, {refused} refused, \
         {arms:?} with an old or new arm, {pinned} by an operator's pin"
    );
    assert!(pinned > 10_000);
    assert!(cases >= 100_000 && planned > 20_000 && moved > 1_000 && refused > 100);
    assert!(arms.iter().all(|plans| *plans > 1_000), "{arms:?}");
}

/// An operator's pin is followed into that region alone, and only if the fence has it, whatever its health. Returns how
/// many plans were made.
fn check_pin(
    random: &mut Random,
    table: &Table,
    ranking: &Ranking,
    steering: &Steering,
    request: &PlanRequest<'_>,
    seed: u64,
) -> u32 {
    let name = random.pick(table.regions()).id.clone();
    let region = table.region_named(name.as_str()).unwrap();
    let pin = Pin { region, arm: *random.pick(&[None, None, Some(Arm::Old), Some(Arm::New)]) };
    let is_fenced = ranking.order.iter().any(|ranked| ranked.fenced.region == region);
    match Plan::in_region(table, steering, request, |_| true, pin) {
        Ok(plan) => {
            assert!(is_fenced && !plan.targets().is_empty(), "seed {seed}: {} is outside", table.region(region).id);
            for target in plan.targets() {
                assert_eq!(target.region(), region, "seed {seed}: a pin keeps to its region");
                assert!(pin.arm.is_none() || target.arm() == pin.arm, "seed {seed}: a pin keeps to its arm");
            }
            let is_of_bundle = request.rollout.is_some_and(|rollout| rollout.bundle().is_some());
            assert!(pin.arm.is_none() || !is_of_bundle, "seed {seed}: a pin chooses no bundle's version");
            1
        }
        Err(failure) => {
            assert_eq!(failure == Failure::PinOutside, !is_fenced, "seed {seed}: {failure:?}");
            0
        }
    }
}

/// The new endpoint of a rollout is asked only by its service, in regions that have begun; and a model's name is
/// replaced only in the new arm. Which version of a bundle the application names decides its arm, and nothing else.
fn check_arms(table: &Table, request: &PlanRequest<'_>, plan: &Plan, seed: u64) {
    for target in plan.targets() {
        let share = request.rollout.and_then(|rollout| rollout.share(target.region()));
        assert!(target.arm().is_none() || share.is_some(), "seed {seed}: an arm where nothing has begun");
        if let Some((rollout, (_, to))) = request.rollout.and_then(|rollout| Some((rollout, rollout.bundle()?))) {
            let choice = request.choice.filter(|_| share.is_some());
            let arm = match choice.map(|choice| choice.version) {
                Some(version) if version == to => Some(Arm::New),
                Some(version) if rollout.pin(target.region()) == Some(version) => Some(Arm::Old),
                _ => None,
            };
            let is_chosen_here = choice.is_some_and(|choice| choice.region == Some(target.region()));
            let is_judged = arm.is_some() && is_chosen_here;
            assert_eq!((target.arm(), target.is_judged()), (arm, is_judged), "seed {seed}: the arm is told");
            assert_eq!(target.is_trial(), arm == Some(Arm::New) && share < Some(100), "seed {seed}: a trial");
        }
        if table.is_rolled_out(target.region(), target.id()) {
            assert_eq!(target.arm(), Some(Arm::New), "seed {seed}: the new endpoint is for the new arm");
        }
        let is_new = target.model().is_some_and(|name| name.starts_with("new-"));
        let is_of_model = request.rollout.is_some_and(|rollout| matches!(rollout.rule.change, Change::Model { .. }));
        assert_eq!(is_new, is_of_model && target.arm() == Some(Arm::New), "seed {seed}: the arm's name of the model");
    }
}

/// Every target lies in the fence that residency gives, and only the regions that steering offers are asked.
fn check(table: &Table, ranking: &Ranking, steering: &Steering, plan: &Plan, seed: u64) {
    for target in plan.targets() {
        let region = target.region();
        let is_there = |ranked: &Ranked| ranked.fenced.region == region;
        assert!(ranking.order.iter().any(is_there), "seed {seed}: {} is outside", table.region(region).id);
        assert!(steering.ordered.iter().any(is_there), "seed {seed}: {} isn't offered", table.region(region).id);
    }
}
