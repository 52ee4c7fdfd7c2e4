//! The owner of state at endpoints, and whether several clients share a provider's account. Takes the rules, a service
//! and a tenant; returns an [`Owner`], or whether an account is shared. Called by `serve`, `prepare` and `claim`.
//!
//! State means files, batches, fine-tuning jobs, vector stores and stored answers. Each of these objects exists only at
//! the endpoint that made it. Ids in answers are sealed ([`sealed_id`]): a sealed id names the endpoint, and a message
//! authentication code (MAC) proves its owner. Ids in requests are opened by [`claim`](claim::claim), which `prepare`
//! calls with the path, the query and the body.
//! [`crate::decide::plan`] decides where new state is made, and whether the endpoint of an id may be asked now. The
//! Worker stores nothing: a sealed id carries all that is needed.
//!
//! In a service without tenants a sealed id is a bearer capability: it can't be forged, and every client that has it
//! may use it. Lists are refused in such a service, because they would show the ids of all clients.

pub(crate) mod claim;
pub(crate) mod sealed_id;
pub(crate) mod tuned;

use bailiwick_rules::id::EndpointId;
use bailiwick_rules::rules::{Allowance, Endpoint};
use bailiwick_rules::table::{RegionIndex, Service, ServiceIndex, Table, TenantIndex};

use sealed_id::Owner;

/// An endpoint, identified within one revision of the rules.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    /// The endpoint's region.
    pub(crate) region: RegionIndex,
    /// The endpoint's id within the region.
    pub(crate) endpoint: EndpointId,
}

/// The owner of the state that a request makes or names.
#[must_use]
pub(crate) fn owner(table: &Table, service: ServiceIndex, tenant: Option<TenantIndex>) -> Owner {
    let tenant = tenant.map(|tenant| table.tenant(tenant).id.as_str().to_owned());
    Owner { service: table.service(service).id.as_str().to_owned(), tenant }
}

/// Whether only this tenant's requests are sent to the account of the endpoint at `place`. Then a list of objects in
/// this account shows only the tenant's own. An account is a host with a credential; several endpoints may use the same
/// account.
#[must_use]
pub(crate) fn is_sole(table: &Table, tenant: Option<TenantIndex>, place: &Place) -> bool {
    let Some(tenant) = tenant else { return false };
    let endpoints = |region: RegionIndex| table.region(region).endpoints.iter();
    let Some((_, here)) = endpoints(place.region).find(|(id, _)| *id == place.endpoint) else { return false };
    let uses = |service: &Service| {
        service.regions.iter().any(|&region| endpoints(region).any(|(_, endpoint)| is_same_account(here, endpoint)))
    };
    table.services().iter().enumerate().filter(|(_, service)| uses(service)).all(|(position, service)| {
        let others = (0..table.tenants().len()).filter(|&other| other != tenant.get());
        let may_use = |other: usize| table.tenants()[other].services.iter().any(|index| index.get() == position);
        service.requires_key && !others.into_iter().any(may_use)
    })
}

/// Whether an account that this service uses may hold stored answers: a service that uses the same account allows
/// `store`.
#[must_use]
pub(crate) fn may_hold_items(table: &Table, service: ServiceIndex) -> bool {
    let accounts = |service: &Service| -> Vec<&Endpoint> {
        let regions = service.regions.iter().flat_map(|&region| &table.region(region).endpoints);
        regions.map(|(_, endpoint)| endpoint).collect()
    };
    let ours = accounts(table.service(service));
    let stores = |other: &&Service| other.allow.contains(&Allowance::Store);
    let shares = |other: &Service| {
        accounts(other).iter().any(|theirs| ours.iter().any(|account| is_same_account(account, theirs)))
    };
    table.services().iter().filter(stores).any(shares)
}

/// Whether two endpoints use one account: the same origin with the same credential.
fn is_same_account(a: &Endpoint, b: &Endpoint) -> bool {
    a.secret == b.secret && a.url.as_url().origin() == b.url.as_url().origin()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Rules with two tenants: `acme` and `emca` share `fra-1`, and only `acme` uses `par-1`.
    pub(crate) fn table() -> Table {
        let residency = serde_json::json!([{ "clients": ["*"], "process_in": ["*"] }]);
        let key = |digit: &str| serde_json::json!([digit.repeat(64)]);
        let rules = serde_json::json!({
            "version": 1, "revision": 1,
            "regions": {
                "fra": { "countries": ["DE"], "endpoints": {
                    "fra-1": { "url": "https://fra.example.net/v1", "secret": "K" },
                    "fra-2": { "url": "https://fra2.example.net/v1" } } },
                "par": { "countries": ["FR"], "endpoints": { "par-1": { "url": "https://par.example.net/v1" } } },
                "lon": { "countries": ["GB"], "endpoints": {
                    "alias": { "url": "https://fra.example.net/other", "secret": "K" } } },
            },
            "services": {
                "chat": { "hosts": ["chat.example"], "pattern": "active-active", "regions": ["fra"],
                    "residency": residency },
                "own": { "hosts": ["own.example"], "pattern": "active-active", "regions": ["par"],
                    "residency": residency },
                "alias": { "hosts": ["alias.example"], "pattern": "active-active", "regions": ["lon"],
                    "residency": residency },
            },
            "tenants": {
                "acme": { "key_sha256": key("a"), "services": ["chat", "own", "alias"] },
                "emca": { "key_sha256": key("b"), "services": ["chat"] },
            },
        });
        Table::compile(rules.to_string().as_bytes()).unwrap()
    }

    pub(crate) fn place(table: &Table, region: &str, endpoint: &str) -> Place {
        Place { region: table.region_named(region).unwrap(), endpoint: EndpointId::parse(endpoint).unwrap() }
    }

    fn tenant(table: &Table, name: &str) -> TenantIndex {
        let at = table.tenants().iter().position(|tenant| tenant.id.as_str() == name).unwrap();
        TenantIndex(u32::try_from(at).unwrap())
    }

    #[test]
    fn only_the_sole_tenant_of_an_account_may_list_objects() {
        let table = table();
        let sole = |name: Option<&str>, region: &str, endpoint: &str| {
            is_sole(&table, name.map(|name| tenant(&table, name)), &place(&table, region, endpoint))
        };
        assert!(sole(Some("acme"), "par", "par-1"));
        assert!(!sole(None, "par", "par-1"), "without a tenant no list is allowed");
        assert!(!sole(Some("acme"), "fra", "fra-1") && !sole(Some("emca"), "fra", "fra-1"));
        assert!(!sole(Some("acme"), "lon", "alias"), "alias and fra-1 use the same account");
        assert!(!sole(Some("acme"), "fra", "gone"));
    }

    #[test]
    fn an_account_may_hold_what_another_service_stores_there() {
        let residency = serde_json::json!([{ "clients": ["*"], "process_in": ["*"] }]);
        let service = |host: &str, region: &str, allow: &[&str]| {
            serde_json::json!({ "hosts": [host], "pattern": "active-active", "regions": [region],
                                "residency": residency, "allow": allow })
        };
        let endpoint = |url: &str, secret: &str| serde_json::json!({ "e": { "url": url, "secret": secret } });
        let rules = serde_json::json!({
            "version": 1, "revision": 1,
            "regions": {
                "fra": { "countries": ["DE"], "endpoints": endpoint("https://a.example.net/v1", "K") },
                "ber": { "countries": ["DE"], "endpoints": endpoint("https://a.example.net/other", "K") },
                "par": { "countries": ["FR"], "endpoints": endpoint("https://a.example.net/v1", "OTHER") },
            },
            "services": {
                "stores": service("a.example", "fra", &["store"]),
                "shares": service("b.example", "ber", &[]),
                "apart": service("c.example", "par", &[]),
            },
        });
        let table = Table::compile(rules.to_string().as_bytes()).unwrap();
        let holds = |name: &str| may_hold_items(&table, table.service_named(name).unwrap());
        assert_eq!((holds("stores"), holds("shares"), holds("apart")), (true, true, false));
    }
}
