//! Compares what the nodes of a fleet should have in common: keys, GeoIP databases and clocks. Takes what peers
//! reported, returns parts of the text of `bailiwick fleet status`.

use std::fmt::Write;

use bailiwick_rules::time::Timestamp;

use super::FleetReport;
use crate::state::fleet_status::{Peer, PeerReport};

/// If a peer's clock is at least this many seconds ahead or behind, the text says so. No decision depends on the
/// difference, but each node ends overrides and signatures by its own clock.
const CLOCK: u64 = 10;

/// How far a clock is ahead of this node's clock or behind it; `None` if the difference is less than [`CLOCK`] seconds.
pub(crate) fn clock(ahead_ms: i64) -> Option<String> {
    let (seconds, side) = (ahead_ms.unsigned_abs() / 1_000, if ahead_ms > 0 { "ahead of" } else { "behind" });
    (seconds >= CLOCK).then(|| format!("about {seconds} s {side} this one"))
}

/// What a peer reported of itself, for the line of this peer.
pub(super) fn details(report: &PeerReport) -> String {
    let mut text = String::new();
    if let Some(built) = report.geoip_built {
        let _ = write!(text, ", GeoIP of {}", day(built));
    }
    if let Some(ahead) = report.clock_ahead_ms {
        let sign = if ahead < 0 { '-' } else { '+' };
        let ahead = ahead.unsigned_abs();
        let _ = write!(text, ", clock {sign}{}.{} s", ahead / 1_000, ahead % 1_000 / 100);
    }
    text
}

impl FleetReport {
    /// The lines about this node's own GeoIP database and keys.
    pub(super) fn own_geoip_and_keys(&self) -> String {
        let mut text = String::new();
        if let Some(built) = self.geoip_built {
            let _ = writeln!(text, "GeoIP database of {}", day(built));
        }
        for (zone, digest) in &self.keys_sha256 {
            let _ = writeln!(text, "keys of {zone}  {}", digest.get(..12).unwrap_or(digest));
        }
        text
    }

    /// The differences between this node and a peer that answers, each in a sentence.
    pub(super) fn differences(&self, peer: &Peer) -> Vec<String> {
        let (name, PeerReport { keys_sha256, geoip_built, clock_ahead_ms, .. }) = (peer.name(), &peer.report);
        let mut differences = Vec::new();
        for (zone, digest) in &self.keys_sha256 {
            // A peer that serves the zone unsigned, or not at all, reports no digest.
            if keys_sha256.get(zone).is_some_and(|other| other != digest) {
                differences.push(format!(
                    "{name} signs {zone} with other keys than this node; give both the same directory of keys"
                ));
            }
        }
        match (self.geoip_built, geoip_built) {
            (Some(own), Some(other)) if own != *other => differences.push(format!(
                "{name} has a GeoIP database of {}, this node one of {}; they may place clients differently",
                day(*other),
                day(own)
            )),
            _ => {}
        }
        differences.extend(clock_ahead_ms.and_then(clock).map(|clock| format!("the clock of {name} is {clock}")));
        differences
    }
}

/// The day of a time, as `2026-11-01`.
fn day(at: Timestamp) -> String {
    at.to_string().chars().take(10).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_are_told_from_ten_seconds_on() {
        assert_eq!((clock(9_999), clock(-9_999), clock(0)), (None, None, None));
        assert_eq!(clock(10_000).as_deref(), Some("about 10 s ahead of this one"));
        assert_eq!(clock(i64::MIN).as_deref(), Some("about 9223372036854775 s behind this one"));
    }

    #[test]
    fn a_line_tells_what_is_known() {
        let told = |geoip_built, clock_ahead_ms| PeerReport { geoip_built, clock_ahead_ms, ..PeerReport::default() };
        assert_eq!(details(&told(None, None)), "");
        assert_eq!(details(&told(Some(Timestamp(0)), Some(-1_234))), ", GeoIP of 1970-01-01, clock -1.2 s");
        assert_eq!(details(&told(None, Some(250))), ", clock +0.2 s");
    }
}
