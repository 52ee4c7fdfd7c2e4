//! Which node of a fleet tells an interval, so that none is told twice. Takes what stands in the fleet's store, says
//! whether an interval may be claimed by writing there. Called by the node, which does so by compare-and-set.

use serde::{Deserialize, Serialize};

use crate::observe::Window;
use crate::time::{Millis, Timestamp};

/// A claim that is further ahead than this is by a node whose clock is wrong.
const LONGEST_AHEAD: Millis = Millis(24 * 3_600_000);

/// The last interval that a node claimed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Claim {
    /// The node.
    pub node: String,
    /// The end of the interval. Intervals before it aren't claimed any more.
    pub until: Timestamp,
}

impl Claim {
    /// The claim of a node to an interval.
    #[must_use]
    pub fn new(node: &str, window: &Window) -> Self {
        Self { node: node.to_owned(), until: window.end() }
    }

    /// Whether an interval may be claimed while `stored` stands in the store. What can't be read claims nothing.
    #[must_use]
    pub fn is_free(window: &Window, stored: &[u8]) -> bool {
        match serde_json::from_slice::<Self>(stored) {
            Ok(claim) => window.begin() >= claim.until || claim.until.since(window.end()) > LONGEST_AHEAD,
            Err(_) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_claimed_once_and_none_before_it_afterwards() {
        let window = |number| Window { number, every: Millis(60_000), is_whole: true, ..Window::default() };
        let stored = serde_json::to_vec(&Claim::new("ns1", &window(10_000))).unwrap();
        let free: Vec<bool> = [9_999, 10_000, 10_001].map(|number| Claim::is_free(&window(number), &stored)).to_vec();
        assert_eq!(free, [false, false, true]);
        assert!(Claim::is_free(&window(1), &stored), "ns1 had a clock of another day");
        assert!(Claim::is_free(&window(1), b"") && Claim::is_free(&window(1), b"{\"until\":7}"));
    }
}
