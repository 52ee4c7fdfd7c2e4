//! Where a client is, by a GeoIP database of the gateway's own. Takes an address, returns what `described` tells of it.
//! Called by `request`. It is the same reader as that of the DNS half, with the same rules.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use arc_swap::ArcSwap;
use bailiwick_host::locate::client::client_in;
use bailiwick_host::locate::geoip::{Places, Registered};
use bailiwick_host::system::file_reload::Renew;
use bailiwick_host::system::files::{Fault, read_file};
use bailiwick_rules::steer::Client;
use bailiwick_rules::table::Table;
use bailiwick_rules::time::Timestamp;

/// A GeoIP database, read again when its file changes.
pub(super) struct Database {
    path: PathBuf,
    registered: Registered,
    current: ArcSwap<Places>,
}

impl Database {
    /// Reads the file.
    ///
    /// # Errors
    /// If it can't be read or has no countries.
    pub(super) fn read(path: PathBuf, counts_registered: bool) -> Result<Arc<Self>, Vec<Fault>> {
        let registered = if counts_registered { Registered::Counts } else { Registered::Ignored };
        let current = ArcSwap::from_pointee(places(&path, registered)?);
        Ok(Arc::new(Self { path, registered, current }))
    }

    /// The client at an address. `networks` of the rules decide which address counts of one that carries another.
    pub(super) fn client(&self, table: Option<&Table>, address: IpAddr) -> Client {
        client_in(table, &self.current.load(), address)
    }

    /// When the database was built.
    pub(super) fn built(&self) -> Option<Timestamp> {
        self.current.load().built()
    }
}

/// The client at an address where there is no database: `networks` of the rules may name it.
pub(super) fn client_without_database(table: Option<&Table>, address: IpAddr) -> Client {
    static NOWHERE: LazyLock<Places> = LazyLock::new(Places::none);
    client_in(table, &NOWHERE, address)
}

fn places(path: &Path, registered: Registered) -> Result<Places, Vec<Fault>> {
    let fault = |message: String| vec![Fault::of_file(path, message)];
    let bytes = read_file(path).map_err(|error| fault(format!("can't be read ({error}); mend its path or mode")))?;
    Places::read_with(&bytes, registered).map_err(|error| fault(error.to_string()))
}

impl Renew for Database {
    fn files(&self) -> Vec<PathBuf> {
        vec![self.path.clone()]
    }

    fn renew(&self) -> Result<(), Vec<Fault>> {
        self.current.store(Arc::new(places(&self.path, self.registered)?));
        Ok(())
    }
}
