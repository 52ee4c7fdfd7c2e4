//! NKeys: Ed25519 keys by which NATS knows its users. Takes the file of one, returns a key that signs. Called by
//! [`super::bus`], and by what writes configurations of servers.

use std::fmt;
use std::path::Path;

use bailiwick_host::system::files::read_text;
use nkeys::{KeyPair, KeyPairType};

/// A user's key.
pub(crate) struct NKey(KeyPair);

impl fmt::Debug for NKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NKey").field(&self.public()).finish()
    }
}

impl NKey {
    /// A new one.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub(crate) fn generate() -> Result<Self, String> {
        let mut random = [0; 32];
        getrandom::fill(&mut random).map_err(|error| format!("the system gives no random bytes: {error}"))?;
        let key_pair = KeyPair::new_from_raw(KeyPairType::User, random);
        key_pair.map(Self).map_err(|error| format!("the key can't be made: {error}"))
    }

    /// Reads the file of a user's seed.
    ///
    /// # Errors
    /// When it can't be read or is none.
    pub(crate) fn read(file: &Path) -> Result<Self, String> {
        let name = file.display();
        let text = read_text(file).map_err(|error| format!("{name}: can't be read ({error})"))?;
        let line = text.lines().next().unwrap_or_default().trim();
        let key = KeyPair::from_seed(line).ok().filter(|key| matches!(key.key_pair_type(), KeyPairType::User));
        key.map(Self).ok_or_else(|| {
            format!("{name}:1: is no NKey of a user, which begins with \"SU\"; `bailiwick fleet nats-config` makes one")
        })
    }

    /// The public half, by which a server's configuration names the user.
    pub(crate) fn public(&self) -> String {
        self.0.public_key()
    }

    /// What stands in the file.
    ///
    /// # Errors
    /// Never for a key that was made or read here.
    pub(crate) fn seed(&self) -> Result<String, String> {
        self.0.seed().map_err(|error| format!("the key can't be written: {error}"))
    }

    /// Signs what a server sends at the beginning of a connection.
    pub(super) fn sign(&self, nonce: &[u8]) -> Result<Vec<u8>, String> {
        self.0.sign(nonce).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_was_written_and_nothing_else_is_a_key() {
        let (folder, key) = (tempfile::tempdir().unwrap(), NKey::generate().unwrap());
        let file = folder.path().join("ns1.nk");
        std::fs::write(&file, format!("{}\n", key.seed().unwrap())).unwrap();
        let read = NKey::read(&file).unwrap();
        assert_eq!(read.public(), key.public());
        assert!(read.public().starts_with('U') && !format!("{read:?}").contains("SU"));
        for text in ["", "SUAB", &key.public(), &KeyPair::new_account().seed().unwrap()] {
            std::fs::write(&file, text).unwrap();
            assert!(NKey::read(&file).unwrap_err().contains(":1: is no NKey of a user"), "{text}");
        }
    }
}
