//! What the gateway reads from files and reads again when they change: the certificate, the GeoIP database, secrets.
//! Takes a configuration, returns them or every fault. Called by `native_entry`.

use std::sync::Arc;

use bailiwick_host::certificate::Certificate;
use bailiwick_host::system::file_reload::Renew;
use bailiwick_host::system::files::Fault;
use bailiwick_rules::time::Timestamp;

use super::config::Config;
use super::place::Database;
use crate::platform::native::env::SecretFiles;

/// Values that are made from files.
#[derive(Clone)]
pub(super) struct Reloaded {
    pub(super) certificate: Option<Arc<Certificate>>,
    pub(super) database: Option<Arc<Database>>,
    pub(super) secrets: Arc<SecretFiles>,
}

impl Reloaded {
    /// Reads all files.
    ///
    /// # Errors
    /// Every fault of every file.
    pub(super) fn read(config: &Config) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        let certificate = config.tls_files().map(|files| Certificate::read(&files)).transpose();
        let certificate = certificate.unwrap_or_else(|found| {
            faults.extend(found);
            None
        });
        let database = config.geoip.clone().map(|path| Database::read(path, config.geoip_registered_country));
        let database = database.transpose().unwrap_or_else(|found| {
            faults.extend(found);
            None
        });
        match SecretFiles::read(config.secrets.clone()) {
            Ok(secrets) if faults.is_empty() => Ok(Self { certificate, database, secrets }),
            Ok(_) => Err(faults),
            Err(found) => Err(faults.into_iter().chain(found).collect()),
        }
    }

    /// All of them, to be read again.
    pub(super) fn all(&self) -> Vec<Arc<dyn Renew>> {
        let certificate = self.certificate.clone().map(|certificate| certificate as Arc<dyn Renew>);
        let database = self.database.clone().map(|database| database as Arc<dyn Renew>);
        certificate.into_iter().chain(database).chain([Arc::clone(&self.secrets) as Arc<dyn Renew>]).collect()
    }

    /// Times of them: the name, what it says, and the time.
    pub(super) fn times(&self) -> impl Iterator<Item = (&'static str, &'static str, Timestamp)> {
        let expires = self.certificate.as_ref().and_then(|certificate| certificate.expires());
        let built = self.database.as_ref().and_then(|database| database.built());
        let expires = expires.map(|at| ("certificate_expiry", "When the certificate expires", at));
        expires.into_iter().chain(built.map(|at| ("geoip_built", "When the GeoIP database was built", at)))
    }
}
