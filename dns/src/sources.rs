//! The files a node reads: paths enter, compiled rules, zone records and places leave, or every fault with its place; `start` and `feed` call it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bailiwick_rules::table::Table;

use crate::config::SignedZone;
use crate::geoip::Places;
use crate::name::Name;
use crate::snapshot::{Rules, ZoneSource};
use crate::zone::{ZoneError, file};

/// Where the files are.
#[derive(Debug, Clone)]
pub struct Sources {
    /// The rules document.
    pub rules: PathBuf,
    /// The GeoIP database.
    pub geoip: Option<PathBuf>,
    /// Each zone's apex and master file.
    pub zones: Vec<(Name, PathBuf)>,
    /// Those of them that are signed.
    pub dnssec: Vec<SignedZone>,
    /// Where last-good rules and overrides are kept.
    pub state_dir: Option<PathBuf>,
}

/// One thing wrong with a file: where, what, and how to mend it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Fault {
    /// The file with a line or a JSON pointer; empty where the message names the place.
    pub place: String,
    /// What is wrong and how to mend it.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.place.is_empty() { f.write_str(&self.message) } else { write!(f, "{}: {}", self.place, self.message) }
    }
}

impl Fault {
    pub(crate) fn of_file(path: &Path, message: impl Into<String>) -> Self {
        Self { place: path.display().to_string(), message: message.into() }
    }
}

impl From<ZoneError> for Fault {
    fn from(error: ZoneError) -> Self {
        Self { place: error.place.to_string(), message: error.message }
    }
}

/// Reads and compiles a rules document.
///
/// # Errors
/// That the file can't be read, or every violation in it.
pub fn read_rules(path: &Path) -> Result<Arc<Rules>, Vec<Fault>> {
    let bytes = std::fs::read(path).map_err(|error| vec![unreadable(path, &error)])?;
    compile_rules(bytes, &path.display().to_string())
}

/// Compiles a rules document; `name` is what its place is called in faults.
///
/// # Errors
/// Every violation in it.
pub fn compile_rules(bytes: Vec<u8>, name: &str) -> Result<Arc<Rules>, Vec<Fault>> {
    match Table::compile(&bytes) {
        Ok(table) => Ok(Arc::new(Rules { table, bytes: bytes.into() })),
        Err(violations) => {
            Err(violations.iter().map(|one| Fault { place: name.to_owned(), message: one.to_string() }).collect())
        }
    }
}

/// Reads all zones. `opening` is told of every file before it is opened, included ones too.
///
/// # Errors
/// That files can't be read, and every line that can't be understood.
pub fn read_zones(zones: &[(Name, PathBuf)], opening: &mut dyn FnMut(&Path)) -> Result<Arc<[ZoneSource]>, Vec<Fault>> {
    let (mut sources, mut faults) = (Vec::new(), Vec::new());
    for (origin, path) in zones {
        opening(path);
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(error) => {
                faults.push(unreadable(path, &error));
                continue;
            }
        };
        let open = &mut |included: &Path| {
            opening(included);
            std::fs::read(included).map_err(|error| error.to_string())
        };
        match file::parse(&text, &path.display().to_string(), origin, open) {
            Ok(records) if records.is_empty() => {
                faults.push(Fault::of_file(path, "holds no records; write at least the SOA and the NS of the apex"));
            }
            Ok(records) => sources.push(ZoneSource { origin: origin.clone(), records }),
            Err(errors) => faults.extend(errors.into_iter().map(Fault::from)),
        }
    }
    if faults.is_empty() { Ok(sources.into()) } else { Err(faults) }
}

/// Reads the GeoIP database; without one nothing is known of any address.
///
/// # Errors
/// That the file can't be read or used.
pub fn read_geoip(path: Option<&Path>) -> Result<Arc<Places>, Vec<Fault>> {
    let Some(path) = path else { return Ok(Arc::new(Places::none())) };
    let bytes = std::fs::read(path).map_err(|error| vec![unreadable(path, &error)])?;
    Places::read(&bytes).map(Arc::new).map_err(|error| vec![Fault::of_file(path, error.to_string())])
}

fn unreadable(path: &Path, error: &std::io::Error) -> Fault {
    Fault::of_file(path, format!("can't be read ({error}); mend the path in the configuration or the file's mode"))
}
