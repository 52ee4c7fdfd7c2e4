//! A lease, by which one of several processes does some work and the others wait. Takes the lease's entry in the
//! fleet's store, returns whether it is this process's turn, and the entry to write. Called by `bailiwick rollout run`.
//!
//! The lease saves work, and keeps two processes from printing the same to an operator. Correctness doesn't depend on
//! it: each step of a rollout replaces only the document by which it was decided. So two processes that both believe it
//! is their turn do no harm.
//!
//! If the holder doesn't renew its entry within the lease's span, another process may take it. No two clocks are
//! compared for that: a process that waits measures by its own clock how long the entry has stayed the same. Only for
//! the time before its first look does it rely on the store's time stamp.

use serde::{Deserialize, Serialize};

use crate::time::{Millis, Timestamp};

/// The longest span that is respected. An entry with a longer one may be taken after this.
const LONGEST: Millis = Millis(600_000);

/// A lease, as it is written into the store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lease<N> {
    /// The process that holds it. Empty if the last holder has given it back.
    pub holder: String,
    /// How long after its last renewal no other process takes it.
    pub span_ms: u64,
    /// What the next holder has to know.
    pub note: N,
}

/// An entry of the store.
#[derive(Clone, Debug)]
pub struct Entry<N> {
    /// The number of the change that wrote it.
    pub number: u64,
    /// When the entry was written, by the store's clock.
    pub noted: Timestamp,
    /// The lease; `None` if it was deleted.
    pub lease: Option<Lease<N>>,
}

/// A process that wants a lease.
#[derive(Clone, Debug)]
pub struct Contender {
    me: String,
    span: Millis,
    /// The number of another process's entry that was seen last, its age at least, and when it had that age.
    observed: Option<(u64, Millis, Timestamp)>,
}

/// Whose turn it is.
#[derive(Clone, Debug, PartialEq)]
pub enum Turn<N> {
    /// This process's turn. It writes its lease in place of the entry with this number; 0 stands for no entry.
    Mine {
        /// The number.
        after: u64,
        /// What the last holder left.
        left: Option<N>,
    },
    /// Another process's turn.
    Theirs(String),
}

impl Contender {
    /// A process with the name `me`, which renews its lease more than once in each `span`.
    #[must_use]
    pub fn new(me: String, span: Millis) -> Self {
        Self { me, span, observed: None }
    }

    /// Looks at the entry. `now` must not be set back while this lives.
    pub fn look<N>(&mut self, entry: Option<Entry<N>>, now: Timestamp) -> Turn<N> {
        let Some(Entry { number, noted, lease }) = entry else { return Turn::Mine { after: 0, left: None } };
        let Some(Lease { holder, span_ms, note }) = lease else { return Turn::Mine { after: number, left: None } };
        if holder == self.me {
            return Turn::Mine { after: number, left: None };
        }
        let (age, since) = match self.observed {
            Some((observed, age, since)) if observed == number => (age, since),
            Some(_) => (Millis(0), now),
            None => (now.since(noted), now),
        };
        self.observed = Some((number, age, since));
        let unchanged = Millis(age.0.saturating_add(now.since(since).0));
        match holder.is_empty() || unchanged > Millis(span_ms).min(LONGEST) {
            true => Turn::Mine { after: number, left: Some(note) },
            false => Turn::Theirs(holder),
        }
    }

    /// The lease to write.
    #[must_use]
    pub fn lease<N>(&self, note: N) -> Lease<N> {
        Lease { holder: self.me.clone(), span_ms: self.span.0, note }
    }

    /// The lease to write when it is given back.
    #[must_use]
    pub fn free<N>(&self, note: N) -> Lease<N> {
        Lease { holder: String::new(), span_ms: self.span.0, note }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp(1_796_104_800_000);
    const SPAN: Millis = Millis(30_000);

    fn contender(name: &str) -> Contender {
        Contender::new(name.to_owned(), SPAN)
    }

    fn entry(number: u64, lease: Lease<u8>) -> Option<Entry<u8>> {
        Some(Entry { number, noted: NOW, lease: Some(lease) })
    }

    #[test]
    fn it_is_taken_when_its_holder_has_been_silent_for_its_span() {
        let (a, mut b) = (contender("a"), contender("b"));
        assert_eq!(b.look::<u8>(None, NOW), Turn::Mine { after: 0, left: None });
        let held = |number| entry(number, a.lease(7));
        let theirs = Turn::Theirs("a".to_owned());
        assert_eq!(b.look(held(1), NOW), theirs);
        assert_eq!(b.look(held(1), NOW.after(SPAN)), theirs);
        assert_eq!(b.look(held(2), NOW.after(Millis(30_001))), theirs, "it was renewed, whenever the store says");
        assert_eq!(b.look(held(2), NOW.after(Millis(60_001))), theirs);
        assert_eq!(b.look(held(2), NOW.after(Millis(60_002))), Turn::Mine { after: 2, left: Some(7) });
        assert_eq!(contender("a").look(held(2), NOW), Turn::Mine { after: 2, left: None }, "its own");
    }

    #[test]
    fn what_was_left_or_given_back_long_ago_is_taken_at_once() {
        let a = contender("a");
        let mine = Turn::Mine { after: 4, left: Some(7) };
        assert_eq!(contender("b").look(entry(4, a.free(7)), NOW), mine);
        assert_eq!(contender("b").look(entry(4, a.lease(7)), NOW.after(Millis(30_001))), mine);
        let long = Lease { holder: "a".to_owned(), span_ms: u64::MAX, note: 7 };
        assert_eq!(contender("b").look(entry(4, long.clone()), NOW.after(LONGEST)), Turn::Theirs("a".to_owned()));
        assert_eq!(contender("b").look(entry(4, long), NOW.after(Millis(600_001))), mine);
        let unread = Some(Entry::<u8> { number: 4, noted: NOW, lease: None });
        assert_eq!(contender("b").look(unread, NOW), Turn::Mine { after: 4, left: None });
    }

    /// A store with compare-and-set, and contenders with clocks that are apart.
    fn run(clocks: &[i64; 3], turns: &[(usize, u16, bool)]) -> Result<(), TestCaseError> {
        let mut contenders = ["a", "b", "c"].map(contender);
        let (mut stored, mut now) = (None::<Entry<u64>>, 0_i64);
        // When each of them renewed, by the true time.
        let mut renewed: Option<(usize, i64)> = None;
        for (who, pause, alive) in turns {
            now += i64::from(*pause);
            let clock = NOW.0 + now + clocks[*who];
            let turn = contenders[*who].look(stored.clone(), Timestamp(clock));
            if let (Turn::Mine { after, .. }, true) = (turn, *alive) {
                prop_assert_eq!(after, stored.as_ref().map_or(0, |entry| entry.number));
                if let Some((holder, at)) = renewed.filter(|(holder, _)| holder != who) {
                    let ahead = clocks[*who].max(0);
                    prop_assert!(now - at + ahead > 30_000, "{holder} renewed {} ms before {who}", now - at);
                }
                let lease = contenders[*who].lease(after + 1);
                stored = Some(Entry { number: after + 1, noted: Timestamp(NOW.0 + now), lease: Some(lease) });
                renewed = Some((*who, now));
            }
        }
        // The process that remains gets the lease in the end.
        for pause in [0, 40_000, 700_000] {
            contenders[0].look(stored.clone(), Timestamp(NOW.0 + now + pause + clocks[0]));
        }
        let last = contenders[0].look(stored.clone(), Timestamp(NOW.0 + now + 1_400_000 + clocks[0]));
        prop_assert!(matches!(last, Turn::Mine { .. }), "{last:?}");
        Ok(())
    }

    #[test]
    fn nobody_takes_what_another_has_just_renewed_unless_its_clock_is_ahead() {
        let cases = 20_000;
        let turns = prop::collection::vec((0..3_usize, 0..20_000_u16, prop::bool::weighted(0.9)), 1..60);
        let clocks = [-600_000..600_000_i64, -600_000..600_000_i64, -600_000..600_000_i64];
        let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(cases));
        runner.run(&(clocks, turns), |(clocks, turns)| run(&clocks, &turns)).unwrap();
        println!("{cases} cases of three contenders");
    }
}
