//! Takes the host name of a probe's endpoint, returns its addresses from the system's resolver. Called by the prober.
//!
//! The system's resolver can't be interrupted and may hang for half a minute. So each name is looked up on a thread of
//! its own, at most once at a time, and the number of lookups is bounded. Names whose servers don't answer then block
//! nothing else.

use std::collections::HashMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::watch;

/// How many names may be looked up at the same time.
const MAX_AT_ONCE: usize = 256;

/// The addresses of a host, or an error message.
type Outcome = Result<Arc<[SocketAddr]>, String>;
/// The running lookups by host. Each receiver gets the outcome of its lookup.
type Running = Arc<Mutex<HashMap<String, watch::Receiver<Option<Outcome>>>>>;
/// The blocking function that looks a host up. Tests replace the system's resolver by their own function.
type Resolver = Arc<dyn Fn(&str) -> Outcome + Send + Sync>;

/// Looks host names up.
#[derive(Clone)]
pub(super) struct Lookups {
    running: Running,
    resolver: Resolver,
}

impl Default for Lookups {
    fn default() -> Self {
        Self::with_resolver(Arc::new(|host| {
            let lookup = (host, 0).to_socket_addrs();
            lookup.map(Iterator::collect).map_err(|error| format!("{host} can't be looked up: {error}"))
        }))
    }
}

impl std::fmt::Debug for Lookups {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lookups")
    }
}

impl Lookups {
    /// Lookups that call this resolver.
    fn with_resolver(resolver: Resolver) -> Self {
        Self { running: Running::default(), resolver }
    }

    /// The addresses of `host:port`.
    pub(super) async fn of_address(&self, address: &str) -> Outcome {
        if let Ok(address) = address.parse::<SocketAddr>() {
            return Ok([address].into());
        }
        let parts = address.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
        let (host, port) = parts.ok_or_else(|| format!("{address} is no host and port"))?;
        let addresses = self.of_host(host).await?;
        Ok(addresses.iter().map(|address| SocketAddr::new(address.ip(), port)).collect())
    }

    /// The addresses of a host, with port 0.
    async fn of_host(&self, host: &str) -> Outcome {
        let mut outcome = self.begin(host)?;
        let outcome = outcome.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone());
        outcome.unwrap_or_else(|| Err(format!("{host} can't be looked up, by a fault of this program")))
    }

    /// Begins to look a host up, returns the receiver of the outcome. If a lookup of the host runs already, both
    /// callers get its outcome.
    fn begin(&self, host: &str) -> Result<watch::Receiver<Option<Outcome>>, String> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(outcome) = running.get(host) {
            return Ok(outcome.clone());
        }
        if running.len() >= MAX_AT_ONCE {
            return Err(format!("{MAX_AT_ONCE} names are being looked up; this machine's resolver doesn't answer"));
        }
        let (sender, outcome) = watch::channel(None);
        let entry = RunningEntry { running: Arc::clone(&self.running), host: host.to_owned() };
        let resolver = Arc::clone(&self.resolver);
        let look_up = move || {
            let result = resolver(&entry.host);
            drop(entry);
            let _ = sender.send(Some(result)); // fails if no caller waits any more
        };
        running.insert(host.to_owned(), outcome.clone());
        // If no thread can be started, `look_up` is dropped, and `RunningEntry` with it.
        drop(running);
        let started = std::thread::Builder::new().name("lookup".to_owned()).spawn(look_up);
        started
            .map(|_| outcome)
            .map_err(|error| format!("{host} can't be looked up: the system gives no thread ({error})"))
    }
}

/// The entry of a lookup in [`Running`]. The entry is removed when this is dropped, even by a panic.
struct RunningEntry {
    running: Running,
    host: String,
}

impl Drop for RunningEntry {
    fn drop(&mut self) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.host);
    }
}

impl Resolve for Lookups {
    fn resolve(&self, name: Name) -> Resolving {
        let lookups = self.clone();
        Box::pin(async move {
            let addresses = lookups.of_host(name.as_str()).await?;
            Ok(Box::new(Vec::from(&*addresses).into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Condvar;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    /// A resolver that hangs until it is released. It answers the host `quick` at once, and panics for `panics`.
    #[derive(Default)]
    struct Hanging {
        released: Mutex<bool>,
        changed: Condvar,
        /// How many times the resolver was called.
        calls: AtomicUsize,
    }

    impl Hanging {
        fn lookups(self: &Arc<Self>) -> Lookups {
            let hanging = Arc::clone(self);
            Lookups::with_resolver(Arc::new(move |host| {
                hanging.calls.fetch_add(1, Ordering::SeqCst);
                assert!(host != "panics", "a panic, for the test");
                let released = hanging.released.lock().unwrap();
                drop(hanging.changed.wait_while(released, |released| !*released && host != "quick").unwrap());
                Ok(["192.0.2.1:0".parse().unwrap()].into())
            }))
        }

        fn release(&self) {
            *self.released.lock().unwrap() = true;
            self.changed.notify_all();
        }
    }

    /// The time after which a test gives up on a lookup that hangs.
    const MOMENT: Duration = Duration::from_millis(10);

    #[tokio::test]
    async fn a_hanging_name_is_looked_up_once_and_delays_no_other_name() {
        let hanging = Arc::new(Hanging::default());
        let lookups = hanging.lookups();
        for _ in 0..20 {
            assert!(timeout(MOMENT, lookups.of_host("slow")).await.is_err());
        }
        assert_eq!(lookups.of_address("quick:443").await.unwrap()[0], "192.0.2.1:443".parse().unwrap());
        assert_eq!(hanging.calls.load(Ordering::SeqCst), 2);
        let waiting = tokio::spawn({
            let lookups = lookups.clone();
            async move { lookups.of_host("slow").await }
        });
        hanging.release();
        assert!(waiting.await.unwrap().is_ok());
        assert!(lookups.of_host("slow").await.is_ok(), "the name is looked up again");
        assert!(lookups.running.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn when_all_lookups_hang_another_one_fails_at_once() {
        let hanging = Arc::new(Hanging::default());
        let lookups = hanging.lookups();
        for number in 0..MAX_AT_ONCE {
            assert!(lookups.begin(&number.to_string()).is_ok());
        }
        assert!(lookups.of_host("one-more").await.unwrap_err().contains("doesn't answer"));
        assert!(lookups.of_address("192.0.2.7:80").await.is_ok(), "an address needs no lookup");
        hanging.release();
    }

    #[tokio::test]
    async fn a_panic_in_a_lookup_is_an_error_of_that_lookup() {
        let lookups = Arc::new(Hanging::default()).lookups();
        assert!(lookups.of_host("panics").await.unwrap_err().contains("a fault of this program"));
        assert!(lookups.running.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn the_default_resolver_is_that_of_the_system() {
        let found = Lookups::default().of_address("localhost:80").await.unwrap();
        assert!(found.iter().all(|address| address.ip().is_loopback() && address.port() == 80), "{found:?}");
        assert!(Lookups::default().of_address("no-port").await.is_err());
    }
}
