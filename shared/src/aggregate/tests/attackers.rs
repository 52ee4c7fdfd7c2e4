//! Attackers who know every number that is told, the rules, and how numbers are chosen. One of them tries every count
//! that requests could have; the other one solves equations, and knows the true totals of what is told by name.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// The fewest requests that are told. With fewer than five, two small numbers are known by their sum.
const FEW: u32 = 5;

/// All counts of so many cells that add up to at most `most`: an attacker knows how many requests there are.
fn worlds(cells: usize, most: u64) -> Vec<Vec<u64>> {
    match cells {
        0 => vec![Vec::new()],
        cells => {
            let with = |mut rest: Vec<u64>, count| {
                rest.push(count);
                rest
            };
            let after = |count| worlds(cells - 1, most - count).into_iter().map(move |rest| with(rest, count));
            (0..=most).flat_map(after).collect()
        }
    }
}

/// The attacker who tries every world: for each answer, which values a sum over some cells has in the worlds that give
/// this answer. No value from 1 to [`FEW`] - 1 may be the only one.
fn nothing_small_is_certain(worlds: &[Vec<u64>], sums: &[&[usize]], window: impl Fn(&[u64]) -> Window, before: &Told) {
    nothing_small_is_certain_by(worlds, sums, |world| super::super::tell(&window(world), FEW, before).groups);
}

/// The same for any answer.
fn nothing_small_is_certain_by<T: core::fmt::Debug>(
    worlds: &[Vec<u64>],
    sums: &[&[usize]],
    answer: impl Fn(&[u64]) -> T,
) {
    let mut seen: BTreeMap<String, Vec<BTreeSet<u64>>> = BTreeMap::new();
    for world in worlds {
        let values = seen.entry(format!("{:?}", answer(world))).or_insert_with(|| vec![BTreeSet::new(); sums.len()]);
        for (values, cells) in values.iter_mut().zip(sums) {
            values.insert(cells.iter().map(|cell| world[*cell]).sum());
        }
    }
    for (answer, values) in &seen {
        for (values, cells) in values.iter().zip(sums) {
            let only = values.first().filter(|_| values.len() == 1);
            let is_small = only.is_some_and(|only| (1..u64::from(FEW)).contains(only));
            assert!(!is_small, "the sum of {cells:?} is known to be {only:?} by {answer}");
        }
    }
    println!("cases: {} worlds, {} answers", worlds.len(), seen.len());
    assert!(seen.len() > 100, "{}", seen.len());
}

/// What was told before: these counts of the windows' first cells.
fn before(window: impl Fn(&[u64]) -> Window, world: &[u64]) -> Told {
    tell(&window(world), FEW)
}

#[test]
fn whoever_tries_all_counts_of_regions_and_outcomes_finds_no_small_one() {
    // Two regions, each with two outcomes, and one of a second service.
    let window = |world: &[u64]| {
        window(&[
            ("a", "r1", "eu", "", &[("ok", world[0]), ("denied", world[1])]),
            ("a", "r2", "eu", "", &[("ok", world[2]), ("denied", world[3])]),
            ("b", "r1", "eu", "", &[("ok", world[4])]),
        ])
    };
    let sums: [&[usize]; 10] = [&[0], &[1], &[2], &[3], &[4], &[0, 1], &[2, 3], &[0, 2], &[1, 3], &[0, 1, 2, 3]];
    let worlds = worlds(5, 14);
    nothing_small_is_certain(&worlds, &sums, window, &Told::default());
    nothing_small_is_certain(&worlds, &sums, window, &before(window, &[50, 9, 7, 20, 6]));
}

#[test]
fn whoever_tries_all_counts_of_outcomes_and_of_clients_finds_no_small_one() {
    let three = |world: &[u64]| {
        window(&[("a", "r", "eu", "", &[("ok", world[0]), ("client_gone", world[1]), ("limited", world[2])])])
    };
    nothing_small_is_certain(&worlds(3, 32), &[&[0], &[1], &[2]], three, &Told::default());
    let four = |world: &[u64]| {
        window(&[
            ("a", "r", "c1", "", &[("ok", world[0])]),
            ("a", "r", "c2", "", &[("ok", world[1])]),
            ("a", "r", "c3", "", &[("ok", world[2])]),
            ("a", "r", "c4", "", &[("ok", world[3])]),
        ])
    };
    let sums: [&[usize]; 6] = [&[0], &[1], &[2], &[3], &[0, 1], &[2, 3]];
    nothing_small_is_certain(&worlds(4, 20), &sums, four, &Told::default());
    nothing_small_is_certain(&worlds(4, 20), &sums, four, &before(four, &[9, 50, 5, 20]));
}

#[test]
fn whoever_tries_all_counts_of_a_sequence_of_intervals_finds_no_small_one() {
    // What is told of an interval depends on what was told of the one before, and that on the one before it.
    let interval = |eu, uk| window(&[("a", "r", "eu", "", &[("ok", eu)]), ("a", "r", "uk", "", &[("ok", uk)])]);
    let answer = |world: &[u64]| {
        let first = tell(&interval(world[0], world[1]), FEW);
        let second = super::super::tell(&interval(world[2], world[3]), FEW, &first);
        // An interval of which nothing is told isn't the last one that was told.
        let last = if second.groups.is_empty() { &first } else { &second };
        let third = super::super::tell(&interval(world[4], world[5]), FEW, last);
        [first.groups, second.groups, third.groups]
    };
    let sums: [&[usize]; 9] = [&[0], &[1], &[2], &[3], &[4], &[5], &[0, 2, 4], &[1, 3, 5], &[2, 3]];
    nothing_small_is_certain_by(&worlds(6, 15), &sums, answer);
}

#[test]
fn whoever_tries_all_combinations_of_times_finds_no_small_one() {
    // Each request has one of two times in all, and no first content or one of two times to it.
    let window = |world: &[u64]| {
        let mut window = window(&[("a", "r", "eu", "", &[("ok", world.iter().sum())])]);
        for cell in window.cells.values_mut() {
            cell.total = [0; BUCKETS];
            for (nth, count) in world.iter().enumerate() {
                cell.total[7 + nth % 2] += count;
                if nth >= 2 {
                    cell.first_token[3 + nth / 2] += count;
                }
            }
        }
        window
    };
    let sums: [&[usize]; 12] =
        [&[0], &[1], &[2], &[3], &[4], &[5], &[0, 1], &[2, 3], &[4, 5], &[0, 2, 4], &[1, 3, 5], &[2, 3, 4, 5]];
    nothing_small_is_certain(&worlds(6, 12), &sums, window, &Told::default());
}

/// A request's place: service, region, clients, model, outcome.
type Place = [usize; 5];

/// Equations modulo a prime, reduced to rows that begin at different unknowns.
#[derive(Default)]
struct Equations(BTreeMap<usize, Vec<u64>>);

const PRIME: u64 = 1_000_000_007;

impl Equations {
    /// What is left of an equation after all known ones are subtracted; none if it follows from them.
    fn rest(&self, cells: &BTreeSet<usize>, unknowns: usize) -> Option<(usize, Vec<u64>)> {
        let mut row: Vec<u64> = (0..unknowns).map(|cell| u64::from(cells.contains(&cell))).collect();
        for at in 0..unknowns {
            if row[at] == 0 {
                continue;
            }
            let Some(known) = self.0.get(&at) else { return Some((at, row)) };
            let factor = row[at];
            for (mine, theirs) in row.iter_mut().zip(known) {
                *mine = (*mine + PRIME - factor * theirs % PRIME) % PRIME;
            }
        }
        None
    }

    fn add(&mut self, cells: &BTreeSet<usize>, unknowns: usize) {
        if let Some((at, mut row)) = self.rest(cells, unknowns) {
            let inverse = power(row[at], PRIME - 2);
            row.iter_mut().for_each(|value| *value = *value * inverse % PRIME);
            self.0.insert(at, row);
        }
    }
}

fn power(base: u64, mut exponent: u64) -> u64 {
    let (mut result, mut base) = (1, base % PRIME);
    while exponent > 0 {
        if exponent % 2 == 1 {
            result = result * base % PRIME;
        }
        base = base * base % PRIME;
        exponent /= 2;
    }
    result
}

/// The places that a number with these labels is of. `named` are the paths of labels that are told by name: what is
/// called `other` is of none of them.
fn members(path: &[Label], places: &[Place], named: &BTreeSet<Vec<Label>>) -> BTreeSet<usize> {
    let is_of = |place: &Place| {
        path.iter().enumerate().all(|(at, label)| match label {
            // All names below one that is `other` are, but outcomes are told apart again.
            Label::Other if at < 4 && path[..at].contains(&Label::Other) => true,
            Label::Other => !named.contains(&[&path[..at], &[name(at, place)][..]].concat()),
            label => *label == name(at, place),
        })
    };
    (0..places.len()).filter(|nth| is_of(&places[*nth])).collect()
}

/// The name of a place in one dimension.
fn name(at: usize, place: &Place) -> Label {
    match at {
        4 => Label::Named(OUTCOMES[place[4]].to_owned()),
        at => Label::Named(format!("{}{}", ["s", "r", "c", "m"][at], place[at])),
    }
}

fn window_of(counts: &BTreeMap<Place, u64>) -> Window {
    let mut all = window(&[]);
    for (place, count) in counts {
        let named = |at: usize| match name(at, place) {
            Label::Named(name) => name,
            _ => unreachable!(),
        };
        let (service, region, clients, model, outcome) = (named(0), named(1), named(2), named(3), named(4));
        let one = window(&[(&service, &region, &clients, &model, &[(&outcome, *count)])]);
        for (key, cell) in one.cells {
            all.cells.entry(key).or_default().add(&cell);
        }
    }
    all
}

fn counts() -> impl Strategy<Value = BTreeMap<Place, u64>> {
    let place = (0_usize..2, 0_usize..3, 0_usize..3, 0_usize..2, 0_usize..4);
    let count = prop_oneof![3 => 1_u64..20, 2 => 20_u64..200, 1 => 0_u64..=40];
    let entry = (place, count).prop_map(|((s, r, c, m, o), count)| ([s, r, c, m, o], count));
    prop::collection::vec(entry, 1..40).prop_map(|entries| entries.into_iter().collect())
}

const MIN: u64 = 20;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn whoever_solves_equations_finds_no_small_count(counts in counts(), earlier in counts()) {
        let window = window_of(&counts);
        let told = super::super::tell(&window, 20, &tell(&window_of(&earlier), 20));
        let places: Vec<Place> = counts.keys().copied().collect();
        let count = |cells: &BTreeSet<usize>| cells.iter().map(|cell| counts[&places[*cell]]).sum::<u64>();
        let mut numbers = Vec::new();
        for group in &told.groups {
            for (outcome, count) in &group.outcomes {
                numbers.push(([&group.labels[..], std::slice::from_ref(outcome)].concat(), *count));
            }
        }
        let named: BTreeSet<Vec<Label>> = numbers
            .iter()
            .flat_map(|(path, _)| (1..=path.len()).map(|len| path[..len].to_vec()))
            .filter(|path| path.last() != Some(&Label::Other))
            .collect();
        // Each number is what its labels say, is large enough, and all together are all requests.
        let (mut known, mut sum) = (Equations::default(), 0);
        for (path, number) in &numbers {
            let cells = members(path, &places, &named);
            prop_assert_eq!(count(&cells), *number, "{:?}", path);
            prop_assert!(*number >= MIN, "{:?} {}", path, number);
            known.add(&cells, places.len());
            sum += number;
        }
        prop_assert_eq!(sum + told.withheld, window.count());
        // The attacker also knows, from elsewhere, the true total of each service, region, … that is told by name.
        let mut small = Vec::new();
        for len in 0..=5 {
            let prefixes: BTreeSet<Vec<usize>> = places.iter().map(|place| place[..len].to_vec()).collect();
            for prefix in prefixes {
                let is_of = |nth: &usize| places[*nth].starts_with(&prefix);
                let cells: BTreeSet<usize> = (0..places.len()).filter(is_of).collect();
                match count(&cells) {
                    0 => {}
                    few if few < MIN => small.push(cells),
                    _ => {
                        let path: Vec<Label> = (0..len).map(|at| name(at, &places[*cells.first().unwrap()])).collect();
                        if len == 0 || named.contains(&path) {
                            known.add(&cells, places.len());
                        }
                    }
                }
            }
        }
        for cells in small {
            let left = known.rest(&cells, places.len());
            prop_assert!(left.is_some(), "{:?} of {:?} follows from {:?}", cells, counts, lines(&told));
        }
    }
}
