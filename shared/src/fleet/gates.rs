//! Decides whether a change is small enough to be published without a person accepting its size. Takes the impact of a
//! change, the fleet's gates (limits on that impact) and what a person accepts; returns each gate that stays shut and
//! what opens it. Called by `bailiwick rules diff`, which prints the result, and by the publishing command, which stops
//! at a shut gate.
//!
//! A gate is opened by an approval with a second key, or by typing the number: `--accept-moved 34%`. The part of a
//! service's clients that a change concerns is measured in queries where enough were counted. Otherwise it is the
//! larger of two parts: of IPv4 addresses and of IPv6 /48s.

use core::fmt;

use serde::Serialize;

use super::impact::{Impact, Presence, ServiceImpact, Weight};
use crate::id::ServiceId;
use crate::rules::Ratio;

/// How many queries of a service have to be counted before parts are measured in queries instead of addresses.
const ENOUGH_QUERIES: u64 = 100;

/// The limits on a change. Without a gate nothing limits it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gates {
    /// The largest part of a service's clients that may go to another region.
    pub max_moved: Option<Ratio>,
    /// The largest part of a service's clients that may lose their region.
    pub max_denied: Option<Ratio>,
    /// How many regions a fence must keep when it gets smaller. A fence is the regions that may process a client.
    pub min_regions: Option<u32>,
}

/// What a person accepts, by options of the command line or by an approval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// The value of `--accept-moved`.
    pub moved: Option<Ratio>,
    /// The value of `--accept-denied`.
    pub denied: Option<Ratio>,
    /// The value of `--accept-regions`.
    pub regions: Option<u32>,
    /// Whether a key other than the publisher's approved this very document.
    pub is_approved: bool,
}

/// A gate that stays shut for a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shut {
    /// The service; null: all of them, because the impact of the change is unknown.
    pub service: Option<ServiceId>,
    /// The gate that stays shut.
    pub gate: Gate,
    /// The impact of the change, in millionths of clients or in regions; null: unknown.
    pub found: Option<u32>,
    /// The limit, in the same unit as `found`.
    pub allowed: u32,
    /// The option to type to open the gate.
    pub accept: String,
}

/// A gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Gate {
    /// Clients that go to another region.
    MaxMoved,
    /// Clients that lose their region.
    MaxDenied,
    /// Regions of a fence that gets smaller.
    MinRegions,
}

/// The gates that a change leaves shut.
#[must_use]
pub fn shut(impact: &Impact, gates: &Gates, accepted: &Accepted) -> Vec<Shut> {
    if accepted.is_approved {
        return Vec::new();
    }
    // A tenant that starts or stops using a service doesn't count: that is a matter of access, not of steering.
    let counts = |service: &&ServiceImpact| service.tenants.is_empty() || service.presence == Presence::Both;
    let shut_of = |service: &ServiceImpact| {
        let part = |part: &Weight| part_of(part, &service.total);
        let moved = above(Gate::MaxMoved, part(&service.moved), gates.max_moved, accepted.moved, service);
        let denied = above(Gate::MaxDenied, part(&service.denied), gates.max_denied, accepted.denied, service);
        let regions = service.fewest_regions.and_then(|regions| u32::try_from(regions).ok());
        let few = regions.zip(gates.min_regions).filter(|(regions, allowed)| {
            regions < allowed && accepted.regions.is_none_or(|accepted| regions < &accepted)
        });
        let few = few.map(|(regions, allowed)| Shut {
            service: Some(service.service.clone()),
            gate: Gate::MinRegions,
            found: Some(regions),
            allowed,
            accept: format!("--accept-regions {regions}"),
        });
        [moved, denied, few]
    };
    impact.services.iter().filter(counts).flat_map(shut_of).flatten().collect()
}

/// The gate that stays shut because a share is greater than allowed, and greater than accepted.
fn above(
    gate: Gate,
    found: Ratio,
    allowed: Option<Ratio>,
    accepted: Option<Ratio>,
    service: &ServiceImpact,
) -> Option<Shut> {
    let allowed = allowed.filter(|allowed| found > *allowed && accepted.is_none_or(|accepted| found > accepted))?;
    let option = if gate == Gate::MaxMoved { "--accept-moved" } else { "--accept-denied" };
    // Rounded up, so that the typed number covers the change.
    let accept = format!("{option} {}%", found.0.div_ceil(10_000).clamp(1, 100));
    Some(Shut { service: Some(service.service.clone()), gate, found: Some(found.0), allowed: allowed.0, accept })
}

/// The gates that stay shut where the impact of a change is unknown: every gate, unless its whole range is accepted.
#[must_use]
pub fn shut_unknown(gates: &Gates, accepted: &Accepted) -> Vec<Shut> {
    let shut =
        |gate, allowed, accept: &str| Shut { service: None, gate, found: None, allowed, accept: accept.to_owned() };
    let part = |gate, allowed: Option<Ratio>, accepted: Option<Ratio>, accept| {
        allowed.filter(|_| accepted != Some(Ratio::ONE)).map(|allowed| shut(gate, allowed.0, accept))
    };
    let all = [
        part(Gate::MaxMoved, gates.max_moved, accepted.moved, "--accept-moved 100%"),
        part(Gate::MaxDenied, gates.max_denied, accepted.denied, "--accept-denied 100%"),
        gates
            .min_regions
            .filter(|_| accepted.regions != Some(0))
            .map(|allowed| shut(Gate::MinRegions, allowed, "--accept-regions 0")),
    ];
    all.into_iter().flatten().filter(|_| !accepted.is_approved).collect()
}

/// Which part of a service's clients `part` is.
#[must_use]
pub fn part_of(part: &Weight, total: &Weight) -> Ratio {
    let ratio = |part: u64, total: u64| if total == 0 { Ratio(0) } else { Ratio::between(part, total).min(Ratio::ONE) };
    match total.queries >= ENOUGH_QUERIES {
        true => ratio(part.queries, total.queries),
        false => ratio(part.ipv4, total.ipv4).max(ratio(part.ipv6, total.ipv6)),
    }
}

impl fmt::Display for Shut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, found, allowed, accept, .. } = self;
        if let Some(service) = service {
            write!(f, "{service}: ")?;
        }
        let ratio = Ratio(*allowed);
        match (self.gate, found) {
            (Gate::MaxMoved, Some(found)) => write!(f, "{} of clients move, max_moved is {ratio}", Ratio(*found)),
            (Gate::MaxMoved, None) => write!(f, "nobody knows how many clients move, max_moved is {ratio}"),
            (Gate::MaxDenied, Some(found)) => {
                write!(f, "{} of clients lose their region, max_denied is {ratio}", Ratio(*found))
            }
            (Gate::MaxDenied, None) => {
                write!(f, "nobody knows how many clients lose their region, max_denied is {ratio}")
            }
            (Gate::MinRegions, Some(found)) => {
                write!(f, "a fence gets smaller and keeps {found} regions, min_regions is {allowed}")
            }
            (Gate::MinRegions, None) => {
                write!(f, "nobody knows how many regions a fence keeps, min_regions is {allowed}")
            }
        }?;
        write!(f, "; another key approves it, or type {accept}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn impact(moved: Weight, denied: Weight, total: Weight, fewest: Option<usize>) -> Impact {
        let service = ServiceImpact {
            service: ServiceId::parse("chat").unwrap(),
            was: None,
            hosts: Vec::new(),
            tenants: Vec::new(),
            presence: Presence::Both,
            total,
            moved,
            denied,
            admitted: Weight::default(),
            leave_fence: Weight::default(),
            moves: Vec::new(),
            moves_when_down: Vec::new(),
            wider: Vec::new(),
            tighter: Vec::new(),
            alone: Vec::new(),
            fewest_regions: fewest,
            ttl: 60,
        };
        Impact {
            from: 1,
            to: 2,
            has_queries: true,
            services: vec![service],
            compared: 1,
            other_answers: Vec::new(),
            bundles: Vec::new(),
        }
    }

    fn weight(queries: u64, ipv4: u64, ipv6: u64) -> Weight {
        Weight { queries, ipv4, ipv6 }
    }

    const GATES: Gates =
        Gates { max_moved: Some(Ratio(200_000)), max_denied: Some(Ratio(10_000)), min_regions: Some(2) };

    #[test]
    fn a_gate_is_opened_by_the_number_typed_in_and_by_no_smaller_one() {
        let found = impact(weight(335, 0, 0), weight(0, 0, 0), weight(1000, 10, 10), None);
        let shut = shut(&found, &GATES, &Accepted::default());
        assert_eq!(shut.len(), 1);
        assert_eq!(
            shut[0].to_string(),
            "chat: 33.5 % of clients move, max_moved is 20 %; another key approves it, or type --accept-moved 34%"
        );
        let typed = |text: &str| Accepted { moved: Ratio::parse_percent(text), ..Accepted::default() };
        assert!(super::shut(&found, &GATES, &typed("34%")).is_empty());
        assert_eq!(super::shut(&found, &GATES, &typed("33%")).len(), 1, "less than the part that moves");
        assert!(super::shut(&found, &GATES, &Accepted { is_approved: true, ..Accepted::default() }).is_empty());
        assert!(super::shut(&found, &Gates::default(), &Accepted::default()).is_empty(), "no gates");
        let few = impact(weight(200, 0, 0), weight(0, 0, 0), weight(1000, 10, 10), None);
        assert!(super::shut(&few, &GATES, &Accepted::default()).is_empty(), "exactly what is allowed");
    }

    #[test]
    fn each_gate_is_its_own_and_addresses_weigh_where_few_queries_were_counted() {
        let found = impact(weight(0, 50, 1), weight(0, 1, 2), weight(50, 100, 100), Some(1));
        let gates: Vec<_> = shut(&found, &GATES, &Accepted::default()).iter().map(|one| one.gate).collect();
        assert_eq!(gates, [Gate::MaxMoved, Gate::MaxDenied, Gate::MinRegions]);
        let moved_alone = Accepted { moved: Some(Ratio::ONE), ..Accepted::default() };
        assert_eq!(shut(&found, &GATES, &moved_alone).len(), 2);
        let regions = Accepted { regions: Some(1), denied: Some(Ratio(20_000)), ..moved_alone };
        assert!(shut(&found, &GATES, &regions).is_empty());
        assert_eq!(part_of(&weight(0, 50, 1), &weight(50, 100, 100)), Ratio(500_000), "the larger part");
        assert_eq!(part_of(&weight(0, 50, 1), &weight(100, 100, 100)), Ratio(0), "queries alone");
    }

    #[test]
    fn what_nobody_knows_shuts_every_gate_until_anything_is_accepted() {
        let shut = |accepted: &Accepted| shut_unknown(&GATES, accepted);
        let texts: Vec<String> = shut(&Accepted::default()).iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), 3);
        assert_eq!(
            texts[0],
            "nobody knows how many clients move, max_moved is 20 %; another key approves it, or type --accept-moved \
             100%"
        );
        let nearly = Accepted { moved: Ratio::parse_percent("99%"), ..Accepted::default() };
        assert_eq!(shut(&nearly).len(), 3);
        let all = Accepted { moved: Some(Ratio::ONE), denied: Some(Ratio::ONE), regions: Some(0), is_approved: false };
        assert!(shut(&all).is_empty());
        assert!(shut(&Accepted { is_approved: true, ..Accepted::default() }).is_empty());
        assert!(shut_unknown(&Gates::default(), &Accepted::default()).is_empty());
    }

    #[test]
    fn a_tenant_that_leaves_shuts_no_gate() {
        let mut found = impact(weight(0, 0, 0), weight(0, 100, 100), weight(0, 100, 100), None);
        found.services[0].tenants.push(crate::id::TenantId::parse("acme").unwrap());
        assert_eq!(
            shut(&found, &GATES, &Accepted::default()).len(),
            1,
            "a tenant that stays and loses its region does"
        );
        found.services[0].presence = Presence::Gone;
        assert!(shut(&found, &GATES, &Accepted::default()).is_empty());
    }
}
