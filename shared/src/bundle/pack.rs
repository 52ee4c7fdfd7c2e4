//! A pack: a version of a bundle (a named set of files) as one piece of bytes. Bundles are pushed, copied between nodes
//! and stored in this form. Takes files, returns a pack; takes a pack, returns files whose digests were checked, or
//! what is wrong with it. Called by the commands that push bundles, and by the nodes that store them.
//!
//! A pack is a line with its format, a line `DIGEST SIZE PATH` for each file, an empty line, and all contents in that
//! order. The same files give the same pack.

use std::collections::BTreeMap;

use super::path::LONGEST_PATH;
use super::{BundleError, Digest, File, MOST_BYTES, MOST_FILES, Manifest};

/// The first line.
const FORMAT: &str = "bailiwick bundle 1\n";
/// The longest line of a file, in bytes: 64 digits of its digest, its size as a `u64` of up to 20 digits, its path, two
/// spaces and the end of the line.
const LONGEST_LINE: usize = 64 + 1 + 20 + 1 + LONGEST_PATH + 1;
/// The longest header of a pack, in bytes.
pub const HEADER_MOST: usize = FORMAT.len() + MOST_FILES * LONGEST_LINE + 1;
/// The longest pack, in bytes.
#[expect(clippy::cast_possible_truncation, reason = "64 MiB")]
pub const LARGEST_PACK: usize = HEADER_MOST + MOST_BYTES as usize;

/// Packs files.
///
/// # Errors
/// As [`Manifest::new`].
pub fn pack(contents: &BTreeMap<String, Vec<u8>>) -> Result<(Manifest, Vec<u8>), BundleError> {
    let manifest = Manifest::of(contents)?;
    let mut bytes = header_text(&manifest).into_bytes();
    for file in manifest.files() {
        bytes.extend_from_slice(contents.get(&file.path).map_or(&[], Vec::as_slice));
    }
    Ok((manifest, bytes))
}

/// The header of a pack: all before the contents.
fn header_text(manifest: &Manifest) -> String {
    let lines = manifest.files().iter().map(|file| format!("{} {} {}\n", file.sha256, file.bytes, file.path));
    format!("{FORMAT}{}\n", lines.collect::<String>())
}

/// Reads the header of a pack. `bytes` is the whole pack, or at least its first [`HEADER_MOST`] bytes. Returns the
/// manifest, and the position where the contents begin.
///
/// # Errors
/// Why the bytes aren't a valid pack.
pub fn read_header(bytes: &[u8]) -> Result<(Manifest, usize), BundleError> {
    let bytes = bytes.get(..HEADER_MOST).unwrap_or(bytes);
    let is_begun = bytes.starts_with(FORMAT.as_bytes());
    let end = bytes.windows(2).position(|pair| pair == b"\n\n").filter(|_| is_begun);
    let end = end.ok_or(BundleError::NoPack("it doesn't begin as one, or its header is cut"))?;
    let lines = bytes.get(FORMAT.len()..=end).unwrap_or_default();
    let lines = core::str::from_utf8(lines).map_err(|_| BundleError::NoPack("its header isn't UTF-8"))?;
    let file = |line: &str| {
        let mut words = line.splitn(3, ' ');
        let (sha256, bytes) = (Digest::parse(words.next()?)?, words.next()?.parse().ok()?);
        Some(File { path: words.next()?.to_owned(), bytes, sha256 })
    };
    let files: Option<Vec<File>> = lines.lines().map(file).collect();
    let manifest = Manifest::new(files.ok_or(BundleError::NoPack("a line of its header isn't \"DIGEST SIZE PATH\""))?)?;
    // A manifest has exactly one header, so that the same files give the same bytes.
    match bytes.get(..end + 2) == Some(header_text(&manifest).as_bytes()) {
        true => Ok((manifest, end + 2)),
        false => Err(BundleError::NoPack(
            "its header isn't written as this program writes it: lines sorted by path, sizes without leading zeros",
        )),
    }
}

/// Reads a whole pack, and checks every content by its digest. Returns the manifest with the contents in its order.
///
/// # Errors
/// Why the bytes aren't a valid pack.
pub fn unpack(bytes: &[u8]) -> Result<(Manifest, Vec<&[u8]>), BundleError> {
    let (manifest, mut from) = read_header(bytes)?;
    let mut contents = Vec::with_capacity(manifest.files().len());
    for file in manifest.files() {
        let size = usize::try_from(file.bytes).unwrap_or(usize::MAX);
        let content = bytes.get(from..from.saturating_add(size)).ok_or(BundleError::NoPack("its contents are cut"))?;
        if Digest::of(content) != file.sha256 {
            return Err(BundleError::Content(file.path.clone()));
        }
        contents.push(content);
        from += size;
    }
    match from == bytes.len() {
        true => Ok((manifest, contents)),
        false => Err(BundleError::NoPack("there is more than its contents")),
    }
}
