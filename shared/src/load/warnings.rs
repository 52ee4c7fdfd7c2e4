//! Takes a table, returns warnings about settings for load that have no effect or are probably a mistake. Called by
//! `bailiwick check`.

use super::{Classes, FenceLoss, losses};
use crate::json::Violation;
use crate::rules::{Ratio, ShedAt};
use crate::table::{Region, RegionIndex, Service, Table};

/// How many losses of a region are described, and how many regions of a fence are named. Further ones are only counted.
const MAX_NAMED: usize = 5;

/// All warnings about load. A document without settings for load gets no warnings.
#[must_use]
pub fn warnings(table: &Table) -> Vec<Violation> {
    let mut warnings: Vec<Violation> = load_never_read(table).into_iter().collect();
    for region in table.regions() {
        warnings.extend(some_capacities_missing(region));
        warnings.extend(without_capacity(region));
    }
    warnings.extend(overloaded(table));
    warnings
}

fn warning(pointer: String, message: impl Into<String>) -> Violation {
    Violation { pointer, message: message.into() }
}

/// Warns of the first service whose clients DNS should move by load, but none of whose endpoints has a source of its
/// load. Without a load, no client is ever moved because of it. If no region has settings for load, nobody expects
/// that, and there is no warning.
fn load_never_read(table: &Table) -> Option<Violation> {
    if table.regions().iter().all(|region| region.load.is_none()) {
        return None;
    }
    let is_moved_by_dns = |service: &&Service| service.shedding.moves && service.shedding.at == ShedAt::Dns;
    let has_source =
        |region: &RegionIndex| table.region(*region).endpoints.iter().any(|(_, endpoint)| endpoint.load.is_some());
    let is_never_read = |service: &&Service| is_moved_by_dns(service) && !service.regions.iter().any(has_source);
    let service = table.services().iter().find(is_never_read)?;
    Some(warning(
        format!("/services/{}", service.id),
        "is steered by DNS, and the load of none of its regions is read, so its clients are moved by health alone; \
         give the endpoints of its regions a \"load\"",
    ))
}

/// Warns of an endpoint without a capacity in a region where other endpoints have one: its capacity counts as 0.
fn some_capacities_missing(region: &Region) -> Option<Violation> {
    if region.endpoints.iter().all(|(_, endpoint)| endpoint.capacity.is_none()) {
        return None;
    }
    let (id, _) = region.endpoints.iter().find(|(_, endpoint)| endpoint.capacity.is_none())?;
    Some(warning(
        format!("/regions/{}/endpoints/{id}", region.id),
        "has no \"capacity\", where others of its region have one: it counts as if it could serve nothing; add it",
    ))
}

/// Warns of a region with settings for load but without a capacity. A load is a part of the capacity, so the marks (the
/// loads `low` and `high`) and the stated demand have no effect then.
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

/// Warns of fences that can't carry the stated demand, with all their regions or without one of them. A fence is the
/// list of the regions that may process a client.
fn overloaded(table: &Table) -> Vec<Violation> {
    let states_demand = |region: &Region| region.load.as_ref().is_some_and(|load| load.demand.is_some());
    if !table.regions().iter().any(states_demand) {
        return Vec::new();
    }
    let all: Vec<RegionIndex> = (0..table.regions().len()).map(RegionIndex::new).collect();
    let losses = losses(table, &Classes::stated(table), &all);
    let overloads: Vec<&FenceLoss> = losses.iter().filter(|loss| loss.is_carried(Ratio::ONE) == Some(false)).collect();
    let mut warnings: Vec<Violation> = overloads.iter().take(MAX_NAMED).map(|loss| not_carried(table, loss)).collect();
    if let Some(more) = overloads.len().checked_sub(MAX_NAMED).filter(|more| *more > 0) {
        let message = format!("can't carry {more} more losses of a region; `bailiwick plan` lists them all");
        warnings.push(warning("/regions".to_owned(), message));
    }
    warnings
}

/// The warning about a fence that lost one region, or that can't carry its demand even with all its regions.
fn not_carried(table: &Table, loss: &FenceLoss) -> Violation {
    let name = |region: &RegionIndex| table.region(*region).id.as_str();
    let fence: Vec<&str> = loss.fence.iter().take(MAX_NAMED).map(name).collect();
    let more = match loss.fence.len().saturating_sub(MAX_NAMED) {
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

    /// The warnings for a document in which two regions and a service have these further fields.
    fn warned(fra: &str, par: &str, chat: &str) -> Vec<String> {
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
    fn a_document_without_settings_for_load_gets_no_warnings() {
        assert_eq!(warned("", "", ""), [""; 0]);
    }

    #[test]
    fn a_service_moved_by_dns_without_any_load_source_gives_a_warning() {
        let pair = |capacity| format!(r#", "load": {{ "capacity": {capacity}, "demand": 10 }}"#);
        let found = warned(&pair(100), &pair(100), r#", "slew": "1%/1m""#);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("/services/chat: is steered by DNS, and the load of none"), "{found:?}");
        let endpoint = r#", "endpoints": { "p-1": { "url": "https://p.example/v1", "capacity": 50 } }"#;
        assert_eq!(warned(endpoint, endpoint, ""), [""; 0], "the edge moves these clients");
        let read = r#", "endpoints": { "p-1": { "url": "https://p.example/v1", "capacity": 50,
                                               "load": { "type": "vllm", "url": "https://p.example/metrics" } } }"#;
        assert_eq!(warned(endpoint, read, r#", "shed_at": "dns""#), [""; 0]);
        assert_eq!(warned(endpoint, endpoint, r#", "shed_at": "dns""#).len(), 1);
        assert_eq!(warned("", "", r#", "slew": "1%/1m""#), [""; 0]);
        assert_eq!(warned(&pair(100), &pair(100), r#", "shed": "never""#), [""; 0]);
    }

    #[test]
    fn a_loss_that_the_other_regions_cannot_carry_gives_a_warning() {
        let found = warned(
            r#", "load": { "capacity": 100, "demand": 80 }"#,
            r#", "load": { "capacity": 60, "demand": 4 }"#,
            "",
        );
        assert_eq!(found.len(), 2, "{found:?}");
        let expected =
            "/regions/fra/load: the fence of fra, par without fra has a load of 140 % at its peak, and 28.6 % of it";
        assert!(found[1].starts_with(expected), "{found:?}");
    }

    #[test]
    fn a_region_or_endpoint_without_capacity_gives_a_warning() {
        let found = warned(r#", "load": { "demand": 80 }"#, r#", "load": { "low": 0.5 }"#, "");
        assert!(found[1].starts_with("/regions/fra/load: has no \"capacity\", so its \"demand\""), "{found:?}");
        assert!(found[2].starts_with("/regions/par/load: has no \"capacity\", so its marks"), "{found:?}");
        let two = r#", "endpoints": { "p-1": { "url": "https://p.example/v1", "capacity": 5 },
                                      "p-2": { "url": "https://q.example/v1" } }"#;
        assert!(warned("", two, "")[0].starts_with("/regions/par/endpoints/p-2: has no \"capacity\""));
    }
}
