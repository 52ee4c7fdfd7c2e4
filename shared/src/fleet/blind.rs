//! Tells whether a node is blind: whether its own line to the network is down. Takes the results of its monitors as
//! they come. A blind node votes `unknown` on every region.
//!
//! The node itself decides this, not the nodes that count its votes. Only the node knows when each probe failed: its
//! report tells statuses, and a status changes only after several failures.

use std::collections::BTreeMap;

use crate::time::{Millis, Timestamp};

/// The monitors of a node, by a key, and whether the node is blind.
///
/// ```
/// use bailiwick_rules::fleet::blind::BlindnessDetector;
/// use bailiwick_rules::time::{Millis, Timestamp};
///
/// let mut detector = BlindnessDetector::default();
/// for (monitor, region) in [(1, 0), (2, 1), (3, 2)] {
///     detector.record(monitor, region, Millis(10_000), true, Timestamp(0));
/// }
/// detector.record(1, 0, Millis(10_000), false, Timestamp(1_000));
/// assert!(!detector.is_blind(), "one region of three may be down");
/// detector.record(2, 1, Millis(10_000), false, Timestamp(9_000));
/// assert!(detector.is_blind(), "two regions at once: it is rather the node's own line");
/// detector.record(3, 2, Millis(10_000), true, Timestamp(9_500));
/// assert!(!detector.is_blind(), "the line works");
/// ```
#[derive(Clone, Debug)]
pub struct BlindnessDetector<K> {
    monitors: BTreeMap<K, MonitorRecord>,
    is_blind: bool,
    /// When any monitor last succeeded.
    succeeded: Option<Timestamp>,
}

impl<K> Default for BlindnessDetector<K> {
    fn default() -> Self {
        Self { monitors: BTreeMap::new(), is_blind: false, succeeded: None }
    }
}

/// What the detector knows of one monitor.
#[derive(Clone, Copy, Debug)]
struct MonitorRecord {
    /// The index of the region that it probes.
    region: usize,
    interval: Millis,
    /// When the first failure since its last success happened; `None` if the last result was a success.
    failing: Option<Timestamp>,
}

impl<K: Ord + Copy> BlindnessDetector<K> {
    /// Takes the result of a monitor of a region.
    pub fn record(&mut self, monitor: K, region: usize, interval: Millis, success: bool, now: Timestamp) {
        let before = self.monitors.get(&monitor).and_then(|watched| watched.failing);
        let failing = if success { None } else { Some(before.map_or(now, |since| since.min(now))) };
        self.monitors.insert(monitor, MonitorRecord { region, interval, failing });
        if success {
            self.succeeded = Some(now);
            self.is_blind = false;
        } else if !self.is_blind {
            self.is_blind = self.fails_at_once(before.is_none(), now);
        }
    }

    /// Forgets monitors that don't run any more.
    pub fn keep_only(&mut self, mut is_kept: impl FnMut(&K) -> bool) {
        self.monitors.retain(|monitor, _| is_kept(monitor));
    }

    /// Whether more than half of all monitors, in at least two regions, began to fail within one interval, and none has
    /// succeeded since.
    #[must_use]
    pub fn is_blind(&self) -> bool {
        self.is_blind
    }

    /// Whether most monitors fail together. There are two ways to count. If this failure is the first after a success,
    /// the monitors count that began to fail within the last interval. So regions that were down before don't blind a
    /// node again and again. And if no monitor at all has succeeded for an interval, every failing monitor counts: an
    /// unreliable line lets a probe through now and then.
    fn fails_at_once(&self, begins: bool, now: Timestamp) -> bool {
        let longest = self.monitors.values().map(|watched| watched.interval).max().unwrap_or_default();
        let is_dark = self.succeeded.is_none_or(|at| now.since(at) >= longest);
        let is_failing = |monitor: &&MonitorRecord| {
            let within = |since: Timestamp| is_dark || begins && now.since(since) <= monitor.interval;
            monitor.failing.is_some_and(within)
        };
        let (mut count, mut first, mut several) = (0, None, false);
        for monitor in self.monitors.values().filter(is_failing) {
            count += 1;
            several |= *first.get_or_insert(monitor.region) != monitor.region;
        }
        several && count * 2 > self.monitors.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Millis = Millis(10_000);

    /// Five regions, probed every ten seconds one after the other, from 0 to 8 s; `up` tells whether a region's probe
    /// succeeds at a time. Returns the seconds at which the node was blind.
    fn blind_at(seconds: i64, up: impl Fn(usize, i64) -> bool) -> Vec<i64> {
        let mut detector = BlindnessDetector::default();
        let mut blind = Vec::new();
        for second in 0..seconds {
            let region = usize::try_from(second % 10 / 2).unwrap();
            if second % 2 == 0 {
                let now = Timestamp(second * 1_000);
                detector.record(region, region, INTERVAL, up(region, second), now);
            }
            if detector.is_blind() {
                blind.push(second);
            }
        }
        blind
    }

    #[test]
    fn a_line_that_is_cut_is_noticed_within_an_interval_and_ends_with_the_first_success() {
        let blind = blind_at(100, |_, second| !(30..60).contains(&second));
        assert_eq!(blind, (34..60).collect::<Vec<_>>(), "blind at the third failure of five");
    }

    #[test]
    fn regions_that_are_down_do_not_blind() {
        assert_eq!(blind_at(100, |region, second| region > 1 || second < 30), [0; 0], "two of five regions are down");
        let blind = blind_at(200, |region, second| region > 2 || second < 30);
        assert_eq!(blind, [34, 35], "three regions look like a line that is down, until the fourth succeeds");
    }

    #[test]
    fn a_line_that_flickers_stays_suspect() {
        // One probe succeeds at 40 s. The other monitors have failed since 30 s, so none of their failures is a first
        // one.
        let blind = blind_at(70, |_, second| second < 30 || second == 40);
        let expected: Vec<i64> = (34..40).chain(50..70).collect();
        assert_eq!(blind, expected);
    }

    #[test]
    fn one_region_alone_never_blinds_however_many_monitors_it_has() {
        let mut detector = BlindnessDetector::default();
        for monitor in 0..10 {
            detector.record(monitor, 0, INTERVAL, false, Timestamp(0));
        }
        assert!(!detector.is_blind());
        detector.record(10, 1, INTERVAL, false, Timestamp(0));
        assert!(detector.is_blind(), "a node that starts without a line");
        detector.keep_only(|monitor| *monitor != 10);
        assert!(detector.is_blind(), "blind until a monitor succeeds");
    }
}
