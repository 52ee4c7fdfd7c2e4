//! Which node of a fleet tells an interval, so that none is told twice. Takes what stands in the fleet's store, says
//! whether an interval may be claimed by writing there. Called by the node, which does so by compare-and-set.

use serde::{Deserialize, Serialize};

use crate::observe::Window;
use crate::time::{Millis, Timestamp};

/// An interval is claimed after its end. A claim to one that ends later than this from now is by a node whose clock is
/// wrong. It must not silence the others.
const LONGEST_AHEAD: Millis = Millis(300_000);

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

    /// Whether an interval may be claimed now, while `stored` stands in the store. What can't be read claims nothing.
    #[must_use]
    pub fn is_free(window: &Window, stored: &[u8], now: Timestamp) -> bool {
        match serde_json::from_slice::<Self>(stored) {
            Ok(claim) => window.begin() >= claim.until || claim.until.since(now) > LONGEST_AHEAD,
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
        let is_free = |number, stored: &[u8], late| {
            let now = window(number).end().after(Millis(late));
            Claim::is_free(&window(number), stored, now)
        };
        assert_eq!([9_999, 10_000, 10_001].map(|number| is_free(number, &stored, 10_000)), [false, false, true]);
        // A node that was cut off has old ones, which others have told.
        assert!(!is_free(9_000, &stored, 1_001 * 60_000));
        assert!(is_free(9_990, &stored, 10_000), "the clock of ns1 is ahead by ten minutes");
        assert!(is_free(1, b"", 10_000) && is_free(1, b"{\"until\":7}", 10_000));
    }
}
