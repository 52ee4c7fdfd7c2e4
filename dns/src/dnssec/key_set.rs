//! Takes the state file, the keys and the time, returns a [`KeySet`]: the keys that sign a zone at that time, and the
//! keys in its DNSKEY, CDS and CDNSKEY records. Called by the snapshot.

use std::fmt;
use std::sync::Arc;

use ::ring::digest::{Context, SHA256};
use bailiwick_rules::time::Timestamp;

use super::key::SigningKey;
use super::policy::{Cds, Policy};
use super::state::{KeyState, Stage, State};
use crate::protocol::name::{Name, NameRef};

/// The keys of a zone as they were read from disk. They don't depend on the time.
#[derive(Debug, Clone)]
pub struct ZoneKeys {
    origin: Name,
    policy: Policy,
    /// All keys, except those that were removed before the files were read.
    keys_with_state: Arc<[KeyWithState]>,
}

/// A key with its state.
#[derive(Debug)]
struct KeyWithState {
    state: KeyState,
    key: Arc<SigningKey>,
}

impl PartialEq for ZoneKeys {
    fn eq(&self, other: &Self) -> bool {
        let same = |(a, b): (&KeyWithState, &KeyWithState)| a.state == b.state && a.key.dnskey() == b.key.dnskey();
        (&self.origin, &self.policy, self.keys_with_state.len())
            == (&other.origin, &other.policy, other.keys_with_state.len())
            && self.keys_with_state.iter().zip(&*other.keys_with_state).all(same)
    }
}

impl Eq for ZoneKeys {}

/// The content of the CDS and CDNSKEY RRsets at the apex (RFC 7344, RFC 8078).
#[derive(Debug, Clone)]
pub enum CdsPolicy<'r> {
    /// Neither RRset exists.
    Off,
    /// One CDS ([`SigningKey::ds`]) and one CDNSKEY ([`SigningKey::dnskey`]) for each of these keys; never empty.
    Publish(Vec<&'r SigningKey>),
    /// [`super::key::CDS_DELETE`] and [`super::key::CDNSKEY_DELETE`].
    Delete,
}

/// The role of a key in a [`KeySet`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The key will replace the active key. It signs only the DNSKEY RRset.
    Published,
    /// The key signs the whole zone.
    Active,
    /// The key signs only the DNSKEY RRset, for validators that cached its signatures or its DS.
    Retired,
}

type Member = (Role, Arc<SigningKey>);

/// The keys that a zone publishes and signs with at one moment.
#[derive(Clone)]
pub struct KeySet {
    origin: Name,
    keys: Vec<Member>,
    /// Whether CDS and CDNSKEY are published.
    cds: Cds,
    /// The index in `keys` of the key whose CDS is published; `None` while there is none.
    reported: Option<usize>,
    dnskey_ttl: u32,
    /// The times at which a key becomes ready or is removed.
    changes: Vec<Timestamp>,
    digest: String,
}

impl ZoneKeys {
    /// Pairs the states with their keys. `key_of` returns the key of a state; states without a key are left out.
    pub fn new(state: &State, policy: Policy, mut key_of: impl FnMut(&KeyState) -> Option<Arc<SigningKey>>) -> Self {
        let keys_with_state =
            state.keys.iter().filter_map(|state| Some(KeyWithState { state: state.clone(), key: key_of(state)? }));
        Self { origin: state.zone.clone(), policy, keys_with_state: keys_with_state.collect() }
    }

    /// The keys of a zone with a single key, which has always been active. For tests of signing.
    #[must_use]
    pub fn of_one(origin: Name, key: SigningKey) -> Self {
        let begun = Timestamp(0);
        let state = KeyState {
            file: "key.pem".to_owned(),
            tag: key.tag(),
            algorithm: key.kind(),
            published: begun,
            ready: begun,
            stage: Stage::Active { since: begun },
        };
        Self { origin, policy: Policy::default(), keys_with_state: [KeyWithState { state, key: Arc::new(key) }].into() }
    }

    /// The apex.
    #[must_use]
    pub fn origin(&self) -> NameRef<'_> {
        self.origin.as_ref()
    }

    /// The zone's key set at `now`.
    #[must_use]
    pub fn key_set(&self, now: Timestamp) -> KeySet {
        let live: Vec<&KeyWithState> =
            self.keys_with_state.iter().filter(|entry| !entry.state.is_removed(now)).collect();
        let role = |entry: &&KeyWithState| match entry.state.stage {
            Stage::Published => Role::Published,
            Stage::Active { .. } => Role::Active,
            Stage::Retired { .. } => Role::Retired,
        };
        // The published CDS is that of the active key. Once the successor is ready, that is, once no cache can hold a
        // DNSKEY RRset without it, the CDS is that of the successor. RFC 8078 §3.1: the CDS of a zone's first key is
        // published once the parent may have its DS.
        let is_ready = |entry: &&KeyWithState| entry.state.ready <= now;
        let place = |wanted: Role| live.iter().position(|entry| role(entry) == wanted && is_ready(entry));
        let reported = place(Role::Published).or_else(|| place(Role::Active));
        let changes = self.keys_with_state.iter().flat_map(|entry| {
            let remove = match entry.state.stage {
                Stage::Retired { remove, .. } => Some(remove),
                Stage::Published | Stage::Active { .. } => None,
            };
            [Some(entry.state.ready), remove]
        });
        KeySet {
            origin: self.origin.clone(),
            keys: live.iter().map(|entry| (role(entry), Arc::clone(&entry.key))).collect(),
            cds: self.policy.cds,
            reported,
            dnskey_ttl: self.policy.dnskey_ttl_seconds(),
            changes: changes.flatten().filter(|&change| change > now).collect(),
            digest: digest(&self.origin, &live),
        }
    }
}

impl KeySet {
    /// The key set of a zone with a single key, which has always been active.
    #[must_use]
    pub fn of_one(origin: Name, key: SigningKey) -> Self {
        ZoneKeys::of_one(origin, key).key_set(Timestamp(0))
    }

    /// The apex.
    #[must_use]
    pub fn origin(&self) -> NameRef<'_> {
        self.origin.as_ref()
    }

    /// The zone's name in lower case, as nodes write it in messages to each other.
    #[must_use]
    pub fn zone_name(&self) -> String {
        self.origin.to_string().to_ascii_lowercase()
    }

    /// The keys of the DNSKEY RRset: published, active and retired keys, but not removed ones.
    pub fn dnskeys(&self) -> impl Iterator<Item = &SigningKey> {
        self.keys.iter().map(|(_, key)| &**key)
    }

    /// The keys with their roles.
    pub fn roles(&self) -> impl Iterator<Item = (Role, &SigningKey)> {
        self.keys.iter().map(|(role, key)| (*role, &**key))
    }

    /// The keys that sign the zone's data, which is everything but the DNSKEY RRset.
    pub fn signers(&self) -> impl Iterator<Item = &SigningKey> {
        self.roles().filter(|(role, _)| *role == Role::Active).map(|(_, key)| key)
    }

    /// The keys that sign the DNSKEY RRset: all keys in it, so that it validates by the DS of any key.
    pub fn dnskey_signers(&self) -> impl Iterator<Item = &SigningKey> {
        self.dnskeys()
    }

    /// The TTL of the DNSKEY, CDS and CDNSKEY RRsets, in seconds. The timeline waits for this time to pass.
    #[must_use]
    pub fn dnskey_ttl(&self) -> u32 {
        self.dnskey_ttl
    }

    /// The content of the CDS and CDNSKEY RRsets.
    #[must_use]
    pub fn cds(&self) -> CdsPolicy<'_> {
        match self.cds {
            Cds::Off => CdsPolicy::Off,
            Cds::Delete => CdsPolicy::Delete,
            Cds::Publish => match self.reported.and_then(|place| self.keys.get(place)) {
                Some((_, key)) => CdsPolicy::Publish(vec![key]),
                None => CdsPolicy::Off,
            },
        }
    }

    /// A SHA-256 in hexadecimal digits over the zone's name and its keys' public parts, stages and times. Nodes that
    /// serve the same keys have the same digest. It doesn't depend on secrets.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The next time at which the same keys give another key set.
    #[must_use]
    pub fn next_change(&self, now: Timestamp) -> Option<Timestamp> {
        self.changes.iter().copied().filter(|&change| change > now).min()
    }

    /// Whether both key sets publish the same records and sign with the same keys. Then signatures made with one key
    /// set are valid with the other.
    #[must_use]
    pub fn signs_like(&self, other: &Self) -> bool {
        let same = |(a, b): (&Member, &Member)| a.0 == b.0 && a.1.dnskey() == b.1.dnskey();
        self.origin == other.origin
            && (self.cds, self.reported, self.dnskey_ttl) == (other.cds, other.reported, other.dnskey_ttl)
            && self.keys.len() == other.keys.len()
            && self.keys.iter().zip(&other.keys).all(same)
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeySet({} {:?}, cds {:?})", self.origin, self.keys, self.cds())
    }
}

/// The digest of a key set.
fn digest(origin: &Name, live: &[&KeyWithState]) -> String {
    let mut hash = Context::new(&SHA256);
    let mut feed = |field: &[u8]| {
        hash.update(&u64::try_from(field.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(field);
    };
    feed(&origin.as_wire().to_ascii_lowercase());
    for KeyWithState { state, key } in live {
        feed(key.dnskey());
        let (stage, times) = match state.stage {
            Stage::Published => ("published", vec![]),
            Stage::Active { since } => ("active", vec![since]),
            Stage::Retired { active, since, remove } => ("retired", vec![active, since, remove]),
        };
        feed(stage.as_bytes());
        for time in [state.published, state.ready].into_iter().chain(times) {
            feed(&time.0.to_be_bytes());
        }
    }
    hash.finish().as_ref().iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"))
}
