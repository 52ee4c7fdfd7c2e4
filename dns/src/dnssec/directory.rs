//! A zone's keys on disk. Takes the directory that the configuration names, returns the zone's keys or every fault. The
//! thread that watches a node's files and `bailiwick check` read the directory, `bailiwick keys` also writes to it.
//!
//! The directory holds `state.json` and one PKCS#8 file for each key. The state file is replaced only by a complete
//! file, and a key is written before the state that names it. So a reader finds either the old or the new state, and in
//! both cases every key that the state names.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bailiwick_host::system::files::{Fault, Mode, NO_FILE, is_special, replace};
use bailiwick_rules::time::Timestamp;

use super::key::SigningKey;
use super::key_set::ZoneKeys;
use super::state::{KeyState, State};
use crate::dnssec::policy::Policy;
use crate::protocol::name::Name;

/// A `[dnssec."zone"]` section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedZone {
    /// The apex.
    pub origin: Name,
    /// The directory of the zone's keys and their state file.
    pub directory: PathBuf,
    /// The operator's settings for the keys.
    pub policy: Policy,
}

/// The state file's name.
pub(crate) const STATE: &str = "state.json";
/// The mode bits of all users but the owner. The file of a private key must have none of them.
const OTHERS: u32 = 0o077;
/// The write bits of all users but the owner. The state file and its directory must have none of them.
const OTHERS_WRITE: u32 = 0o022;

/// Reads the keys of all signed zones, except keys that are removed by the time `now`. Calls `opening` with the path of
/// each file before the file is opened.
///
/// # Errors
/// Every fault of every zone.
pub(crate) fn read_keys(
    zones: &[SignedZone],
    now: Timestamp,
    opening: &mut dyn FnMut(&Path),
) -> Result<Arc<[ZoneKeys]>, Vec<Fault>> {
    let (mut keys, mut faults) = (Vec::new(), Vec::new());
    for zone in zones {
        match read(zone, now, opening) {
            Ok(read) => keys.push(read),
            Err(wrong) => faults.extend(wrong),
        }
    }
    if faults.is_empty() { Ok(keys.into()) } else { Err(faults) }
}

/// Reads the state and the keys of a zone. `opening` is called with each file before it is opened.
fn read(zone: &SignedZone, now: Timestamp, opening: &mut dyn FnMut(&Path)) -> Result<ZoneKeys, Vec<Fault>> {
    let state = read_state(zone, opening)?.ok_or_else(|| {
        let message =
            format!("is missing; make the zone's first key with `bailiwick keys generate --zone {}`", zone.origin);
        vec![Fault::of_file(&zone.directory.join(STATE), message)]
    })?;
    let mut faults = Vec::new();
    let keys = ZoneKeys::new(&state, zone.policy, |key| {
        if key.is_removed(now) {
            return None;
        }
        opening(&zone.directory.join(&key.file));
        read_key(zone, key).map_err(|fault| faults.push(fault)).ok().map(Arc::new)
    });
    if faults.is_empty() { Ok(keys) } else { Err(faults) }
}

/// Reads only the state file; `None` if there is none.
///
/// # Errors
/// If the file can't be read, or each fault in it.
pub(crate) fn read_state(zone: &SignedZone, opening: &mut dyn FnMut(&Path)) -> Result<Option<State>, Vec<Fault>> {
    let path = zone.directory.join(STATE);
    opening(&path);
    if is_special(&path) {
        return Err(vec![Fault::of_file(&path, format!("{NO_FILE}; put the zone's state file there"))]);
    }
    let unreadable = |error: io::Error| {
        vec![Fault::of_file(
            &path,
            format!(
                "can't be read ({error}); mend \"keys\" in the configuration, or the mode or owner of the directory"
            ),
        )]
    };
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    // Somebody who may write the state file or its directory can choose the keys.
    for guarded in [&path, &zone.directory] {
        let mode = std::fs::metadata(guarded).map_err(unreadable)?.permissions().mode();
        if mode & OTHERS_WRITE != 0 {
            let message = format!(
                "others than its owner may write it (mode {:04o}); chmod go-w {}",
                mode & 0o7777,
                guarded.display()
            );
            return Err(vec![Fault::of_file(guarded, message)]);
        }
    }
    let state = State::parse(&bytes)
        .map_err(|errors| errors.iter().map(|error| Fault::of_file(&path, error.to_string())).collect::<Vec<_>>())?;
    if state.zone != zone.origin {
        let message = format!(
            "/zone: holds the keys of {}, and the configuration names it for {}; mend \"keys\" there",
            state.zone, zone.origin
        );
        return Err(vec![Fault::of_file(&path, message)]);
    }
    Ok(Some(state))
}

/// Reads the private key that goes with an entry of the state.
///
/// # Errors
/// If the key can't be read, if users other than its owner have rights to it, or if it isn't the key of the entry.
pub(crate) fn read_key(zone: &SignedZone, stated: &KeyState) -> Result<SigningKey, Fault> {
    let path = zone.directory.join(&stated.file);
    read_pem(&path, stated).map_err(|message| Fault::of_file(&path, message))
}

/// Reads a private key and checks it against the state file: the algorithm, the tag, and that only the owner may read
/// the file.
fn read_pem(path: &Path, stated: &KeyState) -> Result<SigningKey, String> {
    let mended = "restore it from the node where `bailiwick keys` was last run";
    let unreadable = |error: io::Error| match error.kind() {
        ErrorKind::NotFound => format!("is missing, and {STATE} names it; {mended}"),
        _ => format!("can't be read ({error}); mend its mode or owner"),
    };
    if is_special(path) {
        return Err(format!("{NO_FILE}; {mended}"));
    }
    let mode = std::fs::metadata(path).map_err(unreadable)?.permissions().mode();
    if mode & OTHERS != 0 {
        let mode = mode & 0o7777;
        return Err(format!(
            "others than its owner have rights to it (mode {mode:04o}), and it is a private key; chmod 600 {}, and \
             roll if anyone may have read it",
            path.display()
        ));
    }
    // Bytes that aren't UTF-8 become an empty text, which isn't PEM.
    let text = String::from_utf8(std::fs::read(path).map_err(unreadable)?).unwrap_or_default();
    let key = SigningKey::from_pem(&text).map_err(|error| error.to_string())?;
    if (key.kind(), key.tag()) != (stated.algorithm, stated.tag) {
        return Err(format!(
            "holds key {} of algorithm {}, and {STATE} says key {} of algorithm {}; {mended}",
            key.tag(),
            key.algorithm(),
            stated.tag,
            stated.algorithm.number()
        ));
    }
    Ok(key)
}

/// The directory of a zone's keys, locked against other writers until this is dropped.
#[derive(Debug)]
pub(crate) struct Locked {
    directory: PathBuf,
    _lock: File,
}

impl Locked {
    /// Locks the directory. Makes it with mode 0700 if it doesn't exist.
    ///
    /// # Errors
    /// If the directory can't be made, or another process holds the lock.
    pub(crate) fn take(directory: &Path) -> Result<Self, Fault> {
        let wrong = |message: String| Fault::of_file(directory, message);
        let result = DirBuilder::new().recursive(true).mode(0o700).create(directory);
        result.map_err(|error| {
            wrong(format!("can't be made ({error}); mend \"keys\" in the configuration, or make it yourself"))
        })?;
        let lock = File::open(directory)
            .map_err(|error| wrong(format!("can't be opened ({error}); mend its mode or owner")))?;
        lock.try_lock().map_err(|_| wrong("another `bailiwick keys` is at work there; let it end".to_owned()))?;
        Ok(Self { directory: directory.to_owned(), _lock: lock })
    }

    /// Writes a new key's file, mode 0600.
    ///
    /// # Errors
    /// If the file can't be written, or a file of this name exists: keys are never overwritten.
    pub(crate) fn add_key(&self, name: &str, key: &SigningKey) -> Result<(), Fault> {
        let path = self.directory.join(name);
        let written = create(&path).and_then(|mut file| {
            file.write_all(key.to_pem().as_bytes())?;
            file.sync_all()
        });
        written.map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => {
                Fault::of_file(&path, "is there already, and keys are never overwritten; move it away")
            }
            _ => Fault::of_file(&path, format!("can't be written ({error}); mend the mode or owner of its directory")),
        })
    }

    /// Replaces the state file, mode 0600.
    ///
    /// # Errors
    /// If the file can't be written. Then the old file is still there.
    pub(crate) fn put_state(&self, state: &State) -> Result<(), Fault> {
        let path = self.directory.join(STATE);
        let written = replace(&path, state.to_json().as_bytes(), Mode::Private);
        written.map_err(|error| {
            Fault::of_file(&path, format!("can't be written ({error}); mend the mode or owner of its directory"))
        })
    }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dnssec::key::Algorithm;
    use crate::dnssec::policy::Policy;
    use crate::dnssec::timeline::{NewKey, first};
    use bailiwick_rules::time::Millis;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    struct Keys {
        _folder: tempfile::TempDir,
        zone: SignedZone,
        file: PathBuf,
    }

    fn keys_on_disk() -> Keys {
        let folder = tempfile::tempdir().unwrap();
        let zone = SignedZone {
            origin: "example.com".parse().unwrap(),
            directory: folder.path().join("keys"),
            policy: Policy::default(),
        };
        let locked = Locked::take(&zone.directory).unwrap();
        let key = SigningKey::generate(Algorithm::EcdsaP256Sha256).unwrap();
        locked.add_key("key.pem", &key).unwrap();
        let new = NewKey { file: "key.pem".to_owned(), tag: key.tag(), algorithm: key.kind() };
        locked.put_state(&first(zone.origin.clone(), new, &zone.policy, Millis(0), NOW)).unwrap();
        Keys { file: zone.directory.join("key.pem"), zone, _folder: folder }
    }

    fn faults_of(keys: &Keys) -> String {
        match read_keys(std::slice::from_ref(&keys.zone), NOW, &mut |_| ()) {
            Ok(_) => String::new(),
            Err(faults) => faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
        }
    }

    fn chmod(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn written_files_are_private_and_can_be_read_again() {
        let keys = keys_on_disk();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let state = keys.zone.directory.join(STATE);
        assert_eq!((mode(&keys.zone.directory), mode(&keys.file), mode(&state)), (0o700, 0o600, 0o600));
        let mut opened = Vec::new();
        let read = read_keys(std::slice::from_ref(&keys.zone), NOW, &mut |path| opened.push(path.to_owned())).unwrap();
        assert_eq!(opened, [state, keys.file.clone()]);
        assert_eq!(read[0].key_set(NOW).signers().count(), 1);
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let keys = keys_on_disk();
        for mode in [0o640, 0o604, 0o660] {
            chmod(&keys.file, mode);
            assert!(
                faults_of(&keys)
                    .contains(&format!("key.pem: others than its owner have rights to it (mode {mode:04o})"))
            );
        }
        chmod(&keys.file, 0o400);
        assert_eq!(faults_of(&keys), "");
        chmod(&keys.zone.directory, 0o770);
        assert!(
            faults_of(&keys).contains("keys: others than its owner may write it (mode 0770)"),
            "{}",
            faults_of(&keys)
        );
    }

    #[test]
    fn a_state_that_contradicts_the_keys_is_refused() {
        let keys = keys_on_disk();
        let state = keys.zone.directory.join(STATE);
        let text = std::fs::read_to_string(&state).unwrap();
        std::fs::write(&state, text.replace("example.com.", "example.net.")).unwrap();
        assert!(faults_of(&keys).contains("state.json: /zone: holds the keys of example.net."), "{}", faults_of(&keys));
        std::fs::write(&state, "").unwrap();
        assert!(faults_of(&keys).contains("state.json: (document): "), "{}", faults_of(&keys));
        std::fs::write(&state, &text).unwrap();

        let stated = State::parse(text.as_bytes()).unwrap().keys.remove(0);
        let others = [Algorithm::Ed25519, Algorithm::EcdsaP256Sha256].map(|algorithm| {
            // One random key in 65,536 has the same tag.
            std::iter::repeat_with(|| SigningKey::generate(algorithm).unwrap()).find(|key| key.tag() != stated.tag)
        });
        for other in others.into_iter().flatten() {
            std::fs::write(&keys.file, other.to_pem()).unwrap();
            assert!(faults_of(&keys).contains("key.pem: holds key "), "{}", faults_of(&keys));
        }
        for no_pem in [&b""[..], b"\xff\xfe"] {
            std::fs::write(&keys.file, no_pem).unwrap();
            assert!(faults_of(&keys).contains("key.pem: holds no private key in PKCS#8 PEM"), "{}", faults_of(&keys));
        }
        std::fs::remove_file(&keys.file).unwrap();
        assert!(faults_of(&keys).contains("key.pem: is missing, and state.json names it"), "{}", faults_of(&keys));
        std::fs::remove_file(&state).unwrap();
        let wanted =
            "state.json: is missing; make the zone's first key with `bailiwick keys generate --zone example.com.`";
        assert!(faults_of(&keys).contains(wanted), "{}", faults_of(&keys));
    }

    #[test]
    fn special_files_are_refused_and_not_read() {
        use std::os::unix::fs::symlink;
        let keys = keys_on_disk();
        for file in ["key.pem", STATE] {
            let path = keys.zone.directory.join(file);
            let aside = path.with_extension("aside");
            std::fs::rename(&path, &aside).unwrap();
            symlink("/dev/null", &path).unwrap();
            assert!(faults_of(&keys).contains(&format!("{file}: is no file but a pipe")), "{}", faults_of(&keys));
            std::fs::rename(&aside, &path).unwrap();
        }
        assert_eq!(faults_of(&keys), "");
    }

    #[test]
    fn any_content_is_read_or_refused_with_the_name_of_the_file() {
        use proptest::prelude::*;
        let keys = keys_on_disk();
        let files = [keys.zone.directory.join(STATE), keys.file.clone()];
        let good = files.each_ref().map(|file| std::fs::read(file).unwrap());
        let (place, octets) = (any::<prop::sample::Index>(), prop::collection::vec(any::<u8>(), 0..8));
        proptest!(|(which in 0..2_usize, whole in any::<bool>(), place in place, cut in 0..8_usize, octets in octets)| {
            let mut bytes = if whole { octets.clone() } else { good[which].clone() };
            if !whole {
                let at = place.index(bytes.len() + 1);
                let end = bytes.len().min(at + cut);
                bytes.splice(at..end, octets);
            }
            std::fs::write(&files[which], &bytes).unwrap();
            let reported = faults_of(&keys);
            std::fs::write(&files[which], &good[which]).unwrap();
            let name = files[which].display().to_string();
            // A changed state file may name another key file, which is then at fault.
            let other = keys.zone.directory.display().to_string();
            let is_named = |line: &str| line.starts_with(&name) || line.starts_with(&other);
            prop_assert!(reported.is_empty() || reported.lines().all(is_named), "{}", reported);
            prop_assert!(!whole || reported.len() > name.len() + 2, "refused without words: {:?}", bytes);
        });
        assert_eq!(faults_of(&keys), "");
    }

    #[test]
    fn no_key_is_overwritten_and_one_process_writes_at_a_time() {
        let keys = keys_on_disk();
        let locked = Locked::take(&keys.zone.directory).unwrap();
        let before = std::fs::read(&keys.file).unwrap();
        let key = SigningKey::generate(Algorithm::Ed25519).unwrap();
        assert!(locked.add_key("key.pem", &key).unwrap_err().message.contains("never overwritten"));
        assert_eq!(std::fs::read(&keys.file).unwrap(), before);
        assert!(Locked::take(&keys.zone.directory).unwrap_err().message.contains("is at work there"));
    }
}
