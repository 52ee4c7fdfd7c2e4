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
pub(super) enum CompareResult {
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
    waiting: Option<P>,
    /// When the last change of `waiting` was noticed.
    changed: Millis,
    /// When the first change after `done` was noticed.
    begun: Millis,
    /// Whether `waiting` is being written in place.
    in_place: bool,
    /// The result of comparing `waiting`; `None` if it wasn't read yet.
    compared: Option<CompareResult>,
    /// The longest pause between two writes in place so far.
    pause: Millis,
    /// The last change of the last version, if that version was taken or refused although it may have been incomplete.
    ended_early: Option<Millis>,
    /// Whether it was reported that `waiting` is held.
    is_reported: bool,
    /// The time from `ended_early` to the first write of `waiting`. If `waiting` turns out to add to the version
    /// before, this was a pause of the writer.
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
            waiting: None,
            changed: 0,
            begun: 0,
            in_place: false,
            compared: None,
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
    pub(super) fn look(&mut self, now: Millis, stamps: &P, change: Change) -> Next {
        if self.done.as_ref() == Some(stamps) {
            // The files are again as they were in the version `done`.
            self.waiting = None;
            return Next::Nothing;
        }
        if self.waiting.as_ref() != Some(stamps) {
            self.change(now, change);
            self.waiting = Some(stamps.clone());
        }
        self.next(now)
    }

    /// Notes that the files changed.
    fn change(&mut self, now: Millis, change: Change) {
        // If more time passed, the writer had finished the version and began another one.
        let pause_since = |before: Millis| Some(now.saturating_sub(before)).filter(|pause| *pause <= LONGEST);
        if self.waiting.is_none() {
            self.follows = self.ended_early.filter(|_| change == Change::InPlace).and_then(pause_since);
            (self.begun, self.in_place) = (now, false);
        } else if change == Change::InPlace {
            self.pause = self.pause.max(pause_since(self.changed).unwrap_or_default());
        }
        self.in_place = change == Change::InPlace || self.in_place && change == Change::PartReplaced;
        (self.changed, self.compared, self.tries, self.is_reported) = (now, None, 0, false);
    }

    /// Returns what to do at `now` with the version that waits.
    fn next(&self, now: Millis) -> Next {
        let due = match self.compared {
            Some(CompareResult::Unreadable) => self.again,
            Some(CompareResult::Shrunk) if !self.is_reported => {
                self.changed + self.patience().min(self.patience_if_lossy())
            }
            None => (self.changed + self.patience()).min(self.begun + MAX_WAIT),
            Some(_) => self.changed + self.patience(),
        };
        if now >= due { Next::Read } else { Next::Wait(due) }
    }

    /// How long `waiting` must stay unchanged.
    fn patience(&self) -> Millis {
        match self.compared {
            _ if self.confirmed => Millis::from(self.in_place) * SHORT,
            Some(CompareResult::Shrunk) if self.holds => HELD.max(self.patience_if_lossy()),
            None | Some(CompareResult::Whole | CompareResult::Unreadable) => Millis::from(self.in_place) * SHORT,
            Some(CompareResult::Lossy | CompareResult::Shrunk | CompareResult::Broken) => self.patience_if_lossy(),
        }
    }

    /// How long a version that may be incomplete must stay unchanged.
    fn patience_if_lossy(&self) -> Millis {
        let learned = (2 * self.pause).min(LONGEST);
        Millis::from(self.in_place) * LONG.max(learned)
    }

    /// Decides about a version that was read. The state of its files was `stamps` before and after reading.
    pub(super) fn judge(&mut self, now: Millis, stamps: P, result: CompareResult) -> Verdict {
        if self.waiting.as_ref() != Some(&stamps) {
            self.changed = if self.in_place { now } else { self.changed };
            self.waiting = Some(stamps);
        }
        self.compared = Some(result);
        if result == CompareResult::Unreadable {
            self.again = now + (AGAIN << self.tries.min(10)).min(LONGEST);
            self.tries += 1;
            return if now >= self.changed + ABSENT { Verdict::Refuse } else { Verdict::Wait };
        }
        let keeps_changing = now >= self.begun + MAX_WAIT;
        if now < self.changed + self.patience() && !(keeps_changing && result == CompareResult::Whole) {
            self.begun = if keeps_changing { now } else { self.begun };
            let is_held =
                result == CompareResult::Shrunk && self.holds && now >= self.changed + self.patience_if_lossy();
            self.is_reported |= is_held;
            return if is_held { Verdict::Hold } else { Verdict::Wait };
        }
        if let (CompareResult::Whole, Some(pause)) = (result, self.follows.take()) {
            self.pause = self.pause.max(pause);
        }
        let is_early = self.in_place && result != CompareResult::Whole;
        self.ended_early = is_early.then_some(self.changed);
        (self.done, self.confirmed) = (self.waiting.take(), false);
        if result == CompareResult::Broken { Verdict::Refuse } else { Verdict::Take }
    }

    /// Notes that an operator confirms the files as they are. They are read again even if unchanged, and taken if they
    /// are valid.
    pub(super) fn confirm(&mut self, now: Millis) {
        self.confirmed = true;
        self.again = now;
        if self.waiting.is_none() {
            self.waiting = self.done.take();
            (self.changed, self.begun, self.in_place, self.compared) = (now, now, false, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [CompareResult; 4] =
        [CompareResult::Whole, CompareResult::Lossy, CompareResult::Shrunk, CompareResult::Broken];

    /// Looks every 100 ms, beginning at `now`, until the version is taken or refused. Returns that time and the
    /// verdict.
    fn until_done(
        settling: &mut Settling<u32>,
        mut now: Millis,
        stamps: u32,
        change: Change,
        judged: CompareResult,
    ) -> (Millis, Verdict) {
        loop {
            if settling.look(now, &stamps, change) == Next::Read {
                let verdict = settling.judge(now, stamps, judged);
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
            assert_eq!(verdict == Verdict::Refuse, judged == CompareResult::Broken);
            assert_eq!(at, if judged == CompareResult::Shrunk { 5_000 + HELD } else { 5_000 }, "{judged:?}");
        }
        let mut takes = Settling::new(Some(0), false);
        assert_eq!(until_done(&mut takes, 5_000, 1, Change::Replaced, CompareResult::Shrunk).0, 5_000);
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
        assert_eq!(settling.judge(0, 1, CompareResult::Shrunk), Verdict::Hold);
        assert_eq!(settling.look(1_000, &1, Change::Replaced), Next::Wait(HELD));
        settling.confirm(2_000);
        assert_eq!(
            until_done(&mut settling, 2_000, 1, Change::Replaced, CompareResult::Shrunk),
            (2_000, Verdict::Take)
        );
        assert_eq!(settling.look(3_000, &1, Change::Replaced), Next::Nothing);
        settling.confirm(4_000);
        assert_eq!(until_done(&mut settling, 4_000, 1, Change::Replaced, CompareResult::Whole), (4_000, Verdict::Take));
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
                if settling.judge(now, 1, CompareResult::Unreadable) == Verdict::Refuse {
                    reported_at.get_or_insert(now);
                }
            }
            now += 50;
        }
        assert!(tries.len() > 8 && tries.len() < 14, "{tries:?}");
        assert!(reported_at.is_some_and(|at| (ABSENT..ABSENT + 2_000).contains(&at)), "{reported_at:?}");
        // Once the files can be read, the version is taken.
        assert!(until_done(&mut settling, now, 1, Change::Replaced, CompareResult::Whole).0 <= now + LONGEST);
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
        judged: CompareResult,
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
            prop_assert!(is_cut_short(&mut settling, 0, 0, &[pause, pause], CompareResult::Lossy));
            // The next version only adds to the incomplete version, so the time between the two was a pause of the
            // writer.
            let (end, _) = until_done(&mut settling, pause, 99, Change::InPlace, CompareResult::Whole);
            prop_assert!(!is_cut_short(&mut settling, end + 10_000, 100, &[pause; 6], CompareResult::Lossy));
        }

        #[test]
        fn time_between_edits_is_no_pause(pauses in prop::collection::vec(LONG + 300..LONGEST, 1..10)) {
            let (mut settling, mut now) = (Settling::new(Some(0), true), 0);
            for (stamps, pause) in (1..).zip(pauses) {
                let (end, _) = until_done(&mut settling, now, stamps, Change::InPlace, CompareResult::Lossy);
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
            for (stamps, pause) in (1..).zip(times) {
                now += pause;
                let next = settling.look(now, &stamps, Change::InPlace);
                if next == Next::Read {
                    prop_assert!(now - begun >= MAX_WAIT - 3_000);
                    settling.judge(now, stamps, CompareResult::Broken);
                    begun = now;
                }
            }
        }
    }
}
