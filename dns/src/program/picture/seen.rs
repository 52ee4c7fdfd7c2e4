//! Finds events for the page at `/ui/`. A [`NodeView`] is the state of a node at one moment: statuses, loads, rules,
//! overrides and so on. Takes the view of a second ago and the present one, returns what has changed. Called every
//! second by the API. A fence is the list of the regions that may process a client's data.

use std::collections::BTreeMap;

use bailiwick_rules::health::Status;
use bailiwick_rules::rules::Ratio;
use bailiwick_rules::time::Timestamp;

use super::events::{Change, Kind, Tone};

/// A region that was full counts as full until its load is below this part of its mark. So it doesn't flap.
const STILL_FULL: Ratio = Ratio(950_000);
/// By how much a share has to change before there is another event about it.
const NOTABLE: u32 = 100_000;

/// The state of a node at one moment, as far as there are events about it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct NodeView {
    /// The revision in service, and who published it and why.
    pub(crate) rules: (u64, String),
    /// Why the document last offered isn't in service, and when that was seen.
    pub(crate) refused: Option<(Timestamp, String)>,
    /// Every region.
    pub(crate) regions: BTreeMap<String, Region>,
    /// Overrides in force, by region or endpoint.
    pub(crate) overrides: BTreeMap<String, Forced>,
    /// How fresh each copy is, by region and replica.
    pub(crate) replicas: BTreeMap<String, String>,
    /// What differs at each endpoint that runs another release.
    pub(crate) skewed: BTreeMap<String, String>,
    /// The shares of clients that are moved, by the regions from and to.
    pub(crate) moves: BTreeMap<(String, String), Ratio>,
    /// Why each peer isn't heard; empty if it is.
    pub(crate) peers: BTreeMap<String, String>,
    /// The shares of each rollout and why it waits or ended, as a sentence.
    pub(crate) rollouts: BTreeMap<String, String>,
    /// The region of the drill that is under way or ended lately, and how it stands, as a sentence.
    pub(crate) drill: Option<(String, String)>,
    /// How many decisions lead out of their fence.
    pub(crate) violations: usize,
    /// Whether answers that were given led out of their fence.
    pub(crate) led_outside: bool,
}

/// A region.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Region {
    /// Its status.
    pub(crate) status: Status,
    /// Its load.
    pub(crate) load: Option<Ratio>,
    /// From which load it is full.
    pub(crate) mark: Ratio,
    /// Whether it is full.
    pub(crate) is_full: bool,
}

/// An override.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Forced {
    /// What it makes of the region.
    pub(crate) status: Status,
    /// Its end.
    pub(crate) until: Timestamp,
    /// Why it is there.
    pub(crate) reason: String,
}

impl NodeView {
    /// Adds what depends on the past: whether regions are still full, and which shares the last events reported.
    #[must_use]
    pub(crate) fn following(mut self, before: Option<&Self>) -> Self {
        for (name, region) in &mut self.regions {
            let was_full = before.and_then(|before| before.regions.get(name)).is_some_and(|region| region.is_full);
            let mark = if was_full { STILL_FULL.of(u64::from(region.mark.0)) } else { u64::from(region.mark.0) };
            region.is_full = region.load.is_some_and(|load| u64::from(load.0) >= mark.max(1));
        }
        for (pair, share) in &mut self.moves {
            let reported = before.and_then(|before| before.moves.get(pair));
            if let Some(reported) = reported.filter(|reported| reported.0.abs_diff(share.0) < NOTABLE) {
                *share = *reported;
            }
        }
        self
    }

    /// What changed since `before`. `why` says why a region has its status.
    pub(crate) fn changes(&self, before: &Self, mut why: impl FnMut(&str) -> String) -> Vec<Change> {
        let mut changes = Vec::new();
        self.rules_changes(before, &mut changes);
        for (name, region) in &self.regions {
            let Some(was) = before.regions.get(name) else { continue };
            if was.status != region.status {
                let tone = match region.status {
                    Status::Up => Tone::Good,
                    Status::Down => Tone::Bad,
                    Status::Unknown => Tone::Plain,
                };
                let says = format!("is {}, was {}", region.status, was.status);
                changes.push(Change::new(Kind::Health, tone, name, &says, &why(name)));
            }
            let load = region.load.map_or("unknown".to_owned(), |load| load.to_string());
            match (was.is_full, region.is_full) {
                (false, true) => {
                    let by = format!("load {load}, mark {}", region.mark);
                    changes.push(Change::new(Kind::Load, Tone::Bad, name, "is full", &by));
                }
                (true, false) => {
                    changes.push(Change::new(
                        Kind::Load,
                        Tone::Good,
                        name,
                        "is full no longer",
                        &format!("load {load}"),
                    ));
                }
                _ => {}
            }
        }
        self.override_changes(before, &mut changes);
        self.other_changes(before, &mut changes);
        changes
    }

    /// Adds what has changed about the rules and the fences.
    fn rules_changes(&self, before: &Self, changes: &mut Vec<Change>) {
        let (revision, by) = &self.rules;
        if before.rules.0 != *revision {
            let says = format!("revision {revision} is in service, after {}", before.rules.0);
            changes.push(Change::new(Kind::Rules, Tone::Plain, "rules", &says, by));
        }
        if let Some((_, error)) = self.refused.as_ref().filter(|_| self.refused != before.refused) {
            changes.push(Change::new(Kind::Rules, Tone::Bad, "rules", "a document was refused", error));
        }
        if self.violations != before.violations {
            let (tone, says) = match self.violations {
                0 => (Tone::Good, "no decision leads out of its fence any longer".to_owned()),
                many => (Tone::Bad, format!("{many} decisions lead out of their fence")),
            };
            changes.push(Change::new(Kind::Fence, tone, "fences", &says, "this node's check"));
        }
        if self.led_outside != before.led_outside {
            let (tone, says) = match self.led_outside {
                false => (Tone::Good, "no answer that counts has led out of its fence any longer"),
                true => (Tone::Bad, "answers that were given led out of their fence"),
            };
            changes.push(Change::new(Kind::Fence, tone, "fences", says, "this node's check"));
        }
    }

    /// Adds what has changed about overrides.
    fn override_changes(&self, before: &Self, changes: &mut Vec<Change>) {
        for (name, forced) in &self.overrides {
            if before.overrides.get(name) != Some(forced) {
                let says = format!("is forced {} until {}", forced.status, to_the_minute(forced.until));
                changes.push(Change::new(Kind::Override, Tone::Plain, name, &says, &forced.reason));
            }
        }
        for name in before.overrides.keys().filter(|name| !self.overrides.contains_key(*name)) {
            changes.push(Change::new(Kind::Override, Tone::Plain, name, "is forced no longer", "the override ended"));
        }
    }

    /// Adds what has changed about replicas, releases, moved clients, rollouts and peers.
    fn other_changes(&self, before: &Self, changes: &mut Vec<Change>) {
        for (name, freshness) in &self.replicas {
            let was = before.replicas.get(name).map_or("new", String::as_str);
            if was != freshness && !(was == "new" && freshness != "lagging") {
                let tone = if freshness == "lagging" { Tone::Bad } else { Tone::Good };
                let says = format!("is {freshness}, was {was}");
                changes.push(Change::new(Kind::Replica, tone, name, &says, "this node's reading"));
            }
        }
        for (name, differs) in self.skewed.iter().filter(|(name, _)| !before.skewed.contains_key(*name)) {
            changes.push(Change::new(Kind::Skew, Tone::Bad, name, "runs another release", differs));
        }
        for name in before.skewed.keys().filter(|name| !self.skewed.contains_key(*name)) {
            changes.push(Change::new(Kind::Skew, Tone::Good, name, "runs another release no longer", ""));
        }
        for ((from, to), share) in &self.moves {
            if before.moves.get(&(from.clone(), to.clone())) != Some(share) {
                let says = format!("{share} of its clients are moved to {to}");
                changes.push(Change::new(Kind::Moved, Tone::Plain, from, &says, "because of load"));
            }
        }
        for (from, to) in before.moves.keys().filter(|pair| !self.moves.contains_key(*pair)) {
            let says = format!("none of its clients are moved to {to} any longer");
            changes.push(Change::new(Kind::Moved, Tone::Good, from, &says, "because of load"));
        }
        for (name, trouble) in &self.peers {
            let was = before.peers.get(name).map(String::as_str).unwrap_or_default();
            match (was.is_empty(), trouble.is_empty()) {
                (true, false) => changes.push(Change::new(Kind::Peer, Tone::Bad, name, "isn't heard", trouble)),
                (false, true) => changes.push(Change::new(Kind::Peer, Tone::Good, name, "is heard again", "")),
                _ => {}
            }
        }
        if let Some((region, says)) = self.drill.as_ref().filter(|_| self.drill != before.drill) {
            changes.push(Change::new(Kind::Drill, Tone::Plain, region, says, "a rehearsal of its loss"));
        }
        for (name, says) in &self.rollouts {
            if before.rollouts.get(name) != Some(says) {
                let by = format!("revision {}", self.rules.0);
                changes.push(Change::new(Kind::Rollout, Tone::Plain, name, says, &by));
            }
        }
    }
}

/// A time without its seconds.
fn to_the_minute(at: Timestamp) -> String {
    at.to_string().get(..16).map_or_else(|| at.to_string(), |minute| format!("{} UTC", minute.replace('T', " ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(status: Status, load: u32) -> NodeView {
        let region = Region { status, load: Some(Ratio(load)), mark: Ratio(800_000), is_full: false };
        NodeView {
            rules: (7, "ann: first".into()),
            regions: BTreeMap::from([("fra".to_owned(), region)]),
            ..NodeView::default()
        }
    }

    fn told(now: &NodeView, before: &NodeView) -> Vec<String> {
        let changes = now.changes(before, |name| format!("probes of {name} fail"));
        changes.iter().map(|one| format!("{} {} ({})", one.of, one.says, one.by)).collect()
    }

    #[test]
    fn a_change_of_health_tells_who_says_so() {
        let (before, now) = (seen(Status::Up, 0), seen(Status::Down, 0));
        assert_eq!(told(&now, &before), ["fra is down, was up (probes of fra fail)"]);
        assert_eq!(told(&now, &now), [""; 0]);
    }

    #[test]
    fn a_region_is_full_until_its_load_is_well_below_the_mark() {
        let quiet = seen(Status::Up, 799_999).following(None);
        let full = seen(Status::Up, 800_000).following(Some(&quiet));
        assert_eq!(told(&full, &quiet), ["fra is full (load 80 %, mark 80 %)"]);
        let near = seen(Status::Up, 760_000).following(Some(&full));
        assert_eq!(told(&near, &full), [""; 0]);
        let below = seen(Status::Up, 759_000).following(Some(&near));
        assert_eq!(told(&below, &near), ["fra is full no longer (load 75.9 %)"]);
    }

    #[test]
    fn shares_are_told_when_they_change_notably() {
        let moving = |share: u32| NodeView {
            moves: BTreeMap::from([(("fra".to_owned(), "par".to_owned()), Ratio(share))]),
            ..seen(Status::Up, 0)
        };
        let mut before = moving(200_000).following(Some(&seen(Status::Up, 0)));
        assert_eq!(told(&before, &seen(Status::Up, 0)).len(), 1);
        // Small steps add up.
        let mut count = 0;
        for share in [240_000, 280_000, 310_000, 350_000] {
            let now = moving(share).following(Some(&before));
            count += told(&now, &before).len();
            before = now;
        }
        assert_eq!(count, 1);
        assert_eq!(
            told(&seen(Status::Up, 0), &before),
            ["fra none of its clients are moved to par any longer (because of load)"]
        );
    }

    #[test]
    fn overrides_rules_replicas_skew_peers_and_rollouts_are_told_when_they_begin_and_end() {
        let before = seen(Status::Up, 0);
        let one = |name: &str, text: &str| BTreeMap::from([(name.to_owned(), text.to_owned())]);
        let forced = Forced { status: Status::Down, until: Timestamp(0), reason: "drill".into() };
        let now = NodeView {
            rules: (8, "bob: more".into()),
            refused: Some((Timestamp(1), "/services: is wrong".into())),
            overrides: BTreeMap::from([("fra/fra-1".to_owned(), forced)]),
            replicas: one("fra/docs", "lagging"),
            skewed: one("fra/fra-1", "model"),
            peers: one("ns2", "refused"),
            rollouts: one("next", "fra 10 %"),
            drill: Some(("fra".into(), "the drill one sends 10 % of its clients elsewhere".into())),
            violations: 3,
            led_outside: true,
            ..before.clone()
        };
        assert_eq!(
            told(&now, &before),
            [
                "rules revision 8 is in service, after 7 (bob: more)",
                "rules a document was refused (/services: is wrong)",
                "fences 3 decisions lead out of their fence (this node's check)",
                "fences answers that were given led out of their fence (this node's check)",
                "fra/fra-1 is forced down until 1970-01-01 00:00 UTC (drill)",
                "fra/docs is lagging, was new (this node's reading)",
                "fra/fra-1 runs another release (model)",
                "ns2 isn't heard (refused)",
                "fra the drill one sends 10 % of its clients elsewhere (a rehearsal of its loss)",
                "next fra 10 % (revision 8)",
            ]
        );
        let healed = NodeView { replicas: one("fra/docs", "fresh"), peers: one("ns2", ""), ..before.clone() };
        assert_eq!(told(&healed, &now).len(), 7, "rules, fences twice, override, replica, skew, peer");
    }
}
