//! Takes a table, returns warnings about its fields for load that are probably not meant, or have no effect.
//! Called by `bailiwick check`.

use super::{Classes, FenceLoss, losses};
use crate::json::Violation;
use crate::rules::{Ratio, ShedAt};
use crate::table::{Region, RegionIndex, Service, Table};

/// How many lost regions are named. The rest is only counted.
const MAX_TOLD: usize = 5;

/// All warnings about load. None for a document that says nothing of it.
#[must_use]
pub fn warnings(table: &Table) -> Vec<Violation> {
    let mut warnings: Vec<Violation> = unread(table).into_iter().collect();
    for region in table.regions() {
        warnings.extend(partly_known(region));
        warnings.extend(without_capacity(region));
    }
    warnings.extend(overloaded(table));
    warnings
}

fn warning(pointer: String, message: impl Into<String>) -> Violation {
    Violation { pointer, message: message.into() }
}

/// A service whose clients DNS moves, beside regions that say something of load: without a reading nobody is moved
/// before a region dies, and nobody to a region then.
fn unread(table: &Table) -> Option<Violation> {
    let says = table.regions().iter().any(|region| region.load.is_some());
    let by_dns = |service: &&Service| service.shedding.moves && service.shedding.at == ShedAt::Dns;
    let is_read = |region: &RegionIndex| table.region(*region).endpoints.iter().any(|(_, one)| one.load.is_some());
    let is_unread = |service: &&Service| by_dns(service) && !service.regions.iter().any(is_read);
    let service = table.services().iter().find(is_unread).filter(|_| says)?;
    Some(warning(
        format!("/services/{}", service.id),
        "is steered by DNS, and the load of none of its regions is read, so its clients are moved by health alone; \
         give the endpoints of its regions a \"load\"",
    ))
}

/// Endpoints that say nothing count as nothing beside others that do.
fn partly_known(region: &Region) -> Option<Violation> {
    let silent = region.endpoints.iter().find(|(_, endpoint)| endpoint.capacity.is_none());
    let says = region.endpoints.iter().any(|(_, endpoint)| endpoint.capacity.is_some());
    let (id, _) = silent.filter(|_| says)?;
    Some(warning(
        format!("/regions/{}/endpoints/{id}", region.id),
        "has no \"capacity\", where others of its region have one: it counts as if it could serve nothing; add it",
    ))
}

fn without_capacity(region: &Region) -> Option<Violation> {
    let load = region.load.as_deref().filter(|load| load.capacity.is_none())?;
    let what = if load.demand.is_some() { "its \"demand\" is compared with nothing" } else { "its marks mean nothing" };
    Some(warning(
        format!("/regions/{}/load", region.id),
        format!(
            "has no \"capacity\", so {what}, and no clients are planned to be moved there; add it here or at the \
             endpoints"
        ),
    ))
}

/// Fences that can't carry the stated demand, or not without one of their regions.
fn overloaded(table: &Table) -> Vec<Violation> {
    let states = |region: &Region| region.load.as_ref().is_some_and(|load| load.demand.is_some());
    if !table.regions().iter().any(states) {
        return Vec::new();
    }
    let all: Vec<RegionIndex> = (0..table.regions().len()).map(RegionIndex::new).collect();
    let told = losses(table, &Classes::stated(table), &all);
    let too_much: Vec<&FenceLoss> = told.iter().filter(|one| one.is_carried(Ratio::ONE) == Some(false)).collect();
    let mut warnings: Vec<Violation> = too_much.iter().take(MAX_TOLD).map(|one| not_carried(table, one)).collect();
    if let Some(more) = too_much.len().checked_sub(MAX_TOLD).filter(|more| *more > 0) {
        let message = format!("can't carry {more} more losses of a region; `bailiwick plan` lists them all");
        warnings.push(warning("/regions".to_owned(), message));
    }
    warnings
}

fn not_carried(table: &Table, loss: &FenceLoss) -> Violation {
    let name = |region: &RegionIndex| table.region(*region).id.as_str();
    let fence: Vec<&str> = loss.fence.iter().take(MAX_TOLD).map(name).collect();
    let more = match loss.fence.len().saturating_sub(MAX_TOLD) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let load = loss.load().unwrap_or_default();
    let refused = Ratio::between(loss.refused, loss.demand);
    let without = loss.lost.as_ref().map(|lost| format!(" without {}", name(lost))).unwrap_or_default();
    let pointer = loss.lost.as_ref().or(loss.fence.first()).map(name).unwrap_or_default();
    warning(
        format!("/regions/{pointer}/load"),
        format!(
            "the fence of {}{more}{without} has a load of {load} at its peak, and {refused} of it is refused; add \
             capacity there, or a region to the fence",
            fence.join(", ")
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(fra: &str, par: &str, chat: &str) -> Vec<String> {
        let document = format!(
            r#"{{ "version": 1, "revision": 1, "jurisdictions": {{ "eu": {{ "include": ["EU"] }} }},
            "regions": {{ "fra": {{ "countries": ["DE"] {fra} }}, "par": {{ "countries": ["FR"] {par} }} }},
            "services": {{ "chat": {{ "hosts": ["chat.example"], "pattern": "active-active", "regions": ["fra", "par"],
                "residency": [{{ "clients": ["eu"], "process_in": ["eu"] }}] {chat} }} }} }}"#
        );
        let table = Table::compile(document.as_bytes()).unwrap_or_else(|violations| panic!("{violations:?}"));
        warnings(&table).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn nothing_is_told_of_a_document_without_load() {
        assert_eq!(told("", "", ""), [""; 0]);
    }

    #[test]
    fn that_dns_knows_no_load_is_told_where_a_capacity_is_said() {
        let pair = |capacity| format!(r#", "load": {{ "capacity": {capacity}, "demand": 10 }}"#);
        let found = told(&pair(100), &pair(100), r#", "slew": "1%/1m""#);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("/services/chat: is steered by DNS, and the load of none"), "{found:?}");
        let endpoint = r#", "endpoints": { "p-1": { "url": "https://p.example/v1", "capacity": 50 } }"#;
        assert_eq!(told(endpoint, endpoint, ""), [""; 0], "the edge knows it");
        let read = r#", "endpoints": { "p-1": { "url": "https://p.example/v1", "capacity": 50,
                                               "load": { "type": "vllm", "url": "https://p.example/metrics" } } }"#;
        assert_eq!(told(endpoint, read, r#", "shed_at": "dns""#), [""; 0]);
        assert_eq!(told(endpoint, endpoint, r#", "shed_at": "dns""#).len(), 1);
        assert_eq!(told("", "", r#", "slew": "1%/1m""#), [""; 0]);
        assert_eq!(told(&pair(100), &pair(100), r#", "shed": "never""#), [""; 0]);
    }

    #[test]
    fn a_loss_that_the_rest_cannot_carry_is_told() {
        let found =
            told(r#", "load": { "capacity": 100, "demand": 80 }"#, r#", "load": { "capacity": 60, "demand": 4 }"#, "");
        assert_eq!(found.len(), 2, "{found:?}");
        let expected =
            "/regions/fra/load: the fence of fra, par without fra has a load of 140 % at its peak, and 28.6 % of it";
        assert!(found[1].starts_with(expected), "{found:?}");
    }

    #[test]
    fn what_has_no_capacity_is_told() {
        let found = told(r#", "load": { "demand": 80 }"#, r#", "load": { "low": 0.5 }"#, "");
        assert!(found[1].starts_with("/regions/fra/load: has no \"capacity\", so its \"demand\""), "{found:?}");
        assert!(found[2].starts_with("/regions/par/load: has no \"capacity\", so its marks"), "{found:?}");
        let two = r#", "endpoints": { "p-1": { "url": "https://p.example/v1", "capacity": 5 },
                                      "p-2": { "url": "https://q.example/v1" } }"#;
        assert!(told("", two, "")[0].starts_with("/regions/par/endpoints/p-2: has no \"capacity\""));
    }
}
