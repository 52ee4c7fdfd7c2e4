//! Makes the plan. Takes loads, demand, the last plan and the time; returns the shares of clients to move. A class is
//! the clients of a service whose fence (the regions that may process them) has the same order; its home is the first
//! of them. Called by the DNS node once per interval, and whenever the health of a region changes.
//!
//! The steps are:
//! 1. find each region's natural load (its load if no client were moved) and how much it may take
//!    ([`super::readings`]);
//! 2. decide how much each class has to move;
//! 3. decide how much goes to which region ([`super::fill`]). Clients whose home is down are placed first.
//!
//! The room of each receiving region is computed before any client is placed. So the plan itself never raises the load
//! of a region above its low mark.

use super::classes::{ClassIndex, Classes};
use super::fill::{Ask, fill};
use super::place::Point;
use super::readings::{InEffect, RegionInput, RegionState, Standing, Times};
use super::{Amount, proportion, requests, staying};
use crate::rules::{Ratio, RegionLoad, ShedAt, Slew};
use crate::table::{RegionIndex, Service, Table};
use crate::time::{Millis, Timestamp};

/// How long the edge takes to follow a share: the time until the edge reads the plan again.
const EDGE_LAG: Millis = Millis(5_000);

/// How long resolvers keep an answer beyond its TTL, roughly.
const RESOLVER_LAG: Millis = Millis(10_000);

/// What is known about all regions at one moment.
#[derive(Clone, Copy, Debug)]
pub struct PlanInput<'a> {
    /// By region index. Regions beyond the end of the list count as up, with unknown load.
    pub regions: &'a [RegionInput],
    /// The interval between readings.
    pub interval: Millis,
}

/// A part of a class's clients that is moved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Move {
    /// The region where these clients go, inside their fence.
    pub to: RegionIndex,
    /// The share of the class that is moved to this region.
    pub share: Ratio,
    /// The demand that is moved.
    pub amount: Amount,
    /// The estimated part of `amount` that has already moved. DNS caches and the edge follow a plan with a delay.
    pub(super) reached: Amount,
}

/// A plan: the clients to move, and where they go. Equal inputs give an equal plan.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    at: Timestamp,
    regions: Vec<RegionState>,
    /// For each class, the planned moves.
    moves: Vec<Vec<Move>>,
    /// For each class, the demand that has to leave a region that is down and for which the plan found no room. This
    /// demand goes to the next region that is up. These moves have share 0.
    left: Vec<Vec<Move>>,
}

impl Plan {
    /// When the plan was made.
    #[must_use]
    pub fn at(&self) -> Timestamp {
        self.at
    }

    /// The same plan after the rules changed. Regions and classes are matched by the names of services and regions. A
    /// class whose fence has changed begins without moves.
    #[must_use]
    pub fn carried(&self, (old, old_classes): (&Table, &Classes), (new, new_classes): (&Table, &Classes)) -> Self {
        let before = |region: RegionIndex| old.region_named(new.region(region).id.as_str());
        let state = |region| before(region).map(|before| self.region(before)).unwrap_or_default();
        let class_before = |class: &super::Class| {
            let service = old.service_named(new.service(class.service).id.as_str())?;
            let order: Vec<RegionIndex> = class.order.iter().map(|region| before(*region)).collect::<Option<_>>()?;
            old_classes.of_order(service, order)
        };
        let carry = |lists: &[Vec<Move>]| {
            let of_class = |class: &super::Class| {
                let moves = class_before(class).and_then(|index| lists.get(index.0));
                let carried = |planned: &Move| {
                    let to = new.region_named(old.region(planned.to).id.as_str())?;
                    Some(Move { to, ..*planned })
                };
                moves.into_iter().flatten().filter_map(carried).collect()
            };
            new_classes.list().iter().map(of_class).collect()
        };
        Self {
            at: self.at,
            regions: (0..new.regions().len()).map(RegionIndex::new).map(state).collect(),
            moves: carry(&self.moves),
            left: carry(&self.left),
        }
    }

    /// The state of a region.
    #[must_use]
    pub fn region(&self, region: RegionIndex) -> RegionState {
        self.regions.get(region.get()).copied().unwrap_or_default()
    }

    /// The moves of a class, in the order of its fence. The first share is the beginning of the line of [`Point`]s, the
    /// second share follows, and so on.
    #[must_use]
    pub fn moves(&self, class: ClassIndex) -> &[Move] {
        self.moves.get(class.0).map_or(&[], Vec::as_slice)
    }

    /// The region that a client of a class is moved to; `None` if the client isn't moved.
    #[must_use]
    pub fn choose(&self, class: ClassIndex, point: Point) -> Option<RegionIndex> {
        point.on(self.moves(class).iter().map(|planned| (planned.to, planned.share)))
    }

    /// The part of a class that is moved.
    #[must_use]
    pub fn share(&self, class: ClassIndex) -> Ratio {
        Ratio(self.moves(class).iter().map(|planned| planned.share.0).sum())
    }

    /// The demand of a class that has to leave a region that is down and for which the plan found no room. This demand
    /// goes to the next region that is up.
    #[must_use]
    pub fn left(&self, class: ClassIndex) -> Amount {
        self.left.get(class.0).map_or(0, |left| left.iter().map(|unplaced| unplaced.amount).sum())
    }
}

/// Makes the plan for one moment. `previous` is the last plan for the same table and classes; without a previous plan,
/// nothing has been moved yet.
///
/// ```
/// use bailiwick_rules::load::{Classes, ClassIndex, Plan, PlanInput, Reading, RegionInput, plan};
/// use bailiwick_rules::table::Table;
/// use bailiwick_rules::time::{Millis, Timestamp};
///
/// let table = Table::compile(br#"{
///     "version": 1, "revision": 1,
///     "jurisdictions": { "eu": { "include": ["EU"] } },
///     "regions": { "fra": { "countries": ["DE"], "load": { "capacity": 100, "demand": 90 } },
///                  "par": { "countries": ["FR"], "load": { "capacity": 100, "demand": 20 } } },
///     "services": { "chat": { "hosts": ["chat.example"], "pattern": "active-active", "regions": ["fra", "par"],
///                             "residency": [{ "clients": ["eu"], "process_in": ["eu"] }] } }
/// }"#).unwrap();
/// let classes = Classes::stated(&table);
/// let now = Timestamp(0);
/// let seen = |is_up, used| {
///     RegionInput { is_up, capacity: Some(100_000), reading: Some(Reading { used, at: now }), is_drilled: false }
/// };
///
/// // Frankfurt is down. Paris carries 20 and has a low mark of 70, so it gets 50 of Frankfurt's 90.
/// let regions = [seen(false, 0), seen(true, 20_000)];
/// let plan = plan(&table, &classes, &PlanInput { regions: &regions, interval: Millis(10_000) }, None, now);
/// let moves = (0..classes.list().len()).flat_map(|class| plan.moves(ClassIndex(class)));
/// let moved: u64 = moves.map(|planned| planned.amount).sum();
/// assert!((49_990..=50_000).contains(&moved), "{moved}");
/// ```
#[must_use]
pub fn plan(table: &Table, classes: &Classes, input: &PlanInput<'_>, previous: Option<&Plan>, now: Timestamp) -> Plan {
    let elapsed = previous.map_or(input.interval, |previous| now.since(previous.at));
    let moves = arrived(table, classes, previous, elapsed);
    let left = following(table, classes, previous.map_or(&[], |previous| &previous.left), elapsed);
    let fade = Slew::default().step(elapsed);
    let regions = assess(table, classes, input, previous, &[&moves, &left], (now, fade));
    Planner { table, classes, regions, previous, elapsed }.plan(&moves, &left, fade, now)
}

/// The moves of the last plan. `reached` is updated for the time that has passed.
pub(super) fn arrived(table: &Table, classes: &Classes, previous: Option<&Plan>, elapsed: Millis) -> Vec<Vec<Move>> {
    following(table, classes, previous.map_or(&[], |previous| &previous.moves), elapsed)
}

/// Earlier moves. `reached` is updated for the time that has passed.
fn following(table: &Table, classes: &Classes, lists: &[Vec<Move>], elapsed: Millis) -> Vec<Vec<Move>> {
    let follow = |(index, class): (usize, &super::Class)| {
        let lag = lag(table.service(class.service));
        let arrive =
            |earlier: &Move| Move { reached: follow(earlier.reached, earlier.amount, elapsed, lag), ..*earlier };
        lists.get(index).into_iter().flatten().map(arrive).collect()
    };
    classes.list().iter().enumerate().map(follow).collect()
}

/// How long a service's clients take to follow a share.
fn lag(service: &Service) -> Millis {
    match service.shedding.at {
        ShedAt::Edge => EDGE_LAG,
        ShedAt::Dns => Millis(u64::from(service.ttl.min) * 1_000 + RESOLVER_LAG.0),
    }
}

/// How much has reached its region after `elapsed`. The difference to the goal shrinks exponentially, with the lag as
/// time constant.
fn follow(reached: Amount, goal: Amount, elapsed: Millis, lag: Millis) -> Amount {
    let step = |rest: Amount| {
        let whole = elapsed.0.saturating_add(lag.0).max(1);
        // Rounded up, so that the goal is reached in the end.
        proportion(rest, elapsed.0, whole).saturating_add(u64::from(elapsed.0 > 0)).min(rest)
    };
    match goal.checked_sub(reached) {
        Some(rest) => reached + step(rest),
        None => reached - step(reached - goal),
    }
}

/// The state of every region, from its state in the last plan and what is known about it now. `moved` are the moves of
/// the last plan and those for which it found no room. `fade` is how much a stale region's shares shrink.
fn assess(
    table: &Table,
    classes: &Classes,
    input: &PlanInput<'_>,
    previous: Option<&Plan>,
    moved: &[&[Vec<Move>]; 2],
    (now, fade): (Timestamp, Ratio),
) -> Vec<RegionState> {
    let mut effects = vec![InEffect::default(); table.regions().len()];
    for class in classes.list() {
        if let Some(home) = effects.get_mut(class.home().get()) {
            home.counted = home.counted.saturating_add(class.demand);
        }
    }
    // Clients that left a down region without room in the plan go home when the region is up again, as planned moves
    // do.
    for (lists, is_planned) in moved.iter().zip([true, false]) {
        for (class, moves) in classes.list().iter().zip(*lists) {
            for moved in moves {
                if let Some(home) = effects.get_mut(class.home().get()) {
                    home.moved_away = home.moved_away.saturating_add(moved.reached);
                }
                if let Some(receiver) = effects.get_mut(moved.to.get()) {
                    receiver.moved_in = receiver.moved_in.saturating_add(moved.reached);
                    receiver.planned = receiver.planned.saturating_add(if is_planned { moved.amount } else { 0 });
                }
            }
        }
    }
    let unseen = RegionInput { is_up: true, capacity: None, reading: None, is_drilled: false };
    let state = |(index, effect): (usize, &InEffect)| {
        let marks = marks(table, index);
        let times = Times { now, interval: input.interval, warmup: marks.warmup };
        let before = previous.map(|previous| previous.region(RegionIndex::new(index))).unwrap_or_default();
        let seen = input.regions.get(index).unwrap_or(&unseen);
        let mut state = before.next(seen, *effect, times);
        let room = state.room(marks.low.of(state.capacity), effect.planned, fade);
        // Whoever is moved to a drilled region would be moved on by the drill.
        state.room = if seen.is_drilled { 0 } else { room };
        state
    };
    effects.iter().enumerate().map(state).collect()
}

/// The settings for load of a region, such as its low and high mark; the defaults if the rules have none.
fn marks(table: &Table, region: usize) -> RegionLoad {
    table.regions().get(region).and_then(|region| region.load.as_deref().copied()).unwrap_or_default()
}

impl RegionInput {
    /// A region with the capacity that the rules state and a measured load.
    #[must_use]
    pub fn stated(table: &Table, region: RegionIndex, is_up: bool, reading: Option<super::Reading>) -> Self {
        Self { is_up, capacity: table.region(region).capacity().map(requests), reading, is_drilled: false }
    }
}

/// How much of a class should move.
#[derive(Clone, Copy, Default)]
struct WantedMove {
    /// The requests that the class's clients have in flight, scaled to the measured load of the home region.
    demand: Amount,
    /// The amount to move if all classes of the home region move the same part.
    least: Amount,
    /// The most that may be moved, if other classes of the home region find no room.
    most: Amount,
    /// Whether the home region can't serve these clients. If so, they are placed before other clients.
    must: bool,
}

/// The inputs of one plan.
struct Planner<'a> {
    table: &'a Table,
    classes: &'a Classes,
    regions: Vec<RegionState>,
    previous: Option<&'a Plan>,
    elapsed: Millis,
}

impl Planner<'_> {
    /// Makes the plan. `arrived` and `left` are the last plan's moves, brought up to date.
    fn plan(self, arrived: &[Vec<Move>], left: &[Vec<Move>], fade: Ratio, now: Timestamp) -> Plan {
        let needs = self.needs();
        let wanted = self.wanted(&needs);
        let wishes: Vec<WantedMove> =
            (0..self.classes.list().len()).map(|class| self.wish(class, &wanted, fade)).collect();
        let mut rooms: Vec<Amount> = self.regions.iter().map(|region| region.room).collect();
        let mut asks: Vec<Ask<'_>> = self
            .classes
            .list()
            .iter()
            .map(|class| Ask { choices: class.order.get(1..).unwrap_or(&[]), wanted: 0, placed: Vec::new() })
            .collect();

        // Clients that have to move are placed first. Later asks may move them to another region, but never take their
        // room away.
        for must in [true, false] {
            for (ask, wish) in asks.iter_mut().zip(&wishes).filter(|(_, wish)| wish.must == must) {
                ask.wanted = wish.least;
            }
            fill(&mut asks, &mut rooms);
            asks.iter_mut().for_each(|ask| ask.wanted = 0);
        }
        self.rest(&mut asks, &wishes, &needs, &mut rooms);

        let left = self.classes.list().iter().zip(&asks).zip(left);
        let left = left.map(|((class, ask), before)| self.left(class, ask.total(), before)).collect();
        let moves = asks.iter().zip(&wishes).zip(arrived).map(|((ask, wish), before)| moves(ask, wish, before));
        let moves = moves.collect();
        Plan { at: now, regions: self.regions, moves, left }
    }

    /// If the home of a class is down: the move to the first region that is up, for clients that the plan didn't place.
    fn left(&self, class: &super::Class, placed: Amount, before: &[Move]) -> Vec<Move> {
        let is_down =
            |region: RegionIndex| self.regions.get(region.get()).is_some_and(|state| state.standing == Standing::Down);
        let mut left: Vec<Move> = before.iter().map(|earlier| Move { amount: 0, ..*earlier }).collect();
        let first_up = class.order.iter().copied().find(|region| !is_down(*region));
        let amount = self.demand(class).saturating_sub(placed);
        if let Some(to) = first_up.filter(|_| is_down(class.home()) && class.leaves_home) {
            match left.iter_mut().find(|unplaced| unplaced.to == to) {
                Some(unplaced) => unplaced.amount = amount,
                None => left.push(Move { to, share: Ratio(0), amount, reached: 0 }),
            }
        }
        left.retain(|unplaced| unplaced.amount > 0 || unplaced.reached > 0);
        left
    }

    /// How much demand each region has to give to other regions.
    fn needs(&self) -> Vec<Amount> {
        let need = |(index, state): (usize, &RegionState)| match state.standing {
            Standing::Known | Standing::Warming(_) if state.capacity > 0 => {
                let marks = marks(self.table, index);
                state.natural - staying(state.natural, state.capacity, marks.low, marks.high)
            }
            _ => 0,
        };
        self.regions.iter().enumerate().map(need).collect()
    }

    /// The demand of a class. If the natural load of its home is known, the counted demands of all classes of this home
    /// are scaled so that they add up to the natural load.
    fn demand(&self, class: &super::Class) -> Amount {
        match self.regions.get(class.home().get()) {
            Some(home) if home.counted > 0 => proportion(class.demand, home.natural, home.counted),
            _ => class.demand,
        }
    }

    /// How much of a class should move. `wanted` is the part to move, by home region; `fade` is how much a share
    /// shrinks if the home's reading is very old.
    fn wish(&self, index: usize, wanted: &[Ratio], fade: Ratio) -> WantedMove {
        let class = &self.classes.list()[index];
        if !class.moves {
            return WantedMove::default();
        }
        let demand = self.demand(class);
        let home = class.home().get();
        let before = self.previous.map_or(Ratio(0), |previous| previous.share(ClassIndex(index)));
        let step = self.table.service(class.service).shedding.slew.step(self.elapsed).0;
        let (down, up) = (before.0.saturating_sub(step), before.0.saturating_add(step).min(Ratio::ONE.0));
        let standing = self.regions.get(home).map(|home| home.standing).unwrap_or_default();
        let wanted = wanted.get(home).copied().unwrap_or_default();
        let wish = |share: Ratio, must| {
            let least = share.of(demand);
            WantedMove { demand, least, most: least, must }
        };
        match standing {
            Standing::Down => wish(Ratio::ONE, true),
            Standing::Warming(warm) => wish(wanted.max(Ratio(Ratio::ONE.0 - warm.0)), true),
            Standing::Known => {
                let most = Ratio(up).of(demand);
                WantedMove { most, ..wish(Ratio(wanted.0.clamp(down, up)), false) }
            }
            Standing::Held => wish(before, false),
            Standing::Fading | Standing::Unknown => wish(Ratio(before.0.saturating_sub(fade.0)), false),
        }
    }

    /// For each home region, the part of each of its movable classes that has to move, so that what stays is within the
    /// marks.
    fn wanted(&self, needs: &[Amount]) -> Vec<Ratio> {
        let mut movable = vec![0; needs.len()];
        for class in self.classes.list().iter().filter(|class| class.moves) {
            if let Some(movable) = movable.get_mut(class.home().get()) {
                *movable += self.demand(class);
            }
        }
        // Rounded up, so that the staying part never exceeds the mark.
        let part = |need: Amount, movable| Ratio(Ratio::between(need, movable).0.saturating_add(1).min(Ratio::ONE.0));
        needs
            .iter()
            .zip(movable)
            .map(|(need, movable)| if *need == 0 { Ratio(0) } else { part(*need, movable) })
            .collect()
    }

    /// If some classes of a home region found no room, the other classes of this home move more. Their slew (how fast a
    /// share may change) limits that.
    fn rest(&self, asks: &mut [Ask<'_>], wishes: &[WantedMove], needs: &[Amount], rooms: &mut [Amount]) {
        let mut missing: Vec<Amount> = needs.to_vec();
        let homes = || self.classes.list().iter().map(|class| class.home().get());
        for (home, ask) in homes().zip(&*asks) {
            if let Some(missing) = missing.get_mut(home) {
                *missing = missing.saturating_sub(ask.total());
            }
        }
        for ((home, ask), wish) in homes().zip(asks.iter_mut()).zip(wishes).filter(|(_, wish)| !wish.must) {
            if let Some(missing) = missing.get_mut(home) {
                ask.wanted = wish.most.saturating_sub(ask.total()).min(*missing);
                *missing -= ask.wanted;
            }
        }
        fill(asks, rooms);
    }
}

/// The moves of a class, in the order of the fence: the amounts placed now, and earlier moves whose clients haven't all
/// gone home yet.
fn moves(ask: &Ask<'_>, wish: &WantedMove, before: &[Move]) -> Vec<Move> {
    let position = |region: RegionIndex| ask.choices.iter().position(|choice| *choice == region);
    let still_away = before.iter().filter(|earlier| earlier.reached > 0).filter_map(|earlier| position(earlier.to));
    let mut choices: Vec<usize> = ask.placed.iter().map(|(choice, _)| *choice).chain(still_away).collect();
    choices.sort_unstable();
    choices.dedup();
    let to_move = |choice: usize| {
        let to = ask.choices[choice];
        let placed = ask.placed.iter().find(|(placed_at, _)| *placed_at == choice).map_or(0, |(_, amount)| *amount);
        let reached = before.iter().find(|earlier| earlier.to == to).map_or(0, |earlier| earlier.reached);
        let share = Ratio::between(placed, wish.demand.max(1)).min(Ratio::ONE);
        Move { to, share, amount: share.of(wish.demand), reached }
    };
    choices.into_iter().map(to_move).collect()
}
