//! What files look like: paths enter, what the file system tells of them leaves, and whether a change of it was a
//! replacement or a write in place; the feed asks.
//!
//! Files are looked at again and again rather than waited for by events: that sees a swap of any link on the way to a
//! file, on every file system, and there is no watcher that could end or run out of watches. Events say one thing more
//! where the system gives them: that a file was renamed to its name, and so is whole.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};

/// The most reads of events at one look; what is left waits for the next.
const MOST_READS: usize = 256;

/// What a file looked like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) path: PathBuf,
    /// `None` for one that isn't there or can't be looked at.
    seen: Option<Seen>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    /// Where it really is, all links followed.
    real: PathBuf,
    device: u64,
    number: u64,
    length: u64,
    /// When it was last written to, in seconds and nanoseconds.
    written: (i64, i64),
    /// When that or anything else of it last changed, its name included.
    changed: (i64, i64),
}

/// How a change came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Something is written where it is.
    InPlace,
    /// Some of several files were replaced, and no other changed.
    PartReplaced,
    /// Every file that there is was replaced.
    Replaced,
}

impl Look {
    pub(super) fn at(path: &Path) -> Self {
        let seen = std::fs::metadata(path).ok().map(|found| Seen {
            real: std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()),
            device: found.dev(),
            number: found.ino(),
            length: found.len(),
            written: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        });
        Self { path: path.to_owned(), seen }
    }

    pub(super) fn real(&self) -> Option<&Path> {
        self.seen.as_ref().map(|seen| &*seen.real)
    }

    /// Whether what is there now was put there whole, rather than written there.
    fn was_replaced(&self, now: &Self, moves: &Moves) -> bool {
        let Some(now) = &now.seen else { return true };
        let Some(before) = &self.seen else { return now.is_whole(moves) };
        if (before.device, before.number, before.length, before.written)
            == (now.device, now.number, now.length, now.written)
        {
            // Its mode or owner, or the way to it.
            return true;
        }
        if (before.device, before.number) == (now.device, now.number) {
            return false;
        }
        before.real != now.real || now.is_whole(moves)
    }
}

impl Seen {
    /// Whether it was renamed to its name. A write sets both times to the same moment; a rename, or a program that sets
    /// the time of what it has copied, parts them.
    fn is_whole(&self, moves: &Moves) -> bool {
        self.written != self.changed || moves.moved.contains(&self.real)
    }
}

/// How the files of one version changed.
pub(super) fn change(before: &[Look], now: &[Look], moves: &Moves) -> Change {
    let changed: Vec<_> = before.iter().zip(now).filter(|(before, now)| before != now).collect();
    if changed.iter().any(|(before, now)| !before.was_replaced(now, moves)) {
        Change::InPlace
    } else if changed.len() < now.len() {
        Change::PartReplaced
    } else {
        Change::Replaced
    }
}

/// The files that were renamed to their names, as far as the system tells.
#[derive(Debug, Default)]
pub(super) struct Moves {
    events: Option<Inotify>,
    watched: BTreeMap<PathBuf, WatchDescriptor>,
    /// By where it really is; until it is written to.
    moved: HashSet<PathBuf>,
}

impl Moves {
    pub(super) fn new() -> Self {
        let events = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC);
        let events = events.map_err(|error| {
            tracing::debug!(%error, "renames aren't told by the system; some files are taken a moment later");
        });
        Self { events: events.ok(), ..Self::default() }
    }

    /// Watches the directories of these files and takes in what happened there.
    pub(super) fn update<'l>(&mut self, looks: impl Iterator<Item = &'l Look>) {
        let Some(events) = &self.events else { return };
        let mut directories = BTreeSet::new();
        let mut names: HashSet<OsString> = HashSet::new();
        for look in looks {
            // Of a file that isn't there, the directory it would be in.
            let missing = || Some(std::fs::canonicalize(look.path.parent()?).ok()?.join(look.path.file_name()?));
            let Some(real) = look.real().map(Path::to_owned).or_else(missing) else { continue };
            if let (Some(directory), Some(name)) = (real.parent(), real.file_name()) {
                directories.insert(directory.to_owned());
                names.insert(name.to_owned());
            }
        }
        for _ in 0..MOST_READS {
            let Ok(read) = events.read_events() else { break };
            for event in read {
                if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                    self.moved.clear();
                }
                let directory = self.watched.iter().find(|(_, watch)| **watch == event.wd).map(|(path, _)| path);
                let (Some(directory), Some(name)) = (directory, event.name) else { continue };
                if !names.contains(&name) {
                    continue;
                }
                let path = directory.join(name);
                match event.mask.contains(AddWatchFlags::IN_MOVED_TO) {
                    true => _ = self.moved.insert(path),
                    false => _ = self.moved.remove(&path),
                }
            }
        }
        let gone = self.watched.extract_if(.., |path, _| !directories.contains(path));
        gone.for_each(|(_, watch)| _ = events.rm_watch(watch));
        for directory in directories {
            // Adding one that is watched does nothing; one that was removed and made again is another.
            let flags = AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MODIFY;
            match events.add_watch(&directory, flags | AddWatchFlags::IN_ONLYDIR) {
                Ok(watch) => _ = self.watched.insert(directory, watch),
                Err(_) => _ = self.watched.remove(&directory),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    struct Folder {
        folder: tempfile::TempDir,
        moves: Moves,
    }

    impl Folder {
        fn new() -> Self {
            let folder = Self { folder: tempfile::tempdir().unwrap(), moves: Moves::new() };
            fs::write(folder.path("file"), "one").unwrap();
            folder
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        /// How the file changed by this.
        fn changed_by(&mut self, act: impl FnOnce(&Self)) -> Change {
            let before = [Look::at(&self.path("file"))];
            self.moves.update(before.iter());
            act(self);
            self.moves.update(before.iter());
            let now = [Look::at(&self.path("file"))];
            assert_ne!(before, now);
            change(&before, &now, &self.moves)
        }
    }

    #[test]
    fn what_is_renamed_over_a_file_is_whole_and_what_is_written_to_it_is_not() {
        let mut folder = Folder::new();
        let write = |folder: &Folder| fs::write(folder.path("file"), "two or more").unwrap();
        assert_eq!(folder.changed_by(write), Change::InPlace);
        let rename = |folder: &Folder| {
            fs::write(folder.path("beside"), "three").unwrap();
            fs::rename(folder.path("beside"), folder.path("file")).unwrap();
        };
        for _ in 0..20 {
            assert_eq!(folder.changed_by(rename), Change::Replaced);
        }
        // Renamed, and then written to.
        let both = |folder: &Folder| {
            rename(folder);
            fs::write(folder.path("file"), "four and more").unwrap();
        };
        assert_eq!(folder.changed_by(both), Change::InPlace);
    }

    #[test]
    fn a_file_that_is_removed_and_written_anew_is_not_whole() {
        let mut folder = Folder::new();
        // As `install`, `tar` and `git checkout` do.
        let anew = |folder: &Folder| {
            fs::remove_file(folder.path("file")).unwrap();
            fs::write(folder.path("file"), "two").unwrap();
        };
        assert_eq!(folder.changed_by(anew), Change::InPlace);
    }

    #[test]
    fn a_link_anywhere_on_the_way_that_is_swapped_leads_to_what_is_whole() {
        let mut folder = Folder::new();
        let release = |folder: &Folder, name: &str| {
            fs::create_dir_all(folder.path(name).join("zones")).unwrap();
            fs::write(folder.path(name).join("zones/file"), name).unwrap();
            symlink(name, folder.path("next")).unwrap();
            fs::rename(folder.path("next"), folder.path("current")).unwrap();
        };
        release(&folder, "release-1");
        fs::remove_file(folder.path("file")).unwrap();
        symlink("current/zones/file", folder.path("file")).unwrap();
        assert_eq!(folder.changed_by(|folder| release(folder, "release-2")), Change::Replaced);
    }

    #[test]
    fn one_of_two_that_is_replaced_is_a_part() {
        let folder = Folder::new();
        fs::write(folder.path("other"), "x").unwrap();
        let look = || [Look::at(&folder.path("file")), Look::at(&folder.path("other"))];
        let before = look();
        fs::remove_file(folder.path("other")).unwrap();
        assert_eq!(change(&before, &look(), &folder.moves), Change::PartReplaced);
    }
}
