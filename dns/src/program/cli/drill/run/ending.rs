//! How a drill ends that this process runs: it gives all clients back, also if the answer to the first share was lost,
//! and leaves the record. Takes what the node says, returns when clients came back. Called by [`super`].

use std::time::Instant;

use bailiwick_rules::drill::record::{Outcome, Record};
use bailiwick_rules::report::DrillRecord;
use bailiwick_rules::time::{Millis, Timestamp};

use super::super::node::AskError;
use super::super::write;
use super::{Running, pause, say};

impl Running<'_> {
    /// Gives all clients back. If the node can't be told, they come back when the share that was asked for last ends.
    pub(super) fn end(&mut self, outcome: Outcome, why: Option<String>) {
        let told = why.as_deref().map_or("it is done".to_owned(), |why| format!("it is broken off: {why}"));
        let reason: String = told.chars().filter(|c| !c.is_control()).take(500).collect();
        let (looked, now) = (self.recorder.last().at, self.node_now());
        let at = match &self.taken {
            Some(run) => {
                let by_itself = run.until.max(self.asked_until);
                ended_at(&self.node.end_run(run, &reason), by_itself, now).max(looked)
            }
            None => looked,
        };
        say(&format!("{at}  all clients of {} come back: {told}", self.drill.region));
        self.recorder.gave_back(outcome, why, at);
        self.write();
    }

    /// Takes back a first share that nobody knows whether the node took: its answer was lost. Looks for the run, and
    /// ends it.
    pub(super) fn take_back(&mut self, share: u8, reasons: &[String]) {
        let why = format!("the node gave no answer when it was asked to begin: {}", reasons.join("; "));
        say(&format!("{}: {why}", self.id));
        let (asked, began) = (self.recorder.last().at, Instant::now());
        let (patience, every) = (Millis(self.hold()), self.args.every);
        let passed = || Millis(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX));
        // A node that was restarted meanwhile may learn of the run from its peers only.
        let mut look = || match self.look() {
            Ok(last) => last.filter(|last| last.name == self.id && last.began >= asked).map(Some),
            Err(AskError::Gone(_)) => Some(None),
            Err(_) => None,
        };
        match seek(&mut look, patience, passed, || pause(every.to_std())).flatten() {
            Some(run) => {
                self.began(share, run);
                self.end(Outcome::Aborted, Some(why));
            }
            // If it began nevertheless, it has ended by itself by now.
            None => self.recorder.refused(Outcome::Aborted, vec![why]),
        }
    }

    /// Leaves the record with the node, and in the file.
    ///
    /// # Errors
    /// That it could be kept nowhere.
    pub(super) fn finish(mut self) -> Result<Record, Vec<String>> {
        self.recorder.finish();
        // Each of the two is tried, whatever comes of the other.
        let left = self.node.leave(self.recorder.record());
        let written = write(&self.file, self.recorder.record());
        if let Err(errors) = &left {
            eprintln!("warning: the node doesn't keep the record: {}", errors.join("; "));
        }
        match (left, written) {
            (Err(_), Err(errors)) => return Err(errors),
            (Ok(()), Err(errors)) => {
                eprintln!(
                    "warning: {}; the node has the record: `bailiwick drill report {}`",
                    errors.join("; "),
                    self.id
                );
            }
            (_, Ok(())) => {}
        }
        Ok(self.recorder.record().clone())
    }
}

/// When all clients were back: now, if the node ended the run, or did so before because its rules no longer have the
/// drill. Else when the share that was asked for last ends by itself.
fn ended_at(told: &Result<DrillRecord, AskError>, by_itself: Timestamp, now: Timestamp) -> Timestamp {
    match told {
        Ok(_) | Err(AskError::Gone(_)) => now.min(by_itself),
        Err(AskError::Refused(_) | AskError::NoAnswer(_)) => by_itself,
    }
}

/// Looks again and again until something is found. Looks for the last time when the patience is over.
fn seek<T>(
    mut look: impl FnMut() -> Option<T>,
    patience: Millis,
    passed: impl Fn() -> Millis,
    pause: impl Fn(),
) -> Option<T> {
    loop {
        // A run that began at the last moment is found by a look that begins after the patience.
        let is_last = passed() >= patience;
        let found = look();
        if found.is_some() || is_last {
            return found;
        }
        pause();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Seeks for 15 seconds with a look every second, of which each takes a second. Returns what was found, and after
    /// which time the looks began.
    fn sought(found_at: u64) -> (Option<u64>, Vec<u64>) {
        let (time, mut looks) = (Cell::new(0), Vec::new());
        let look = || {
            looks.push(time.get() / 1_000);
            let found = (time.get() >= found_at).then(|| time.get());
            time.set(time.get() + 1_000);
            found
        };
        let pause = || time.set(time.get() + 1_000);
        let found = seek(look, Millis(15_000), || Millis(time.get()), pause);
        (found, looks)
    }

    #[test]
    fn a_run_is_sought_until_the_patience_is_over() {
        assert_eq!(sought(0), (Some(0), vec![0]));
        assert_eq!(sought(5_000), (Some(6_000), vec![0, 2, 4, 6]));
        assert_eq!(sought(15_500), (Some(16_000), vec![0, 2, 4, 6, 8, 10, 12, 14, 16]), "by the last look");
        assert_eq!(sought(16_001), (None, vec![0, 2, 4, 6, 8, 10, 12, 14, 16]), "it has ended by itself by then");
    }

    #[test]
    fn a_run_has_ended_at_once_if_the_rules_no_longer_have_it() {
        let (now, by_itself) = (Timestamp(20_000), Timestamp(35_000));
        let at = |told: AskError, now| ended_at(&Err(told), by_itself, now);
        assert_eq!(at(AskError::Gone(Vec::new()), now), now);
        assert_eq!(at(AskError::Gone(Vec::new()), Timestamp(90_000)), by_itself, "the node was silent for long");
        assert_eq!(at(AskError::NoAnswer(Vec::new()), now), by_itself);
        assert_eq!(at(AskError::Refused(Vec::new()), now), by_itself);
    }
}
