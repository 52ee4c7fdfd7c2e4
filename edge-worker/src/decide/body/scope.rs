//! A name that a client gives something at an engine in, one that no other customer's can equal out.
//!
//! Engines keep what clients name (media by `uuid`, prefixes by `cache_salt`, requests by `request_id`) for
//! everybody alike, as all customers come with one credential. Equal names of one customer stay equal, so its caches
//! work.

use sha2::{Digest as _, Sha256};

/// The digits of a scoped name behind its mark: 128 bits, which nobody finds twice.
const BYTES: usize = 16;

/// Whose names they are.
#[derive(Clone, Debug)]
pub struct Scope {
    /// The service.
    pub service: String,
    /// The tenant, where the service knows any.
    pub tenant: Option<String>,
    /// The request. Where nobody knows one client from another, a name that would be shared is this request's alone.
    pub request: String,
}

/// What is named.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NamedField {
    /// Media at vLLM.
    Media,
    /// Media at SGLang, by its SHA-256 in hexadecimal.
    Hash,
    /// What an engine's prefix cache is salted with.
    Salt,
    /// OpenAI's `prompt_cache_key`.
    CacheKey,
    /// A session or a class of requests.
    Session,
    /// A request.
    Request,
}

impl Scope {
    /// The name to send instead of `name`. `None`: as it is.
    pub(super) fn name(&self, named: NamedField, name: &str) -> Option<String> {
        let digest = |owner: &[&str]| {
            let kind = format!("{named:?}");
            let parts = [&[self.service.as_str()][..], owner, &[kind.as_str(), name]].concat();
            // No owner's name holds a zero byte, and the client's word comes last: no two owners' texts are equal.
            hex(&Sha256::digest(parts.join("\0")))
        };
        let tenant = self.tenant.as_deref();
        let owned = tenant.map(|tenant| digest(&["tenant", tenant]));
        match named {
            NamedField::CacheKey => owned.map(short),
            NamedField::Salt => Some(short(owned.unwrap_or_else(|| digest(&["service"])))),
            NamedField::Hash => Some(owned.unwrap_or_else(|| digest(&["request", &self.request]))),
            NamedField::Media | NamedField::Session | NamedField::Request => {
                Some(short(owned.unwrap_or_else(|| digest(&["request", &self.request]))))
            }
        }
    }
}

fn short(mut hex: String) -> String {
    hex.truncate(2 * BYTES);
    hex.insert_str(0, "bw-");
    hex
}

fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_of_one_tenant_and_one_kind() {
        let scope = |tenant: Option<&str>, request: &str| Scope {
            service: "chat".into(),
            tenant: tenant.map(Into::into),
            request: request.into(),
        };
        let name = |tenant: Option<&str>, request: &str, named: NamedField| scope(tenant, request).name(named, "k");
        let media = |tenant: Option<&str>, request: &str| name(tenant, request, NamedField::Media).unwrap();
        assert_eq!(media(Some("acme"), "1"), media(Some("acme"), "2"));
        assert_ne!(media(Some("acme"), "1"), media(Some("emca"), "1"));
        assert_ne!(media(Some("acme"), "1"), name(Some("acme"), "1", NamedField::Session).unwrap());
        assert_eq!(media(None, "1").len(), 35);
        assert_ne!(media(None, "1"), media(None, "2"), "without tenants nobody knows whose it is");
        assert_eq!(
            name(None, "1", NamedField::Salt),
            name(None, "2", NamedField::Salt),
            "a salt alone gives nothing away"
        );
        assert_eq!(name(None, "1", NamedField::CacheKey), None);
        assert_eq!(name(Some("acme"), "1", NamedField::Hash).unwrap().len(), 64);
    }
}
