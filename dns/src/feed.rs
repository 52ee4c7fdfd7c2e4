//! What watches the files: changes on disk or a call to [`Feed::reload`] enter, new versions of rules, zones, keys and GeoIP data go to the owner.
//!
//! Directories are watched, not files, so that renames over a file and swaps of symbolic links (as Kubernetes mounts do) are seen. An event only
//! says that it is time to look; whether a file changed is told by its metadata.

use std::collections::BTreeSet;
use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant, sleep, timeout};

use crate::dnssec::directory::read_keys;
use crate::owner::{Handle, Offer, Source};
use crate::sources::{Fault, Sources, read_geoip, read_rules, read_zones};

/// How long files have to be quiet before they are read: whoever writes one tends to write several times.
const QUIET: Duration = Duration::from_millis(100);
/// How long unquiet files are waited for.
const LONGEST_UNREST: Duration = Duration::from_secs(2);
/// How often files are looked at without an event: some file systems tell of nothing.
const LOOK: Duration = Duration::from_secs(30);

/// The watcher of a node's files; stops when dropped.
#[derive(Debug)]
pub struct Feed {
    reload: mpsc::Sender<()>,
    task: JoinHandle<()>,
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Feed {
    /// Watches `sources` and offers what changes to `handle`. `known` is what they looked like before they were first read.
    #[must_use]
    pub fn start(sources: Sources, known: Known, handle: Handle) -> Self {
        let (reload, reloads) = mpsc::channel(1);
        let task = tokio::spawn(watch(sources, known, handle, reloads));
        Self { reload, task }
    }

    /// Reads everything again, changed or not: what SIGHUP asks for.
    pub fn reload(&self) {
        // Full means that a reload is due anyway.
        let _ = self.reload.try_send(());
    }
}

/// What the files of each source looked like when they were last read.
#[derive(Debug, Default)]
pub struct Known {
    rules: Looks,
    zones: Looks,
    keys: Looks,
    geoip: Looks,
}

impl Known {
    /// Looks at the files, to be called before they are read: what changes while they are read is then read again. Zones and keys aren't known,
    /// since what they name isn't.
    #[must_use]
    pub fn before_reading(sources: &Sources) -> Self {
        let geoip = sources.geoip.iter().map(|path| Look::at(path)).collect();
        Self { rules: vec![Look::at(&sources.rules)], zones: Vec::new(), keys: Vec::new(), geoip }
    }

    fn files(&self) -> impl Iterator<Item = &Path> {
        self.rules.iter().chain(&self.zones).chain(&self.keys).chain(&self.geoip).map(|look| look.path.as_path())
    }
}

type Looks = Vec<Look>;

/// What a file looked like: enough to tell that it is another, or was written to.
#[derive(Debug, PartialEq, Eq)]
struct Look {
    path: PathBuf,
    /// Length, time, number and when its rights or anything else last changed; `None` for one that couldn't be looked at.
    seen: Option<(u64, Option<SystemTime>, [i64; 3])>,
}

impl Look {
    fn at(path: &Path) -> Self {
        let seen = std::fs::metadata(path).ok();
        let seen = seen.map(|metadata| (metadata.len(), metadata.modified().ok(), number(&metadata)));
        Self { path: path.to_owned(), seen }
    }

    fn is_current(&self) -> bool {
        *self == Self::at(&self.path)
    }
}

#[cfg(unix)]
fn number(metadata: &Metadata) -> [i64; 3] {
    use std::os::unix::fs::MetadataExt;
    [metadata.ino().cast_signed(), metadata.ctime(), metadata.ctime_nsec()]
}

#[cfg(not(unix))]
fn number(_: &Metadata) -> [i64; 3] {
    [0; 3]
}

/// Looks whenever something may have changed, and offers what did.
async fn watch(sources: Sources, mut known: Known, handle: Handle, mut reloads: mpsc::Receiver<()>) {
    let (happened, mut events) = mpsc::channel(1);
    let mut watcher = match notify::recommended_watcher(move |event| notice(&happened, event)) {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            tracing::warn!(%error, "file changes aren't told by the system; files are looked at every {LOOK:?}");
            None
        }
    };
    let mut everything = false;
    loop {
        // Watched first and looked at then, so that nothing falls between.
        let watched = directories(&known);
        watch_directories(watcher.as_mut(), &watched);
        known = offer_changes(&sources, known, &handle, everything).await;
        if !directories(&known).is_subset(&watched) {
            // What was read named files elsewhere: they may have changed since.
            everything = false;
            continue;
        }
        everything = tokio::select! {
            reload = reloads.recv() => match reload {
                Some(()) => true,
                None => return,
            },
            _ = events.recv(), if watcher.is_some() => {
                settle(&mut events).await;
                false
            }
            () = sleep(LOOK) => false,
        };
    }
}

/// Wakes the watcher, unless somebody only read.
fn notice(happened: &mpsc::Sender<()>, event: notify::Result<notify::Event>) {
    let is_read = |kind: &EventKind| match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => false,
        kind => kind.is_access(),
    };
    if !event.is_ok_and(|event| is_read(&event.kind)) {
        // Full means that it is awake already.
        let _ = happened.try_send(());
    }
}

/// Waits until nothing happens for a moment.
async fn settle(events: &mut mpsc::Receiver<()>) {
    let latest = Instant::now() + LONGEST_UNREST;
    while let Ok(Some(())) = timeout(QUIET, events.recv()).await {
        if Instant::now() >= latest {
            return;
        }
    }
}

/// The directory of each file and, where the file is a link, that of the file it leads to.
fn directories(known: &Known) -> BTreeSet<PathBuf> {
    let directory = |path: &Path| match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Some(PathBuf::from(".")),
        parent => parent.map(Path::to_owned),
    };
    let both = |path: &Path| {
        let target = std::fs::canonicalize(path).ok().and_then(|target| directory(&target));
        directory(path).into_iter().chain(target)
    };
    known.files().flat_map(both).collect()
}

/// Watches directories. Watching one twice does no harm, and one that was removed and made anew has to be.
fn watch_directories(watcher: Option<&mut RecommendedWatcher>, directories: &BTreeSet<PathBuf>) {
    let Some(watcher) = watcher else { return };
    for directory in directories {
        if let Err(error) = watcher.watch(directory, RecursiveMode::NonRecursive) {
            tracing::debug!(%error, directory = %directory.display(), "not watched; files there are looked at every {LOOK:?}");
        }
    }
}

/// Offers each source that changed, or every one. What is read is looked at before, so that a change while reading is seen next time.
async fn offer_changes(sources: &Sources, known: Known, handle: &Handle, everything: bool) -> Known {
    let changed = |looks: &Looks| everything || looks.is_empty() || !looks.iter().all(Look::is_current);
    let (rules, zones) = (changed(&known.rules), changed(&known.zones) && !sources.zones.is_empty());
    let geoip = changed(&known.geoip) && sources.geoip.is_some();
    let keys = changed(&known.keys) && !sources.dnssec.is_empty();
    if !(rules || zones || keys || geoip) {
        return known;
    }
    let (to_read, at) = (sources.clone(), handle.now());
    let reading = tokio::task::spawn_blocking(move || {
        let (mut known, now) = (known, Known::before_reading(&to_read));
        let rules = rules.then(|| {
            known.rules = now.rules;
            read_rules(&to_read.rules).map(Offer::Rules)
        });
        let geoip = geoip.then(|| {
            known.geoip = now.geoip;
            read_geoip(to_read.geoip.as_deref(), to_read.registered).map(Offer::Places)
        });
        let zones = zones.then(|| {
            known.zones.clear();
            read_zones(&to_read.zones, &mut |path| known.zones.push(Look::at(path))).map(Offer::Zones)
        });
        let keys = keys.then(|| {
            known.keys.clear();
            read_keys(&to_read.dnssec, at, &mut |path| known.keys.push(Look::at(path))).map(Offer::Keys)
        });
        (known, [(Source::Rules, rules), (Source::Zones, zones), (Source::Keys, keys), (Source::Geoip, geoip)])
    });
    let (known, read) = match reading.await {
        Ok(read) => read,
        Err(panic) => {
            tracing::error!(%panic, "reading the files failed by a fault of this program; please report it");
            return Known::before_reading(sources);
        }
    };
    for (source, version) in read {
        match version {
            Some(Ok(offer)) => handle.offer(offer).await,
            Some(Err(faults)) => {
                handle.report_unusable(source, faults.iter().map(Fault::to_string).collect()).await;
            }
            None => {}
        }
    }
    known
}
