//! Decides when a version of a file is taken into service. Takes the state of the file at several times, returns
//! whether to wait, to read the file or to take the version. Called by [`super::part`]. Pure.
//!
//! A version is complete if it was moved into place, or if a symbolic link was changed to point to it. A version that
//! is written in place may be incomplete. So it is read only after the file hasn't changed for [`SHORT`]. If the
//! version then has everything that is in service, it is taken, because later writes can only add to it. If it lacks
//! something or is invalid, the file must stay unchanged for [`LONG`], and for twice the longest pause between two
//! writes so far.

use super::change::Change;

/// Milliseconds of a clock that is never set.
pub(super) type Millis = u64;

/// How long a file written in place must stay unchanged before it is read.
pub(super) const SHORT: Millis = 500;
/// How long the file must stay unchanged if the version lacks something or is invalid.
pub(super) const LONG: Millis = 3_000;
/// The longest time that a file must stay unchanged, however long the pauses of its writer were.
pub(super) const LONGEST: Millis = 30_000;
/// How long a version of a zone that lost much (more than a third of the names) must stay unchanged, even if it was
/// moved into place, unless an operator confirms it.
pub(super) const HELD: Millis = 60_000;
/// A file that keeps changing is read after this time anyway, and taken if it lacks nothing that is in service.
pub(super) const MAX_WAIT: Millis = 10_000;
/// How long a file may be unreadable before that is reported. While a file is swapped, it is unreadable for a moment.
pub(super) const ABSENT: Millis = 1_000;
/// The first pause before an unreadable file is tried again. The pause doubles each time.
const AGAIN: Millis = 250;

/// The result of comparing a version with the version in service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Judged {
    /// The version has everything that is in service.
    Whole,
    /// The version lacks something that is in service, or nothing is in service.
    Lossy,
    /// The version lacks so much that an operator should confirm it.
    Shrunk,
    /// The version is invalid.
    Broken,
    /// The files can't be read for now.
    Unreadable,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// There is nothing new.
    Nothing,
    /// Something is new. Look again at this time at the latest.
    Wait(Millis),
    /// Read the version and judge it.
    Read,
}

/// What to do with a version that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Put the version in service.
    Take,
    /// Report the faults of the version.
    Refuse,
    /// Wait: the files haven't been unchanged for long enough yet.
    Wait,
    /// Report that the version lost much, and so waits for a confirmation or for [`HELD`].
    Hold,
}

/// The observations of one file, or of several files that make one version. `P` is the state of the files.
#[derive(Debug, Clone)]
pub(super) struct Settling<P> {
    /// The version that was taken or refused last.
    done: Option<P>,
    /// The version that waits.
    seen: Option<P>,
    /// When the last change of `seen` was noticed.
    changed: Millis,
    /// When the first change after `done` was noticed.
    begun: Millis,
    /// Whether `seen` is being written in place.
    in_place: bool,
    judged: Option<Judged>,
    /// The longest pause between two writes in place so far.
    pause: Millis,
    /// The last change of the last version, if that version was taken or refused although it may have been incomplete.
    ended_early: Option<Millis>,
    /// Whether it was reported that `seen` is held.
    is_reported: bool,
    /// The time from `ended_early` to the first write of `seen`. If `seen` turns out to add to the version before, this
    /// was a pause of the writer.
    follows: Option<Millis>,
    /// Whether an operator confirmed the files as they are.
    confirmed: bool,
    /// How many times the files couldn't be read.
    tries: u32,
    /// When unreadable files are tried again.
    again: Millis,
    /// Whether versions that lost much are held.
    holds: bool,
}

impl<P: PartialEq + Clone> Settling<P> {
    /// Starts after the version `done`. Nothing newer was seen yet.
    pub(super) fn new(done: Option<P>, holds: bool) -> Self {
        Self {
            done,
            seen: None,
            changed: 0,
            begun: 0,
            in_place: false,
            judged: None,
            pause: 0,
            ended_early: None,
            follows: None,
            is_reported: false,
            confirmed: false,
            tries: 0,
            again: 0,
            holds,
        }
    }

    /// Notes the state of the files now, and how it changed. Returns what to do next.
    pub(super) fn look(&mut self, now: Millis, print: &P, change: Change) -> Next {
        if self.done.as_ref() == Some(print) {
            // The files are again as they were in the version `done`.
            self.seen = None;
            return Next::Nothing;
        }
        if self.seen.as_ref() != Some(print) {
            self.change(now, change);
            self.seen = Some(print.clone());
        }
        self.next(now)
    }

    /// Notes that the files changed.
    fn change(&mut self, now: Millis, change: Change) {
        // If more time passed, the writer had finished the version and began another one.
        let pause_since = |before: Millis| Some(now.saturating_sub(before)).filter(|pause| *pause <= LONGEST);
        if self.seen.is_none() {
            self.follows = self.ended_early.filter(|_| change == Change::InPlace).and_then(pause_since);
            (self.begun, self.in_place) = (now, false);
        } else if change == Change::InPlace {
            self.pause = self.pause.max(pause_since(self.changed).unwrap_or_default());
        }
        self.in_place = change == Change::InPlace || self.in_place && change == Change::PartReplaced;
        (self.changed, self.judged, self.tries, self.is_reported) = (now, None, 0, false);
    }

    /// Returns what to do at `now` with the version that waits.
    fn next(&self, now: Millis) -> Next {
        let due = match self.judged {
            Some(Judged::Unreadable) => self.again,
            Some(Judged::Shrunk) if !self.is_reported => self.changed + self.patience().min(self.patience_if_lossy()),
            None => (self.changed + self.patience()).min(self.begun + MAX_WAIT),
            Some(_) => self.changed + self.patience(),
        };
        if now >= due { Next::Read } else { Next::Wait(due) }
    }

    /// How long `seen` must stay unchanged.
    fn patience(&self) -> Millis {
        match self.judged {
            _ if self.confirmed => Millis::from(self.in_place) * SHORT,
            Some(Judged::Shrunk) if self.holds => HELD.max(self.patience_if_lossy()),
            None | Some(Judged::Whole | Judged::Unreadable) => Millis::from(self.in_place) * SHORT,
            Some(Judged::Lossy | Judged::Shrunk | Judged::Broken) => self.patience_if_lossy(),
        }
    }

    /// How long a version that may be incomplete must stay unchanged.
    fn patience_if_lossy(&self) -> Millis {
        let learned = (2 * self.pause).min(LONGEST);
        Millis::from(self.in_place) * LONG.max(learned)
    }

    /// Decides about a version that was read. The state of its files was `print` before and after reading.
    pub(super) fn judge(&mut self, now: Millis, print: P, judged: Judged) -> Verdict {
        if self.seen.as_ref() != Some(&print) {
            self.changed = if self.in_place { now } else { self.changed };
            self.seen = Some(print);
        }
        self.judged = Some(judged);
        if judged == Judged::Unreadable {
            self.again = now + (AGAIN << self.tries.min(10)).min(LONGEST);
            self.tries += 1;
            return if now >= self.changed + ABSENT { Verdict::Refuse } else { Verdict::Wait };
        }
        let is_restless = now >= self.begun + MAX_WAIT;
        if now < self.changed + self.patience() && !(is_restless && judged == Judged::Whole) {
            self.begun = if is_restless { now } else { self.begun };
            let is_held = judged == Judged::Shrunk && self.holds && now >= self.changed + self.patience_if_lossy();
            self.is_reported |= is_held;
            return if is_held { Verdict::Hold } else { Verdict::Wait };
        }
        if let (Judged::Whole, Some(pause)) = (judged, self.follows.take()) {
            self.pause = self.pause.max(pause);
        }
        let is_early = self.in_place && judged != Judged::Whole;
        self.ended_early = is_early.then_some(self.changed);
        (self.done, self.confirmed) = (self.seen.take(), false);
        if judged == Judged::Broken { Verdict::Refuse } else { Verdict::Take }
    }

    /// Notes that an operator confirms the files as they are. They are read again even if unchanged, and taken if they
    /// are valid.
    pub(super) fn confirm(&mut self, now: Millis) {
        self.confirmed = true;
        self.again = now;
        if self.seen.is_none() {
            self.seen = self.done.take();
            (self.changed, self.begun, self.in_place, self.judged) = (now, now, false, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Judged; 4] = [Judged::Whole, Judged::Lossy, Judged::Shrunk, Judged::Broken];

    /// Looks every 100 ms, beginning at `now`, until the version is taken or refused. Returns that time and the
    /// verdict.
    fn until_done(
        settling: &mut Settling<u32>,
        mut now: Millis,
        print: u32,
        change: Change,
        judged: Judged,
    ) -> (Millis, Verdict) {
        loop {
            if settling.look(now, &print, change) == Next::Read {
                let verdict = settling.judge(now, print, judged);
                if matches!(verdict, Verdict::Take | Verdict::Refuse) {
                    return (now, verdict);
                }
            }
            now += 100;
            assert!(now < 1_000_000, "the version is never taken or refused");
        }
    }

    #[test]
    fn a_version_moved_into_place_is_taken_at_once_unless_it_lost_much() {
        for judged in ALL {
            let mut settling = Settling::new(Some(0), true);
            let (at, verdict) = until_done(&mut settling, 5_000, 1, Change::Replaced, judged);
            assert_eq!(verdict == Verdict::Refuse, judged == Judged::Broken);
            assert_eq!(at, if judged == Judged::Shrunk { 5_000 + HELD } else { 5_000 }, "{judged:?}");
        }
        let mut takes = Settling::new(Some(0), false);
        assert_eq!(until_done(&mut takes, 5_000, 1, Change::Replaced, Judged::Shrunk).0, 5_000);
    }

    #[test]
    fn a_version_written_in_place_waits_longer_if_it_lacks_more() {
        let waited = ALL.map(|judged| until_done(&mut Settling::new(Some(0), true), 0, 1, Change::InPlace, judged).0);
        assert_eq!(waited, [SHORT, LONG, HELD, LONG]);
    }

    #[test]
    fn a_confirmation_takes_a_held_version_and_rereads_the_version_in_service() {
        let mut settling = Settling::new(Some(0), true);
        assert_eq!(settling.look(0, &1, Change::Replaced), Next::Read);
        assert_eq!(settling.judge(0, 1, Judged::Shrunk), Verdict::Hold);
        assert_eq!(settling.look(1_000, &1, Change::Replaced), Next::Wait(HELD));
        settling.confirm(2_000);
        assert_eq!(until_done(&mut settling, 2_000, 1, Change::Replaced, Judged::Shrunk), (2_000, Verdict::Take));
        assert_eq!(settling.look(3_000, &1, Change::Replaced), Next::Nothing);
        settling.confirm(4_000);
        assert_eq!(until_done(&mut settling, 4_000, 1, Change::Replaced, Judged::Whole), (4_000, Verdict::Take));
        // A version that is still being written waits even if an operator confirmed it.
        assert_eq!(settling.look(5_000, &2, Change::InPlace), Next::Wait(5_000 + SHORT));
        settling.confirm(5_100);
        assert_eq!(settling.look(5_200, &3, Change::InPlace), Next::Wait(5_200 + SHORT));
    }

    #[test]
    fn unreadable_files_are_tried_again_after_growing_pauses_and_reported_after_a_while() {
        let mut settling = Settling::new(Some(0), true);
        let (mut now, mut tries, mut reported_at) = (0, Vec::new(), None);
        while now < 120_000 {
            if settling.look(now, &1, Change::Replaced) == Next::Read {
                tries.push(now);
                if settling.judge(now, 1, Judged::Unreadable) == Verdict::Refuse {
                    reported_at.get_or_insert(now);
                }
            }
            now += 50;
        }
        assert!(tries.len() > 8 && tries.len() < 14, "{tries:?}");
        assert!(reported_at.is_some_and(|at| (ABSENT..ABSENT + 2_000).contains(&at)), "{reported_at:?}");
        // Once the files can be read, the version is taken.
        assert!(until_done(&mut settling, now, 1, Change::Replaced, Judged::Whole).0 <= now + LONGEST);
    }

    #[test]
    fn a_change_that_was_undone_is_nothing_new() {
        let mut settling = Settling::new(Some(0), true);
        assert!(matches!(settling.look(0, &1, Change::InPlace), Next::Wait(_)));
        assert_eq!(settling.look(200, &0, Change::Replaced), Next::Nothing);
    }

    /// Writes the parts of a file, with `pauses` between them. Returns whether a version was taken or refused before
    /// the last part was written.
    fn is_cut_short(
        settling: &mut Settling<u32>,
        start: Millis,
        first: u32,
        pauses: &[Millis],
        judged: Judged,
    ) -> bool {
        let (mut now, mut part, mut next) = (start, first, start);
        let mut pauses = pauses.iter();
        loop {
            while now >= next {
                match pauses.next() {
                    Some(pause) => (part, next) = (part + 1, next + pause),
                    None => return false,
                }
            }
            if settling.look(now, &part, Change::InPlace) == Next::Read
                && matches!(settling.judge(now, part, judged), Verdict::Take | Verdict::Refuse)
            {
                return true;
            }
            now += 100;
        }
    }

    proptest! {
        #[test]
        fn an_incomplete_file_is_never_taken_if_the_pauses_of_its_writer_are_short(
            pauses in prop::collection::vec(1..LONG - 200, 1..20), kind in 1..4_usize,
        ) {
            prop_assert!(!is_cut_short(&mut Settling::new(Some(0), true), 0, 0, &pauses, ALL[kind]));
        }

        #[test]
        fn after_one_incomplete_version_the_next_ones_wait_for_longer_pauses(pause in LONG + 300..LONGEST / 2) {
            let mut settling = Settling::new(Some(0), true);
            prop_assert!(is_cut_short(&mut settling, 0, 0, &[pause, pause], Judged::Lossy));
            // The next version only adds to the incomplete version, so the time between the two was a pause of the
            // writer.
            let (end, _) = until_done(&mut settling, pause, 99, Change::InPlace, Judged::Whole);
            prop_assert!(!is_cut_short(&mut settling, end + 10_000, 100, &[pause; 6], Judged::Lossy));
        }

        #[test]
        fn time_between_edits_is_no_pause(pauses in prop::collection::vec(LONG + 300..LONGEST, 1..10)) {
            let (mut settling, mut now) = (Settling::new(Some(0), true), 0);
            for (print, pause) in (1..).zip(pauses) {
                let (end, _) = until_done(&mut settling, now, print, Change::InPlace, Judged::Lossy);
                prop_assert!(end - now <= LONG + 100);
                now += pause + 200;
            }
        }

        #[test]
        fn every_version_is_taken_or_refused_in_the_end(
            pauses in prop::collection::vec(1..40_000_u64, 0..10), kind in 0..4_usize, in_place: bool,
        ) {
            let mut settling = Settling::new(Some(0), true);
            is_cut_short(&mut settling, 0, 0, &pauses, ALL[kind]);
            let now = 1_000_000 - 2 * HELD;
            let change = if in_place { Change::InPlace } else { Change::Replaced };
            let (at, _) = until_done(&mut settling, now, 1_000, change, ALL[kind]);
            prop_assert!(at - now <= HELD + 100, "{}", at - now);
        }

        #[test]
        fn a_file_written_in_place_is_read_only_after_a_wait(times in prop::collection::vec(1..3_000_u64,
            1..40)) {
            let mut settling = Settling::new(Some(0), true);
            let (mut now, mut begun) = (0, 0);
            for (print, pause) in (1..).zip(times) {
                now += pause;
                let next = settling.look(now, &print, Change::InPlace);
                if next == Next::Read {
                    prop_assert!(now - begun >= MAX_WAIT - 3_000);
                    settling.judge(now, print, Judged::Broken);
                    begun = now;
                }
            }
        }
    }
}
