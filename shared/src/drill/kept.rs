//! The drill that a node knows. Takes what whoever runs it asks for and what other nodes report, returns the one that
//! counts. Held by the owner of the node's state.
//!
//! A drill ends by itself soon after nobody renews it. So it needs no state on disk: after a restart, a node learns it
//! again from whoever runs it or from another node, or it is over.

use crate::id::DrillId;
use crate::report::{DrillRecord, LONGEST_HOLD};
use crate::rules::Drill;
use crate::table::{RegionIndex, Table};
use crate::time::{Millis, Timestamp};

/// The shortest time for which a drill may be asked to go on.
const SHORTEST_HOLD: Millis = Millis(1_000);
/// How long the end of a drill is told to others.
const TELL_END_FOR: Millis = Millis(600_000);
/// How much longer than planned a drill may take, beside a tenth of its time: whoever runs it looks now and then only.
const SLACK: Millis = Millis(60_000);

/// The drill under way, or the last one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeptDrill(Option<DrillRecord>);

/// What whoever runs a drill asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The drill.
    pub name: DrillId,
    /// Which run; `None` begins one.
    pub began: Option<Timestamp>,
    /// The share of the region's clients that are sent elsewhere, in per cent.
    pub share: u8,
    /// For how long, unless it is renewed.
    pub hold: Millis,
}

/// Why a drill isn't begun or doesn't go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The rules have none of this name.
    Unknown,
    /// Another one is under way, in this region.
    Another(DrillId),
    /// No drill of this name is under way that began then.
    NotRunning,
    /// It has ended, for this reason.
    Ended(String),
    /// Its time is over.
    Over,
    /// The rules name no share that high.
    Share(u8),
}

impl core::fmt::Display for Refusal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Unknown => f.write_str("the rules have no drill of this name"),
            Self::Another(name) => write!(f, "the drill {name} is under way; one at a time can be judged"),
            Self::NotRunning => f.write_str("it isn't under way; it may have expired because nobody renewed it"),
            Self::Ended(why) => write!(f, "it has ended: {why}"),
            Self::Over => f.write_str("its time is over"),
            Self::Share(most) => write!(f, "its ramp goes up to {most} %"),
        }
    }
}

impl KeptDrill {
    /// What is told to other nodes and to the edge.
    #[must_use]
    pub fn record(&self) -> Option<&DrillRecord> {
        self.0.as_ref()
    }

    /// The drill that is under way.
    #[must_use]
    pub fn running(&self, now: Timestamp) -> Option<&DrillRecord> {
        self.0.as_ref().filter(|record| record.is_running(now))
    }

    /// Begins a drill, or goes on with one. `origin` is this node.
    ///
    /// # Errors
    /// Why it doesn't.
    pub fn ask(
        &mut self,
        table: &Table,
        wanted: &Wanted,
        origin: &str,
        now: Timestamp,
    ) -> Result<&DrillRecord, Refusal> {
        let (_, drill, _) = table.drill_named(wanted.name.as_str()).ok_or(Refusal::Unknown)?;
        let most = drill.ramp.last().copied().unwrap_or(0);
        if wanted.share > most {
            return Err(Refusal::Share(most));
        }
        let until = now.after(wanted.hold.clamp(SHORTEST_HOLD, LONGEST_HOLD));
        let running = self.running(now);
        let last = self.0.as_ref().map_or(0, |record| record.number);
        // Higher than all that is known, even if the clock was set back.
        let number = u64::try_from(now.0).unwrap_or(0).max(last.saturating_add(1));
        let next = match (running, wanted.began) {
            (Some(running), None) => return Err(Refusal::Another(running.name.clone())),
            (Some(running), Some(_)) if running.name != wanted.name => {
                return Err(Refusal::Another(running.name.clone()));
            }
            (Some(running), Some(began)) if running.began == began => {
                let until = until.min(latest(drill, began));
                if until <= now {
                    return Err(Refusal::Over);
                }
                DrillRecord { share: wanted.share, number, until, ..running.clone() }
            }
            (_, Some(began)) => {
                let same = self.0.as_ref().filter(|record| record.began == began && record.name == wanted.name);
                return Err(same.and_then(|same| same.ended.clone()).map_or(Refusal::NotRunning, Refusal::Ended));
            }
            (None, None) => DrillRecord {
                name: wanted.name.clone(),
                region: drill.region.clone(),
                began: now,
                origin: origin.to_owned(),
                number,
                share: wanted.share,
                until,
                ended: None,
            },
        };
        Ok(self.0.insert(next))
    }

    /// Ends the drill that is under way. Returns it, if one was.
    pub fn end(&mut self, why: &str, now: Timestamp) -> Option<DrillRecord> {
        let record = self.0.as_mut().filter(|record| record.is_running(now))?;
        record.number = record.number.saturating_add(1);
        record.ended = Some(why.chars().filter(|c| !c.is_control()).take(500).collect());
        Some(record.clone())
    }

    /// Takes what another node reports. Returns whether it changed anything.
    pub fn merge(&mut self, table: &Table, reported: &DrillRecord, now: Timestamp) -> bool {
        let is_news = reported.is_sound(table, now)
            && now.since(reported.until) < TELL_END_FOR
            && self.0.as_ref().is_none_or(|record| reported.wins(record, now));
        if is_news {
            self.0 = Some(reported.clone());
        }
        is_news
    }

    /// Follows the rules and the time: forgets a drill that the rules no longer have, or that is long over.
    pub fn follow(&mut self, table: &Table, now: Timestamp) {
        let is_known = |record: &DrillRecord| {
            let drill = table.drill_named(record.name.as_str());
            drill.is_some_and(|(_, drill, _)| drill.region == record.region)
        };
        self.0 = self.0.take().filter(|record| is_known(record) && now.since(record.until) < TELL_END_FOR);
    }
}

/// When a drill that began then is over at the latest, whoever renews it.
fn latest(drill: &Drill, began: Timestamp) -> Timestamp {
    let span = drill.span();
    began.after(Millis(span.0.saturating_add(span.0 / 10).saturating_add(SLACK.0)))
}

/// Why a drill of this region has to end at once: the first other region of its services that is down, or the region
/// itself. `None` while all of them serve.
#[must_use]
pub fn failed_elsewhere(table: &Table, region: RegionIndex, is_down: impl Fn(RegionIndex) -> bool) -> Option<String> {
    let down = neighbours(table, region).into_iter().chain([region]).find(|one| is_down(*one))?;
    Some(format!("{} is down", table.region(down).id))
}

/// The other regions of all services that have this region: where its clients may go, and from where others may come.
#[must_use]
pub fn neighbours(table: &Table, region: RegionIndex) -> Vec<RegionIndex> {
    let services = table.services().iter().filter(|service| service.regions.contains(&region));
    let mut regions: Vec<RegionIndex> = services.flat_map(|service| service.regions.iter().copied()).collect();
    regions.sort_unstable();
    regions.dedup();
    regions.retain(|one| *one != region);
    regions
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    pub(super) fn table() -> Table {
        Table::compile(
            br#"{ "version": 1, "revision": 1, "jurisdictions": { "eu": { "include": ["EU"] } },
            "regions": { "fra": { "countries": ["DE"] }, "par": { "countries": ["FR"] },
                         "nyc": { "countries": ["US"] } },
            "drills": { "one": { "region": "fra", "for": "60s", "step": "10s", "ramp": [10, 50] },
                        "two": { "region": "par" } },
            "services": { "chat": { "hosts": ["chat.example"], "pattern": "active-active",
                "regions": ["fra", "par"], "residency": [{ "clients": ["eu"], "process_in": ["eu"] }] } } }"#,
        )
        .unwrap()
    }

    fn wanted(name: &str, began: Option<Timestamp>, share: u8) -> Wanted {
        Wanted { name: DrillId::parse(name).unwrap(), began, share, hold: Millis(30_000) }
    }

    #[test]
    fn a_drill_begins_goes_on_and_expires_unless_it_is_renewed() {
        let (table, mut kept) = (table(), KeptDrill::default());
        let began = kept.ask(&table, &wanted("one", None, 10), "ns1", NOW).unwrap().began;
        assert_eq!(
            kept.ask(&table, &wanted("one", None, 10), "ns1", NOW),
            Err(Refusal::Another(wanted("one", None, 0).name))
        );
        assert_eq!(
            kept.ask(&table, &wanted("two", None, 10), "ns1", NOW).unwrap_err(),
            Refusal::Another(wanted("one", None, 0).name)
        );
        let later = NOW.after(Millis(29_999));
        assert_eq!(kept.ask(&table, &wanted("one", Some(began), 51), "ns1", later).unwrap_err(), Refusal::Share(50));
        assert_eq!(kept.ask(&table, &wanted("one", Some(began), 50), "ns1", later).unwrap().share, 50);
        let expired = later.after(Millis(30_000));
        assert!(kept.running(Timestamp(expired.0 - 1)).is_some() && kept.running(expired).is_none());
        assert_eq!(kept.ask(&table, &wanted("one", Some(began), 50), "ns1", expired).unwrap_err(), Refusal::NotRunning);
        assert_eq!(kept.ask(&table, &wanted("three", None, 1), "ns1", expired).unwrap_err(), Refusal::Unknown);
        kept.follow(&table, expired.after(Millis(599_000)));
        assert!(kept.record().is_some());
        kept.follow(&table, expired.after(TELL_END_FOR));
        assert!(kept.record().is_none());
    }

    #[test]
    fn whoever_renews_it_it_ends_soon_after_its_time() {
        let (table, mut kept) = (table(), KeptDrill::default());
        let began = kept.ask(&table, &wanted("one", None, 10), "ns1", NOW).unwrap().began;
        let mut now = NOW;
        while kept.ask(&table, &wanted("one", Some(began), 50), "ns1", now).is_ok() {
            now = now.after(Millis(5_000));
            assert!(now.since(NOW) < Millis(300_000), "it goes on for ever");
        }
        // 60 s, twice 10 s, a tenth of that, and the slack.
        assert!(kept.running(now).is_none() && now.since(NOW) == Millis(150_000), "{:?}", now.since(NOW));
    }

    #[test]
    fn what_was_ended_at_one_node_is_ended_everywhere() {
        let (table, mut one, mut other) = (table(), KeptDrill::default(), KeptDrill::default());
        let began = one.ask(&table, &wanted("one", None, 10), "ns1", NOW).unwrap().began;
        assert!(other.merge(&table, one.record().unwrap(), NOW) && other.running(NOW).is_some());
        assert!(!other.merge(&table, one.record().unwrap(), NOW), "nothing new");
        assert!(other.end("par is down", NOW).is_some() && other.end("again", NOW).is_none());
        one.ask(&table, &wanted("one", Some(began), 50), "ns1", NOW.after(Millis(5_000))).unwrap();
        assert!(!other.merge(&table, one.record().unwrap(), NOW) && other.running(NOW).is_none());
        assert!(one.merge(&table, other.record().unwrap(), NOW));
        let refused = one.ask(&table, &wanted("one", Some(began), 50), "ns1", NOW).unwrap_err();
        assert_eq!(refused, Refusal::Ended("par is down".to_owned()));
        let again = one.ask(&table, &wanted("one", None, 10), "ns1", NOW.after(Millis(9_000)));
        assert!(again.is_ok(), "another run may begin");
    }

    #[test]
    fn a_drill_that_the_rules_no_longer_have_is_forgotten() {
        let (table, mut kept) = (table(), KeptDrill::default());
        kept.ask(&table, &wanted("one", None, 10), "ns1", NOW).unwrap();
        let without = Table::compile(br#"{ "version": 1, "revision": 2 }"#).unwrap();
        assert!(!KeptDrill::default().merge(&without, kept.record().unwrap(), NOW));
        kept.follow(&without, NOW);
        assert_eq!(kept, KeptDrill::default());
    }

    #[test]
    fn a_failure_of_a_region_of_the_same_service_ends_it() {
        let table = table();
        let index = |name| table.region_named(name).unwrap();
        let down = |name| failed_elsewhere(&table, index("fra"), |one| one == index(name));
        assert_eq!(down("par").as_deref(), Some("par is down"));
        assert_eq!(down("fra").as_deref(), Some("fra is down"));
        assert_eq!(down("nyc"), None, "no service has both");
    }
}
