//! Watches a node's files. Takes changes on disk and calls of [`Feed::reload`], sends new versions of rules, zones,
//! keys and GeoIP data to the owner.
//!
//! A thread checks every file several times a second ([`change`]) and takes a version when it counts as complete
//! ([`settle`]). Each zone, and the keys of each zone, are read and checked separately, so a mistake in one doesn't
//! block another. A fault is a mistake in a file, with its place. The owner is the task that decides which versions
//! are in service; this module only offers versions to it.

mod change;
mod part;
mod settle;

use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use bailiwick_host::system::batch::give_back_memory;
use bailiwick_host::system::tasks::{Backoff, Pulse};

use crate::dnssec::directory::SignedZone;
use crate::dnssec::key_set::ZoneKeys;
use crate::protocol::name::{Name, NameRef};
use crate::state::load::Sources;
use crate::state::owner::{Faults, FileKind, Handle, Offer};
use crate::state::snapshot::ZoneSource;
use crate::state::store::{Kind, Store};
use change::Moves;
use part::{Check, any_version};
pub(crate) use part::{Reading, SourcePart, read_geoip, read_rules, read_zone, read_zone_keys};
use settle::{CompareResult, Millis};

/// The shortest pause between two looks at all files. If a look takes longer than a twentieth of this, the pause is
/// twenty times the duration of the look.
const LOOK: Duration = Duration::from_millis(100);
/// The longest pause between two looks.
const RAREST_LOOK: Duration = Duration::from_secs(1);
/// A version of a zone that lost at most this many names never counts as a version that lost much, even if the zone is
/// small.
const FEW: usize = 2;
/// If one look, with the reading of changed files, takes longer than this, the thread counts as stuck: a disk or a
/// share hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// The thread that watches a node's files. It stops when this is dropped.
#[derive(Debug)]
pub(crate) struct Feed {
    reload: SyncSender<()>,
}

/// All parts that are watched, with the states of their files and their versions. A part is what is read as a whole:
/// the rules, a zone, the keys of a zone, or the GeoIP database.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) rules: SourcePart<()>,
    /// In the order of the configuration.
    pub(crate) zones: Vec<(Name, SourcePart<ZoneSource>)>,
    pub(crate) keys: Vec<(SignedZone, SourcePart<ZoneKeys>)>,
    pub(crate) geoip: Option<SourcePart<()>>,
}

impl Parts {
    /// The zones as they can be served. A zone is missing if it has no version, or if it must be signed and has no
    /// keys.
    pub(crate) fn zone_sources(&self) -> Arc<[ZoneSource]> {
        let source = |(origin, part): &(Name, SourcePart<ZoneSource>)| {
            let keys = self.keys.iter().find(|(zone, _)| zone.origin == *origin);
            let lacks_keys = keys.is_some_and(|(_, keys)| keys.good.is_none());
            let good = part.good.as_ref().filter(|_| !lacks_keys);
            good.cloned().unwrap_or_else(|| ZoneSource::missing(origin.clone()))
        };
        self.zones.iter().map(source).collect()
    }

    /// The keys of all zones that have keys.
    pub(crate) fn zone_keys(&self) -> Arc<[ZoneKeys]> {
        self.keys.iter().filter_map(|(_, part)| part.good.clone()).collect()
    }

    /// The faults of the zones' files, by zone.
    pub(crate) fn zone_faults(&self) -> Faults {
        self.zones.iter().filter_map(|(origin, part)| Some((origin.to_string(), part.faults()?))).collect()
    }

    /// The faults of the keys' files, by zone.
    pub(crate) fn key_faults(&self) -> Faults {
        self.keys.iter().filter_map(|(zone, part)| Some((zone.origin.to_string(), part.faults()?))).collect()
    }
}

impl Feed {
    /// Starts a thread that watches the files and offers new versions to `handle`.
    ///
    /// # Errors
    /// When the system can't start a thread.
    pub(crate) fn start(sources: Sources, parts: Parts, handle: Handle) -> io::Result<Self> {
        let (reload, reloads) = mpsc::sync_channel(1);
        let pulse = handle.tasks().beating("files", false, PATIENCE);
        let (panics, release) = (handle.status().panics, MemoryRelease::default());
        let watching = Watching { sources, parts, handle, moves: Moves::new(), begun: Instant::now(), panics, release };
        std::thread::Builder::new().name("files".to_owned()).spawn(move || watching.run(&reloads, &pulse))?;
        Ok(Self { reload })
    }

    /// Reads all files again, changed or not, and takes versions that were held (a zone that lost many names waits for
    /// this). SIGHUP does this.
    pub(crate) fn reload(&self) {
        // If the channel is full, a reload is due anyway.
        let _ = self.reload.try_send(());
    }
}

struct Watching {
    sources: Sources,
    parts: Parts,
    handle: Handle,
    moves: Moves,
    begun: Instant,
    /// How often the owner had panicked at the last look. A panic may have lost offered versions.
    panics: u64,
    release: MemoryRelease,
}

/// When to give back to the system the memory that reading and compiling a version took.
#[derive(Debug, Default)]
struct MemoryRelease {
    /// How many versions were accepted at the last look.
    accepted: Option<u64>,
    /// When to give back memory, in reverse order. It is due at once after a version was accepted, and again when the
    /// previous version is no longer in use.
    due: Vec<Instant>,
}

impl MemoryRelease {
    /// How long the previous version may still be in use.
    const LINGER: Duration = Duration::from_secs(10);

    /// Whether to give back memory now. `accepted` is the number of versions accepted so far.
    fn is_due(&mut self, accepted: u64, now: Instant) -> bool {
        if self.accepted.replace(accepted) != Some(accepted) {
            self.due = vec![now + Self::LINGER, now];
        }
        self.due.pop_if(|due| *due <= now).is_some()
    }
}

impl Watching {
    /// The thread: looks at all files, then pauses or waits for a call of [`Feed::reload`].
    fn run(mut self, reloads: &Receiver<()>, pulse: &Pulse) {
        let (mut backoff, mut pause) = (Backoff::default(), LOOK);
        loop {
            let reload = match reloads.recv_timeout(pause) {
                Ok(()) => true,
                Err(RecvTimeoutError::Timeout) => false,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let begun = Instant::now();
            // After a panic, the next look notices the same changes again.
            match catch_unwind(AssertUnwindSafe(|| self.look(reload))) {
                Ok(true) => {
                    backoff.reset();
                    pause = LOOK.max(begun.elapsed() * 20).min(RAREST_LOOK);
                }
                // The owner has ended.
                Ok(false) => return,
                Err(_) => {
                    pulse.panicked();
                    pause = backoff.next_pause();
                }
            }
            self.tidy_up();
            pulse.beat();
        }
    }

    /// Gives back memory if it is time.
    fn tidy_up(&mut self) {
        let status = self.handle.status();
        let accepted = FileKind::ALL.iter().map(|source| status.of(*source).accepted).sum();
        if self.release.is_due(accepted, Instant::now()) {
            give_back_memory();
        }
    }

    /// Looks at everything once. Returns whether the owner still runs.
    fn look(&mut self, reload: bool) -> bool {
        let panics = self.handle.status().panics;
        let may_be_lost = std::mem::replace(&mut self.panics, panics) != panics;
        if reload || may_be_lost {
            self.confirm();
        }
        let parts = &self.parts;
        let stamps = parts.rules.stamps().chain(parts.zones.iter().flat_map(|(_, part)| part.stamps()));
        let stamps = stamps.chain(parts.keys.iter().flat_map(|(_, part)| part.stamps()));
        self.moves.update(stamps.chain(parts.geoip.iter().flat_map(SourcePart::stamps)));
        let zones = self.look_at_zones();
        self.look_at_rules() && self.look_at_geoip() && self.look_at_keys(zones)
    }

    /// Makes every part be read again, and taken even if it lost much.
    fn confirm(&mut self) {
        let now = self.now();
        self.parts.rules.confirm(now);
        self.parts.zones.iter_mut().for_each(|(_, part)| part.confirm(now));
        self.parts.keys.iter_mut().for_each(|(_, part)| part.confirm(now));
        self.parts.geoip.iter_mut().for_each(|part| part.confirm(now));
    }

    /// The time since the thread began.
    fn now(&self) -> Millis {
        Millis::try_from(self.begun.elapsed().as_millis()).unwrap_or(Millis::MAX)
    }

    /// Reads the rules if they changed. Returns whether the owner still runs. A node that gets its rules from other
    /// nodes writes its rules file itself, so changes of that file are ignored.
    fn look_at_rules(&mut self) -> bool {
        if self.sources.state_dir.as_deref().is_some_and(|directory| Store::rules_in(directory) == self.sources.rules) {
            return true;
        }
        let now = self.now();
        match self.parts.rules.step(now, &self.moves, || read_rules(&self.sources.rules), any_version) {
            Check::Nothing => true,
            Check::Version(rules) => {
                self.handle.offer_from_thread(Offer::Rules(rules)) && self.report_faults(FileKind::Rules, Faults::new())
            }
            Check::Faults => {
                let faults = self.parts.rules.faults().into_iter().map(|faults| (String::new(), faults)).collect();
                self.report_faults(FileKind::Rules, faults)
            }
        }
    }

    /// Reads the GeoIP database if it changed. Returns whether the owner still runs.
    fn look_at_geoip(&mut self) -> bool {
        let (registered, now) = (self.sources.registered, self.now());
        let Some(path) = self.sources.geoip.clone() else { return true };
        let Some(part) = &mut self.parts.geoip else { return true };
        match part.step(now, &self.moves, || read_geoip(&path, registered), any_version) {
            Check::Nothing => true,
            Check::Version((places, bytes)) => {
                self.handle.keep(Kind::Geoip, Box::new(move |store| store.keep_geoip(&bytes)));
                self.handle.offer_from_thread(Offer::Places(places))
                    && self.report_faults(FileKind::Geoip, Faults::new())
            }
            Check::Faults => {
                let faults = part.faults().into_iter().map(|faults| (String::new(), faults)).collect();
                self.report_faults(FileKind::Geoip, faults)
            }
        }
    }

    /// Reads the zones that changed. Returns whether there are new versions or faults.
    fn look_at_zones(&mut self) -> bool {
        let (now, mut is_new) = (self.now(), false);
        let paths: BTreeMap<&Name, &Path> =
            self.sources.zones.iter().map(|(origin, path)| (origin, path.as_path())).collect();
        for (origin, part) in &mut self.parts.zones {
            let Some(path) = paths.get(origin) else { continue };
            let check = part.step(now, &self.moves, || read_zone(origin, path), compare);
            is_new |= !matches!(check, Check::Nothing);
            if let Check::Version(zone) = check {
                part.good = Some(zone);
            }
        }
        is_new
    }

    /// Reads the keys that changed, then offers keys and zones. Keys are offered first, because a zone that must be
    /// signed waits for its keys. Returns whether the owner still runs.
    fn look_at_keys(&mut self, mut has_new_zones: bool) -> bool {
        let (now, at, mut has_new_keys) = (self.now(), self.handle.now(), false);
        for (zone, part) in &mut self.parts.keys {
            let check = part.step(now, &self.moves, || read_zone_keys(zone, at), any_version);
            has_new_keys |= !matches!(check, Check::Nothing);
            if let Check::Version(keys) = check {
                has_new_zones |= part.good.is_none();
                part.good = Some(keys);
            }
        }
        let offer = |offer: Offer, faults: Faults| {
            let source = offer.source();
            self.handle.offer_from_thread(offer) && self.report_faults(source, faults)
        };
        (!has_new_keys || offer(Offer::Keys(self.parts.zone_keys()), self.parts.key_faults()))
            && (!has_new_zones || offer(Offer::Zones(self.parts.zone_sources()), self.parts.zone_faults()))
    }

    /// Reports the faults of a kind of file. Returns whether the owner still runs.
    fn report_faults(&self, source: FileKind, faults: Faults) -> bool {
        self.handle.report_faults_from_thread(source, faults)
    }
}

/// A record's owner and type.
type Entry<'z> = (NameRef<'z>, u16);

/// The owners and types of all records of a zone, in order.
fn entries(zone: &ZoneSource) -> Vec<Entry<'_>> {
    let mut entries: Vec<_> = zone.records.iter().map(|record| (record.owner, record.rtype)).collect();
    entries.sort_unstable();
    entries
}

/// Compares a new version of a zone with the version in service. Also returns the message to report if the new version
/// lost much, that is, more than a third of the names.
fn compare(old: Option<&ZoneSource>, new: &ZoneSource) -> (CompareResult, String) {
    let Some(old) = old else { return (CompareResult::Lossy, String::new()) };
    let (before, now) = (entries(old), entries(new));
    let (mut names, mut gone) = (0_usize, 0_usize);
    for of_name in before.chunk_by(|entry, next| entry.0 == next.0) {
        names += 1;
        gone += usize::from(now.binary_search_by(|(name, _)| name.cmp(&of_name[0].0)).is_err());
    }
    // Whether the new version has fewer records of the same owner and type.
    let has_fewer = |same: &[Entry<'_>]| {
        let left = now.partition_point(|entry| *entry <= same[0]) - now.partition_point(|entry| *entry < same[0]);
        left < same.len()
    };
    let message = format!(
        "{gone} of the zone's {names} names are missing in the new version, so it waits for {} seconds without a \
         change; a SIGHUP \
         takes it now, and shrink = \"take\" in the configuration takes such versions at once",
        settle::HELD / 1000
    );
    match before.chunk_by(|entry, next| entry == next).any(has_fewer) {
        false => (CompareResult::Whole, String::new()),
        true if gone > FEW && gone * 3 > names => (CompareResult::Shrunk, message),
        true => (CompareResult::Lossy, String::new()),
    }
}

/// Whether a new version of a zone lost so much that an operator should confirm it.
pub(crate) fn is_shrunk(old: &ZoneSource, new: &ZoneSource) -> bool {
    compare(Some(old), new).0 == CompareResult::Shrunk
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_twice_after_each_version() {
        let (mut release, start) = (MemoryRelease::default(), Instant::now());
        let mut due = |accepted, seconds| release.is_due(accepted, start + Duration::from_secs(seconds));
        assert!(due(1, 0) && !due(1, 9) && due(1, 10) && !due(1, 100), "after the start");
        assert!(due(2, 101) && due(3, 105), "memory is given back at once after each version");
        assert!(!due(3, 114) && due(3, 115) && !due(3, 1_000));
    }
}
