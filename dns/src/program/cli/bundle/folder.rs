//! Reads and writes the folder of a bundle (a named set of files). Takes a folder, returns its files, or why they can't
//! be a bundle; takes files, writes them into a new folder. Called by `bailiwick bundle`.

use std::collections::BTreeMap;
use std::fs::FileType;
use std::io;
use std::path::{Path, PathBuf};

use bailiwick_host::system::files::read_file;
use bailiwick_rules::bundle::{MOST_BYTES, MOST_FILES, check_path};

/// The files of a folder.
#[derive(Debug, Default)]
pub(super) struct Read {
    /// Contents by path, with `/` between folders.
    pub(super) contents: BTreeMap<String, Vec<u8>>,
    /// What was left out, as its name begins with a dot.
    pub(super) left_out: Vec<String>,
}

/// Reads all files of a folder and of those within.
///
/// # Errors
/// Everything that keeps it from being a bundle.
pub(super) fn read(folder: &Path) -> Result<Read, Vec<String>> {
    let failed = |error: io::Error| vec![format!("{}: can't be read ({error})", folder.display())];
    if !std::fs::metadata(folder).map_err(failed)?.is_dir() {
        return Err(vec![format!("{}: is no folder; name the one that holds the files", folder.display())]);
    }
    let root = folder.canonicalize().map_err(failed)?;
    let mut reader = Reader { root, read: Read::default(), bytes: 0, is_full: false, errors: Vec::new() };
    reader.folder(folder, "");
    reader.read.left_out.sort();
    if reader.errors.is_empty() { Ok(reader.read) } else { Err(reader.errors) }
}

struct Reader {
    /// The folder without any link in its path.
    root: PathBuf,
    read: Read,
    /// The size of all files together.
    bytes: u64,
    /// Whether the files are too many or too large. Then no more are read, and none is reported again.
    is_full: bool,
    errors: Vec<String>,
}

impl Reader {
    /// Reads the files of a folder and of the folders in it. `within` is the path of the folder in the bundle.
    fn folder(&mut self, folder: &Path, within: &str) {
        let entries = std::fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let mut entries = match entries {
            Ok(entries) => entries,
            Err(error) => return self.fail(folder, &format!("can't be read ({error})")),
        };
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let (path, name) = (entry.path(), entry.file_name());
            let Some(name) = name.to_str() else {
                self.fail(&path, "has a name that is no text; rename it");
                continue;
            };
            let inner = format!("{within}{name}");
            if name.starts_with('.') {
                self.read.left_out.push(inner);
                continue;
            }
            match entry.file_type() {
                Ok(kind) => self.entry(&path, &inner, kind),
                Err(error) => self.fail(&path, &format!("can't be looked at ({error})")),
            }
        }
    }

    /// Reads one entry of a folder: a file, a link to a file, or a folder.
    fn entry(&mut self, path: &Path, inner: &str, kind: FileType) {
        if kind.is_dir() {
            return self.folder(path, &format!("{inner}/"));
        }
        if kind.is_symlink() {
            // Kubernetes mounts a ConfigMap so: `a.md` is a link to `..data/a.md`, and `..data` is a link to a folder
            // beside it.
            let target = path.canonicalize().ok().filter(|target| target.starts_with(&self.root) && target.is_file());
            if target.is_none() {
                let message = "is a symbolic link that leads to no file of this folder; put the file itself there";
                return self.fail(path, message);
            }
        }
        if let Err(why) = check_path(inner) {
            return self.fail(path, why);
        }
        if self.is_full {
            return;
        }
        if self.read.contents.len() >= MOST_FILES {
            self.is_full = true;
            let message = format!("is one more than the {MOST_FILES} files that a bundle has at most; split it");
            return self.fail(path, &message);
        }
        // Before it is read: it may be larger than the memory.
        let size = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
        self.bytes = self.bytes.saturating_add(size);
        if self.bytes > MOST_BYTES {
            self.is_full = true;
            return self.fail(path, &format!("makes the bundle larger than {} MiB; split it", MOST_BYTES >> 20));
        }
        match read_file(path) {
            Ok(content) => _ = self.read.contents.insert(inner.to_owned(), content),
            Err(error) => self.fail(path, &format!("can't be read ({error})")),
        }
    }

    fn fail(&mut self, path: &Path, message: &str) {
        self.errors.push(format!("{}: {message}", path.display()));
    }
}

/// Checks that a folder may be written to: it isn't there, or is empty, and isn't the current folder. Called before
/// anything is fetched.
///
/// # Errors
/// That it may not.
pub(super) fn check_free(folder: &Path) -> Result<(), Vec<String>> {
    let refused = |why: &str| Err(vec![format!("{}: {why}; name a new folder", folder.display())]);
    if folder.file_name().is_none() && folder.canonicalize().is_err() {
        return refused("has no name that it could be made by");
    }
    // The new folder takes the place of the empty one, so the shell of the operator would be in a deleted folder.
    let current = std::env::current_dir().and_then(|current| current.canonicalize());
    if matches!((folder.canonicalize(), current), (Ok(folder), Ok(current)) if folder == current) {
        return refused("is the current folder, which can't be replaced");
    }
    match std::fs::read_dir(folder).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(()),
        Ok(false) => refused("isn't empty"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(vec![format!("{}: can't be used ({error})", folder.display())]),
    }
}

/// Writes files into a folder that [`check_free`] accepts: all of them, or none.
///
/// # Errors
/// Why it can't be written. Then the folder is as it was.
pub(super) fn write(folder: &Path, contents: &BTreeMap<String, Vec<u8>>) -> Result<(), Vec<String>> {
    // A folder that is there may be named by a link to it, or by a path that ends in `..`.
    let real = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let written = create_beside(&real).and_then(|fresh| {
        // A rename replaces an empty folder, and no other.
        let moved = write_into(&fresh, contents).and_then(|()| std::fs::rename(&fresh, &real));
        moved.inspect_err(|_| _ = std::fs::remove_dir_all(&fresh))
    });
    written.map_err(|error| vec![format!("{}: can't be written ({error})", folder.display())])
}

/// Makes a new, empty folder beside another one, and the folders above it.
fn create_beside(folder: &Path) -> io::Result<PathBuf> {
    folder.parent().map_or(Ok(()), std::fs::create_dir_all)?;
    let mut number = 0_u32;
    loop {
        // After a crash, a folder of this name may be left by a process that had the same id. It isn't used again,
        // because it holds files of another bundle.
        let mut name = folder.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}-{number}.new", std::process::id()));
        let fresh = folder.with_file_name(name);
        match std::fs::create_dir(&fresh) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            created => return created.map(|()| fresh),
        }
    }
}

/// Writes the files of a bundle into a folder that is there.
fn write_into(folder: &Path, contents: &BTreeMap<String, Vec<u8>>) -> io::Result<()> {
    for (path, content) in contents {
        let file = folder.join(path);
        file.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        std::fs::write(file, content)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let file = folder.path().join(path);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, content).unwrap();
        }
        folder
    }

    #[test]
    fn files_are_found_in_all_folders_and_hidden_ones_are_left_out() {
        let folder = folder(&[("b.md", "b"), ("a/c.md", "c"), (".git/config", "x"), ("a/.DS_Store", "y")]);
        let read = read(folder.path()).unwrap();
        assert_eq!(read.contents.keys().collect::<Vec<_>>(), ["a/c.md", "b.md"]);
        assert_eq!(read.left_out, [".git", "a/.DS_Store"]);
    }

    #[test]
    fn a_link_leads_to_a_file_of_the_folder_or_is_refused() {
        let folder = folder(&[("..data/a.md", "a"), ("sub/b.md", "b")]);
        symlink("..data/a.md", folder.path().join("a.md")).unwrap();
        assert_eq!(read(folder.path()).unwrap().contents["a.md"], b"a");
        for out in ["/etc/hostname", "../../etc/hostname", "nowhere", "sub", ".", "loop"] {
            let link = folder.path().join("loop");
            symlink(out, &link).unwrap();
            let errors = read(folder.path()).unwrap_err();
            assert!(errors[0].contains("is a symbolic link that leads to no file of this folder"), "{out}: {errors:?}");
            std::fs::remove_file(link).unwrap();
        }
    }

    #[test]
    fn what_is_no_bundle_is_told_with_its_place() {
        let odd = folder(&[("a b.md", ""), ("ü.md", "")]);
        let errors = read(odd.path()).unwrap_err();
        assert!(errors.len() == 2 && errors[0].contains("a b.md: has characters"), "{errors:?}");
        assert!(read(&odd.path().join("none")).unwrap_err()[0].contains("can't be read"));
        assert!(read(&odd.path().join("a b.md")).unwrap_err()[0].contains("is no folder"));
        let large = folder(&[("a", "x")]);
        std::fs::File::create(large.path().join("b")).unwrap().set_len(MOST_BYTES).unwrap();
        assert!(read(large.path()).unwrap_err()[0].contains("larger than 64 MiB"));
        let many = folder(&[]);
        for n in 0..=MOST_FILES + 3 {
            std::fs::write(many.path().join(n.to_string()), "").unwrap();
        }
        let errors = read(many.path()).unwrap_err();
        assert!(errors.len() == 1 && errors[0].contains("one more than the 1000 files"), "{errors:?}");
        let pipe = folder(&[]);
        assert!(std::process::Command::new("mkfifo").arg(pipe.path().join("p")).status().unwrap().success());
        assert!(read(pipe.path()).unwrap_err()[0].contains("is no file but a pipe"));
    }

    /// A folder to write into, and the files of a bundle.
    fn target() -> (tempfile::TempDir, PathBuf, BTreeMap<String, Vec<u8>>) {
        let parent = tempfile::tempdir().unwrap();
        let to = parent.path().join("out");
        (parent, to, BTreeMap::from([("a/b.md".to_owned(), b"b".to_vec())]))
    }

    #[test]
    fn a_folder_is_written_as_a_whole_and_only_where_nothing_is() {
        let (parent, to, contents) = target();
        std::fs::create_dir(&to).unwrap();
        check_free(&to).unwrap();
        write(&to, &contents).unwrap();
        assert_eq!(read(&to).unwrap().contents, contents);
        assert!(check_free(&to).unwrap_err()[0].contains("isn't empty"));
        assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn what_a_crash_left_gets_into_no_bundle() {
        let (parent, to, contents) = target();
        let stale = parent.path().join(format!("out.{}-0.new", std::process::id()));
        std::fs::create_dir(&stale).unwrap();
        std::fs::write(stale.join("old.md"), "of another bundle").unwrap();
        write(&to, &contents).unwrap();
        assert_eq!(read(&to).unwrap().contents, contents);
    }

    #[test]
    fn a_folder_that_can_not_be_replaced_stays_as_it_was() {
        let (parent, to, contents) = target();
        std::fs::create_dir(&to).unwrap();
        std::fs::write(to.join("mine"), "").unwrap();
        assert!(write(&to, &contents).unwrap_err()[0].contains("can't be written"), "another came in between");
        assert!(to.join("mine").exists() && std::fs::read_dir(parent.path()).unwrap().count() == 1);
        // Writing fails in the middle: a file can't be a folder too.
        std::fs::remove_file(to.join("mine")).unwrap();
        let clashing = BTreeMap::from([("a".to_owned(), Vec::new()), ("a/b".to_owned(), Vec::new())]);
        assert!(write(&to, &clashing).is_err());
        assert!(to.is_dir() && std::fs::read_dir(parent.path()).unwrap().count() == 1);
    }

    #[test]
    fn a_folder_may_be_named_by_a_link_or_by_dots_but_not_be_the_current_one() {
        let (parent, to, contents) = target();
        std::fs::create_dir_all(&to).unwrap();
        let link = parent.path().join("link");
        symlink("out", &link).unwrap();
        check_free(&link).unwrap();
        write(&link, &contents).unwrap();
        assert_eq!(read(&to).unwrap().contents, contents);
        let other = tempfile::tempdir().unwrap();
        let dots = other.path().join(".");
        check_free(&dots).unwrap();
        write(&dots, &contents).unwrap();
        assert_eq!(read(other.path()).unwrap().contents, contents);
        for (folder, why) in [(".", "is the current folder"), ("none/..", "has no name")] {
            assert!(check_free(Path::new(folder)).unwrap_err()[0].contains(why), "{folder}");
        }
    }
}
