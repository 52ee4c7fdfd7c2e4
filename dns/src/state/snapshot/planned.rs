//! What a plan comes to, for metrics. Takes a plan with its classes and what was seen of regions; returns numbers of
//! bounded count. Made once for each plan, by the owner's planner.

use std::collections::BTreeMap;

use bailiwick_rules::load::{Amount, ClassIndex, Classes, Margins, Plan, RegionSeen, Standing, margins};
use bailiwick_rules::rules::Ratio;
use bailiwick_rules::table::{RegionIndex, Table};

/// The most pairs of regions whose shares are told: those that move most.
const MAX_MOVES: usize = 256;

/// The numbers of one plan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Planned {
    /// The clients that are moved, by where from and where to; the largest first.
    pub moves: Vec<Moved>,
    /// The regions whose load is known.
    pub regions: Vec<Region>,
    /// What fences would carry without one of their regions.
    pub margins: Margins,
}

/// The clients that are moved from one region to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Moved {
    /// Their home.
    pub from: RegionIndex,
    /// Where they go.
    pub to: RegionIndex,
    /// Which part of all clients that are at home there, whatever their service.
    pub share: Ratio,
}

/// A region as it was planned for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Region {
    /// Which.
    pub region: RegionIndex,
    /// What it would carry if nothing were moved, over its capacity.
    pub natural: Ratio,
    /// The marks of its rules.
    pub low: Ratio,
    /// The mark above which it gives clients away.
    pub high: Ratio,
}

impl Planned {
    /// The numbers of a plan.
    pub(crate) fn new(table: &Table, classes: &Classes, plan: &Plan, seen: &[RegionSeen]) -> Self {
        let capacity = |region: RegionIndex| {
            let seen = seen.get(region.get())?;
            if seen.is_up { seen.capacity } else { Some(0) }
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

fn moves(classes: &Classes, plan: &Plan) -> Vec<Moved> {
    let mut at_home: BTreeMap<RegionIndex, Amount> = BTreeMap::new();
    let mut amounts: BTreeMap<(RegionIndex, RegionIndex), Amount> = BTreeMap::new();
    for (index, class) in classes.list().iter().enumerate() {
        let own = at_home.entry(class.home()).or_default();
        *own = own.saturating_add(class.demand);
        for one in plan.moves(ClassIndex(index)).iter().filter(|one| one.share > Ratio(0)) {
            let sum = amounts.entry((class.home(), one.to)).or_default();
            // The amounts of a plan are scaled to the load that was measured; shares are not.
            *sum = sum.saturating_add(one.share.of(class.demand));
        }
    }
    let share = |((from, to), amount): ((RegionIndex, RegionIndex), Amount)| {
        let all = at_home.get(&from).copied().unwrap_or_default();
        (amount, Moved { from, to, share: Ratio::between(amount, all) })
    };
    let mut all: Vec<(Amount, Moved)> = amounts.into_iter().map(share).collect();
    all.sort_by_key(|(amount, one)| (core::cmp::Reverse(*amount), one.from, one.to));
    all.truncate(MAX_MOVES);
    all.into_iter().map(|(_, one)| one).collect()
}

/// A region of which nothing is known has no numbers: none of them would be true.
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
