//! Makes the names that clients give to things at an engine different for each tenant. Takes a name, returns the scoped
//! name. Called by `body`.
//!
//! Clients name things at an engine: media by `uuid`, prefixes by `cache_salt`, requests by `request_id`. The engine
//! gets one credential for all tenants, so it can't tell the names of different tenants apart. Equal names of one
//! tenant stay equal, so the tenant's caches work.

use sha2::{Digest as _, Sha256};

/// How many bytes of the hash a scoped name has, in hexadecimal after `bw-`: 128 bits, so that no two names are equal
/// by chance.
const BYTES: usize = 16;

/// The owner of the names.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    /// The service.
    pub(crate) service: String,
    /// The tenant, if the service has tenants.
    pub(crate) tenant: Option<String>,
    /// The request. In a service without tenants, most names belong to their request only.
    pub(crate) request: String,
}

/// The kind of thing that a field names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NamedField {
    /// Media at vLLM, by `uuid`.
    Media,
    /// Media at SGLang, by its SHA-256 in hexadecimal.
    Hash,
    /// The salt of an engine's prefix cache.
    Salt,
    /// OpenAI's `prompt_cache_key`.
    CacheKey,
    /// A session or a class of requests.
    Session,
    /// A request.
    Request,
}

impl Scope {
    /// The name to send in place of `name`; `None` if `name` stays.
    pub(super) fn name(&self, named: NamedField, name: &str) -> Option<String> {
        let digest = |owner: &[&str]| {
            let kind = format!("{named:?}");
            let parts = [&[self.service.as_str()][..], owner, &[kind.as_str(), name]].concat();
            // The name of an owner holds no zero byte, and the client's name comes last. So the joined texts of two
            // owners are never equal.
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

/// A scoped name of [`BYTES`] bytes after `bw-`.
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
        assert_ne!(media(None, "1"), media(None, "2"), "without tenants, a name belongs to its request");
        assert_eq!(
            name(None, "1", NamedField::Salt),
            name(None, "2", NamedField::Salt),
            "without tenants, the service shares one salt"
        );
        assert_eq!(name(None, "1", NamedField::CacheKey), None);
        assert_eq!(name(Some("acme"), "1", NamedField::Hash).unwrap().len(), 64);
    }
}
