//! Takes the state file, the keys and the time, returns a [`KeySet`]: the keys that sign a zone at that time, and those
//! that its DNSKEY, CDS and CDNSKEY records show. Called by the snapshot.

use std::fmt;
use std::sync::Arc;

use ::ring::digest::{Context, SHA256};
use bailiwick_rules::time::Timestamp;

use super::key::SigningKey;
use super::policy::{Cds, Policy};
use super::state::{KeyState, Stage, State};
use crate::protocol::name::{Name, NameRef};

/// What a zone's keys are, as read: independent of the time.
#[derive(Debug, Clone)]
pub struct ZoneKeys {
    origin: Name,
    policy: Policy,
    /// Every key but those removed before they were read.
    held: Arc<[Held]>,
}

/// A key with its state.
#[derive(Debug)]
struct Held {
    state: KeyState,
    key: Arc<SigningKey>,
}

impl PartialEq for ZoneKeys {
    fn eq(&self, other: &Self) -> bool {
        let same = |(one, other): (&Held, &Held)| one.state == other.state && one.key.dnskey() == other.key.dnskey();
        (&self.origin, &self.policy, self.held.len()) == (&other.origin, &other.policy, other.held.len())
            && self.held.iter().zip(&*other.held).all(same)
    }
}

impl Eq for ZoneKeys {}

/// What the apex's CDS and CDNSKEY RRsets hold now (RFC 7344, RFC 8078).
#[derive(Debug, Clone)]
pub enum CdsPolicy<'r> {
    /// Neither exists.
    Off,
    /// These keys' DS, never none: [`SigningKey::ds`] as CDS, [`SigningKey::dnskey`] as CDNSKEY.
    Publish(Vec<&'r SigningKey>),
    /// [`super::key::CDS_DELETE`] and [`super::key::CDNSKEY_DELETE`].
    Delete,
}

/// What a key of a [`KeySet`] does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It signs the DNSKEY RRset alone and waits for its turn.
    Published,
    /// It signs the zone.
    Active,
    /// It signs the DNSKEY RRset alone, for those who cached its signatures or its DS.
    Retired,
}

type Member = (Role, Arc<SigningKey>);

/// What a zone serves of its keys and signs with at one moment.
#[derive(Clone)]
pub struct KeySet {
    origin: Name,
    keys: Vec<Member>,
    /// Whether the parent is told of them, and which by their place in `keys`.
    cds: Cds,
    reported: Option<usize>,
    dnskey_ttl: u32,
    changes: Vec<Timestamp>,
    digest: String,
}

impl ZoneKeys {
    /// Puts the keys to their states. `key_of` gives each key that isn't removed; a key that it hasn't is left out.
    pub fn new(state: &State, policy: Policy, mut key_of: impl FnMut(&KeyState) -> Option<Arc<SigningKey>>) -> Self {
        let held = state.keys.iter().filter_map(|one| Some(Held { state: one.clone(), key: key_of(one)? }));
        Self { origin: state.zone.clone(), policy, held: held.collect() }
    }

    /// One key that signs everything and always has: what tests of signing need of a state file.
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
        Self { origin, policy: Policy::default(), held: [Held { state, key: Arc::new(key) }].into() }
    }

    /// The apex.
    #[must_use]
    pub fn origin(&self) -> NameRef<'_> {
        self.origin.as_ref()
    }

    /// What the zone does with its keys at `now`.
    #[must_use]
    pub fn key_set(&self, now: Timestamp) -> KeySet {
        let live: Vec<&Held> = self.held.iter().filter(|held| !held.state.is_removed(now)).collect();
        let role = |held: &&Held| match held.state.stage {
            Stage::Published => Role::Published,
            Stage::Active { .. } => Role::Active,
            Stage::Retired { .. } => Role::Retired,
        };
        // The successor, as soon as nobody can have cached the keys without it; before that the active one. RFC 8078
        // §3.1 has the first key of a zone told as soon as the parent may hold its DS.
        let is_ready = |held: &&Held| held.state.ready <= now;
        let place = |wanted: Role| live.iter().position(|held| role(held) == wanted && is_ready(held));
        let reported = place(Role::Published).or_else(|| place(Role::Active));
        let changes = self.held.iter().flat_map(|held| {
            let remove = match held.state.stage {
                Stage::Retired { remove, .. } => Some(remove),
                Stage::Published | Stage::Active { .. } => None,
            };
            [Some(held.state.ready), remove]
        });
        KeySet {
            origin: self.origin.clone(),
            keys: live.iter().map(|held| (role(held), Arc::clone(&held.key))).collect(),
            cds: self.policy.cds,
            reported,
            dnskey_ttl: self.policy.dnskey_ttl_seconds(),
            changes: changes.flatten().filter(|&change| change > now).collect(),
            digest: digest(&self.origin, &live),
        }
    }
}

impl KeySet {
    /// One key that signs everything and always has.
    #[must_use]
    pub fn of_one(origin: Name, key: SigningKey) -> Self {
        ZoneKeys::of_one(origin, key).key_set(Timestamp(0))
    }

    /// The apex.
    #[must_use]
    pub fn origin(&self) -> NameRef<'_> {
        self.origin.as_ref()
    }

    /// The zone's name as nodes tell it to one another: in small letters, however each of them writes it.
    #[must_use]
    pub fn zone_name(&self) -> String {
        self.origin.to_string().to_ascii_lowercase()
    }

    /// The keys of the DNSKEY RRset: published, active, and retired ones until they are removed.
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

    /// The keys that sign the DNSKEY RRset: all of it, so that it can be believed by the DS of any.
    pub fn dnskey_signers(&self) -> impl Iterator<Item = &SigningKey> {
        self.dnskeys()
    }

    /// The TTL of the DNSKEY, CDS and CDNSKEY RRsets, in seconds: what the timeline waits out.
    #[must_use]
    pub fn dnskey_ttl(&self) -> u32 {
        self.dnskey_ttl
    }

    /// What the parent is told.
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

    /// SHA-256 in hex over the zone, its keys' public halves, stages and times: equal on nodes that serve the same, and
    /// nothing in it is secret.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// When the passing of time alone next makes another key set of the same keys.
    #[must_use]
    pub fn next_change(&self, now: Timestamp) -> Option<Timestamp> {
        self.changes.iter().copied().filter(|&change| change > now).min()
    }

    /// Whether both serve and sign the same; what was signed by one needs no other signature under the other.
    #[must_use]
    pub fn signs_like(&self, other: &Self) -> bool {
        let same = |(one, other): (&Member, &Member)| one.0 == other.0 && one.1.dnskey() == other.1.dnskey();
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

fn digest(origin: &Name, live: &[&Held]) -> String {
    let mut hash = Context::new(&SHA256);
    let mut feed = |field: &[u8]| {
        hash.update(&u64::try_from(field.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(field);
    };
    feed(&origin.as_wire().to_ascii_lowercase());
    for Held { state, key } in live {
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
