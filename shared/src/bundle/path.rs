//! Which paths may stand in a bundle. Takes a path, returns what is wrong with it. Called by [`super::Manifest::new`],
//! so that no manifest names a place outside of the folder into which it is written. A bundle is a named, versioned set
//! of files for applications, such as prompts.

/// The longest path, in bytes.
pub(super) const LONGEST_PATH: usize = 200;

/// Checks a path: names of letters, digits and `._-+@=,~`, with `/` between. So it is a path below any folder on every
/// system, and stands in a URL as it is.
///
/// # Errors
/// What is wrong with it, and how to mend it.
pub fn check(path: &str) -> Result<(), &'static str> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-+@=,~/".contains(&byte);
    if path.len() > LONGEST_PATH {
        return Err("is longer than 200 bytes; shorten it");
    }
    if path.starts_with('/') {
        return Err("is absolute; write it as it is within the folder");
    }
    if let Some(name) = path.split('/').find(|name| name.is_empty() || name.starts_with('.')) {
        return Err(match name {
            "" => "has an empty name in it; write names with one \"/\" between",
            "." | ".." => "has \".\" or \"..\" in it; write it as it is within the folder",
            _ => "has a hidden name in it; rename what begins with a dot",
        });
    }
    if !path.bytes().all(fits) {
        return Err("has characters that not every system and URL takes; use letters, digits and ._-+@=,~");
    }
    Ok(())
}

/// The folders above a path, within the bundle.
pub(super) fn folders(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').filter_map(|(at, _)| path.get(..at))
}
