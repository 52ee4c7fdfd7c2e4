//! A plan in numbers, for metrics. Takes a plan with its classes and the observations of regions, returns a bounded
//! number of figures. Called by the planner of `state/owner`, once for each plan.

use std::collections::BTreeMap;

use bailiwick_rules::load::{Amount, ClassIndex, Classes, Margins, Plan, RegionInput, Standing, margins};
use bailiwick_rules::rules::Ratio;
use bailiwick_rules::table::{RegionIndex, Table};

/// The most pairs of regions whose shares are reported: the pairs between which most clients are moved.
const MAX_MOVES: usize = 256;

/// The numbers of one plan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PlanFigures {
    /// The clients that are moved, by pair of regions, the largest first.
    pub moves: Vec<MovedClients>,
    /// The regions whose load is known.
    pub regions: Vec<Region>,
    /// The load that fences would have without one of their regions.
    pub margins: Margins,
}

/// The clients that are moved from one region to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MovedClients {
    /// The home of the clients.
    pub from: RegionIndex,
    /// The region to which they are moved.
    pub to: RegionIndex,
    /// Their share of all clients of the home, over all services.
    pub share: Ratio,
}

/// A region's numbers in the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Region {
    /// The region.
    pub region: RegionIndex,
    /// The load that the region would have if no client were moved, over its capacity.
    pub natural: Ratio,
    /// The load up to which the region takes clients of other regions.
    pub low: Ratio,
    /// The load above which clients are moved away from the region.
    pub high: Ratio,
}

impl PlanFigures {
    /// The numbers of a plan.
    pub(crate) fn new(table: &Table, classes: &Classes, plan: &Plan, inputs: &[RegionInput]) -> Self {
        let capacity = |region: RegionIndex| {
            let input = inputs.get(region.get())?;
            if input.is_up { input.capacity } else { Some(0) }
        };
        Self {
            moves: moves(classes, plan),
            regions: (0..)
                .map(RegionIndex)
                .zip(table.regions())
                .filter_map(|(region, _)| planned(table, plan, region))
                .collect(),
            margins: margins(classes, capacity),
        }
    }
}

/// The largest moves of the plan: which share of the clients of a region goes to another.
fn moves(classes: &Classes, plan: &Plan) -> Vec<MovedClients> {
    let mut at_home: BTreeMap<RegionIndex, Amount> = BTreeMap::new();
    let mut amounts: BTreeMap<(RegionIndex, RegionIndex), Amount> = BTreeMap::new();
    for (index, class) in classes.list().iter().enumerate() {
        let demand = at_home.entry(class.home()).or_default();
        *demand = demand.saturating_add(class.demand);
        for part in plan.moves(ClassIndex(index)).iter().filter(|part| part.share > Ratio(0)) {
            let sum = amounts.entry((class.home(), part.to)).or_default();
            // The amounts of a plan are scaled to the measured load, so they can't be compared with the demand. Shares
            // can.
            *sum = sum.saturating_add(part.share.of(class.demand));
        }
    }
    let share = |((from, to), amount): ((RegionIndex, RegionIndex), Amount)| {
        let all = at_home.get(&from).copied().unwrap_or_default();
        (amount, MovedClients { from, to, share: Ratio::between(amount, all) })
    };
    let mut all: Vec<(Amount, MovedClients)> = amounts.into_iter().map(share).collect();
    all.sort_by_key(|(amount, moved)| (core::cmp::Reverse(*amount), moved.from, moved.to));
    all.truncate(MAX_MOVES);
    all.into_iter().map(|(_, moved)| moved).collect()
}

/// The numbers of a region; `None` if the load of the region isn't known.
fn planned(table: &Table, plan: &Plan, region: RegionIndex) -> Option<Region> {
    let state = plan.region(region);
    let marks = table.region(region).load.as_ref()?;
    let is_known = !matches!(state.standing, Standing::Unknown | Standing::Down) && state.capacity > 0;
    is_known.then(|| Region {
        region,
        natural: Ratio::between(state.natural, state.capacity),
        low: marks.low,
        high: marks.high,
    })
}
