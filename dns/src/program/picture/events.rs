//! The events of the last day, such as a region that went down, for the page at `/ui/`. Takes changes, gives each a
//! number, and returns the events after a given number. Held by [`super::Picture`]; `/v1/events` reads it.
//!
//! Memory is bounded by count and by bytes. Rare events, which the timeline marks, have a list of their own, so that a
//! region that goes up and down all the time doesn't push them out.

use std::collections::VecDeque;

use bailiwick_rules::time::{Millis, Timestamp};
use serde::Serialize;

/// For how long events are kept.
pub(crate) const KEPT: Millis = Millis(86_400_000);
/// The most events of health, load, replicas and the like.
const MOST_EVENTS: usize = 8_192;
/// The most bytes of these events.
const MOST_EVENT_BYTES: usize = 6 << 20;
/// The most events that the timeline marks.
const MOST_MARKS: usize = 2_048;
/// The most bytes of them.
const MOST_MARK_BYTES: usize = 2 << 20;
/// The most characters of a sentence or a name. Other paths of the API return the whole text.
const LONGEST: usize = 300;

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// A region is up, down or unknown from now on.
    Health,
    /// A region is full, or isn't any longer.
    Load,
    /// Clients are moved because of load.
    Moved,
    /// A copy of a replica lags, or doesn't any longer.
    Replica,
    /// An endpoint runs another release, or doesn't any longer.
    Skew,
    /// Another node doesn't answer, or answers again.
    Peer,
    /// An override was made or ended.
    Override,
    /// Rules came into service, or were refused.
    Rules,
    /// A rollout went on to its next step, or ended.
    Rollout,
    /// A drill sends a share of a region's clients elsewhere, or has ended.
    Drill,
    /// A decision leads out of its fence (the regions that may process the client), or none does any longer.
    Fence,
}

impl Kind {
    /// Whether the timeline marks it.
    fn is_mark(self) -> bool {
        matches!(self, Self::Override | Self::Rules | Self::Rollout | Self::Drill | Self::Fence)
    }
}

/// How an event should look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Tone {
    /// Something is better than before.
    Good,
    /// Something is worse than before.
    Bad,
    /// Neither better nor worse.
    Plain,
}

/// A change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Change {
    /// What it is about.
    pub(crate) kind: Kind,
    /// How it should look.
    pub(crate) tone: Tone,
    /// The region, endpoint, node, rollout or service.
    pub(crate) of: String,
    /// What happened, in a sentence.
    pub(crate) says: String,
    /// The reason, or who says so.
    pub(crate) by: String,
}

impl Change {
    /// A change; texts are cut.
    pub(crate) fn new(kind: Kind, tone: Tone, of: &str, says: &str, by: &str) -> Self {
        Self { kind, tone, of: cut(of), says: cut(says), by: cut(by) }
    }
}

/// A change with its number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Event {
    /// The event's number, from 1.
    pub(crate) id: u64,
    /// When it was seen.
    pub(crate) at: Timestamp,
    /// What changed.
    #[serde(flatten)]
    pub(crate) change: Change,
}

/// The events of the last day.
#[derive(Debug, Default)]
pub(crate) struct Events {
    newest: u64,
    events: EventLog,
    marks: EventLog,
}

/// Events in order, and how many bytes they take.
#[derive(Debug, Default)]
struct EventLog {
    queue: VecDeque<Event>,
    bytes: usize,
}

impl Event {
    /// How many bytes it takes in memory.
    fn bytes(&self) -> usize {
        let Change { of, says, by, .. } = &self.change;
        size_of::<Self>() + of.capacity() + says.capacity() + by.capacity()
    }
}

impl EventLog {
    fn push(&mut self, event: Event, most: usize, most_bytes: usize) {
        self.bytes += event.bytes();
        self.queue.push_back(event);
        while self.queue.len() > most || self.bytes > most_bytes {
            self.pop();
        }
    }

    fn pop(&mut self) {
        self.bytes -= self.queue.pop_front().map_or(0, |event| event.bytes());
    }
}

impl Events {
    /// Adds changes, and forgets what is old.
    pub(crate) fn add(&mut self, changes: impl IntoIterator<Item = Change>, now: Timestamp) {
        for change in changes {
            self.newest += 1;
            let event = Event { id: self.newest, at: now, change };
            match event.change.kind.is_mark() {
                true => self.marks.push(event, MOST_MARKS, MOST_MARK_BYTES),
                false => self.events.push(event, MOST_EVENTS, MOST_EVENT_BYTES),
            }
        }
        let is_old = |event: &Event| now.since(event.at) > KEPT;
        for bounded in [&mut self.events, &mut self.marks] {
            while bounded.queue.front().is_some_and(is_old) {
                bounded.pop();
            }
        }
    }

    /// The number of the newest event; 0 before the first.
    pub(crate) fn newest(&self) -> u64 {
        self.newest
    }

    /// At most `most` events after this number, in order.
    pub(crate) fn after(&self, id: u64, most: usize) -> Vec<Event> {
        let later = |bounded: &EventLog| -> Vec<Event> {
            let first = bounded.queue.partition_point(|event| event.id <= id);
            bounded.queue.range(first..).take(most).cloned().collect()
        };
        let mut events = later(&self.events);
        events.extend(later(&self.marks));
        events.sort_unstable_by_key(|event| event.id);
        events.truncate(most);
        events
    }

    /// The number after which at most `most` events follow.
    pub(crate) fn before_last(&self, most: usize) -> u64 {
        let mut ids: Vec<u64> = self.events.queue.iter().chain(&self.marks.queue).map(|event| event.id).collect();
        ids.sort_unstable();
        ids.len().checked_sub(most + 1).and_then(|position| ids.get(position)).copied().unwrap_or(0)
    }

    /// The events that the timeline marks.
    pub(crate) fn marks(&self) -> Vec<Event> {
        self.marks.queue.iter().cloned().collect()
    }
}

/// The text, cut off after `most` characters.
fn cut(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        None => text.to_owned(),
        Some((end, _)) => [&text[..end], "…"].concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(kind: Kind, of: &str) -> Change {
        Change::new(kind, Tone::Plain, of, "is down", "probes fail")
    }

    #[test]
    fn events_are_told_in_order_and_after_a_number() {
        let mut events = Events::default();
        events.add([change(Kind::Health, "fra"), change(Kind::Rules, "8"), change(Kind::Health, "par")], Timestamp(0));
        let of = |events: Vec<Event>| events.into_iter().map(|event| event.change.of).collect::<Vec<_>>();
        assert_eq!(of(events.after(0, 10)), ["fra", "8", "par"]);
        assert_eq!(of(events.after(1, 10)), ["8", "par"]);
        assert_eq!(of(events.after(0, 2)), ["fra", "8"], "what is left out comes next");
        assert_eq!(of(events.after(3, 10)), [""; 0]);
        assert_eq!((events.newest(), events.before_last(1), events.before_last(9)), (3, 2, 0));
    }

    #[test]
    fn ten_thousand_flaps_push_out_no_mark_and_take_bounded_memory() {
        let mut events = Events::default();
        events.add([change(Kind::Override, "fra")], Timestamp(0));
        for n in 0..30_000 {
            events.add([change(Kind::Health, "fra")], Timestamp(n));
        }
        assert_eq!((events.events.queue.len(), events.marks().len()), (MOST_EVENTS, 1));
        assert_eq!(events.newest(), 30_001);
        assert_eq!(events.after(0, 1)[0].change.of, "fra");
        let usual = events.events.bytes;
        assert!(usual < 2 << 20, "{usual} bytes");
        // Texts of four bytes a character are fewer.
        for n in 30_000..60_000 {
            let long = "\u{1f525}".repeat(1 << 10);
            events.add([Change::new(Kind::Health, Tone::Bad, &long, &long, &long)], Timestamp(n));
        }
        let counted: usize = events.events.queue.iter().map(Event::bytes).sum();
        assert_eq!(events.events.bytes, counted);
        assert!(counted <= MOST_EVENT_BYTES && events.events.queue.len() > 1_000, "{counted} bytes");
    }

    #[test]
    fn events_are_forgotten_after_a_day() {
        let mut events = Events::default();
        events.add([change(Kind::Rules, "7")], Timestamp(0));
        events.add([], Timestamp(0).after(KEPT));
        assert_eq!(events.marks().len(), 1);
        events.add([], Timestamp(1).after(KEPT));
        assert_eq!(events.marks().len(), 0);
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(cut("short"), "short");
        let long = cut(&"\u{202e}é".repeat(1 << 20));
        assert_eq!((long.chars().count(), long.chars().last()), (LONGEST + 1, Some('…')));
    }
}
