//! Takes the paths of a node's files, returns compiled rules, zone records and GeoIP data, or every error with its
//! place in the file. Called by `startup` and `watch`, and by commands that read the same files, such as
//! `bailiwick check`.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bailiwick_host::locate::geoip::{Places, Registered};
use bailiwick_rules::json::Violation;
use bailiwick_rules::table::Table;

use crate::dnssec::directory::SignedZone;
use crate::protocol::name::Name;
use crate::state::snapshot::{Rules, ZoneSource};
use crate::text::json_place::{self, Place};
use crate::zone::{ZoneError, file};

pub(crate) use bailiwick_host::system::files::Fault;
pub(crate) use bailiwick_host::system::files::{read_file, read_text};

/// What to do with a new version of a zone that has lost more than a third of its names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Shrink {
    /// Hold the version until an operator confirms it by a SIGHUP, or until its file hasn't changed for a minute.
    #[default]
    Hold,
    /// Take it like any other version.
    Take,
}

/// Where the files are.
#[derive(Debug, Clone)]
pub(crate) struct Sources {
    /// The node's name.
    pub node: String,
    /// The rules document.
    pub rules: PathBuf,
    /// The GeoIP database.
    pub geoip: Option<PathBuf>,
    /// Whether networks are also located by the country where they are registered.
    pub registered: Registered,
    /// Each zone's apex and master file.
    pub zones: Vec<(Name, PathBuf)>,
    /// The zones that are signed.
    pub dnssec: Vec<SignedZone>,
    /// The configuration's folder. Relative paths in the rules start there.
    pub directory: PathBuf,
    /// The state directory, where the last good versions and overrides are stored.
    pub state_dir: Option<PathBuf>,
    /// The lock of the state directory, if this process holds it already.
    pub lock: Option<Arc<File>>,
    /// What to do with a version of a zone that lost more than a third of its names.
    pub shrink: Shrink,
}

/// A version that can't be used.
#[derive(Debug)]
pub(crate) struct Unusable {
    /// All faults of the version.
    pub(crate) faults: Vec<Fault>,
    /// Whether the faults may be temporary: a file couldn't be read.
    pub(crate) may_pass: bool,
}

impl From<ZoneError> for Fault {
    fn from(error: ZoneError) -> Self {
        Self { place: error.place.to_string(), message: error.message }
    }
}

/// Reads and compiles a rules document.
///
/// # Errors
/// If the file can't be read, or has violations. Returns all violations.
pub(crate) fn read_rules(path: &Path) -> Result<Arc<Rules>, Vec<Fault>> {
    let bytes = read_file(path).map_err(|error| vec![unreadable(path, &error)])?;
    compile_rules(bytes, &path.display().to_string())
}

/// Compiles a rules document. Faults name the document `name`.
///
/// # Errors
/// All violations in the document.
pub(crate) fn compile_rules(bytes: Vec<u8>, name: &str) -> Result<Arc<Rules>, Vec<Fault>> {
    match Table::compile(&bytes) {
        Ok(table) => Ok(Arc::new(Rules { table, bytes: bytes.into() })),
        Err(violations) => {
            let fault = |violation: &Violation| Fault {
                place: place_in(&bytes, name, violation),
                message: violation.to_string(),
            };
            Err(violations.iter().map(fault).collect())
        }
    }
}

/// The place of a violation, with line and column, such as `rules.json:3:14`. If the document isn't JSON, its name
/// alone, because the message has the place.
pub(crate) fn place_in(bytes: &[u8], name: &str, violation: &Violation) -> String {
    if violation.pointer.is_empty() && violation.message.starts_with("is not JSON") {
        return name.to_owned();
    }
    let Place { line, column } = json_place::find(bytes, &violation.pointer);
    format!("{name}:{line}:{column}")
}

/// Reads all zones. `opening` is called for every file before it is opened, also for included files.
///
/// # Errors
/// All files that can't be read, and all lines that can't be parsed.
pub(crate) fn read_zones(
    zones: &[(Name, PathBuf)],
    opening: &mut dyn FnMut(&Path),
) -> Result<Arc<[ZoneSource]>, Vec<Fault>> {
    let (mut sources, mut faults) = (Vec::new(), Vec::new());
    for (origin, path) in zones {
        match read_zone(origin, path, opening) {
            Ok(source) => sources.push(source),
            Err(unusable) => faults.extend(unusable.faults),
        }
    }
    if faults.is_empty() { Ok(sources.into()) } else { Err(faults) }
}

/// Reads one zone.
pub(crate) fn read_zone(origin: &Name, path: &Path, opening: &mut dyn FnMut(&Path)) -> Result<ZoneSource, Unusable> {
    opening(path);
    let text = read_file(path).map_err(|error| Unusable::unreadable(path, &error))?;
    let mut may_pass = false;
    let open = &mut |included: &Path| {
        opening(included);
        read_file(included).map_err(|error| {
            may_pass |= passes(&error);
            error.to_string()
        })
    };
    match file::parse(&text, &path.display().to_string(), origin, open) {
        Ok(records) if records.is_empty() => {
            let fault = Fault::of_file(path, "holds no records; write at least the SOA and the NS of the apex");
            Err(Unusable { faults: vec![fault], may_pass: false })
        }
        Ok(records) => Ok(ZoneSource { origin: origin.clone(), records }),
        Err(errors) => Err(Unusable { faults: errors.into_iter().map(Fault::from).collect(), may_pass }),
    }
}

impl Unusable {
    /// The fault of a file that can't be read.
    pub(crate) fn unreadable(path: &Path, error: &io::Error) -> Self {
        Self { faults: vec![unreadable(path, error)], may_pass: passes(error) }
    }
}

/// Whether the error may be temporary: the process has too many open files, a network share is away, or the file is
/// being swapped.
fn passes(error: &io::Error) -> bool {
    error.kind() != io::ErrorKind::InvalidInput
}

/// Reads the GeoIP database. Without a path, no address can be located.
///
/// # Errors
/// If the file can't be read or used.
pub(crate) fn read_geoip(path: Option<&Path>, registered: Registered) -> Result<Arc<Places>, Vec<Fault>> {
    let Some(path) = path else { return Ok(Arc::new(Places::none())) };
    let bytes = read_file(path).map_err(|error| vec![unreadable(path, &error)])?;
    Places::read_with(&bytes, registered).map(Arc::new).map_err(|error| vec![Fault::of_file(path, error.to_string())])
}

/// The fault of a file that can't be read.
pub(crate) fn unreadable(path: &Path, error: &io::Error) -> Fault {
    match error.kind() {
        io::ErrorKind::InvalidInput => Fault::of_file(
            path,
            format!("{error}; name a regular file in the configuration, and replace it by renaming another over it"),
        ),
        _ => Fault::of_file(
            path,
            format!("can't be read ({error}); mend the path in the configuration or the file's mode"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipes_and_devices_are_never_read() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let zone = folder.path().join("zone");
        std::fs::write(&zone, "@ 60 IN SOA ns hm 1 2 3 4 5\n$INCLUDE pipe\n").unwrap();
        let origin = Name::parse(b"example.com.", None).unwrap();
        let zones = |file: &Path| read_zones(&[(origin.clone(), file.to_owned())], &mut |_| ()).err();
        // Reading one of them would never end.
        let reported =
            [read_rules(&pipe).err(), zones(&pipe), zones(&zone), read_geoip(Some(&pipe), Registered::Ignored).err()];
        for faults in reported {
            let faults = faults.expect("a fault");
            assert!(faults[0].to_string().contains("is no file but a pipe, a socket or a device"), "{faults:?}");
        }
        let device = read_rules(Path::new("/dev/zero")).unwrap_err();
        let wanted = "/dev/zero: is no file but a pipe, a socket or a device; name a regular file in the configuration";
        assert!(device[0].to_string().starts_with(wanted), "{device:?}");
        let directory = read_geoip(Some(folder.path()), Registered::Ignored).unwrap_err();
        assert!(directory[0].message.starts_with("can't be read ("), "{directory:?}");
    }
}
