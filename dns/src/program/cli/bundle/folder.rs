//! Reads and writes the folder of a bundle (a named set of files). Takes a folder, returns its files, or why they can't
//! be a bundle; takes files, writes them into a new folder. Called by `bailiwick bundle`.

use std::collections::BTreeMap;
use std::fs::FileType;
use std::io;
use std::path::{Path, PathBuf};

use bailiwick_rules::bundle::{MOST_BYTES, MOST_FILES, check_path};

use crate::system::files::read_file;

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
    let mut reader = Reader { root, read: Read::default(), bytes: 0, errors: Vec::new() };
    reader.folder(folder, "");
    reader.read.left_out.sort();
    if reader.errors.is_empty() { Ok(reader.read) } else { Err(reader.errors) }
}

struct Reader {
    /// The folder without any link in its path.
    root: PathBuf,
    read: Read,
    bytes: u64,
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
            // As Kubernetes mounts files: each is a link to one beside it.
            let target = path.canonicalize().ok().filter(|target| target.starts_with(&self.root) && target.is_file());
            if target.is_none() {
                let message = "is a symbolic link that leads to no file of this folder; put the file itself there";
                return self.fail(path, message);
            }
        }
        if let Err(why) = check_path(inner) {
            return self.fail(path, why);
        }
        if self.bytes > MOST_BYTES {
            // This is reported already, and no more files need to be read.
            return;
        }
        if self.read.contents.len() >= MOST_FILES {
            self.bytes = u64::MAX;
            return self.fail(path, "is one more than the 1,000 files that a bundle has at most; split it");
        }
        // Before it is read: it may be larger than the memory.
        let size = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
        self.bytes = self.bytes.saturating_add(size);
        if self.bytes > MOST_BYTES {
            return self.fail(path, "makes the bundle larger than 64 MiB; split it");
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

/// Whether a folder may be written to: it isn't there, or is empty.
///
/// # Errors
/// That it may not.
pub(super) fn is_free(folder: &Path) -> Result<(), Vec<String>> {
    match std::fs::read_dir(folder).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(()),
        Ok(false) => Err(vec![format!("{}: isn't empty; name a new folder", folder.display())]),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(vec![format!("{}: can't be used ({error})", folder.display())]),
    }
}

/// Writes files into a folder that is free: all of them, or none.
///
/// # Errors
/// Why it can't be written.
pub(super) fn write(folder: &Path, contents: &BTreeMap<String, Vec<u8>>) -> Result<(), Vec<String>> {
    let mut name = folder.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let fresh = folder.with_file_name(name);
    let written = write_into(&fresh, contents).and_then(|()| {
        match std::fs::remove_dir(folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        std::fs::rename(&fresh, folder)
    });
    written.map_err(|error| {
        let _ = std::fs::remove_dir_all(&fresh);
        vec![format!("{}: can't be written ({error})", folder.display())]
    })
}

/// Writes the files of a bundle into a folder.
fn write_into(folder: &Path, contents: &BTreeMap<String, Vec<u8>>) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
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
        assert!(errors.len() == 1 && errors[0].contains("one more than the 1,000 files"), "{errors:?}");
        let pipe = folder(&[]);
        assert!(std::process::Command::new("mkfifo").arg(pipe.path().join("p")).status().unwrap().success());
        assert!(read(pipe.path()).unwrap_err()[0].contains("is no file but a pipe"));
    }

    #[test]
    fn a_folder_is_written_as_a_whole_and_only_where_nothing_is() {
        let parent = tempfile::tempdir().unwrap();
        let (to, contents) = (parent.path().join("out"), BTreeMap::from([("a/b.md".to_owned(), b"b".to_vec())]));
        std::fs::create_dir(&to).unwrap();
        is_free(&to).unwrap();
        write(&to, &contents).unwrap();
        assert_eq!(read(&to).unwrap().contents, contents);
        assert!(is_free(&to).unwrap_err()[0].contains("isn't empty"));
        assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 1, "nothing else is left");
    }
}
