//! Overrides that were made at different nodes and together take more regions of a fence than its guard allows. A fence
//! is the regions that may process a client; its guard says how many must stay. Takes all overrides that a node knows,
//! returns those that it holds back. Called by [`Overrides`] when another node's overrides come in, and whenever
//! somebody asks what is in force.
//!
//! Which overrides are held back depends on the regions' names alone, so that all nodes choose alike without comparing
//! their clocks. Of the regions that are forced down, the first by name stay in service, as many as the guard needs.
//! Nothing is held back where an operator insisted, and nothing for longer than the guard's window.

use std::collections::{BTreeMap, BTreeSet};

use super::Overrides;
use crate::fleet::guard::{GuardedFence, guarded_fences};
use crate::health::{Forced, Status};
use crate::id::{Overridden, RegionId};
use crate::table::{ServiceIndex, Table};
use crate::time::Timestamp;

/// Fences that lack regions because of overrides made at different nodes, by their regions.
pub(super) type Conflicts = BTreeMap<BTreeSet<RegionId>, Conflict>;

/// What is known of one such fence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Conflict {
    /// How many regions have to stay in service.
    keep: usize,
    /// The services that have this fence.
    services: BTreeSet<ServiceIndex>,
    /// Until when overrides are held back.
    until: Timestamp,
}

impl Overrides {
    /// Notes the fences that had enough regions by the overrides in force `before`, and have too few now. Does nothing
    /// if the rules name no fleet, because then no other node makes overrides.
    pub(super) fn note_conflicts(&mut self, table: &Table, before: &BTreeMap<Overridden, Forced>, now: Timestamp) {
        if table.fleet().is_none() {
            return;
        }
        let after = self.in_force(now);
        for GuardedFence { service, guard, regions, .. } in guarded_fences(table) {
            let names = regions.iter().filter_map(|index| Some(table.regions().get(index.get())?.id.clone()));
            let names: BTreeSet<RegionId> = names.collect();
            let keep = guard.keep as usize;
            if left(&names, &after) >= keep || left(&names, before) < keep {
                continue;
            }
            let until = now.after(guard.window);
            let conflict = self.conflicts.entry(names).or_insert(Conflict { keep, services: BTreeSet::new(), until });
            conflict.services.insert(service);
            (conflict.keep, conflict.until) = (conflict.keep.max(keep), conflict.until.max(until));
        }
    }

    /// The overrides that are held back, each with the services whose guards hold it back.
    #[must_use]
    pub fn held_back(&self, now: Timestamp) -> BTreeMap<Overridden, BTreeSet<ServiceIndex>> {
        let mut held_back: BTreeMap<Overridden, BTreeSet<ServiceIndex>> = BTreeMap::new();
        if self.conflicts.is_empty() {
            return held_back;
        }
        let binding = self.binding();
        for (regions, conflict) in self.conflicts.iter().filter(|(_, conflict)| conflict.until > now) {
            let is_down = |of: &Overridden| binding.get(of).is_some_and(|forced| forced.status == Status::Down);
            let down: Vec<Overridden> = regions.iter().map(whole).filter(is_down).collect();
            let insists =
                self.records.iter().any(|((of, _), entry)| entry.insists && !entry.ended && down.contains(of));
            let lacking = (conflict.keep + down.len()).saturating_sub(regions.len());
            if !insists {
                for of in down.into_iter().take(lacking) {
                    held_back.entry(of).or_default().extend(&conflict.services);
                }
            }
        }
        held_back
    }

    /// The time at which the next conflict ends; its overrides are no longer held back then.
    #[must_use]
    pub fn next_release(&self) -> Option<Timestamp> {
        self.conflicts.values().map(|conflict| conflict.until).min()
    }

    /// Forgets the conflicts that are over.
    pub(super) fn forget_conflicts(&mut self, now: Timestamp) {
        self.conflicts.retain(|_, conflict| conflict.until > now);
    }
}

/// How many of these regions are left by the overrides in force.
fn left(regions: &BTreeSet<RegionId>, in_force: &BTreeMap<Overridden, Forced>) -> usize {
    let is_down = |region: &&RegionId| in_force.get(&whole(region)).is_some_and(|forced| forced.status == Status::Down);
    regions.len() - regions.iter().filter(is_down).count()
}

/// Names a region as a whole, not one of its endpoints.
fn whole(region: &RegionId) -> Overridden {
    Overridden { region: region.clone(), endpoint: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;
    use crate::time::Millis;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);
    const WINDOW: Millis = Millis(600_000);
    /// How many random sets of overrides are tried, which meet in random order.
    const CASES: u64 = 5_000;

    fn table(keep: u32) -> Table {
        let region =
            |name: &str| format!(r#""{name}": {{ "countries": ["DE"], "answers": {{ "A": ["192.0.2.1"] }} }}"#);
        let regions = ["a", "b", "c", "d"].map(region).join(", ");
        let document = format!(
            r#"{{ "version": 1, "revision": 1, "jurisdictions": {{ "de": {{ "countries": ["DE"] }} }},
            "fleet": {{ "voters": {{ "ns1": {{ "site": "x" }} }} }}, "regions": {{ {regions} }},
            "services": {{ "chat": {{ "hosts": ["chat.example"], "pattern": "active-active",
                "regions": ["a", "b", "c", "d"], "residency": [{{ "clients": ["*"], "process_in": ["de"] }},
                    {{ "clients": ["unknown"], "process_in": [] }}],
                "guard": {{ "keep": {keep}, "max_down": "100%", "window": "10m" }} }} }} }}"#
        );
        Table::compile(document.as_bytes()).unwrap_or_else(|wrong| panic!("{wrong:?}"))
    }

    fn of(region: &str) -> Overridden {
        Overridden::parse(region).unwrap()
    }

    fn down(insists: bool) -> (Forced, bool) {
        (Forced { status: Status::Down, until: NOW.after(Millis(7_200_000)), reason: "drill".into() }, insists)
    }

    fn made(region: &str, insists: bool) -> Overrides {
        let mut overrides = Overrides::default();
        overrides.set(of(region), &format!("node of {region}"), down(insists), NOW);
        overrides
    }

    fn held(overrides: &Overrides, now: Timestamp) -> Vec<String> {
        overrides.held_back(now).keys().map(ToString::to_string).collect()
    }

    #[test]
    fn of_overrides_that_meet_as_many_are_held_back_as_the_guard_keeps_and_for_its_window() {
        let table = table(3);
        let (mut one, mut other) = (made("b", false), made("c", false));
        assert!(one.merge(&table, &other.records(), NOW) && other.merge(&table, &one.records(), NOW));
        for node in [&one, &other] {
            assert_eq!(held(node, NOW), ["b"]);
            assert_eq!(node.in_force(NOW).keys().collect::<Vec<_>>(), [&of("c")]);
            assert_eq!(node.next_release(), Some(NOW.after(WINDOW)));
            assert_eq!(node.in_force(NOW.after(WINDOW)).len(), 2, "after the window overrides are in force");
        }
        one.merge(&table, &made("a", false).records(), NOW);
        assert_eq!(held(&one, NOW), ["a", "b"]);
        assert!(one.end(&of("c")));
        assert_eq!(held(&one, NOW), ["a"], "an override that was ended makes room");
        one.run_out(NOW.after(WINDOW));
        assert_eq!(one.next_release(), None);
    }

    #[test]
    fn nothing_is_held_back_of_what_somebody_insists_on_or_what_was_made_by_one_who_knew() {
        let table = table(3);
        let mut one = made("b", false);
        one.merge(&table, &made("c", true).records(), NOW);
        assert_eq!(held(&one, NOW), [""; 0]);
        let mut alone = made("b", false);
        alone.set(of("c"), "ns1", down(false), NOW);
        assert_eq!((held(&alone, NOW), alone.in_force(NOW).len()), (Vec::new(), 2));
        let mut roomy = made("a", false);
        roomy.merge(&super::tests::table(2), &made("b", false).records(), NOW);
        assert_eq!(held(&roomy, NOW), [""; 0], "enough are left");
    }

    #[test]
    fn whatever_the_order_all_nodes_hold_back_the_same_and_no_fence_lacks_what_its_guard_keeps() {
        let mut random = Random::new(7);
        let mut any = 0;
        for case in 0..CASES {
            let keep = 1 + random.below(4);
            let table = table(u32::try_from(keep).unwrap());
            let made: Vec<Overrides> =
                ["a", "b", "c", "d"].into_iter().filter(|_| random.chance(60)).map(|name| made(name, false)).collect();
            let mut nodes = made.clone();
            for (at, node) in nodes.iter_mut().enumerate() {
                let mut order: Vec<usize> = (0..made.len()).filter(|other| *other != at).collect();
                for place in (1..order.len()).rev() {
                    order.swap(place, random.below(place + 1));
                }
                for other in order {
                    node.merge(&table, &made[other].records(), NOW);
                }
            }
            // A single override was checked against the guard when it was made.
            if made.len() > 1 && keep < 4 {
                for node in &nodes {
                    assert_eq!(held(node, NOW), held(&nodes[0], NOW), "case {case}");
                    assert!(4 - node.in_force(NOW).len() >= keep, "case {case}: {:?}", node.in_force(NOW));
                    any += node.held_back(NOW).len();
                }
            }
        }
        assert!(any > 1_000, "{any}");
        println!("overrides made apart: {CASES} random cases");
    }
}
