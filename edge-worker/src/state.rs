//! State at endpoints: files, batches, fine-tuning, vector stores and stored answers, each at the one endpoint that made it.
//!
//! Ids that go out are sealed ([`seal`]): they name the endpoint and say, by a MAC, whose they are. Ids that come in are
//! opened by [`open_all`], which `serve` calls with what it found in path, query and body; where new state is made, and whether
//! the place an id names may be asked now, is [`crate::plan`]'s to say. Nothing is kept here: an id carries all there is to know.
//!
//! In a service without tenants an id is a bearer capability of that service: nobody can make one up, and whoever was handed
//! one may use it. Lists are refused there, as they'd hand out everybody's.

pub mod fields;
pub mod seal;

use bailiwick_rules::id::EndpointId;
use bailiwick_rules::rules::Endpoint;
use bailiwick_rules::table::{RegionIndex, Service, ServiceIndex, Table, TenantIndex};

use crate::envelope::Failure;
use seal::{Keyring, Opened, Owner};

/// An endpoint by its place in the rules of the moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// Its region.
    pub region: RegionIndex,
    /// Its name there.
    pub endpoint: EndpointId,
}

/// Whose state a request is about.
#[must_use]
pub fn owner(table: &Table, service: ServiceIndex, tenant: Option<TenantIndex>) -> Owner {
    let tenant = tenant.map(|tenant| table.tenant(tenant).id.as_str().to_owned());
    Owner { service: table.service(service).id.as_str().to_owned(), tenant }
}

/// Opens the ids of one request: the endpoint that has them, and what it calls them, in the same order. `None` without ids.
///
/// # Errors
/// 404 for an id that isn't one of `owner`'s, whatever else it may be; 400 for ids of more than one endpoint.
pub fn open_all<'i>(
    keys: &Keyring,
    table: &Table,
    owner: &Owner,
    ids: impl Iterator<Item = &'i str>,
) -> Result<Option<(Place, Vec<String>)>, Failure> {
    let mut found: Option<(Place, Vec<String>)> = None;
    for id in ids {
        let Opened { place, id } = keys.open(table, owner, id).ok_or(Failure::UnknownId)?;
        match &mut found {
            None => found = Some((place, vec![id])),
            Some((one, ids)) if *one == place => ids.push(id),
            Some(_) => return Err(Failure::IdsApart),
        }
    }
    Ok(found)
}

/// Whether a list at `place` can only show what is `tenant`'s: nobody else is sent to the same account. An account is a host
/// with a credential, whatever the regions and endpoints are called that use it.
#[must_use]
pub fn is_sole(table: &Table, tenant: Option<TenantIndex>, place: &Place) -> bool {
    let Some(tenant) = tenant else { return false };
    let endpoints = |region: RegionIndex| table.region(region).endpoints.iter();
    let Some((_, here)) = endpoints(place.region).find(|(id, _)| *id == place.endpoint) else { return false };
    let same = |endpoint: &Endpoint| {
        endpoint.secret == here.secret && endpoint.url.as_url().origin() == here.url.as_url().origin()
    };
    let uses = |service: &Service| service.regions.iter().any(|&region| endpoints(region).any(|(_, one)| same(one)));
    table.services().iter().enumerate().filter(|(_, service)| uses(service)).all(|(position, service)| {
        let others = (0..table.tenants().len()).filter(|&other| other != tenant.get());
        let named = |other: usize| table.tenants()[other].services.iter().any(|index| index.get() == position);
        service.requires_key && !others.into_iter().any(named)
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Two tenants who share `fra-1`, one of whom has `par-1` alone.
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
                "chat": { "hosts": ["chat.example"], "pattern": "active-active", "regions": ["fra"], "residency": residency },
                "own": { "hosts": ["own.example"], "pattern": "active-active", "regions": ["par"], "residency": residency },
                "alias": { "hosts": ["alias.example"], "pattern": "active-active", "regions": ["lon"], "residency": residency },
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
    fn a_list_is_for_who_has_the_account_alone() {
        let table = table();
        let sole = |name: Option<&str>, region: &str, endpoint: &str| {
            is_sole(&table, name.map(|name| tenant(&table, name)), &place(&table, region, endpoint))
        };
        assert!(sole(Some("acme"), "par", "par-1"));
        assert!(!sole(None, "par", "par-1"), "a service without tenants shows nobody's state");
        assert!(!sole(Some("acme"), "fra", "fra-1") && !sole(Some("emca"), "fra", "fra-1"));
        assert!(!sole(Some("acme"), "lon", "alias"), "another name for the same account");
        assert!(!sole(Some("acme"), "fra", "gone"));
    }

    #[test]
    fn ids_of_one_request_live_at_one_endpoint() {
        let table = table();
        let keys = Keyring::parse(&"k".repeat(32)).unwrap();
        let owner = Owner { tenant: Some("acme".into()), service: "chat".into() };
        let sealed = |endpoint: &str, id: &str| keys.seal(&owner, "fra", endpoint, id).unwrap();
        let (a, b, c) = (sealed("fra-1", "file-a"), sealed("fra-1", "vs_b"), sealed("fra-2", "file-c"));
        let open = |ids: &[&str]| open_all(&keys, &table, &owner, ids.iter().copied());
        let (at, ids) = open(&[&a, &b]).unwrap().unwrap();
        assert_eq!((at, ids), (place(&table, "fra", "fra-1"), vec!["file-a".to_owned(), "vs_b".to_owned()]));
        assert_eq!(open(&[&a, &c]), Err(Failure::IdsApart));
        assert_eq!(open(&[&a, "file-a"]), Err(Failure::UnknownId));
        assert_eq!(open(&[]), Ok(None));
    }
}
