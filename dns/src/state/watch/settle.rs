//! Decides when a version of a file is taken. Takes what was seen of the file and when, returns whether to wait, to
//! read or to take it. Pure; called by [`super::part`].
//!
//! A version that was moved into place, or to which a link was swapped, is whole. One that is written in place may be
//! half of itself. It is read once it has been still for [`SHORT`]. If it then lacks nothing that is in service, it is
//! taken: more can only come. If it lacks something or makes no sense, it has to be still for [`LONG`], and for twice
//! the longest pause that this writer was seen to make.

use super::change::Change;

/// Milliseconds of a clock that is never set.
pub(super) type Millis = u64;

/// How long a file written in place has to be still before it is read.
pub(super) const SHORT: Millis = 500;
/// How long it has to be still if what was read lacks something or makes no sense.
pub(super) const LONG: Millis = 3_000;
/// The longest time that a file has to be still because its writer made pauses.
pub(super) const LONGEST: Millis = 30_000;
/// How long a version that lost much has to be still, however it was written, unless an operator confirms it.
pub(super) const HELD: Millis = 60_000;
/// A file that isn't still for so long is read all the same, and taken if it lacks nothing.
pub(super) const MAX_WAIT: Millis = 10_000;
/// How long a file may be unreadable before that is told: in the middle of a swap it is for a moment.
pub(super) const ABSENT: Millis = 1_000;
/// The first pause before a file that can't be read is tried again; it doubles each time.
const AGAIN: Millis = 250;

/// What a version is, compared with the one in service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Judged {
    /// It lacks nothing that is in service.
    Whole,
    /// It lacks some of it, or nothing is in service.
    Lossy,
    /// It lacks so much that somebody should confirm it.
    Shrunk,
    /// It makes no sense.
    Broken,
    /// It can't be read for now.
    Unreadable,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// There is nothing new.
    Nothing,
    /// Something is new, and this is the time to look again at the latest.
    Wait(Millis),
    /// Read it and judge it.
    Read,
}

/// What becomes of a version that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Put it in service.
    Take,
    /// Report what is wrong with it.
    Refuse,
    /// It isn't still for long enough yet.
    Wait,
    /// It lost much: report that it waits for a confirmation, or for the time to pass.
    Hold,
}

/// What was seen of one file, or of some that make one version. `P` is what they looked like.
#[derive(Debug, Clone)]
pub(super) struct Settling<P> {
    /// The version that was taken or refused last.
    done: Option<P>,
    /// The version that waits.
    seen: Option<P>,
    /// When that was last seen to have changed.
    changed: Millis,
    /// When the first change after `done` was seen.
    begun: Millis,
    /// Whether it is being written where it is.
    in_place: bool,
    judged: Option<Judged>,
    /// The longest pause between two writes in place, as far as it was seen.
    pause: Millis,
    /// When a version that may have been half of itself was taken or refused last.
    ended_early: Option<Millis>,
    /// Whether it was told that what is seen is held.
    is_reported: bool,
    /// How long after that what is seen began to be written. If it only adds to it, the writer had made a pause.
    follows: Option<Millis>,
    /// An operator said that what is there is meant.
    confirmed: bool,
    /// How many times it couldn't be read, and when it is tried again.
    tries: u32,
    again: Millis,
    /// Whether versions that lost much are held.
    holds: bool,
}

impl<P: PartialEq + Clone> Settling<P> {
    /// Nothing was seen yet but what is `done`.
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

    /// Takes note of what is there now, and how that came.
    pub(super) fn look(&mut self, now: Millis, print: &P, change: Change) -> Next {
        if self.done.as_ref() == Some(print) {
            // What was written has been undone.
            self.seen = None;
            return Next::Nothing;
        }
        if self.seen.as_ref() != Some(print) {
            self.change(now, change);
            self.seen = Some(print.clone());
        }
        self.next(now)
    }

    fn change(&mut self, now: Millis, change: Change) {
        // What is longer isn't a pause but the end.
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

    fn next(&self, now: Millis) -> Next {
        let due = match self.judged {
            Some(Judged::Unreadable) => self.again,
            Some(Judged::Shrunk) if !self.is_reported => self.changed + self.patience().min(self.patience_if_lossy()),
            None => (self.changed + self.patience()).min(self.begun + MAX_WAIT),
            Some(_) => self.changed + self.patience(),
        };
        if now >= due { Next::Read } else { Next::Wait(due) }
    }

    /// How long what is seen has to be still.
    fn patience(&self) -> Millis {
        match self.judged {
            _ if self.confirmed => Millis::from(self.in_place) * SHORT,
            Some(Judged::Shrunk) if self.holds => HELD.max(self.patience_if_lossy()),
            None | Some(Judged::Whole | Judged::Unreadable) => Millis::from(self.in_place) * SHORT,
            Some(Judged::Lossy | Judged::Shrunk | Judged::Broken) => self.patience_if_lossy(),
        }
    }

    /// How long something that may be half of itself has to be still.
    fn patience_if_lossy(&self) -> Millis {
        let learned = (2 * self.pause).min(LONGEST);
        Millis::from(self.in_place) * LONG.max(learned)
    }

    /// Judges what was read, which looked like `print` before and after.
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

    /// An operator says that what is there is meant: it is read, changed or not, and taken if it makes sense.
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

    /// Looks from `now` on, every 100 ms, until the version is done with; when that was, and how it ended.
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
            assert!(now < 1_000_000, "never done with");
        }
    }

    #[test]
    fn what_was_moved_into_place_is_taken_at_once_unless_it_lost_much() {
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
    fn what_is_written_in_place_waits_the_longer_the_more_it_lacks() {
        let waited = ALL.map(|judged| until_done(&mut Settling::new(Some(0), true), 0, 1, Change::InPlace, judged).0);
        assert_eq!(waited, [SHORT, LONG, HELD, LONG]);
    }

    #[test]
    fn a_confirmation_takes_what_is_held_and_rereads_what_is_in_service() {
        let mut settling = Settling::new(Some(0), true);
        assert_eq!(settling.look(0, &1, Change::Replaced), Next::Read);
        assert_eq!(settling.judge(0, 1, Judged::Shrunk), Verdict::Hold);
        assert_eq!(settling.look(1_000, &1, Change::Replaced), Next::Wait(HELD));
        settling.confirm(2_000);
        assert_eq!(until_done(&mut settling, 2_000, 1, Change::Replaced, Judged::Shrunk), (2_000, Verdict::Take));
        assert_eq!(settling.look(3_000, &1, Change::Replaced), Next::Nothing);
        settling.confirm(4_000);
        assert_eq!(until_done(&mut settling, 4_000, 1, Change::Replaced, Judged::Whole), (4_000, Verdict::Take));
        // Half of a file is half of a file, whoever confirms.
        assert_eq!(settling.look(5_000, &2, Change::InPlace), Next::Wait(5_000 + SHORT));
        settling.confirm(5_100);
        assert_eq!(settling.look(5_200, &3, Change::InPlace), Next::Wait(5_200 + SHORT));
    }

    #[test]
    fn what_can_not_be_read_is_tried_again_ever_more_rarely_and_told_when_it_lasts() {
        let mut settling = Settling::new(Some(0), true);
        let (mut now, mut tries, mut told_at) = (0, Vec::new(), None);
        while now < 120_000 {
            if settling.look(now, &1, Change::Replaced) == Next::Read {
                tries.push(now);
                if settling.judge(now, 1, Judged::Unreadable) == Verdict::Refuse {
                    told_at.get_or_insert(now);
                }
            }
            now += 50;
        }
        assert!(tries.len() > 8 && tries.len() < 14, "{tries:?}");
        assert!(told_at.is_some_and(|at| (ABSENT..ABSENT + 2_000).contains(&at)), "{told_at:?}");
        // And once it can be read, it is taken.
        assert!(until_done(&mut settling, now, 1, Change::Replaced, Judged::Whole).0 <= now + LONGEST);
    }

    #[test]
    fn what_is_undone_is_nothing_new() {
        let mut settling = Settling::new(Some(0), true);
        assert!(matches!(settling.look(0, &1, Change::InPlace), Next::Wait(_)));
        assert_eq!(settling.look(200, &0, Change::Replaced), Next::Nothing);
    }

    /// Writes part after part, `pauses` apart; whether anything but the last was taken or refused before the last was
    /// written.
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
        fn half_a_file_is_never_taken_from_a_writer_whose_pauses_are_shorter_than_the_stillness(
            pauses in prop::collection::vec(1..LONG - 200, 1..20), kind in 1..4_usize,
        ) {
            prop_assert!(!is_cut_short(&mut Settling::new(Some(0), true), 0, 0, &pauses, ALL[kind]));
        }

        #[test]
        fn a_writer_that_was_cut_short_once_is_waited_for_from_then_on(pause in LONG + 300..LONGEST / 2) {
            let mut settling = Settling::new(Some(0), true);
            prop_assert!(is_cut_short(&mut settling, 0, 0, &[pause, pause], Judged::Lossy));
            // What it writes next only adds to that, and teaches.
            let (end, _) = until_done(&mut settling, pause, 99, Change::InPlace, Judged::Whole);
            prop_assert!(!is_cut_short(&mut settling, end + 10_000, 100, &[pause; 6], Judged::Lossy));
        }

        #[test]
        fn edits_that_follow_one_another_teach_nothing(pauses in prop::collection::vec(LONG + 300..LONGEST, 1..10)) {
            let (mut settling, mut now) = (Settling::new(Some(0), true), 0);
            for (print, pause) in (1..).zip(pauses) {
                let (end, _) = until_done(&mut settling, now, print, Change::InPlace, Judged::Lossy);
                prop_assert!(end - now <= LONG + 100);
                now += pause + 200;
            }
        }

        #[test]
        fn everything_comes_to_an_end(
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
        fn nothing_written_in_place_is_read_before_it_is_still_or_restless(times in prop::collection::vec(1..3_000_u64,
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
