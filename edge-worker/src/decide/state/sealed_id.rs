//! Seals and opens the ids of objects that an endpoint stores, such as files and batches. Takes an endpoint's id and
//! returns the id for the client, and the other way round. A sealed id names the endpoint that has the object and
//! proves which tenant owns it, so the Worker needs no database. Called by `claim`, `splice`, `proxy` and others.
//!
//! `file-abc` becomes `file-bw1…`. The beginning `file-` stays, because programs read it. The text after the mark `bw1`
//! is the base64url of three parts: a tag of 4 bytes that identifies the endpoint; a MAC, which is 16 bytes of
//! HMAC-SHA-256 (RFC 2104, §5 on truncation) over tenant, service, region, endpoint and the endpoint's own id; and the
//! endpoint's own id. The MAC has 128 bits, so it can't be guessed. Each id has exactly one valid spelling.
//!
//! Names of fine-tuned models are sealed too: `ft:gpt-4o:acme::abc` becomes `ft:gpt-4o:bw1…`.

use core::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use bailiwick_rules::id::RegionId;
use bailiwick_rules::table::Table;

use super::Place;

/// The mark after the beginning of a sealed id, with the version of the format.
const MARK: &str = "bw1";
/// The longest id of an endpoint, in bytes.
const LONGEST: usize = 256;
/// The shortest key, in bytes.
const SHORTEST_KEY: usize = 32;
/// The longest beginning of an id that stays in the sealed id, in bytes, without its `-` or `_`.
const LONGEST_BEGINNING: usize = 12;
/// The longest name of a fine-tuned model's base model that stays in the sealed name, in bytes.
const LONGEST_BASE: usize = 64;
/// The length of the endpoint's tag, in bytes.
const TAG: usize = 4;
/// The length of the MAC, in bytes.
const MAC: usize = 16;

/// The owner of an id.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Owner {
    /// The service's name.
    pub(crate) service: String,
    /// The tenant's name, if the service has tenants.
    pub(crate) tenant: Option<String>,
}

/// The content of a sealed id.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct OpenedId {
    /// The endpoint that has the object.
    pub(crate) place: Place,
    /// The endpoint's own id of the object.
    pub(crate) id: String,
}

/// The keys in the Worker's secret. The first key seals ids, and all keys open ids.
#[derive(Clone)]
pub(crate) struct Keyring {
    keys: Vec<Hmac<Sha256>>,
}

impl Keyring {
    /// Reads a secret: one key of at least 32 characters, or several, newest first, separated by white space.
    #[must_use]
    pub(crate) fn parse(secret: &str) -> Option<Self> {
        let keys: Vec<&str> = secret.split_whitespace().collect();
        let long = !keys.is_empty() && keys.iter().all(|key| key.len() >= SHORTEST_KEY);
        if !long {
            return None;
        }
        let keys = keys.iter().map(|key| Hmac::new_from_slice(key.as_bytes()).ok()).collect::<Option<_>>()?;
        Some(Self { keys })
    }

    /// Seals an endpoint's id. `None` if the text can't be an id.
    #[must_use]
    pub(crate) fn seal(&self, owner: &Owner, region: &str, endpoint: &str, id: &str) -> Option<String> {
        let key = self.keys.first()?;
        if id.is_empty() || id.len() > LONGEST || id.contains(char::is_control) {
            return None;
        }
        let mut bytes = Vec::with_capacity(TAG + MAC + id.len());
        bytes.extend_from_slice(&tag(region, endpoint));
        bytes.extend_from_slice(&mac(key, owner, region, endpoint, id));
        bytes.extend_from_slice(id.as_bytes());
        Some(format!("{}{MARK}{}", beginning(id), BASE64URL.encode(bytes)))
    }
}

/// Opens the ids of one request.
pub(crate) struct IdOpener<'a> {
    keys: &'a Keyring,
    owner: &'a Owner,
    /// Every endpoint of the rules, with its tag and its region's id.
    places: Vec<([u8; TAG], &'a RegionId, Place)>,
}

impl<'a> IdOpener<'a> {
    /// Opens ids of `owner`.
    #[must_use]
    pub(crate) fn new(keys: &'a Keyring, table: &'a Table, owner: &'a Owner) -> Self {
        let places =
            table.regions().iter().filter_map(|region| Some((region, table.region_named(region.id.as_str())?)));
        let places = places.flat_map(|(region, index)| {
            region.endpoints.iter().map(move |(endpoint, _)| {
                let tag = tag(region.id.as_str(), endpoint.as_str());
                (tag, &region.id, Place { region: index, endpoint: endpoint.clone() })
            })
        });
        Self { keys, owner, places: places.collect() }
    }

    /// Opens a client's id; `None` unless it is the owner's and its endpoint is still in the rules.
    #[must_use]
    pub(crate) fn open(&self, sealed: &str) -> Option<OpenedId> {
        let start = beginning(sealed);
        let bytes = BASE64URL.decode(sealed.strip_prefix(start)?.strip_prefix(MARK)?).ok()?;
        let (endpoint_tag, rest) = bytes.split_at_checked(TAG)?;
        let (mac_of_id, id) = rest.split_at_checked(MAC)?;
        let id = core::str::from_utf8(id).ok().filter(|id| beginning(id) == start)?;
        let mut with_tag = self.places.iter().filter(|(tag, ..)| tag == endpoint_tag);
        let (_, _, place) = with_tag.find(|(_, region, place)| {
            let expected = |key: &Hmac<Sha256>| mac(key, self.owner, region.as_str(), place.endpoint.as_str(), id);
            self.keys.keys.iter().any(|key| expected(key).ct_eq(mac_of_id).into())
        })?;
        Some(OpenedId { place: place.clone(), id: id.to_owned() })
    }
}

/// Whether an id looks like a sealed id, of any owner.
#[must_use]
pub(crate) fn is_marked(id: &str) -> bool {
    id.strip_prefix(beginning(id)).is_some_and(|rest| rest.starts_with(MARK))
}

/// Makes a new id that stands for the client's `id` and exists nowhere else. The new id has the same beginning, because
/// hosts check the beginning. It is a digest of the owner and `id`, so it is the same in each turn of a conversation.
/// It has at most the 64 characters that hosts accept.
#[must_use]
pub(crate) fn renamed(owner: &Owner, id: &str) -> String {
    let tenant = owner.tenant.as_deref().map_or(["-", ""], |tenant| ["+", tenant]);
    let text = ["item\0", tenant[0], tenant[1], "\0", &owner.service, "\0", id].concat();
    let digest = Sha256::digest(text);
    let start = Some(beginning(id)).filter(|start| start.len() <= LONGEST_BEGINNING + 1).unwrap_or_default();
    digest.iter().take(24).fold(start.to_owned(), |mut name, byte| {
        let _ = write!(name, "{byte:02x}");
        name
    })
}

/// The beginning of an id that says what kind of object it names: `file-` of `file-abc`, `resp_` of `resp_abc`,
/// `ft:gpt-4o:` of `ft:gpt-4o:acme::abc`. The id `abc` has no such beginning.
fn beginning(id: &str) -> &str {
    if let Some(base) = id.strip_prefix("ft:") {
        let end = base.find(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '.' | '_')).unwrap_or(0);
        let is_kept = (1..=LONGEST_BASE).contains(&end) && base.as_bytes().get(end) == Some(&b':');
        return if is_kept { &id[..=end + "ft:".len()] } else { "" };
    }
    let end = id.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(id.len());
    let is_kept = (1..=LONGEST_BEGINNING).contains(&end) && matches!(id.as_bytes().get(end), Some(b'-' | b'_'));
    if is_kept && !id.starts_with(MARK) { &id[..=end] } else { "" }
}

/// The tag by which a sealed id names its endpoint. It isn't secret: a header of the answer names the endpoint too.
fn tag(region: &str, endpoint: &str) -> [u8; TAG] {
    let digest = Sha256::new().chain_update(region).chain_update([0]).chain_update(endpoint).finalize();
    core::array::from_fn(|i| digest[i])
}

/// The MAC in a sealed id: it proves that a holder of the key sealed this id for this owner.
fn mac(key: &Hmac<Sha256>, owner: &Owner, region: &str, endpoint: &str, id: &str) -> [u8; MAC] {
    // Names hold no zero byte, and the id comes last, so the texts of two owners are never equal. `+` and `-` say
    // whether there is a tenant, because a tenant may have any name.
    let tenant = owner.tenant.as_deref().map_or([b"-".as_slice(), b""], |tenant| [b"+", tenant.as_bytes()]);
    let text = [
        MARK.as_bytes(),
        b"\0",
        tenant[0],
        tenant[1],
        b"\0",
        owner.service.as_bytes(),
        b"\0",
        region.as_bytes(),
        b"\0",
        endpoint.as_bytes(),
        b"\0",
        id.as_bytes(),
    ];
    let mut mac = key.clone();
    text.iter().for_each(|part| mac.update(part));
    let whole = mac.finalize().into_bytes();
    core::array::from_fn(|i| whole[i])
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;
    use proptest::test_runner::TestRunner;

    use super::*;
    use crate::decide::state::tests::{place, table};

    impl Keyring {
        /// Opens one id.
        fn open(&self, table: &Table, owner: &Owner, sealed: &str) -> Option<OpenedId> {
            IdOpener::new(self, table, owner).open(sealed)
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn rfc_4231_vectors() {
        for (key, text, expected) in [
            (vec![0x0b; 20], &b"Hi There"[..], "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
            (
                b"Jefe".to_vec(),
                b"what do ya want for nothing?",
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (
                vec![0xaa; 131],
                b"Test Using Larger Than Block-Size Key - Hash Key First",
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            ),
        ] {
            let mac = Hmac::<Sha256>::new_from_slice(&key).unwrap().chain_update(text);
            assert_eq!(hex(&mac.finalize().into_bytes()), expected);
        }
    }

    fn keys(first: &str) -> Keyring {
        Keyring::parse(&first.repeat(32)).unwrap()
    }

    fn owner(tenant: Option<&str>, service: &str) -> Owner {
        Owner { tenant: tenant.map(str::to_owned), service: service.to_owned() }
    }

    #[test]
    fn sealed_ids_never_change_from_version_to_version() {
        // Clients keep sealed ids for months. The second key is longer than a block of SHA-256.
        let sealed: Vec<_> = [("k", None, "file-abc"), ("long-key", Some("acme"), "resp_1"), ("k", Some(""), "abc")]
            .iter()
            .map(|&(key, tenant, id)| keys(key).seal(&owner(tenant, "chat"), "fra", "fra-1", id).unwrap())
            .collect();
        assert_eq!(
            sealed,
            [
                "file-bw1e7nAzLij8mT1ETXi8ag5Y2GYszhmaWxlLWFiYw",
                "resp_bw1e7nAzDa2eLzS_FIj-yChyI0z9a1yZXNwXzE",
                "bw1e7nAzNRIPLxU0MWvfv8oHXD5L-NhYmM",
            ]
        );
    }

    #[test]
    fn a_secret_is_long_and_may_be_followed_by_older_ones() {
        assert!(Keyring::parse("").is_none() && Keyring::parse("short").is_none());
        let (old, new) = ("o".repeat(32), "n".repeat(40));
        assert!(Keyring::parse(&format!("{new} short")).is_none());
        let (table, acme) = (table(), owner(Some("acme"), "chat"));
        let sealed = Keyring::parse(&old).unwrap().seal(&acme, "fra", "fra-1", "file-1").unwrap();
        let both = Keyring::parse(&format!("{new}\n{old}\n")).unwrap();
        assert!(both.open(&table, &acme, &sealed).is_some());
        assert_ne!(both.seal(&acme, "fra", "fra-1", "file-1").unwrap(), sealed);
        assert!(Keyring::parse(&new).unwrap().open(&table, &acme, &sealed).is_none());
    }

    #[test]
    fn an_id_keeps_its_beginning() {
        let (table, acme) = (table(), owner(Some("acme"), "chat"));
        for (id, start) in [
            ("file-abc", "file-bw1"),
            ("resp_1", "resp_bw1"),
            ("abc", "bw1"),
            ("bw1-x", "bw1"),
            ("-", "bw1"),
            ("ft:gpt-4o-2024-08-06:acme:s:abc:ckpt-step-10", "ft:gpt-4o-2024-08-06:bw1"),
            ("ft:x", "bw1"),
            ("ft::x", "bw1"),
            ("ft:bw1:bw1", "ft:bw1:bw1"),
        ] {
            let sealed = keys("k").seal(&acme, "fra", "fra-1", id).unwrap();
            assert!(sealed.starts_with(start), "{sealed}");
            assert!(is_marked(&sealed) && (!is_marked(id) || id.contains("bw1")));
            assert_eq!(keys("k").open(&table, &acme, &sealed).unwrap().id, id);
        }
        for id in ["", "a\nb", &"x".repeat(257)] {
            assert_eq!(keys("k").seal(&acme, "fra", "fra-1", id), None);
        }
    }

    #[test]
    fn what_is_renamed_is_short_steady_and_nobodys() {
        let (table, acme, emca) = (table(), owner(Some("acme"), "chat"), owner(Some("emca"), "chat"));
        let long = keys("k").seal(&acme, "fra", "fra-1", &"x".repeat(200)).unwrap();
        for id in ["rs_1", "msg_68af4030baa48193b0b43b4c2a176a1a0e6967589f080e78", "", "x", "ft:gpt-4o:acme::1", &long]
        {
            let name = renamed(&acme, id);
            assert_eq!(name, renamed(&acme, id));
            assert_ne!(name, renamed(&emca, id));
            assert_ne!(name, id);
            assert!(name.len() <= 64 && !is_marked(&name) && keys("k").open(&table, &acme, &name).is_none());
        }
        assert!(renamed(&acme, "rs_1").starts_with("rs_"));
        assert_ne!(renamed(&acme, "rs_1"), renamed(&owner(None, "chat"), "rs_1"));
    }

    #[test]
    fn an_id_opens_for_its_owner_alone_and_unaltered() {
        let table = table();
        let places = [("fra", "fra-1"), ("fra", "fra-2"), ("par", "par-1")];
        let tenants = proptest::sample::select(vec![None, Some("acme"), Some("emca"), Some("chat")]);
        let services = proptest::sample::select(vec!["chat", "own", "acme"]);
        let id = prop_oneof![
            "(file|vs|resp|batch|ftjob|rs|msg)[-_][A-Za-z0-9]{1,40}",
            "ft:[a-z0-9.-]{1,9}:[a-z:-]{0,20}",
            "\\PC{1,30}"
        ];
        let strategy = (
            id,
            (tenants.clone(), services.clone()),
            (tenants, services),
            0..3usize,
            any::<(prop::sample::Index, u8)>(),
        );
        let cases = Cell::new(0);
        TestRunner::new(ProptestConfig::with_cases(5_000))
            .run(&strategy, |(id, mine, other, at, (byte, new))| {
                cases.set(cases.get() + 1);
                let keys = keys("k");
                let me = owner(mine.0, mine.1);
                let (region, endpoint) = places[at];
                let sealed = keys.seal(&me, region, endpoint, &id).unwrap();
                prop_assert!(sealed.is_ascii() && !sealed.contains(['/', '%', '"', '\\']) || !id.is_ascii());
                prop_assert!(!sealed.contains('.') || id.starts_with("ft:"));
                let opened = OpenedId { place: place(&table, region, endpoint), id: id.clone() };
                prop_assert_eq!(keys.open(&table, &me, &sealed), Some(opened));
                if mine != other {
                    prop_assert_eq!(keys.open(&table, &owner(other.0, other.1), &sealed), None);
                }
                prop_assert_eq!(self::keys("j").open(&table, &me, &sealed), None);
                prop_assert_eq!(keys.open(&table, &me, &id), None, "an endpoint's raw id can't be opened");

                let mut altered = sealed.clone().into_bytes();
                let at = byte.index(altered.len());
                if altered[at] != new {
                    altered[at] = new;
                    if let Ok(altered) = String::from_utf8(altered) {
                        prop_assert_eq!(keys.open(&table, &me, &altered), None);
                    }
                }
                for cut in [&sealed[..at], &sealed[at..]] {
                    prop_assert!(cut == sealed || keys.open(&table, &me, cut).is_none());
                }
                prop_assert_eq!(keys.open(&table, &me, &format!("{sealed}=")), None);
                Ok(())
            })
            .unwrap();
        println!("ids sealed: {}", cases.get());
    }

    #[test]
    fn an_endpoint_that_left_the_rules_has_no_ids() {
        let acme = owner(Some("acme"), "chat");
        let sealed = keys("k").seal(&acme, "fra", "fra-1", "file-1").unwrap();
        assert!(keys("k").open(&table(), &acme, &sealed).is_some());
        let text = r#"{ "version": 1, "revision": 2, "regions": { "fra": { "countries": ["DE"],
            "endpoints": { "fra-9": { "url": "https://fra.example.net/v1" } } } } }"#;
        assert_eq!(keys("k").open(&Table::compile(text.as_bytes()).unwrap(), &acme, &sealed), None);
    }
}
