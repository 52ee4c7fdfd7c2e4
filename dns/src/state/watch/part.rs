//! Takes the state of the files of one part, returns a version to put in service or its faults. A part is read as a
//! whole: the rules, a zone with the files it includes, the keys of a zone, or the GeoIP database. Called by the feed
//! in [`super`], which holds one [`SourcePart`] for each.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use bailiwick_host::locate::geoip::{Places, Registered};
use bailiwick_host::system::files::Stamp;
use bailiwick_rules::time::Timestamp;

use super::change::{Moves, change};
use super::settle::{CompareResult, Millis, Next, Settling, Verdict};
use crate::dnssec::directory::SignedZone;
use crate::dnssec::directory::{STATE, read_keys};
use crate::dnssec::key_set::ZoneKeys;
use crate::protocol::name::Name;
use crate::state::load::Shrink;
use crate::state::load::{self, Fault, Unusable, compile_rules, read_file};
use crate::state::snapshot::{Rules, ZoneSource};

/// The result of reading a part, and the state of its files just before they were opened.
#[derive(Debug)]
pub(crate) struct Reading<T> {
    stamps: Vec<Stamp>,
    pub(crate) outcome: Result<T, Unusable>,
}

/// One part, and what is known about its files and versions.
#[derive(Debug)]
pub(crate) struct SourcePart<G> {
    /// The state of the files when they were last checked.
    stamps: Vec<Stamp>,
    settling: Settling<Vec<Stamp>>,
    /// The version last taken. It is kept only if later versions are compared with it or other parts are combined with
    /// it.
    pub(crate) good: Option<G>,
    /// The faults of the version on disk, if it isn't in service.
    faults: Vec<String>,
    /// Whether the version on disk isn't decided yet: it is held, can't be read, or wasn't settled at the start.
    is_waiting: bool,
}

/// What a check of the files found.
pub(super) enum Check<T> {
    /// Nothing to report.
    Nothing,
    /// A version to put in service.
    Version(T),
    /// The list of faults has changed; see [`SourcePart::faults`].
    Faults,
}

/// Compares a version with the one in service. Also returns the message to report if the version is held.
pub(super) type Compare<G, T> = fn(Option<&G>, &T) -> (CompareResult, String);

/// Compares nothing: every version that can be read and is valid counts as whole.
pub(super) fn any_version<G, T>(_: Option<&G>, _: &T) -> (CompareResult, String) {
    (CompareResult::Whole, String::new())
}

impl<G> SourcePart<G> {
    /// The state after a start. `is_done` means that the version read at the start was taken or refused, so it isn't
    /// read again.
    pub(crate) fn new<T>(reading: &Reading<T>, is_done: bool, good: Option<G>, shrink: Shrink) -> Self {
        let faults = reading.outcome.as_ref().err().map(|unusable| texts(&unusable.faults)).unwrap_or_default();
        let done = is_done.then(|| reading.stamps.clone());
        let settling = Settling::new(done, shrink == Shrink::Hold);
        Self { stamps: reading.stamps.clone(), settling, good, faults, is_waiting: !is_done }
    }

    /// The faults of the version on disk, if it isn't in service.
    pub(crate) fn faults(&self) -> Option<Vec<String>> {
        (!self.faults.is_empty()).then(|| self.faults.clone())
    }

    pub(super) fn stamps(&self) -> impl Iterator<Item = &Stamp> {
        self.stamps.iter()
    }

    pub(super) fn confirm(&mut self, now: Millis) {
        self.settling.confirm(now);
    }

    /// Checks the files. Reads and judges them if it is time.
    pub(super) fn step<T>(
        &mut self,
        now: Millis,
        moves: &Moves,
        read: impl FnOnce() -> Reading<T>,
        compare: Compare<G, T>,
    ) -> Check<T> {
        let stamps = again(&self.stamps);
        let how = change(&self.stamps, &stamps, moves);
        self.stamps = stamps;
        let next = self.settling.look(now, &self.stamps, how);
        if next != Next::Read {
            // The version that was held or couldn't be read is gone, and the previous version is back.
            let is_undone = next == Next::Nothing && self.is_waiting;
            self.is_waiting &= !is_undone;
            return if is_undone { self.report(Vec::new(), Check::Faults) } else { Check::Nothing };
        }
        let Reading { stamps, outcome } = read();
        let after = again(&stamps);
        if after != stamps {
            // A file changed while it was read. The next check sees the change.
            self.stamps = stamps;
            return Check::Nothing;
        }
        let (compared, why_held) = match &outcome {
            Ok(version) => compare(self.good.as_ref(), version),
            Err(Unusable { may_pass: true, .. }) => (CompareResult::Unreadable, String::new()),
            Err(Unusable { may_pass: false, .. }) => (CompareResult::Broken, String::new()),
        };
        self.stamps.clone_from(&stamps);
        let verdict = self.settling.judge(now, stamps, compared);
        let is_reported =
            verdict == Verdict::Hold || (verdict, compared) == (Verdict::Refuse, CompareResult::Unreadable);
        self.is_waiting = is_reported || self.is_waiting && verdict == Verdict::Wait;
        match (verdict, outcome) {
            (Verdict::Take, Ok(version)) => self.report(Vec::new(), Check::Version(version)),
            (Verdict::Hold, _) => {
                let place = self.stamps.first().map(|stamp| stamp.path.display().to_string()).unwrap_or_default();
                self.report(vec![format!("{place}: {why_held}")], Check::Faults)
            }
            (Verdict::Refuse | Verdict::Take, Err(unusable)) => self.report(texts(&unusable.faults), Check::Faults),
            (Verdict::Refuse, Ok(_)) | (Verdict::Wait, _) => Check::Nothing,
        }
    }

    /// Stores `faults` and returns `result`. If the faults haven't changed, [`Check::Nothing`] replaces
    /// [`Check::Faults`].
    fn report<T>(&mut self, faults: Vec<String>, result: Check<T>) -> Check<T> {
        let is_same = self.faults == faults;
        self.faults = faults;
        if is_same && matches!(result, Check::Faults) { Check::Nothing } else { result }
    }
}

fn texts(faults: &[Fault]) -> Vec<String> {
    faults.iter().map(Fault::to_string).collect()
}

fn again(stamps: &[Stamp]) -> Vec<Stamp> {
    stamps.iter().map(|stamp| Stamp::of(&stamp.path)).collect()
}

impl<T> Reading<T> {
    fn of_file(path: &Path, make: impl FnOnce(Vec<u8>) -> Result<T, Vec<Fault>>) -> Self {
        Self::of_files(path, |opening| {
            opening(path);
            let bytes = read_file(path).map_err(|error| Unusable::unreadable(path, &error))?;
            make(bytes).map_err(|faults| Unusable { faults, may_pass: false })
        })
    }

    /// Reads several files, `path` first. `read` has to call its argument with the path of each file before it opens
    /// it. A panic in `read` becomes a fault of this version.
    fn of_files(path: &Path, read: impl FnOnce(&mut dyn FnMut(&Path)) -> Result<T, Unusable>) -> Self {
        let mut stamps: Vec<Stamp> = vec![Stamp::of(path)];
        let mut opening = |path: &Path| {
            if stamps.iter().all(|stamp| stamp.path != path) {
                stamps.push(Stamp::of(path));
            }
        };
        let outcome = catch_unwind(AssertUnwindSafe(|| read(&mut opening))).unwrap_or_else(|_| {
            let message = "can't be read, by a fault of this program (see the log); please report it";
            Err(Unusable { faults: vec![Fault::of_file(path, message)], may_pass: true })
        });
        Self { stamps, outcome }
    }
}

/// Reads the rules.
pub(crate) fn read_rules(path: &Path) -> Reading<Arc<Rules>> {
    Reading::of_file(path, |bytes| compile_rules(bytes, &path.display().to_string()))
}

/// Reads the GeoIP database. Also returns its bytes, so that they can be stored.
pub(crate) fn read_geoip(path: &Path, registered: Registered) -> Reading<(Arc<Places>, Vec<u8>)> {
    Reading::of_file(path, |bytes| match Places::read_with(&bytes, registered) {
        Ok(places) => Ok((Arc::new(places), bytes)),
        Err(error) => Err(vec![Fault::of_file(path, error.to_string())]),
    })
}

/// Reads a zone.
pub(crate) fn read_zone(origin: &Name, path: &Path) -> Reading<ZoneSource> {
    Reading::of_files(path, |opening| load::read_zone(origin, path, opening))
}

/// Reads the keys of a zone. The keys are in several files, which are replaced one after another. So every fault counts
/// as temporary.
pub(crate) fn read_zone_keys(zone: &SignedZone, at: Timestamp) -> Reading<ZoneKeys> {
    Reading::of_files(&zone.directory.join(STATE), |opening| {
        let read = read_keys(std::slice::from_ref(zone), at, opening);
        let keys_of_zone = read.map(|keys| keys.first().cloned());
        match keys_of_zone {
            Ok(Some(keys)) => Ok(keys),
            Ok(None) => Err(Unusable { faults: Vec::new(), may_pass: true }),
            Err(faults) => Err(Unusable { faults, may_pass: true }),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_while_a_version_is_read_is_that_versions_fault() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "x").unwrap();
        let read = || Reading::<()>::of_file(&file, |_| panic!("for the test"));
        let mut part = SourcePart::<()>::new(&read(), false, None, Shrink::Hold);
        assert!(part.faults().unwrap()[0].contains("by a fault of this program"));
        // The file is read again, and a version that can be read is taken.
        assert!(matches!(part.step(0, &Moves::default(), read, any_version), Check::Nothing));
        let fine = || Reading::of_file(&file, |_| Ok(7));
        assert!(matches!(part.step(60_000, &Moves::default(), fine, any_version), Check::Version(7)));
        assert_eq!(part.faults(), None);
    }

    #[test]
    fn a_file_that_can_not_be_read_for_now_is_read_later_even_if_it_has_not_changed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "x").unwrap();
        let fine = || Reading::of_file(&file, |_| Ok(1));
        let short = || {
            let error = std::io::Error::from_raw_os_error(24); // EMFILE: too many open files
            Reading::<i32>::of_files(&file, |_| Err(Unusable::unreadable(&file, &error)))
        };
        let mut part = SourcePart::<()>::new(&fine(), true, None, Shrink::Hold);
        std::fs::rename(&file, folder.path().join("away")).unwrap();
        std::fs::write(&file, "xy").unwrap();
        let moves = Moves::default();
        let (mut reported, mut now) = (0, 0);
        while now < 20_000 {
            reported += u32::from(matches!(part.step(now, &moves, short, any_version), Check::Faults));
            now += 100;
        }
        assert_eq!(reported, 1, "the fault is reported once");
        assert!(part.faults().unwrap()[0].contains("can't be read"));
        while !matches!(part.step(now, &moves, fine, any_version), Check::Version(1)) {
            now += 100;
            assert!(now < 60_000);
        }
        assert_eq!(part.faults(), None);
    }
}
