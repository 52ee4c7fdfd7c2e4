//! The simulated world: regions with a load, and cohorts of clients that move between them. Takes a table (the compiled
//! rules), a scenario and a way of steering; plays the scenario step by step, and returns the highest loads, the
//! refused requests and the moved clients. Called by `bailiwick simulate`.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

use super::scenario::Scenario;
use crate::geo::CountryCode;
use crate::load::{ClassIndex, Classes, Demand, Plan, PlanInput, Reading, RegionInput, plan};
use crate::rules::ShedAt;
use crate::table::{RegionIndex, Table};
use crate::time::{Millis, Timestamp};

/// How clients are steered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// To the nearest region of the fence, no matter whether it is up.
    Nearest,
    /// To the nearest region of the fence that is up.
    Health,
    /// By the plan, which moves clients because of health and load.
    Load,
}

impl Way {
    /// All ways, worst first.
    pub const ALL: [Self; 3] = [Self::Nearest, Self::Health, Self::Load];

    /// The name of this way in JSON and tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nearest => "nearest",
            Self::Health => "health",
            Self::Load => "load",
        }
    }
}

/// The result of a simulation.
#[derive(Clone, PartialEq, Debug)]
pub struct Outcome {
    /// How clients were steered.
    pub way: Way,
    /// The highest load that was offered to a region that was up (1 is full), with the region and the time.
    pub peak: (f64, Option<RegionIndex>, Millis),
    /// The part of all demand that no region served, from 0 to 1.
    pub refused: f64,
    /// The largest part of the demand of one step that no region served.
    pub worst_step: f64,
    /// How often a region collapsed because it was offered too much.
    pub collapses: u32,
    /// How many times a client went to another region than before, summed over all clients.
    pub moves: f64,
    /// How often the share that the plan moves away turned from growing to shrinking, or back.
    pub turns: u32,
    /// The state over time, in at most some hundred samples.
    pub samples: Vec<Sample>,
}

/// What happened since the sample before.
#[derive(Clone, PartialEq, Debug)]
pub struct Sample {
    /// The time at which the sample ends.
    pub at: Millis,
    /// By region, the highest load since the sample before: the offered demand divided by the capacity. `None` if the
    /// region was down all the time.
    pub loads: Vec<Option<f64>>,
    /// The part of the demand since the sample before that no region served.
    pub refused: f64,
}

/// The number of samples that an outcome has at most, not counting the first.
const SAMPLES: u64 = 288;

/// A turn is counted once a moved share has gone back by this much.
const TURN: f64 = 0.02;

/// Plays a scenario. A region for which the rules state no capacity serves everything that it is offered.
#[must_use]
pub fn simulate(table: &Table, scenario: &Scenario, way: Way) -> Outcome {
    let mut world = World::new(table, scenario, way);
    let steps = scenario.length.0 / scenario.step.0.max(1);
    let every = steps.div_ceil(SAMPLES).max(1);
    for step in 0..=steps {
        let at = Millis(step * scenario.step.0);
        world.live(at);
        world.steer(at);
        world.follow();
        world.count(at);
        if step % every == 0 {
            world.sample(at);
        }
    }
    world.end()
}

/// How clients are spread over regions: the part of them in each.
type Spread = Vec<(RegionIndex, f64)>;

/// All clients of one class.
struct Cohort {
    /// Countries with their peaks, in requests at once.
    countries: Vec<(Option<CountryCode>, f64)>,
    /// The present demand of all these countries, in requests at once.
    demand: f64,
    /// Where the clients are: first those that follow a change at once or after the TTL, then those whose resolvers
    /// keep answers for longer.
    prompt: Spread,
    late: Spread,
    /// Where all clients of the cohort should be.
    goal: Spread,
    /// The part of the prompt and of the late clients that follows a change in one step.
    prompt_pace: f64,
    late_pace: f64,
    /// The highest or lowest moved share since the last turn, and whether it was growing.
    swing: (f64, bool),
}

struct World<'s> {
    table: &'s Table,
    scenario: &'s Scenario,
    way: Way,
    classes: Classes,
    cohorts: Vec<Cohort>,
    regions: Vec<SimulatedRegion>,
    plan: Option<Plan>,
    /// The demand that was offered to each region at past times, newest last.
    past: VecDeque<(Millis, Vec<f64>)>,
    outcome: Outcome,
    demanded: f64,
    refused: f64,
    peak_demand: f64,
    /// Since the last sample: the highest load of each region, then the sums of demand and of refused demand.
    highest: Vec<Option<f64>>,
    since: (f64, f64),
}

/// A region.
#[derive(Clone)]
struct SimulatedRegion {
    capacity: Option<f64>,
    offered: f64,
    /// When the region serves again, if it is down.
    down_until: Option<Millis>,
    /// Whether probes report the region as up, and since when its real state has differed from that.
    thought_up: bool,
    differs_since: Option<Millis>,
    /// Since when it has been offered so much that it may collapse.
    too_much_since: Option<Millis>,
    reading: Option<(Millis, f64)>,
}

impl<'s> World<'s> {
    fn new(table: &'s Table, scenario: &'s Scenario, way: Way) -> Self {
        let classes = Classes::new(table, &scenario.demand);
        let cohorts = cohorts(table, scenario, &classes);
        let capacity = |index| RegionInput::stated(table, RegionIndex(index), true, None).capacity.map(in_requests);
        let place = |index| SimulatedRegion {
            capacity: capacity(index),
            offered: 0.0,
            down_until: None,
            thought_up: true,
            differs_since: None,
            too_much_since: None,
            reading: None,
        };
        let outcome = Outcome {
            way,
            peak: (0.0, None, Millis(0)),
            refused: 0.0,
            worst_step: 0.0,
            collapses: 0,
            moves: 0.0,
            turns: 0,
            samples: Vec::new(),
        };
        let regions = (0..).take(table.regions().len()).map(place).collect();
        let peak_demand = scenario.demand.values().map(|amount| in_requests(*amount)).sum();
        Self {
            table,
            scenario,
            way,
            classes,
            cohorts,
            regions,
            plan: None,
            past: VecDeque::new(),
            outcome,
            demanded: 0.0,
            refused: 0.0,
            peak_demand,
            highest: vec![None; table.regions().len()],
            since: (0.0, 0.0),
        }
    }

    /// Sets the demand of the time of day, and which regions are down and are known to be down.
    fn live(&mut self, at: Millis) {
        for (index, cohort) in self.cohorts.iter_mut().enumerate() {
            let now = |(country, peak): &(Option<CountryCode>, f64)| peak * self.scenario.daylight(*country, at);
            cohort.demand = cohort.countries.iter().map(now).sum();
            self.classes.set_demand(ClassIndex(index), in_thousandths(cohort.demand));
        }
        for event in self.scenario.events.iter().filter(|event| event.at <= at) {
            let ends = Millis(event.at.0 + event.lasts.0);
            if at < ends {
                let place = &mut self.regions[event.region.get()];
                place.down_until = place.down_until.max(Some(ends));
            }
        }
        for place in &mut self.regions {
            place.down_until = place.down_until.filter(|until| at < *until);
            let is_up = place.down_until.is_none();
            if is_up == place.thought_up {
                place.differs_since = None;
            } else if at.0 - place.differs_since.get_or_insert(at).0 >= self.scenario.detect.0 {
                place.thought_up = is_up;
                place.differs_since = None;
            }
        }
    }

    /// Decides where all clients should be.
    fn steer(&mut self, at: Millis) {
        if self.way == Way::Load {
            let regions = self.observed_regions(at);
            let input = PlanInput { regions: &regions, interval: self.scenario.readings };
            let now = Timestamp(i64::try_from(at.0).unwrap_or(i64::MAX));
            self.plan = Some(plan(self.table, &self.classes, &input, self.plan.as_ref(), now));
        }
        for (index, class) in self.classes.list().iter().enumerate() {
            let is_up = |region: &&RegionIndex| self.regions[region.get()].thought_up;
            let stays = match self.way {
                Way::Nearest => class.home(),
                _ if !class.leaves_home => class.home(),
                _ => class.order.iter().find(is_up).copied().unwrap_or(class.home()),
            };
            let moves = self.plan.as_ref().map_or(&[][..], |plan| plan.moves(ClassIndex(index)));
            let cohort = &mut self.cohorts[index];
            cohort.goal.clear();
            let mut left = 1.0;
            for moved in moves.iter().filter(|moved| moved.share.0 > 0) {
                let share = f64::from(moved.share.0) / 1e6;
                left -= share;
                add(&mut cohort.goal, moved.to, share);
            }
            add(&mut cohort.goal, stays, left.max(0.0));
            self.outcome.turns += u32::from(cohort.turns(1.0 - left));
        }
    }

    /// What the planner sees: health as probes report it, and loads as they were some time ago.
    fn observed_regions(&mut self, at: Millis) -> Vec<RegionInput> {
        let due = Millis(at.0.saturating_sub(self.scenario.delay.0));
        let is_round = at.0 % self.scenario.readings.0.max(1) < self.scenario.step.0;
        if let Some((when, offered)) = self.past.iter().rev().find(|(when, _)| *when <= due).filter(|_| is_round) {
            for (place, offered) in self.regions.iter_mut().zip(offered) {
                // A region that is down can't be read.
                if place.down_until.is_none() {
                    place.reading = Some((*when, *offered));
                }
            }
        }
        let input_of = |(index, place): (u32, &SimulatedRegion)| {
            let reading = place.reading.map(|(at, offered)| Reading {
                used: in_thousandths(offered),
                at: Timestamp(i64::try_from(at.0).unwrap_or(i64::MAX)),
            });
            RegionInput::stated(self.table, RegionIndex(index), place.thought_up, reading)
        };
        (0..).zip(&self.regions).map(input_of).collect()
    }

    /// Moves clients towards where they should be, each group at its own speed.
    fn follow(&mut self) {
        for place in &mut self.regions {
            place.offered = 0.0;
        }
        let overstay = self.scenario.overstay;
        let clients = self.scenario.clients as f64;
        for cohort in &mut self.cohorts {
            let late = if cohort.late_pace < cohort.prompt_pace { overstay } else { 0.0 };
            let moved = approach(&mut cohort.prompt, &cohort.goal, cohort.prompt_pace) * (1.0 - late)
                + approach(&mut cohort.late, &cohort.goal, cohort.late_pace) * late;
            let peak: f64 = cohort.countries.iter().map(|(_, peak)| peak).sum();
            self.outcome.moves += moved * clients * peak / self.peak_demand.max(f64::MIN_POSITIVE);
            for (spread, part) in [(&cohort.prompt, 1.0 - late), (&cohort.late, late)] {
                for (region, share) in spread {
                    self.regions[region.get()].offered += cohort.demand * share * part;
                }
            }
        }
    }

    /// Counts what is served and what is refused, and lets overloaded regions collapse.
    fn count(&mut self, at: Millis) {
        let (mut offered, mut refused) = (0.0, 0.0);
        for (index, place) in self.regions.iter_mut().enumerate() {
            offered += place.offered;
            let capacity = place.capacity.unwrap_or(f64::INFINITY);
            if place.down_until.is_some() {
                refused += place.offered;
                continue;
            }
            refused += (place.offered - capacity).max(0.0);
            let load = place.offered / capacity;
            let highest = &mut self.highest[index];
            *highest = Some(highest.map_or(load, |highest| highest.max(load)));
            if load > self.outcome.peak.0 {
                self.outcome.peak = (load, Some(RegionIndex::new(index)), at);
            }
            let Some(collapse) = &self.scenario.collapse else { continue };
            if load < collapse.load {
                place.too_much_since = None;
            } else if at.0 - place.too_much_since.get_or_insert(at).0 >= collapse.after.0 {
                place.too_much_since = None;
                place.down_until = Some(Millis(at.0 + collapse.lasts.0));
                self.outcome.collapses += 1;
            }
        }
        self.past.push_back((at, self.regions.iter().map(|place| place.offered).collect()));
        let most = usize::try_from(self.scenario.delay.0 / self.scenario.step.0.max(1)).unwrap_or(0) + 2;
        while self.past.len() > most {
            self.past.pop_front();
        }
        self.outcome.worst_step = self.outcome.worst_step.max(part_of(refused, offered));
        self.demanded += offered;
        self.refused += refused;
        self.since = (self.since.0 + offered, self.since.1 + refused);
    }

    fn sample(&mut self, at: Millis) {
        let loads = core::mem::replace(&mut self.highest, vec![None; self.regions.len()]);
        let (offered, refused) = core::mem::take(&mut self.since);
        self.outcome.samples.push(Sample { at, loads, refused: part_of(refused, offered) });
    }

    fn end(mut self) -> Outcome {
        self.outcome.refused = part_of(self.refused, self.demanded);
        self.outcome
    }
}

fn in_requests(amount: u64) -> f64 {
    amount as f64 / 1_000.0
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a positive count
fn in_thousandths(requests: f64) -> u64 {
    libm::round(requests * 1_000.0) as u64
}

fn part_of(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

fn cohorts(table: &Table, scenario: &Scenario, classes: &Classes) -> Vec<Cohort> {
    let mut of_class: BTreeMap<usize, Vec<(Option<CountryCode>, f64)>> = BTreeMap::new();
    for (&(service, country), &peak) in &scenario.demand {
        let alone = Demand::from([((service, country), peak)]);
        // A country belongs to the class whose regions have the same order as the country's own.
        let order = Classes::new(table, &alone).list().first().map(|class| class.order.clone());
        let class =
            classes.list().iter().position(|class| class.service == service && Some(&class.order) == order.as_ref());
        if let Some(class) = class {
            of_class.entry(class).or_default().push((country, in_requests(peak)));
        }
    }
    let step = scenario.step;
    let cohort = |(index, class): (usize, &crate::load::Class)| {
        let service = table.service(class.service);
        let at_home = vec![(class.home(), 1.0)];
        let (prompt_pace, late_pace) = match service.shedding.at {
            ShedAt::Edge => (1.0, 1.0),
            ShedAt::Dns => {
                let ttl = Millis(u64::from(service.ttl.min.max(1)) * 1_000);
                (pace(step, ttl), pace(step, ttl.max(scenario.overstay_for)))
            }
        };
        Cohort {
            countries: of_class.remove(&index).unwrap_or_default(),
            demand: 0.0,
            prompt: at_home.clone(),
            late: at_home.clone(),
            goal: at_home,
            prompt_pace,
            late_pace,
            swing: (0.0, true),
        }
    };
    classes.list().iter().enumerate().map(cohort).collect()
}

/// The part of the clients that ask again in one step, if they keep an answer for `kept_for`.
fn pace(step: Millis, kept_for: Millis) -> f64 {
    (step.0 as f64 / kept_for.0.max(1) as f64).min(1.0)
}

fn add(spread: &mut Spread, region: RegionIndex, share: f64) {
    match spread.iter_mut().find(|(known, _)| *known == region) {
        Some((_, there)) => *there += share,
        None => spread.push((region, share)),
    }
}

/// Moves a spread towards its goal. Returns the part of clients that moved.
fn approach(spread: &mut Spread, goal: &Spread, pace: f64) -> f64 {
    let mut moved = 0.0;
    for (region, share) in goal {
        let there = spread.iter().find(|(known, _)| known == region).map_or(0.0, |(_, there)| *there);
        let change = (share - there) * pace;
        moved += change.max(0.0);
        add(spread, *region, change);
    }
    for (_, there) in spread.iter_mut().filter(|(region, _)| !goal.iter().any(|(known, _)| known == region)) {
        *there -= *there * pace;
    }
    spread.retain(|(_, share)| *share > 1e-9);
    moved
}

impl Cohort {
    /// Whether the moved share has turned from growing to shrinking, or back.
    fn turns(&mut self, share: f64) -> bool {
        let (extreme, grows) = self.swing;
        let back = if grows { extreme - share } else { share - extreme };
        if back > TURN {
            self.swing = (share, !grows);
            return true;
        }
        self.swing.0 = if grows { extreme.max(share) } else { extreme.min(share) };
        false
    }
}
