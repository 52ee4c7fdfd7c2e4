//! Finds addresses that no network interface has. Takes the addresses of the listeners, returns the missing addresses
//! for the log and `/healthz`. A floating address may come and go while the server runs, so the check is repeated.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bailiwick_host::sockets::bind::is_present;
use tracing::{info, warn};

/// How often the addresses are checked.
const LOOK: Duration = Duration::from_secs(2);

/// The addresses that are missing now.
#[derive(Debug, Default)]
pub struct Absent(Mutex<Vec<IpAddr>>);

impl Absent {
    /// Checks these addresses now, and then every two seconds until the returned value is dropped. Must be called
    /// within a Tokio runtime.
    #[must_use]
    pub fn watch(addresses: impl Iterator<Item = SocketAddr>) -> Arc<Self> {
        let mut watched: Vec<IpAddr> =
            addresses.map(|address| address.ip()).filter(|address| !address.is_unspecified()).collect();
        watched.sort_unstable();
        watched.dedup();
        let absent = Arc::new(Self::default());
        absent.look(&watched, is_present);
        if !watched.is_empty() {
            tokio::spawn(look_again(Arc::downgrade(&absent), watched));
        }
        absent
    }

    /// A line about each missing address.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let absent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        absent.iter().map(|address| format!("address {address}: no interface has it yet")).collect()
    }

    /// Logs which addresses have come to an interface, and which have gone.
    fn look(&self, watched: &[IpAddr], is_present: impl Fn(IpAddr) -> bool) {
        let now: Vec<IpAddr> = watched.iter().copied().filter(|address| !is_present(*address)).collect();
        let before = std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), now.clone());
        for address in now.iter().filter(|address| !before.contains(address)) {
            warn!("no interface has the address {address} yet; queries to it are answered as soon as one has");
        }
        for address in before.iter().filter(|address| !now.contains(address)) {
            info!("an interface has the address {address} now");
        }
    }
}

async fn look_again(absent: Weak<Absent>, watched: Vec<IpAddr>) {
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(absent) = absent.upgrade() else { return };
        absent.look(&watched, is_present);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_reported_as_long_as_it_is_missing() {
        let absent = Absent::default();
        let watched = ["192.0.2.1".parse().unwrap(), "127.0.0.1".parse().unwrap()];
        absent.look(&watched, |address| address.is_loopback());
        assert_eq!(absent.lines(), ["address 192.0.2.1: no interface has it yet"]);
        absent.look(&watched, |_| true);
        assert!(absent.lines().is_empty());
    }
}
