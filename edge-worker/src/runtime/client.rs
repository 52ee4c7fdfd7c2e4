//! Identifies who sends a request. Takes the request's host, credentials and origin; returns the service, the tenant
//! and the [`Client`] to steer. Called by `serve` once per request, and by `explain` and `cors`.
//!
//! Values in the request may be missing or malformed. A value that can't be read counts as unknown.

use core::net::IpAddr;

use bailiwick_rules::geo::{Coordinates, CountryCode};
use bailiwick_rules::rules::KeyDigest;
use bailiwick_rules::steer::Client;
use bailiwick_rules::table::{ServiceIndex, Table, TenantIndex};
use subtle::ConstantTimeEq;

use crate::decide::envelope::Failure;
use crate::runtime::request::ClientRequest;

/// Who sends a request, and to which service.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Caller {
    /// The service that the host names.
    pub(crate) service: ServiceIndex,
    /// The tenant, if the service requires a key.
    pub(crate) tenant: Option<TenantIndex>,
    /// The client to steer.
    pub(crate) client: Client,
}

/// Finds the service of `host`, the tenant of the credentials if the service requires a key, and the client's place.
///
/// A service without tenants ignores credentials, because the official clients always send a key. A service with
/// tenants refuses an unknown key. It doesn't fall back to steering by the client's location.
pub(crate) fn recognise(
    table: &Table,
    host: &str,
    credentials: &Credentials,
    origin: &Origin,
) -> Result<Caller, Failure> {
    let service = service_of(table, host).ok_or(Failure::UnknownHost)?;
    let tenant = if table.service(service).requires_key { Some(tenant_of(table, service, credentials)?) } else { None };
    let client = Client { tenant, ..origin.client() };
    Ok(Caller { service, tenant, client })
}

/// The service steered under a host name.
pub(crate) fn service_of(table: &Table, host: &str) -> Option<ServiceIndex> {
    table.service_of_host(host.strip_suffix('.').unwrap_or(host))
}

/// The tenant whose key the request has.
fn tenant_of(table: &Table, service: ServiceIndex, credentials: &Credentials) -> Result<TenantIndex, Failure> {
    let key = match (&credentials.bearer, &credentials.api_key) {
        (None, None) => return Err(Failure::MissingKey),
        (Some(bearer), Some(api_key)) if bearer != api_key => return Err(Failure::ConflictingKeys),
        (Some(key), _) | (None, Some(key)) => key,
    };
    let tenant = table.tenant_of_key(&KeyDigest::of_key(key)).ok_or(Failure::UnknownKey)?;
    if table.tenant(tenant).services.contains(&service) { Ok(tenant) } else { Err(Failure::NotYourService) }
}

/// The keys that a request carries.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Credentials {
    bearer: Option<String>,
    api_key: Option<String>,
}

impl Credentials {
    /// Reads `Authorization` and `api-key`. Repeated headers arrive joined by a comma. No valid key contains a comma,
    /// so repeated keys are refused.
    pub(crate) fn of(request: &ClientRequest) -> Self {
        Self::read(request.header("authorization"), request.header("api-key"))
    }

    /// Whether the credentials are exactly this token. Keys are compared in constant time.
    pub(crate) fn are(&self, token: &str) -> bool {
        let is = |key: &String| bool::from(KeyDigest::of_key(key).0.ct_eq(&KeyDigest::of_key(token).0));
        match (&self.bearer, &self.api_key) {
            (Some(bearer), Some(api_key)) => bearer == api_key && is(bearer),
            (Some(key), None) | (None, Some(key)) => is(key),
            (None, None) => false,
        }
    }

    /// The credentials in a header that holds only a token, with or without `Bearer` before the token.
    pub(crate) fn of_token(value: &str) -> Self {
        let bearer = Self::read(Some(value), None);
        if bearer.bearer.is_some() { bearer } else { Self::read(None, Some(value)) }
    }

    /// The credentials of a request with this key in `Authorization`.
    #[cfg(test)]
    pub(crate) fn bearer(key: &str) -> Self {
        Self { bearer: Some(key.to_owned()), api_key: None }
    }

    /// Reads the credentials in these headers.
    fn read(authorization: Option<&str>, api_key: Option<&str>) -> Self {
        let bearer = authorization.and_then(|value| {
            let (scheme, token) = value.trim().split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        let some = |key: &str| (!key.is_empty()).then(|| key.to_owned());
        Self { bearer: bearer.and_then(some), api_key: api_key.map(str::trim).and_then(some) }
    }
}

/// Where a request comes from, as far as the Workers runtime knows.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(crate) struct Origin {
    address: Option<IpAddr>,
    country: Option<CountryCode>,
    location: Option<Coordinates>,
}

impl Origin {
    /// Reads `CF-Connecting-IP` and `request.cf`. Cloudflare sets both, or the trusted proxy in front of workerd. Codes
    /// such as `XX`, `T1` and `ZZ` mean that the country is unknown.
    pub(crate) fn of(request: &ClientRequest) -> Self {
        let [country, latitude, longitude] = &request.place;
        Self::read(request.header("cf-connecting-ip"), country.as_deref(), latitude.as_deref(), longitude.as_deref())
    }

    /// The client at this origin, without a tenant.
    pub(crate) fn client(&self) -> Client {
        Client { tenant: None, address: self.address, country: self.country, location: self.location }
    }

    /// Reads what the runtime says about the client.
    fn read(address: Option<&str>, country: Option<&str>, latitude: Option<&str>, longitude: Option<&str>) -> Self {
        let degrees = |text: Option<&str>| text?.trim().parse::<f64>().ok();
        Self {
            address: address.and_then(|text| text.trim().parse().ok()),
            country: country.and_then(CountryCode::parse),
            location: degrees(latitude)
                .zip(degrees(longitude))
                .and_then(|(latitude, longitude)| Coordinates::from_degrees(latitude, longitude)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let rules = serde_json::json!({
            "version": 1, "revision": 1,
            "regions": { "fra": { "countries": ["DE"] } },
            "services": {
                "open": { "hosts": ["open.example"], "pattern": "active-active", "regions": ["fra"],
                          "residency": [{ "clients": ["*"], "process_in": ["*"] }] },
                "chat": { "hosts": ["chat.example"], "pattern": "active-active", "regions": ["fra"],
                          "residency": [{ "clients": ["*"], "process_in": ["*"] }] },
                "other": { "hosts": ["other.example"], "pattern": "active-active", "regions": ["fra"],
                           "residency": [{ "clients": ["*"], "process_in": ["*"] }] },
            },
            "tenants": {
                "acme": { "key_sha256": [KeyDigest::of_key("sk-acme").to_string()], "services": ["chat"] },
                "emca": { "key_sha256": [KeyDigest::of_key("sk-emca").to_string()], "services": ["other"] },
            },
        });
        Table::compile(rules.to_string().as_bytes()).unwrap()
    }

    fn tenant(host: &str, authorization: Option<&str>, api_key: Option<&str>) -> Result<Option<String>, Failure> {
        let table = table();
        let credentials = Credentials::read(authorization, api_key);
        let caller = recognise(&table, host, &credentials, &Origin::default())?;
        Ok(caller.tenant.map(|tenant| table.tenant(tenant).id.to_string()))
    }

    #[test]
    fn a_key_identifies_its_tenant_in_either_header() {
        assert_eq!(tenant("chat.example", Some("Bearer sk-acme"), None), Ok(Some("acme".into())));
        assert_eq!(tenant("CHAT.example.", Some("bearer  sk-acme "), None), Ok(Some("acme".into())));
        assert_eq!(tenant("chat.example", None, Some("sk-acme")), Ok(Some("acme".into())));
        assert_eq!(tenant("chat.example", Some("Bearer sk-acme"), Some("sk-acme")), Ok(Some("acme".into())));
    }

    #[test]
    fn a_service_with_tenants_refuses_other_keys() {
        let refusal = |authorization, api_key| tenant("chat.example", authorization, api_key).unwrap_err();
        assert_eq!(refusal(None, None), Failure::MissingKey);
        assert_eq!(refusal(Some("Bearer "), Some("")), Failure::MissingKey);
        assert_eq!(refusal(Some("Basic c2stYWNtZQ=="), None), Failure::MissingKey);
        assert_eq!(refusal(Some("Bearer sk-nobody"), None), Failure::UnknownKey);
        assert_eq!(refusal(Some("Bearer sk-acme, Bearer sk-acme"), None), Failure::UnknownKey);
        assert_eq!(refusal(Some("Bearer sk-acme"), Some("sk-emca")), Failure::ConflictingKeys);
        assert_eq!(refusal(Some("Bearer sk-emca"), None), Failure::NotYourService);
    }

    #[test]
    fn a_service_without_tenants_ignores_credentials() {
        assert_eq!(tenant("open.example", None, None), Ok(None));
        assert_eq!(tenant("open.example", Some("Bearer sk-acme"), Some("sk-emca")), Ok(None));
        assert_eq!(tenant("nobody.example", Some("Bearer sk-acme"), None), Err(Failure::UnknownHost));
    }

    #[test]
    fn values_that_cannot_be_read_are_unknown() {
        let of = |country| Origin::read(None, country, None, None).country;
        assert_eq!(of(Some("DE")).map(|country| country.to_string()).as_deref(), Some("DE"));
        for odd in ["XX", "ZZ", "T1", "EU", "AP", "A1", "UK", "FX", "QQ", "de", "Germany", "", "7"] {
            assert_eq!(of(Some(odd)), None, "{odd:?}");
        }
        assert_eq!((of(None), of(Some("XK"))), (None, CountryCode::parse("XK")));
        let at = |latitude, longitude| Origin::read(None, None, latitude, longitude).location;
        assert!(at(Some("52.52"), Some("13.4")).is_some());
        for (latitude, longitude) in [("91", "0"), ("NaN", "0"), ("x", "0"), ("", ""), ("inf", "1")] {
            assert_eq!(at(Some(latitude), Some(longitude)), None, "{latitude} {longitude}");
        }
        assert_eq!(at(Some("52.52"), None), None);
        assert_eq!(Origin::read(Some("203.0.113.7, 192.0.2.1"), None, None, None).address, None);
    }
}
