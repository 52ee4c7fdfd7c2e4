//! Notifies the service manager (systemd) through its socket (`sd_notify(3)`): that the server serves, that it ends
//! and, if there is a watchdog, that it lives. Does nothing without `NOTIFY_SOCKET`.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tracing::{debug, error, info, warn};

use crate::system::tasks::Tasks;

/// How many times the watchdog is notified within its timeout, so that a lost message does no harm.
const TIMES: u32 = 3;

/// The socket of the service manager.
#[derive(Debug)]
pub struct ServiceManager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// The watchdog's timeout: after this time without a message, the service manager restarts the server.
    patience: Option<Duration>,
}

impl ServiceManager {
    /// The service manager that `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID` name.
    #[must_use]
    pub fn of_environment() -> Self {
        let read = |name: &str| std::env::var(name).ok();
        let patience = patience(read("WATCHDOG_USEC").as_deref(), read("WATCHDOG_PID").as_deref(), std::process::id());
        Self::new(std::env::var_os("NOTIFY_SOCKET"), patience)
    }

    fn new(path: Option<OsString>, patience: Option<Duration>) -> Self {
        let socket = path.map(|path| connect(path.as_bytes())).transpose().unwrap_or_else(|error| {
            warn!(%error, "NOTIFY_SOCKET can't be used; the service manager is told nothing");
            None
        });
        Self { patience: patience.filter(|_| socket.is_some()), socket }
    }

    /// Sends a message to the service manager. Never waits: if its queue is full, the message is lost.
    pub fn notify(&self, what: &str) {
        if let Some((socket, address)) = &self.socket
            && let Err(error) = socket.send_to_addr(what.as_bytes(), address)
        {
            debug!(%error, what, "the service manager couldn't be told");
        }
    }

    /// Notifies the watchdog repeatedly that the server lives, as long as no vital task is in trouble. Uses a thread of
    /// its own, so that a blocked runtime can't block it too.
    pub fn watch(self: &Arc<Self>, tasks: Arc<Tasks>) -> Option<JoinHandle<()>> {
        let (pause, manager) = (self.patience? / TIMES, Arc::clone(self));
        let watching = move || {
            let mut was_well = true;
            loop {
                let troubles = tasks.vital_troubles();
                let is_well = troubles.is_empty();
                if is_well {
                    manager.notify("WATCHDOG=1");
                }
                if was_well && !is_well {
                    let troubles: Vec<String> = troubles.iter().map(ToString::to_string).collect();
                    error!("the watchdog isn't told any more that this server lives: {}", troubles.join("; "));
                } else if is_well && !was_well {
                    info!("the watchdog is told again that this server lives");
                }
                was_well = is_well;
                // The thread ends with the process.
                std::thread::sleep(pause);
            }
        };
        let started = std::thread::Builder::new().name("watchdog".to_owned()).spawn(watching);
        started.map_err(|error| error!(%error, "the watchdog can't be told anything: the system gives no thread")).ok()
    }
}

/// A socket to the service manager. A path that begins with `@` is an abstract name.
fn connect(path: &[u8]) -> io::Result<(UnixDatagram, SocketAddr)> {
    use std::os::linux::net::SocketAddrExt;
    let address = match path {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        path => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(path))?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

/// The watchdog's timeout; `None` if there is no watchdog, or it watches another process.
fn patience(micros: Option<&str>, pid: Option<&str>, own: u32) -> Option<Duration> {
    let watches_this = pid.is_none_or(|pid| pid.parse() == Ok(own));
    let micros = micros?.parse().ok().filter(|micros| *micros > 0)?;
    watches_this.then_some(Duration::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_is_used_if_it_names_this_process_or_none() {
        let second = Some(Duration::from_secs(1));
        assert_eq!(patience(Some("1000000"), None, 7), second);
        assert_eq!(patience(Some("1000000"), Some("7"), 7), second);
        assert_eq!(patience(Some("1000000"), Some("8"), 7), None);
        assert_eq!(
            (patience(Some("0"), None, 7), patience(Some("x"), None, 7), patience(None, None, 7)),
            (None, None, None)
        );
    }

    #[test]
    fn the_watchdog_is_notified_while_no_vital_task_is_in_trouble() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let manager = Arc::new(ServiceManager::new(Some(path.into()), Some(Duration::from_millis(30))));
        let mut buffer = [0; 64];
        let mut receive =
            || socket.recv(&mut buffer).map(|length| String::from_utf8_lossy(&buffer[..length]).into_owned());
        manager.notify("READY=1");
        assert_eq!(receive().unwrap(), "READY=1");
        let tasks = Arc::new(Tasks::default());
        let owner = tasks.beating("owner", true, Duration::from_millis(300));
        owner.beat();
        assert!(manager.watch(Arc::clone(&tasks)).is_some());
        assert_eq!(receive().unwrap(), "WATCHDOG=1");
        // The owner doesn't beat any more. After the messages sent before, no message arrives.
        socket.set_read_timeout(Some(Duration::from_millis(600))).unwrap();
        let mut messages = 0;
        while receive().is_ok() {
            messages += 1;
            assert!(messages < 1000, "the watchdog is notified although a vital task is in trouble");
        }
        assert!(!tasks.vital_troubles().is_empty());
        owner.beat();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        assert_eq!(receive().unwrap(), "WATCHDOG=1", "the watchdog is notified again");
    }

    #[test]
    fn abstract_sockets_and_bad_paths_are_understood() {
        assert!(ServiceManager::new(Some("@bailiwick-test".into()), None).socket.is_some());
        let none = ServiceManager::new(Some("x".repeat(200).into()), Some(Duration::from_secs(1)));
        assert!(none.socket.is_none() && none.patience.is_none());
    }
}
