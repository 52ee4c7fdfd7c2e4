//! Bundles: named, versioned sets of files for applications, such as prompts. Takes paths and contents, returns a
//! [`Manifest`], which lists the files with their digests; its [`Version`] is the digest of this list. Also decides
//! which version a region is served, and which versions may be removed. Called by the commands that push bundles, and
//! by the nodes that store and serve them.
//!
//! A version is the SHA-256 of what `sha256sum` prints for the sorted paths. So equal files have an equal version,
//! wherever they are pushed from, and a version is checked with usual tools:
//! `find * -type f | LC_ALL=C sort | xargs sha256sum | sha256sum`.

mod pack;
mod path;
#[cfg(test)]
mod tests;

use core::fmt;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sha2::Digest as _;

pub use pack::{HEADER_MOST, LARGEST_PACK, pack, read_header, unpack};
pub use path::check as check_path;

use crate::time::Timestamp;

/// The most bytes that the files of a bundle may have together.
pub const MOST_BYTES: u64 = 64 << 20;
/// The most files of a bundle.
pub const MOST_FILES: usize = 1_000;
/// How many versions of a bundle a node keeps beside those in use.
pub const MOST_VERSIONS: usize = 16;

/// A SHA-256; 64 lower-case hex digits as text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of some bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(sha2::Sha256::digest(bytes).into())
    }

    /// Reads 64 lower-case hex digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let mut digest = [0; 32];
        if text.len() != 64 {
            return None;
        }
        for (out, pair) in digest.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *out = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Self(digest))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("is not 64 lower-case hex digits"))
    }
}

/// The version of a bundle: the digest of its manifest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(Digest);

impl Version {
    /// Reads 64 lower-case hex digits.
    ///
    /// ```
    /// use bailiwick_rules::bundle::Version;
    /// assert!(Version::parse(&"0a".repeat(32)).is_some() && Version::parse("0a").is_none());
    /// ```
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Digest::parse(text).map(Self)
    }

    /// Its first 12 digits, for people.
    #[must_use]
    pub fn short(&self) -> String {
        self.to_string().chars().take(12).collect()
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// One file of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Its path in the bundle, with `/` between folders.
    pub path: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// The digest of its content.
    pub sha256: Digest,
}

/// The files of a bundle, sorted by path. It has one at least, and all limits hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    files: Vec<File>,
}

/// Why files aren't a valid bundle, or bytes aren't a valid pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BundleError {
    /// A path that may not stand in a bundle.
    Path {
        /// The path.
        path: String,
        /// What is wrong with it, and how to mend it.
        why: &'static str,
    },
    /// A path that stands there twice.
    Twice(String),
    /// A path that is a file and a folder.
    FileAndFolder(String),
    /// No file at all.
    Empty,
    /// More files than [`MOST_FILES`].
    TooManyFiles(usize),
    /// More bytes than [`MOST_BYTES`].
    TooLarge(u64),
    /// Bytes that aren't a pack.
    NoPack(&'static str),
    /// A content that isn't what the manifest says.
    Content(String),
}

impl fmt::Display for BundleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path { path, why } => write!(f, "the path {path:?} {why}"),
            Self::Twice(path) => write!(f, "the path {path:?} stands there twice; keep one"),
            Self::FileAndFolder(path) => {
                write!(f, "the path {path:?} is a file, and a folder of other files; rename one")
            }
            Self::Empty => f.write_str("there is no file; a bundle has one at least"),
            Self::TooManyFiles(count) => {
                write!(f, "there are {count} files, and a bundle has {MOST_FILES} at most; split it")
            }
            Self::TooLarge(bytes) => {
                write!(f, "the files have {bytes} bytes, and a bundle has {} MiB at most; split it", MOST_BYTES >> 20)
            }
            Self::NoPack(why) => write!(f, "it is no pack of a bundle: {why}"),
            Self::Content(path) => write!(
                f,
                "the content of {path:?} doesn't have the digest that the manifest names; it was changed or cut"
            ),
        }
    }
}

impl core::error::Error for BundleError {}

impl Manifest {
    /// Takes files in any order.
    ///
    /// # Errors
    /// The first that keeps them from being a bundle.
    pub fn new(mut files: Vec<File>) -> Result<Self, BundleError> {
        if files.is_empty() {
            return Err(BundleError::Empty);
        }
        if files.len() > MOST_FILES {
            return Err(BundleError::TooManyFiles(files.len()));
        }
        for file in &files {
            path::check(&file.path).map_err(|why| BundleError::Path { path: file.path.clone(), why })?;
        }
        files.sort_by(|file, other| file.path.cmp(&other.path));
        if let Some(pair) = files.windows(2).find(|pair| pair[0].path == pair[1].path) {
            return Err(BundleError::Twice(pair[0].path.clone()));
        }
        let paths: BTreeSet<&str> = files.iter().map(|file| file.path.as_str()).collect();
        let is_file = |path: &str| path::folders(path).find(|folder| paths.contains(folder)).map(str::to_owned);
        if let Some(folder) = files.iter().find_map(|file| is_file(&file.path)) {
            return Err(BundleError::FileAndFolder(folder));
        }
        let bytes = files.iter().fold(0_u64, |sum, file| sum.saturating_add(file.bytes));
        if bytes > MOST_BYTES {
            return Err(BundleError::TooLarge(bytes));
        }
        Ok(Self { files })
    }

    /// The manifest of files with these contents.
    ///
    /// # Errors
    /// As [`Manifest::new`].
    ///
    /// ```
    /// use bailiwick_rules::bundle::Manifest;
    /// let one = Manifest::of(&[("b.txt".to_owned(), b"b".to_vec()), ("a/a.txt".to_owned(), b"a".to_vec())].into());
    /// assert_eq!(one.unwrap().files()[0].path, "a/a.txt");
    /// assert!(Manifest::of(&[("../a".to_owned(), Vec::new())].into()).is_err());
    /// ```
    pub fn of(contents: &BTreeMap<String, Vec<u8>>) -> Result<Self, BundleError> {
        let file = |(path, content): (&String, &Vec<u8>)| File {
            path: path.clone(),
            bytes: content.len() as u64,
            sha256: Digest::of(content),
        };
        Self::new(contents.iter().map(file).collect())
    }

    /// Its files, sorted by path.
    #[must_use]
    pub fn files(&self) -> &[File] {
        &self.files
    }

    /// The file at a path, and where its content begins among all contents.
    #[must_use]
    pub fn file(&self, path: &str) -> Option<(&File, u64)> {
        let at = self.files.iter().position(|file| file.path == path)?;
        let before = self.files.iter().take(at).map(|file| file.bytes).sum();
        Some((self.files.get(at)?, before))
    }

    /// How many bytes its files have together.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// Its version: the digest of a line `DIGEST  PATH` for each file, as `sha256sum` prints it.
    #[must_use]
    pub fn version(&self) -> Version {
        let lines: String = self.files.iter().map(|file| format!("{}  {}\n", file.sha256, file.path)).collect();
        Version(Digest::of(lines.as_bytes()))
    }
}

/// The version that is served: the pinned one if this node has it, else the one that was served last. So an earlier
/// version is served until the whole pinned one has arrived.
#[must_use]
pub fn served(pinned: Version, last: Option<Version>, is_held: impl Fn(Version) -> bool) -> Option<Version> {
    [Some(pinned), last].into_iter().flatten().find(|version| is_held(*version))
}

/// Which versions of a bundle may be removed: all but those in use, and the `most` others that came last.
#[must_use]
pub fn superfluous(stored: &[(Version, Timestamp)], in_use: &BTreeSet<Version>, most: usize) -> Vec<Version> {
    let mut others: Vec<_> = stored.iter().filter(|(version, _)| !in_use.contains(version)).collect();
    others.sort_by_key(|(version, came)| (core::cmp::Reverse(*came), *version));
    others.into_iter().skip(most).map(|(version, _)| *version).collect()
}
