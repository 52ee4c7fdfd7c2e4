//! Takes the stamps of files (inode, length, times and more) before and after a change, returns whether the files were
//! replaced or written in place. Called by [`super::part`].
//!
//! Stamps are compared several times a second. Events of inotify alone aren't enough. Stamps also notice when a
//! symbolic link on the way to a file is swapped, they work on every file system, and they need no watcher that can end
//! or run out of watches. Events, if the system has them, add one thing: they tell that a file was renamed to its name,
//! so that it is complete.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::OsString;
use std::path::PathBuf;

use bailiwick_host::system::files::{FileMetadata, Stamp};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};

/// The most reads of events at one check. Further events wait for the next check.
const MAX_READS: usize = 256;

/// How a change came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// At least one file was written in place.
    InPlace,
    /// Some of several files were replaced, and the other files didn't change.
    PartReplaced,
    /// All files were replaced.
    Replaced,
}

/// Whether the file was moved into place, and not written in place.
fn was_replaced(before: &Stamp, now: &Stamp, moves: &Moves) -> bool {
    let Some(now) = &now.found else { return true };
    let Some(before) = &before.found else { return is_whole(now, moves) };
    if (before.device, before.inode, before.length, before.written) == (now.device, now.inode, now.length, now.written)
    {
        // Only the file's mode or owner changed, or a link on the way to the file.
        return true;
    }
    if (before.device, before.inode) == (now.device, now.inode) {
        return false;
    }
    before.real != now.real || is_whole(now, moves)
}

/// Whether the file was renamed to its name. A write sets the time of the content and the time of the inode to the same
/// moment. After a rename, or after a copy whose time was set, the two times differ.
fn is_whole(file: &FileMetadata, moves: &Moves) -> bool {
    file.written != file.changed || moves.moved.contains(&file.real)
}

/// How the files of one version changed.
pub(super) fn change(before: &[Stamp], now: &[Stamp], moves: &Moves) -> Change {
    let changed: Vec<_> = before.iter().zip(now).filter(|(before, now)| before != now).collect();
    if changed.iter().any(|(before, now)| !was_replaced(before, now, moves)) {
        Change::InPlace
    } else if changed.len() < now.len() {
        Change::PartReplaced
    } else {
        Change::Replaced
    }
}

/// The files that were moved into place, as far as the system reports it.
#[derive(Debug, Default)]
pub(super) struct Moves {
    events: Option<Inotify>,
    watched: BTreeMap<PathBuf, WatchDescriptor>,
    /// The real paths of files that were moved into place and not written to since.
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

    /// Watches the directories of these files, and reads the events there.
    pub(super) fn update<'l>(&mut self, stamps: impl Iterator<Item = &'l Stamp>) {
        let Some(events) = &self.events else { return };
        let mut directories = BTreeSet::new();
        let mut names: HashSet<OsString> = HashSet::new();
        for stamp in stamps {
            // For a missing file, the directory where it would be is watched.
            let missing = || Some(std::fs::canonicalize(stamp.path.parent()?).ok()?.join(stamp.path.file_name()?));
            let Some(real) = stamp.found.as_ref().map(|found| found.real.clone()).or_else(missing) else { continue };
            if let (Some(directory), Some(name)) = (real.parent(), real.file_name()) {
                directories.insert(directory.to_owned());
                names.insert(name.to_owned());
            }
        }
        for _ in 0..MAX_READS {
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
            // For a directory that is already watched, this does nothing. A directory that was removed and made again
            // needs a new watch.
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

        /// Runs `act`, and returns how the file changed.
        fn changed_by(&mut self, act: impl FnOnce(&Self)) -> Change {
            let before = [Stamp::of(&self.path("file"))];
            self.moves.update(before.iter());
            act(self);
            self.moves.update(before.iter());
            let now = [Stamp::of(&self.path("file"))];
            assert_ne!(before, now);
            change(&before, &now, &self.moves)
        }
    }

    #[test]
    fn a_file_renamed_into_place_is_complete_and_a_file_written_in_place_may_not_be() {
        let mut folder = Folder::new();
        let write = |folder: &Folder| fs::write(folder.path("file"), "two or more").unwrap();
        assert_eq!(folder.changed_by(write), Change::InPlace);
        let rename = |folder: &Folder| {
            fs::write(folder.path("new"), "three").unwrap();
            fs::rename(folder.path("new"), folder.path("file")).unwrap();
        };
        for _ in 0..20 {
            assert_eq!(folder.changed_by(rename), Change::Replaced);
        }
        // The file is renamed into place, and then written to.
        let both = |folder: &Folder| {
            rename(folder);
            fs::write(folder.path("file"), "four and more").unwrap();
        };
        assert_eq!(folder.changed_by(both), Change::InPlace);
    }

    #[test]
    fn a_file_that_is_removed_and_written_again_may_be_incomplete() {
        let mut folder = Folder::new();
        // `install`, `tar` and `git checkout` do this.
        let write_again = |folder: &Folder| {
            fs::remove_file(folder.path("file")).unwrap();
            fs::write(folder.path("file"), "two").unwrap();
        };
        assert_eq!(folder.changed_by(write_again), Change::InPlace);
    }

    #[test]
    fn a_file_behind_a_swapped_link_is_complete() {
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
    fn replacing_one_of_two_files_replaces_a_part() {
        let folder = Folder::new();
        fs::write(folder.path("other"), "x").unwrap();
        let look = || [Stamp::of(&folder.path("file")), Stamp::of(&folder.path("other"))];
        let before = look();
        fs::remove_file(folder.path("other")).unwrap();
        assert_eq!(change(&before, &look(), &folder.moves), Change::PartReplaced);
    }
}
