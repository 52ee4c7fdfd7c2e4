//! Assigns clients to regions with room. Takes the amounts to move and the free room of each region; returns how much
//! goes where: to the nearest region if possible, and in total as much as fits. Called by [`super::planning`] and
//! [`super::lost`].
//!
//! This is a maximum flow through a graph of asks and regions; an ask is one group of clients that look for room. First
//! every ask takes room in its nearest regions. Then asks without room get some by augmenting paths: other asks move on
//! to other regions among their choices (Ford and Fulkerson 1956; shortest path first, as Edmonds and Karp do). So an
//! ask with only one region isn't displaced by an ask that has a choice.

use std::collections::VecDeque;

use super::Amount;
use crate::table::RegionIndex;

/// Clients that look for room.
#[derive(Clone, Debug)]
pub(super) struct Ask<'c> {
    /// The regions where the clients may go, nearest first.
    pub(super) choices: &'c [RegionIndex],
    /// The amount that still has to be placed.
    pub(super) wanted: Amount,
    /// The placed amounts, each with the index of its region in `choices`.
    pub(super) placed: Vec<(usize, Amount)>,
}

impl Ask<'_> {
    /// Places an amount at a choice.
    fn put(&mut self, choice: usize, amount: Amount) {
        match self.placed.iter_mut().find(|(placed_at, _)| *placed_at == choice) {
            Some((_, placed)) => *placed += amount,
            None => self.placed.push((choice, amount)),
        }
        self.wanted -= amount;
    }

    /// Takes a placed amount back from a choice.
    fn take(&mut self, choice: usize, amount: Amount) {
        if let Some((_, placed)) = self.placed.iter_mut().find(|(placed_at, _)| *placed_at == choice) {
            *placed -= amount;
        }
        self.placed.retain(|(_, placed)| *placed > 0);
        self.wanted += amount;
    }

    /// The placed amount in total.
    pub(super) fn total(&self) -> Amount {
        self.placed.iter().map(|(_, amount)| amount).sum()
    }
}

/// Places as much of the wanted amounts as fits. `rooms` is the free room of each region, and shrinks.
pub(super) fn fill(asks: &mut [Ask<'_>], rooms: &mut [Amount]) {
    nearest_first(asks, rooms);
    let mut search = Search { closed: vec![false; rooms.len()], reached_by: vec![None; rooms.len()] };
    // Usually few paths are needed. The limit bounds the work in the worst graphs, where the rest stays unplaced.
    let mut paths_left = 64 + 8 * (asks.len() + rooms.len());
    for ask in 0..asks.len() {
        while asks[ask].wanted > 0 && paths_left > 0 && rooms.iter().any(|room| *room > 0) {
            paths_left -= 1;
            let Some(end) = search.path(asks, rooms, ask) else { break };
            search.follow(asks, rooms, ask, end);
        }
    }
}

/// Places asks in rounds: first the first choice of every ask, then the second choices, and so on.
fn nearest_first(asks: &mut [Ask<'_>], rooms: &mut [Amount]) {
    let mut looking: Vec<usize> = (0..asks.len()).filter(|&ask| asks[ask].wanted > 0).collect();
    let mut free: u128 = rooms.iter().map(|room| u128::from(*room)).sum();
    for choice in 0.. {
        looking.retain(|&ask| asks[ask].wanted > 0 && asks[ask].choices.len() > choice);
        if looking.is_empty() || free == 0 {
            return;
        }
        for &ask in &looking {
            let Some(room) = rooms.get_mut(asks[ask].choices[choice].get()) else { continue };
            let amount = asks[ask].wanted.min(*room);
            if amount > 0 {
                *room -= amount;
                free -= u128::from(amount);
                asks[ask].put(choice, amount);
            }
        }
    }
}

/// Searches an augmenting path: a chain of asks that each move to another region, up to a region with room.
struct Search {
    /// Regions from which no room can be reached any more.
    closed: Vec<bool>,
    /// By region: the ask that would move here, its choice, and the region that this ask would leave.
    reached_by: Vec<Option<(usize, usize, Option<RegionIndex>)>>,
}

impl Search {
    /// The region with room at the end of a shortest path from the ask `from`. If there is no path, closes all regions
    /// that the search reached.
    fn path(&mut self, asks: &[Ask<'_>], rooms: &[Amount], from: usize) -> Option<RegionIndex> {
        let holders = holders(asks, rooms.len());
        self.reached_by.fill(None);
        let mut visited = vec![false; asks.len()];
        let mut queue: VecDeque<(usize, Option<RegionIndex>)> = VecDeque::from([(from, None)]);
        visited[from] = true;
        while let Some((ask, leaving)) = queue.pop_front() {
            for (choice, region) in asks[ask].choices.iter().enumerate() {
                let at = region.get();
                if at >= rooms.len() || self.closed[at] || self.reached_by[at].is_some() {
                    continue;
                }
                self.reached_by[at] = Some((ask, choice, leaving));
                if rooms[at] > 0 {
                    return Some(*region);
                }
                for &holder in &holders[at] {
                    if !visited[holder] {
                        visited[holder] = true;
                        queue.push_back((holder, Some(*region)));
                    }
                }
            }
        }
        for (closed, reached) in self.closed.iter_mut().zip(&self.reached_by) {
            *closed |= reached.is_some();
        }
        None
    }

    /// Moves amounts along the path, as much as it allows.
    fn follow(&self, asks: &mut [Ask<'_>], rooms: &mut [Amount], from: usize, end: RegionIndex) {
        let mut amount = asks[from].wanted.min(rooms[end.get()]);
        let mut steps = Vec::new();
        let mut at = end;
        while let Some((ask, choice, leaving)) = self.reached_by[at.get()] {
            let left = leaving.and_then(|region| asks[ask].choices.iter().position(|choice| *choice == region));
            let placed_there = left.and_then(|left| asks[ask].placed.iter().find(|(placed_at, _)| *placed_at == left));
            amount = placed_there.map_or(amount, |(_, placed_there)| amount.min(*placed_there));
            steps.push((ask, choice, left));
            match leaving {
                Some(region) => at = region,
                None => break,
            }
        }
        rooms[end.get()] -= amount;
        for (ask, choice, left) in steps {
            if let Some(left) = left {
                asks[ask].take(left, amount);
            }
            asks[ask].put(choice, amount);
        }
    }
}

/// For each region, the asks that have placed an amount there.
fn holders(asks: &[Ask<'_>], regions: usize) -> Vec<Vec<usize>> {
    let mut holders = vec![Vec::new(); regions];
    for (index, ask) in asks.iter().enumerate() {
        for (choice, _) in &ask.placed {
            if let Some(list) = holders.get_mut(ask.choices[*choice].get()) {
                list.push(index);
            }
        }
    }
    holders
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    /// Fills the rooms. Returns the placed amounts of each ask by region, and the rooms that are left.
    fn placed(asks: &[(&[u32], Amount)], rooms: &[Amount]) -> (Vec<Vec<(u32, Amount)>>, Vec<Amount>) {
        let choices: Vec<Vec<RegionIndex>> =
            asks.iter().map(|(choices, _)| choices.iter().map(|one| RegionIndex(*one)).collect()).collect();
        let mut asks: Vec<Ask<'_>> = choices
            .iter()
            .zip(asks)
            .map(|(choices, (_, wanted))| Ask { choices, wanted: *wanted, placed: Vec::new() })
            .collect();
        let mut rooms = rooms.to_vec();
        fill(&mut asks, &mut rooms);
        let by_region = asks.iter().map(|ask| {
            let mut amounts: Vec<_> =
                ask.placed.iter().map(|(choice, amount)| (ask.choices[*choice].0, *amount)).collect();
            amounts.sort_unstable();
            amounts
        });
        (by_region.collect(), rooms)
    }

    #[test]
    fn the_nearest_room_is_taken_first_and_then_the_next() {
        let (result, rooms) = placed(&[(&[2, 0, 1], 10)], &[4, 100, 3]);
        assert_eq!((result, rooms), (vec![vec![(0, 4), (1, 3), (2, 3)]], vec![0, 97, 0]));
    }

    #[test]
    fn an_ask_with_one_region_is_not_displaced_by_an_ask_with_a_choice() {
        let (result, rooms) = placed(&[(&[0, 1], 5), (&[0], 5)], &[5, 5]);
        assert_eq!((result, rooms), (vec![vec![(1, 5)], vec![(0, 5)]], vec![0, 0]));
        // The last ask gets its room if both other asks move on.
        let (result, _) = placed(&[(&[0, 1], 5), (&[1, 2], 5), (&[0], 5)], &[5, 5, 5]);
        assert_eq!(result, [vec![(1, 5)], vec![(2, 5)], vec![(0, 5)]]);
    }

    #[test]
    fn regions_that_do_not_exist_are_left_out() {
        assert_eq!(placed(&[(&[9, 0], 5)], &[2]), (vec![vec![(0, 2)]], vec![0]));
        assert_eq!(placed(&[], &[]), (Vec::new(), Vec::new()));
    }

    /// The most that fits, by trying every cut: the maximum flow equals the minimum cut (Ford and Fulkerson 1956).
    fn minimum_cut(asks: &[(Vec<u32>, Amount)], rooms: &[Amount]) -> Amount {
        (0..1_u32 << asks.len())
            .map(|kept| {
                let is_kept = |ask: &usize| kept >> ask & 1 == 1;
                let cut: Amount = (0..asks.len()).filter(|ask| !is_kept(ask)).map(|ask| asks[ask].1).sum();
                let reached = |region: usize| {
                    (0..asks.len()).filter(is_kept).any(|ask| asks[ask].0.iter().any(|one| *one as usize == region))
                };
                cut + (0..rooms.len()).filter(|region| reached(*region)).map(|region| rooms[region]).sum::<Amount>()
            })
            .min()
            .unwrap_or(0)
    }

    #[test]
    fn the_placed_amount_is_the_most_that_fits() {
        let cases = 20_000;
        for seed in 0..cases {
            let mut random = Random::new(seed);
            let regions: Vec<u32> = (0..=u32::try_from(random.below(5)).unwrap()).collect();
            let rooms: Vec<Amount> = regions.iter().map(|_| random.below(20) as Amount).collect();
            let asks: Vec<(Vec<u32>, Amount)> =
                (0..random.below(7)).map(|_| (random.some(&regions, 1), random.below(30) as Amount)).collect();
            let borrowed: Vec<(&[u32], Amount)> = asks.iter().map(|(list, wanted)| (&list[..], *wanted)).collect();
            let (result, left) = placed(&borrowed, &rooms);
            let total: Amount = result.iter().flatten().map(|(_, amount)| amount).sum();
            assert_eq!(total, minimum_cut(&asks, &rooms), "seed {seed}: {asks:?} into {rooms:?}");
            for (region, room) in rooms.iter().enumerate() {
                let here: Amount =
                    result.iter().flatten().filter(|(one, _)| *one as usize == region).map(|(_, amount)| amount).sum();
                assert_eq!(here + left[region], *room, "seed {seed}");
            }
            for (ask, result) in asks.iter().zip(&result) {
                assert!(result.iter().map(|(_, amount)| amount).sum::<Amount>() <= ask.1, "seed {seed}");
                assert!(result.iter().all(|(region, _)| ask.0.contains(region)), "seed {seed}");
            }
        }
        println!("the placed amount is the most that fits: {cases} random cases");
    }
}
