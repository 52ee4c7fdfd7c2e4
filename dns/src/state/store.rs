//! The state that survives a restart. Writes the last good rules, zones and GeoIP database, the overrides (statuses
//! that operators forced by the API) and more to the state directory, and reads them at the start. Called by `startup`
//! and the keeper.
//!
//! Each file is replaced by renaming, so that a reader, or a restart after a crash, finds either the old or the new
//! file.

mod history;

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bailiwick_host::system::files::{Mode, replace};
use bailiwick_host::system::state_dir::{lock, make};
use bailiwick_rules::fleet::Agreed;
use bailiwick_rules::health::{Forced, Status};
use bailiwick_rules::id::Overridden;
use bailiwick_rules::report::OverrideRecord;
use bailiwick_rules::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::protocol::name::Name;
use crate::state::snapshot::ZoneSource;

/// The rules last in service, byte for byte.
const RULES: &str = "rules.last-good.json";
/// The overrides that came by the API.
const OVERRIDES: &str = "overrides.json";
/// The overrides of all nodes of a fleet, including those that were ended.
const FLEET_OVERRIDES: &str = "overrides.fleet.json";
/// The GeoIP database last in service, byte for byte.
const GEOIP: &str = "geoip.last-good.mmdb";
/// The statuses that the voters (nodes that vote on health) agreed on.
const AGREED: &str = "agreed.json";
/// The counts of queries of the last week.
const TRAFFIC: &str = "traffic.json";
/// The file of the records of drills.
const DRILLS: &str = "drills.json";
/// The directory of the zones last in service.
const ZONES: &str = "zones";
/// The directory of the rules that were in service, by revision.
const HISTORY: &str = "history";
/// The longest file name of a zone. If the name of a zone is longer, the file name is a SHA-256 digest of it.
const LONGEST_NAME: usize = 200;

/// A thing that is kept. Of each kind, only the latest version is written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// The rules last in service.
    Rules,
    /// The overrides that came by the API, those of the whole fleet among them.
    Overrides,
    /// The GeoIP database last in service.
    Geoip,
    /// A zone last in service.
    Zone(Name),
    /// The rules of a revision, in the history.
    History(u64),
    /// The counts of queries of the last week.
    Traffic,
    /// What the voters agreed on.
    Agreed,
    /// The records of drills.
    Drills,
}

/// The state directory.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    directory: PathBuf,
    /// A lock on the directory, held for as long as the directory is used. `None` if another process holds the lock, or
    /// the system has no such locks.
    lock: Option<Arc<File>>,
}

/// An override, as it is stored.
#[derive(Serialize, Deserialize)]
struct StoredOverride {
    status: Status,
    until: Timestamp,
    reason: String,
}

impl Store {
    /// Opens a state directory. Creates the directory if it is missing.
    ///
    /// # Errors
    /// When the directory can't be created.
    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        make(directory)?;
        Ok(Self { directory: directory.to_owned(), lock: lock(directory) })
    }

    /// Like [`Store::open`], with a lock that this process holds already.
    ///
    /// # Errors
    /// When the directory can't be created.
    pub(crate) fn open_locked(directory: &Path, lock: Arc<File>) -> io::Result<Self> {
        make(directory)?;
        Ok(Self { directory: directory.to_owned(), lock: Some(lock) })
    }

    /// Whether this process holds the lock. Otherwise another process may use the directory.
    #[must_use]
    pub(crate) fn is_exclusive(&self) -> bool {
        self.lock.is_some()
    }

    /// Where the last-good rules are kept.
    #[must_use]
    pub(crate) fn rules_path(&self) -> PathBuf {
        Self::rules_in(&self.directory)
    }

    /// Where the last-good rules are kept in a state directory that isn't opened.
    #[must_use]
    pub(crate) fn rules_in(directory: &Path) -> PathBuf {
        directory.join(RULES)
    }

    /// Where the overrides are kept.
    #[must_use]
    pub(crate) fn overrides_path(&self) -> PathBuf {
        self.directory.join(OVERRIDES)
    }

    /// The last-good rules; `None` if none were stored.
    ///
    /// # Errors
    /// When the file exists and can't be read.
    pub(crate) fn rules(&self) -> io::Result<Option<Vec<u8>>> {
        read(&self.rules_path())
    }

    /// Stores the rules that are now in service.
    ///
    /// # Errors
    /// When they can't be written.
    pub(crate) fn keep_rules(&self, bytes: &[u8]) -> io::Result<()> {
        replace(&self.rules_path(), bytes, Mode::Private)
    }

    /// The GeoIP database last in service; `None` if none was stored.
    ///
    /// # Errors
    /// When the file exists and can't be read.
    pub(crate) fn geoip(&self) -> io::Result<Option<Vec<u8>>> {
        read(&self.directory.join(GEOIP))
    }

    /// Stores the GeoIP database that is now in service.
    pub(crate) fn keep_geoip(&self, bytes: &[u8]) -> io::Result<()> {
        replace_if_other(&self.directory.join(GEOIP), bytes)
    }

    /// What the voters agreed on; the default if nothing was stored.
    ///
    /// # Errors
    /// When the file can't be read.
    pub(crate) fn agreed(&self) -> io::Result<Agreed> {
        let Some(bytes) = read(&self.directory.join(AGREED))? else { return Ok(Agreed::default()) };
        Agreed::read(&bytes).map_err(io::Error::other)
    }

    /// Stores what the voters agreed on.
    ///
    /// # Errors
    /// When the file can't be written.
    pub(crate) fn keep_agreed(&self, agreed: &Agreed) -> io::Result<()> {
        replace(&self.directory.join(AGREED), &agreed.to_bytes(), Mode::Private)
    }

    /// The stored counts of queries of the last week; `None` if none were stored. The state directory needn't be
    /// opened.
    ///
    /// # Errors
    /// When the file can't be read.
    pub(crate) fn traffic_in(directory: &Path) -> io::Result<Option<Vec<u8>>> {
        read(&directory.join(TRAFFIC))
    }

    /// Stores the counts of queries of the last week.
    ///
    /// # Errors
    /// When the file can't be written.
    pub(crate) fn keep_traffic(&self, bytes: &[u8]) -> io::Result<()> {
        replace(&self.directory.join(TRAFFIC), bytes, Mode::Private)
    }

    /// The stored records of drills; `None` if none were stored. The state directory needn't be opened.
    ///
    /// # Errors
    /// When the file can't be read.
    pub(crate) fn drills_in(directory: &Path) -> io::Result<Option<Vec<u8>>> {
        read(&directory.join(DRILLS))
    }

    /// Stores the records of drills.
    ///
    /// # Errors
    /// When the file can't be written.
    pub(crate) fn keep_drills(&self, bytes: &[u8]) -> io::Result<()> {
        replace(&self.directory.join(DRILLS), bytes, Mode::Private)
    }

    /// Where a zone is kept.
    pub(crate) fn zone_path(&self, origin: &Name) -> PathBuf {
        self.directory.join(ZONES).join(file_name(origin))
    }

    /// The text of a zone last in service; `None` if none was stored.
    ///
    /// # Errors
    /// When the file exists and can't be read.
    pub(crate) fn zone(&self, origin: &Name) -> io::Result<Option<Vec<u8>>> {
        read(&self.zone_path(origin))
    }

    /// Stores a zone that is now in service. All its records, also those of included files, are written to one file.
    pub(crate) fn keep_zone(&self, zone: &ZoneSource) -> io::Result<()> {
        // If the state directory itself is missing, it isn't created, because a file system may be about to be mounted
        // there.
        match DirBuilder::new().mode(0o700).create(self.directory.join(ZONES)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
        replace_if_other(&self.zone_path(&zone.origin), text_of(zone).as_bytes())
    }

    /// The overrides, including those whose time has passed since they were stored.
    ///
    /// # Errors
    /// When the file exists and can't be read or parsed.
    pub(crate) fn overrides(&self) -> io::Result<BTreeMap<Overridden, Forced>> {
        let Some(bytes) = read(&self.overrides_path())? else { return Ok(BTreeMap::new()) };
        let stored: BTreeMap<String, StoredOverride> = serde_json::from_slice(&bytes)?;
        let forced =
            |stored: StoredOverride| Forced { status: stored.status, until: stored.until, reason: stored.reason };
        let parse = |(name, stored): (String, StoredOverride)| match Overridden::parse(&name) {
            Some(of) => Ok((of, forced(stored))),
            None => Err(io::Error::new(io::ErrorKind::InvalidData, format!("{name:?} is no region or endpoint"))),
        };
        stored.into_iter().map(parse).collect()
    }

    /// The overrides of all nodes of a fleet, as this node last knew them; empty if none were stored.
    ///
    /// # Errors
    /// When the file exists and can't be read or parsed.
    pub(crate) fn fleet_overrides(&self) -> io::Result<Vec<OverrideRecord>> {
        let bytes = read(&self.directory.join(FLEET_OVERRIDES))?;
        bytes.map_or(Ok(Vec::new()), |bytes| Ok(serde_json::from_slice(&bytes)?))
    }

    /// Stores the overrides of all nodes of a fleet.
    ///
    /// # Errors
    /// When the file can't be written.
    pub(crate) fn keep_fleet_overrides(&self, records: &[OverrideRecord]) -> io::Result<()> {
        replace(&self.directory.join(FLEET_OVERRIDES), &serde_json::to_vec_pretty(records)?, Mode::Private)
    }

    /// Whether overrides of a fleet were ever stored here.
    pub(crate) fn has_fleet_overrides(&self) -> bool {
        self.directory.join(FLEET_OVERRIDES).exists()
    }

    /// Stores these overrides, and drops all that were stored before.
    ///
    /// # Errors
    /// When the file can't be written.
    pub(crate) fn keep_overrides(&self, overrides: &BTreeMap<Overridden, Forced>) -> io::Result<()> {
        let stored_form = |forced: &Forced| StoredOverride {
            status: forced.status,
            until: forced.until,
            reason: forced.reason.clone(),
        };
        let stored: BTreeMap<String, StoredOverride> =
            overrides.iter().map(|(of, forced)| (of.to_string(), stored_form(forced))).collect();
        replace(&self.overrides_path(), &serde_json::to_vec_pretty(&stored)?, Mode::Private)
    }
}

fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A zone's file name: the name of the zone, in which characters that are awkward in file names are written as hex
/// digits.
fn file_name(origin: &Name) -> String {
    let mut name = String::new();
    for byte in origin.to_string().bytes() {
        match byte.to_ascii_lowercase() {
            plain @ (b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.') => name.push(char::from(plain)),
            other => name.push_str(&format!("%{other:02x}")),
        }
    }
    if name.len() > LONGEST_NAME {
        let digest = ring::digest::digest(&ring::digest::SHA256, name.as_bytes());
        name = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>() + ".";
    }
    name + "zone"
}

/// A zone as a master file, with every record in the generic form (RFC 3597 §5), which can express all records.
fn text_of(zone: &ZoneSource) -> String {
    let mut text =
        format!("; The zone {} as it was last in service; bailiwick writes and reads this file.\n", zone.origin);
    for record in zone.records.iter() {
        text.push_str(&format!("{} {} IN TYPE{} \\# {} ", record.owner, record.ttl, record.rtype, record.rdata.len()));
        record.rdata.iter().for_each(|byte| text.push_str(&format!("{byte:02x}")));
        text.push('\n');
    }
    text
}

/// Replaces a file, unless it has these contents already.
fn replace_if_other(path: &Path, bytes: &[u8]) -> io::Result<()> {
    match std::fs::read(path) {
        Ok(there) if there == bytes => Ok(()),
        _ => replace(path, bytes, Mode::Private),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_comes_back() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("a/b")).unwrap();
        assert_eq!(store.rules().unwrap(), None);
        assert!(store.overrides().unwrap().is_empty());

        let forced = Forced { status: Status::Down, until: Timestamp(1_796_104_800_000), reason: "drill".into() };
        let of = |name| Overridden::parse(name).unwrap();
        let overrides = BTreeMap::from([(of("fra"), forced.clone()), (of("fra/fra-1"), forced)]);
        store.keep_rules(b"{}").unwrap();
        store.keep_rules(b"{ }").unwrap();
        store.keep_overrides(&overrides).unwrap();
        assert_eq!(store.rules().unwrap().as_deref(), Some(&b"{ }"[..]));
        assert_eq!(store.overrides().unwrap(), overrides);
        let files = std::fs::read_dir(directory.path().join("a/b")).unwrap().count();
        assert_eq!(files, 2, "no other files are left");
    }

    #[test]
    fn a_zone_comes_back_record_by_record_under_any_name() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let long = format!("{}.example", ["a"; 60].join("a.").replace('.', ""));
        for name in ["example.com", ".", r"a\.b\/c\000.example", "..%2f".trim_matches('.'), &long[..60]] {
            let origin: Name = name.parse().unwrap();
            let apex = if origin.as_ref().is_root() { String::new() } else { origin.to_string() };
            let text = format!(
                "{origin} 60 SOA ns. h. 1 2 3 4 5\n{origin} 60 NS ns.\nx.{apex} 60 TXT \"a;b\" \"\\000\"\n\
                                x.{apex} 60 TYPE65280 \\# 0\nx\\;.{apex} 60 A 192.0.2.1\n"
            )
            .replace("x..", "x.");
            let parse = |text: &[u8]| crate::zone::file::parse(text, "z", &origin, &mut |_| Err("no files".into()));
            let zone = ZoneSource { origin: origin.clone(), records: parse(text.as_bytes()).unwrap() };
            assert_eq!(store.zone(&origin).unwrap(), None);
            store.keep_zone(&zone).unwrap();
            let back = parse(&store.zone(&origin).unwrap().unwrap()).unwrap();
            let plain = |records: &crate::zone::Records| {
                records
                    .iter()
                    .map(|record| (record.owner.to_name(), record.rtype, record.ttl, record.rdata.to_vec()))
                    .collect::<Vec<_>>()
            };
            assert_eq!(plain(&back), plain(&zone.records));
        }
        let kept: Vec<_> = std::fs::read_dir(directory.path().join("zones")).unwrap().collect();
        assert_eq!(kept.len(), 5);
    }

    #[test]
    fn the_longest_zone_name_has_a_file_name() {
        let label = "a".repeat(63);
        let name: Name = [&label[..], &label, &label, &label[..61]].join(".").parse().unwrap();
        let other: Name = [&label[..], &label, &label, &label[..60]].join(".").parse().unwrap();
        assert!(file_name(&name).len() < 80 && file_name(&name) != file_name(&other));
    }

    #[test]
    fn what_is_kept_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("state")).unwrap();
        store.keep_geoip(b"mmdb").unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&directory.path().join("state")), 0o700);
        assert_eq!(mode(&directory.path().join("state").join(GEOIP)), 0o600);
        assert_eq!(store.geoip().unwrap().as_deref(), Some(&b"mmdb"[..]));
    }

    #[test]
    fn a_directory_in_use_is_reported() {
        let directory = tempfile::tempdir().unwrap();
        let first = Store::open(directory.path()).unwrap();
        assert!(first.is_exclusive() && !Store::open(directory.path()).unwrap().is_exclusive());
        drop(first);
        assert!(Store::open(directory.path()).unwrap().is_exclusive());
    }

    #[test]
    fn damaged_overrides_are_an_error_and_no_panic() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        std::fs::write(store.overrides_path(), b"{\"fra\": 1}").unwrap();
        assert!(store.overrides().is_err());
    }
}
