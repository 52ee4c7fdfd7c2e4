//! Reloads files that may be replaced while the server runs and aren't part of a snapshot: certificates, keys and
//! tokens. When a file changes on disk or a SIGHUP arrives, calls [`Renew::renew`] and logs errors. Started by `serve`.
//!
//! There are few such files, and they change a few times a year. So they are checked every second; this notices all
//! ways of replacing a file, on every file system. Changed files are read after two checks have found the same state,
//! because a certificate and its key are two files that change one after the other.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;

use bailiwick_rules::time::Timestamp;
use tracing::{error, info};

use crate::system::files::{Fault, Stamp};
use crate::system::tasks::{Pulse, Tasks};

/// The time between two checks.
const CHECK: Duration = Duration::from_secs(1);
/// A check that takes longer counts as stuck.
const PATIENCE: Duration = Duration::from_secs(60);

/// A value that is made from files and can be made again.
pub trait Renew: Send + Sync {
    /// The files.
    fn files(&self) -> Vec<PathBuf>;

    /// Reads the files and makes the value again. If the files are invalid, the last value stays in service.
    ///
    /// # Errors
    /// The mistakes in the files.
    fn renew(&self) -> Result<(), Vec<Fault>>;

    /// When the value in service expires, if it does.
    fn expires(&self) -> Option<Timestamp> {
        None
    }
}

/// The thread that checks the files. It stops when this is dropped.
#[derive(Debug)]
pub struct Renewal {
    now: SyncSender<()>,
    files: Vec<Arc<FileHealth>>,
}

/// Whether the files of one value are valid, and when the value expires.
#[derive(Debug)]
pub struct FileHealth {
    /// The files, joined by commas.
    pub files: String,
    failing: AtomicBool,
    /// When the value in service expires, in milliseconds; [`NEVER`] if it doesn't expire.
    expires: AtomicI64,
}

/// The time for values that don't expire.
const NEVER: i64 = i64::MAX;

impl FileHealth {
    /// Whether the files were invalid when they were last read, so that an older value is in service.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// When the value in service expires, if it does.
    #[must_use]
    pub fn expires(&self) -> Option<Timestamp> {
        Some(self.expires.load(Ordering::Relaxed)).filter(|at| *at != NEVER).map(Timestamp)
    }

    fn note_expiry(&self, at: Option<Timestamp>) {
        self.expires.store(at.map_or(NEVER, |at| at.0), Ordering::Relaxed);
    }
}

impl Renewal {
    /// Starts the thread that checks the files of all these values. `tasks` watches over the thread.
    ///
    /// # Errors
    /// When the system can't start a thread.
    pub fn start(all: Vec<Arc<dyn Renew>>, tasks: &Tasks) -> io::Result<Self> {
        let (now, reload_requests) = mpsc::sync_channel(1);
        let watched: Vec<ReloadState> = all.into_iter().map(ReloadState::new).collect();
        let files = watched.iter().map(|watched| Arc::clone(&watched.files)).collect();
        if !watched.is_empty() {
            let pulse = tasks.beating("certificates", false, PATIENCE);
            let thread = std::thread::Builder::new().name("certificates".to_owned());
            thread.spawn(move || check_all(watched, &reload_requests, &pulse))?;
        }
        Ok(Self { now, files })
    }

    /// The state of each value's files. The states change while the server runs.
    #[must_use]
    pub fn files(&self) -> Vec<Arc<FileHealth>> {
        self.files.clone()
    }

    /// Reads all files again, whether they have changed or not.
    pub fn reload(&self) {
        // If the channel is full, a reload is requested already.
        let _ = self.now.try_send(());
    }
}

/// Checks the files until the [`Renewal`] is dropped. This is a thread of its own, because a disk may hang. A panic in
/// one check doesn't end the thread.
fn check_all(mut watched: Vec<ReloadState>, reload_requests: &Receiver<()>, pulse: &Pulse) {
    loop {
        let is_reload = match reload_requests.recv_timeout(CHECK) {
            Ok(()) => true,
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        for value in &mut watched {
            if catch_unwind(AssertUnwindSafe(|| value.check(is_reload))).is_err() {
                pulse.panicked();
                value.files.failing.store(true, Ordering::Relaxed);
            }
        }
        pulse.beat();
    }
}

/// A value with the state of its files.
struct ReloadState {
    value: Arc<dyn Renew>,
    files: Arc<FileHealth>,
    /// The stamps of the files when they were last read.
    read: Vec<Stamp>,
    /// The stamps of the files at the last check.
    last_look: Vec<Stamp>,
}

impl ReloadState {
    fn new(value: Arc<dyn Renew>) -> Self {
        let files = value.files();
        let last_look = stamps(&files);
        let files = files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(",");
        let files = FileHealth { files, failing: AtomicBool::new(false), expires: AtomicI64::new(NEVER) };
        files.note_expiry(value.expires());
        Self { value, files: Arc::new(files), read: last_look.clone(), last_look }
    }

    /// Reads the files if they have changed since they were read, but not since the last check. With `is_reload` the
    /// files are read in any case.
    fn check(&mut self, is_reload: bool) {
        let now = stamps(&self.value.files());
        let has_settled = now == self.last_look && now != self.read;
        self.last_look.clone_from(&now);
        if !has_settled && !is_reload {
            return;
        }
        self.read = now;
        let renewed = self.value.renew();
        self.files.failing.store(renewed.is_err(), Ordering::Relaxed);
        self.files.note_expiry(self.value.expires());
        match renewed {
            Ok(()) => info!(files = self.files.files, "read again"),
            Err(faults) => {
                for fault in faults {
                    error!("{fault}; the version before it stays in service");
                }
            }
        }
    }
}

/// The stamps of the files now.
fn stamps(files: &[PathBuf]) -> Vec<Stamp> {
    files.iter().map(|file| Stamp::of(file)).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    /// A value made from one file, which counts how many times it was renewed.
    struct Counted(PathBuf, AtomicUsize);

    impl Renew for Counted {
        fn files(&self) -> Vec<PathBuf> {
            vec![self.0.clone()]
        }

        fn renew(&self) -> Result<(), Vec<Fault>> {
            self.1.fetch_add(1, Ordering::Relaxed);
            let fault = || vec![Fault { place: self.0.display().to_string(), message: "is gone".to_owned() }];
            if self.0.exists() { Ok(()) } else { Err(fault()) }
        }
    }

    #[test]
    fn a_changed_file_is_read_once_after_two_checks_found_the_same_state() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "one").unwrap();
        let counted = Arc::new(Counted(file.clone(), AtomicUsize::new(0)));
        let mut watched = ReloadState::new(Arc::clone(&counted) as _);
        let files = Arc::clone(&watched.files);
        assert_eq!(files.files, file.display().to_string());
        let mut renewals_after = |checks: usize, is_reload| {
            (0..checks).for_each(|_| watched.check(is_reload));
            counted.1.load(Ordering::Relaxed)
        };
        assert_eq!(renewals_after(3, false), 0);
        std::fs::write(&file, "another").unwrap();
        assert_eq!(renewals_after(1, false), 0, "the file may still be written to");
        assert_eq!(renewals_after(1, false), 1);
        assert_eq!(renewals_after(3, false), 1, "an unchanged file isn't read again");
        assert_eq!(renewals_after(1, true), 2, "a reload reads unchanged files too");
        std::fs::rename(&file, directory.path().join("away")).unwrap();
        assert_eq!(renewals_after(2, false), 3);
        assert!(files.is_failing());
        std::fs::rename(directory.path().join("away"), &file).unwrap();
        assert_eq!(renewals_after(2, false), 4);
        assert!(!files.is_failing());
    }
}
