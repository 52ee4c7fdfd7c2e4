//! Reloads files that may be replaced while the server runs and aren't part of a snapshot: certificates, keys and
//! tokens. Takes changes on disk or a SIGHUP, calls [`Renew::renew`] and raises alarms. Started by `serve`.
//!
//! There are few such files, and they change a few times a year. So they are checked every second instead of being
//! watched, which notices every way to replace them on every file system. They are read once they haven't changed
//! between two checks, because certificate and key are two files.

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

/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// A look that takes longer than that is stuck.
const PATIENCE: Duration = Duration::from_secs(60);

/// Something made from files that can be made anew.
pub(crate) trait Renew: Send + Sync {
    /// The files.
    fn files(&self) -> Vec<PathBuf>;

    /// Reads them again. What was made before stays in service when they are no good.
    ///
    /// # Errors
    /// What is wrong with them.
    fn renew(&self) -> Result<(), Vec<Fault>>;

    /// When what is in service expires, if it does.
    fn expires(&self) -> Option<Timestamp> {
        None
    }
}

/// The thread that looks; it stops when this is dropped.
#[derive(Debug)]
pub(crate) struct Renewal {
    now: SyncSender<()>,
    files: Vec<Arc<FileHealth>>,
}

/// Whether the files that make one thing are good, and until when.
#[derive(Debug)]
pub(crate) struct FileHealth {
    /// Its files, with commas between.
    pub files: String,
    failing: AtomicBool,
    /// In milliseconds; [`NEVER`] for what doesn't expire.
    expires: AtomicI64,
}

/// No time at which it expires.
const NEVER: i64 = i64::MAX;

impl FileHealth {
    /// Whether its files were no good when they were last read, and what was made before is in service.
    #[must_use]
    pub(crate) fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// When what is in service expires, if it does.
    #[must_use]
    pub(crate) fn expires(&self) -> Option<Timestamp> {
        Some(self.expires.load(Ordering::Relaxed)).filter(|at| *at != NEVER).map(Timestamp)
    }

    fn note_expiry(&self, at: Option<Timestamp>) {
        self.expires.store(at.map_or(NEVER, |at| at.0), Ordering::Relaxed);
    }
}

impl Renewal {
    /// Looks after `all`; `tasks` learns of it.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn start(all: Vec<Arc<dyn Renew>>, tasks: &Tasks) -> io::Result<Self> {
        let (now, asked) = mpsc::sync_channel(1);
        let watched: Vec<Watched> = all.into_iter().map(Watched::new).collect();
        let files = watched.iter().map(|one| Arc::clone(&one.files)).collect();
        if !watched.is_empty() {
            let pulse = tasks.beating("certificates", false, PATIENCE);
            let thread = std::thread::Builder::new().name("certificates".to_owned());
            thread.spawn(move || look_after(watched, &asked, &pulse))?;
        }
        Ok(Self { now, files })
    }

    /// The state of each of them. It changes as long as the server runs.
    #[must_use]
    pub(crate) fn files(&self) -> Vec<Arc<FileHealth>> {
        self.files.clone()
    }

    /// Reads everything again, changed or not.
    pub(crate) fn reload(&self) {
        // Full means that it is about to.
        let _ = self.now.try_send(());
    }
}

/// Looks until nobody wants it any more. Files may lie on a disk that hangs, so this is a thread of its own, and one
/// fault ends nothing.
fn look_after(mut watched: Vec<Watched>, asked: &Receiver<()>, pulse: &Pulse) {
    loop {
        let everything = match asked.recv_timeout(LOOK) {
            Ok(()) => true,
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        for one in &mut watched {
            if catch_unwind(AssertUnwindSafe(|| one.look(everything))).is_err() {
                pulse.panicked();
                one.files.failing.store(true, Ordering::Relaxed);
            }
        }
        pulse.beat();
    }
}

struct Watched {
    what: Arc<dyn Renew>,
    files: Arc<FileHealth>,
    /// How the files looked when they were last read.
    read: Vec<Stamp>,
    /// How they looked last time.
    seen: Vec<Stamp>,
}

impl Watched {
    fn new(what: Arc<dyn Renew>) -> Self {
        let files = what.files();
        let seen = stamps(&files);
        let files = files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(",");
        let files = FileHealth { files, failing: AtomicBool::new(false), expires: AtomicI64::new(NEVER) };
        files.note_expiry(what.expires());
        Self { what, files: Arc::new(files), read: seen.clone(), seen }
    }

    /// Reads the files if they have changed and then stayed the same, or in any case.
    fn look(&mut self, in_any_case: bool) {
        let now = stamps(&self.what.files());
        let settled = now == self.seen && now != self.read;
        self.seen.clone_from(&now);
        if !settled && !in_any_case {
            return;
        }
        self.read = now;
        let renewed = self.what.renew();
        self.files.failing.store(renewed.is_err(), Ordering::Relaxed);
        self.files.note_expiry(self.what.expires());
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

fn stamps(files: &[PathBuf]) -> Vec<Stamp> {
    files.iter().map(|file| Stamp::of(file)).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

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
    fn a_change_is_read_once_it_has_settled() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "one").unwrap();
        let counted = Arc::new(Counted(file.clone(), AtomicUsize::new(0)));
        let mut watched = Watched::new(Arc::clone(&counted) as _);
        let files = Arc::clone(&watched.files);
        assert_eq!(files.files, file.display().to_string());
        let mut after_looking = |times: usize, in_any_case| {
            (0..times).for_each(|_| watched.look(in_any_case));
            counted.1.load(Ordering::Relaxed)
        };
        assert_eq!(after_looking(3, false), 0);
        std::fs::write(&file, "another").unwrap();
        assert_eq!(after_looking(1, false), 0, "it may still be written to");
        assert_eq!(after_looking(1, false), 1);
        assert_eq!(after_looking(3, false), 1, "once");
        assert_eq!(after_looking(1, true), 2, "SIGHUP");
        std::fs::rename(&file, directory.path().join("away")).unwrap();
        assert_eq!(after_looking(2, false), 3);
        assert!(files.is_failing());
        std::fs::rename(directory.path().join("away"), &file).unwrap();
        assert_eq!(after_looking(2, false), 4);
        assert!(!files.is_failing());
    }
}
