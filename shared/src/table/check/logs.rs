//! Checks that each sink lies in every tier of the fences whose events it gets. Takes the rules, adds violations.
//! Called by [`super::super::Table::compile`].

use core::fmt;
use std::collections::{BTreeSet, HashSet};

use super::super::logs::{Sinks, work};
use super::super::territories::Territories;
use crate::geo::CountrySet;
use crate::id::{JurisdictionId, ServiceId, SinkId, TenantId};
use crate::json::Violation;
use crate::rules::{Receipts, Rules, Streams, Tier};
use crate::turns::Turns;

/// Who says where clients are processed.
enum Says<'r> {
    /// A rule of a service.
    Rule(&'r ServiceId, usize),
    /// A tenant, of itself.
    Tenant(&'r TenantId),
}

/// Its JSON pointer.
impl fmt::Display for Says<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(service, rule) => write!(f, "/services/{service}/residency/{rule}"),
            Self::Tenant(tenant) => write!(f, "/tenants/{tenant}"),
        }
    }
}

/// A fence whose events are logged.
struct Fence<'r> {
    says: Says<'r>,
    process_in: &'r [Tier],
    named: Option<&'r SinkId>,
    /// A service that uses this fence and logs prompts and answers.
    keeper: Option<&'r ServiceId>,
}

/// All violations about sinks. None for a document without them.
pub(in super::super) async fn logs(rules: &Rules, violations: &mut Vec<Violation>, turns: &mut Turns<'_>) {
    content(rules, violations);
    // Parts that couldn't be read are reported already. Checking the rest of them would report the same mistake twice.
    let unread = ["/logs", "/jurisdictions", "/services", "/tenants"];
    let is_unread = |one: &Violation| unread.iter().any(|section| one.pointer.starts_with(section));
    if rules.logs.is_empty() || violations.iter().any(is_unread) {
        return;
    }
    let territories = Territories::new(rules);
    let mut sinks = Sinks::new(rules, &territories);
    let fences = fences(rules);
    let mut used = BTreeSet::new();
    for fence in &fences {
        match chosen(fence, &mut sinks, turns).await {
            Ok(sink) => {
                used.extend(sink);
                violations.extend(unkept(fence, sink, rules));
            }
            Err((candidates, violation)) => {
                used.extend(candidates);
                violations.push(violation);
            }
        }
    }
    if !fences.is_empty() {
        for (id, countries) in sinks.all.iter().filter(|(id, _)| !used.contains(id)) {
            let message = nearest(&sinks, countries, &fences, turns).await.unwrap_or_else(|| {
                "lie in no tier of any \"process_in\", so no event may be kept there; choose places inside of a fence, \
                 or remove the sink"
                    .to_owned()
            });
            violations.push(Violation { pointer: format!("/logs/{id}/countries"), message });
        }
    }
}

/// Prompts and answers can be logged only where there is a sink and the edge sees the answers.
fn content(rules: &Rules, violations: &mut Vec<Violation>) {
    for (id, service) in rules.services.iter().filter(|(_, service)| service.log_content) {
        let message = if service.streams == Streams::Pipe {
            "is true, but \"streams\" is \"pipe\", so the edge doesn't see the answers; leave out one of them"
        } else if service.receipts != Receipts::Required {
            "is true, but \"receipts\" isn't \"required\", and a client's receipt says that prompts and answers are \
             kept; write \"receipts\": \"required\", or leave it out"
        } else if rules.logs.is_empty() {
            "is true, but the document has no sinks; add \"logs\", or leave it out"
        } else {
            continue;
        };
        violations.push(Violation { pointer: format!("/services/{id}/log_content"), message: message.to_owned() });
    }
}

/// Every fence of the document but those of clients that are denied.
fn fences(rules: &Rules) -> Vec<Fence<'_>> {
    let of_rules = rules.services.iter().flat_map(|(id, service)| {
        service.residency.iter().enumerate().map(move |(index, rule)| Fence {
            says: Says::Rule(id, index),
            process_in: &rule.process_in,
            named: rule.logs.as_ref(),
            keeper: service.log_content.then_some(id),
        })
    });
    let keeps = |id: &&ServiceId| rules.services.get(*id).is_some_and(|service| service.log_content);
    let of_tenants = rules.tenants.iter().filter_map(|(id, tenant)| {
        Some(Fence {
            says: Says::Tenant(id),
            process_in: tenant.process_in.as_deref()?,
            named: tenant.logs.as_ref(),
            keeper: tenant.services.iter().find(keeps),
        })
    });
    of_rules.chain(of_tenants).filter(|fence| !fence.process_in.is_empty() || fence.named.is_some()).collect()
}

/// The sink of a fence. Else the sinks that it might be, and what is wrong.
async fn chosen<'r>(
    fence: &Fence<'r>,
    sinks: &mut Sinks<'r>,
    turns: &mut Turns<'_>,
) -> Result<Option<&'r SinkId>, (Vec<&'r SinkId>, Violation)> {
    let Some(named) = fence.named else {
        let inside = sinks.inside(fence.process_in, turns).await;
        return match *inside {
            [] => Ok(None),
            [one] => Ok(Some(one)),
            [first, ..] => {
                let message = format!(
                    "has several sinks that lie in every tier of \"process_in\": {}; say which of them gets these \
                     clients' events, such as \"logs\": \"{first}\"",
                    inside.iter().map(|id| id.as_str()).collect::<Vec<_>>().join(", ")
                );
                Err((inside.to_vec(), Violation { pointer: fence.says.to_string(), message }))
            }
        };
    };
    turns.spend(work(fence.process_in)).await;
    let countries = sinks.all.iter().find(|(id, _)| *id == named).map(|(_, countries)| *countries).unwrap_or_default();
    let message = match sinks.outside(&countries, fence.process_in) {
        None if fence.process_in.is_empty() => {
            "names a sink for clients that are denied, of whom nothing is logged; leave it out".to_owned()
        }
        None => return Ok(Some(named)),
        Some(tier) => format!(
            "names {named}, which doesn't lie in tier {tier} of \"process_in\" ({}): these clients' events would leave \
             it; name a sink that lies in every tier, or leave it out",
            worded(fence.process_in.get(tier))
        ),
    };
    Err((vec![named], Violation { pointer: format!("{}/logs", fence.says), message }))
}

/// The violation of a fence whose service logs prompts and answers, if its sink doesn't take them.
fn unkept(fence: &Fence<'_>, sink: Option<&SinkId>, rules: &Rules) -> Option<Violation> {
    let says = &fence.says;
    let message = match sink {
        _ if fence.keeper.is_none() || fence.process_in.is_empty() => return None,
        None => format!(
            "is true, but no sink lies in every tier of {says}/process_in, so nothing would be kept of these clients; \
             add such a sink to \"logs\", or leave it out"
        ),
        Some(sink) if rules.logs.get(sink).is_some_and(|sink| sink.content) => return None,
        Some(sink) => format!(
            "is true, but {sink}, the sink of {says}, takes no prompts and answers; write \"content\": true there, or \
             leave it out"
        ),
    };
    Some(Violation { pointer: format!("/services/{}/log_content", fence.keeper?), message })
}

/// What keeps a sink from the fence that it comes nearest to. `None` if it lies in no tier of any.
async fn nearest(
    sinks: &Sinks<'_>,
    countries: &CountrySet,
    fences: &[Fence<'_>],
    turns: &mut Turns<'_>,
) -> Option<String> {
    let mut seen = HashSet::new();
    for fence in fences {
        if !seen.insert(fence.process_in) {
            continue;
        }
        turns.spend(work(fence.process_in)).await;
        let Some(inside) = fence.process_in.iter().position(|tier| sinks.lie_in(countries, tier)) else { continue };
        let says = &fence.says;
        return Some(match sinks.outside(countries, fence.process_in) {
            None => format!(
                "lie in every tier of {says}/process_in, but its \"logs\" names another sink, and nothing else leads \
                 to this one; name it, or remove it"
            ),
            Some(outside) => format!(
                "lie in tier {inside} of {says}/process_in ({}), but not in its tier {outside} ({}): where an event \
                 may be kept lies in every tier; choose other places, write tiers of equal rank as one list, or \
                 remove the sink",
                worded(fence.process_in.get(inside)),
                worded(fence.process_in.get(outside)),
            ),
        });
    }
    None
}

/// A tier as the document writes it.
fn worded(tier: Option<&Tier>) -> String {
    match tier {
        None | Some(Tier::Anywhere) => "*".to_owned(),
        Some(Tier::In(names)) => names.iter().map(JurisdictionId::as_str).collect::<Vec<_>>().join(", "),
    }
}
