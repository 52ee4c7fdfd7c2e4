//! Checks the parts of a document against each other. The reader has already checked that all names in it exist. Takes
//! the rules, adds violations. Called by [`super::Table::compile`].

#[cfg(any(test, feature = "drills"))]
mod drills;
mod logs;
mod quotas;
mod releases;
mod replicas;
mod rollouts;

use std::collections::{BTreeSet, HashSet};

use crate::id::{RegionId, ServiceId};
use crate::json::Violation;
use crate::rules::{self, Answers, ClientMatch, HostName, Rules};
use crate::turns::Turns;
#[cfg(any(test, feature = "drills"))]
pub(super) use drills::drills;
pub(super) use logs::logs;
pub(super) use quotas::quotas;
pub(super) use releases::releases;
pub(super) use replicas::replicas;
pub(super) use rollouts::rollouts;

/// Every region of a service has to publish the same record types. Otherwise it would depend on the client whether a
/// type exists.
pub(super) fn services(rules: &Rules, violations: &mut Vec<Violation>) {
    // Answers that couldn't be read are reported already. Comparing the rest of them would report the same mistake
    // twice.
    let unread = |name: &RegionId| {
        let place = format!("/regions/{name}/answers");
        violations.iter().any(|violation| violation.pointer.starts_with(&place))
    };
    let unread: Vec<&RegionId> = rules.regions.keys().filter(|name| unread(name)).collect();
    let denied_unread = |id: &ServiceId| {
        let place = format!("/services/{id}/denied_answers");
        violations.iter().any(|violation| violation.pointer.starts_with(&place))
    };
    let denied_unread: Vec<&ServiceId> = rules.services.keys().filter(|id| denied_unread(id)).collect();
    for (id, service) in &rules.services {
        let mut fail = |field: &str, message: String| {
            let pointer = format!("/services/{id}/{field}");
            violations.push(Violation { pointer, message });
        };
        let members = service.regions.iter().filter_map(|name| Some((name, rules.regions.get(name)?.answers.as_ref())));
        let members: Vec<_> = members.filter(|(name, _)| !unread.contains(name)).collect();
        let first = members.iter().find_map(|(name, answers)| Some((name, types(answers.as_ref()?))));
        let Some((first, expected)) = first else {
            if service.denied_answers.is_some() {
                fail("denied_answers", "stands in a service whose regions have no answers; leave it out".to_owned());
            }
            continue;
        };
        for (name, answers) in &members {
            if let Some(message) = differing(name, *answers, (first, &expected)) {
                fail("regions", message);
            }
        }
        match &service.denied_answers {
            Some(denied) if types(denied) != expected && !denied_unread.contains(&id) => {
                let (these, those) = (types(denied).join(", "), expected.join(", "));
                fail(
                    "denied_answers",
                    format!("publishes {these} where the regions publish {those}; publish the same types"),
                );
            }
            _ => {}
        }
        let published = members.iter().filter_map(|(_, answers)| *answers).chain(&service.denied_answers);
        let is_host = |target: &&HostName| service.hosts.iter().any(|host| host.as_str() == target.as_str());
        let loops: BTreeSet<_> = published.flat_map(aliases).filter(is_host).collect();
        for target in loops {
            fail(
                "hosts",
                format!("holds {target}, which is also an alias's target of this service; that would be a loop"),
            );
        }
    }
}

/// The message for a region whose answers aren't of the types that the service's first region with answers publishes.
fn differing(name: &RegionId, answers: Option<&Answers>, first: (&RegionId, &[&str])) -> Option<String> {
    let (first, expected) = first;
    match answers {
        None => Some(format!(
            "holds {name}, which has no \"answers\", and {first}, which has; give all of them answers, or none"
        )),
        Some(answers) if types(answers) != expected => {
            let (these, those) = (types(answers).join(", "), expected.join(", "));
            Some(format!(
                "holds {name}, which publishes {these}, and {first}, which publishes {those}; publish the same types \
                 in every region of a service"
            ))
        }
        Some(_) => None,
    }
}

/// Pages of any origin may send requests if the service needs an API key. Without keys, any page could use the service
/// in the name of its visitor.
pub(super) fn cors(rules: &Rules, violations: &mut Vec<Violation>) {
    for (id, service) in &rules.services {
        let is_any = service.cors.as_ref().is_some_and(|cors| cors.origins.iter().any(rules::WebOrigin::is_any));
        let has_keys = rules.tenants.values().any(|tenant| tenant.services.contains(id));
        if is_any && !has_keys {
            let message = "is \"*\" for a service that no tenant names, so any page could ask with its visitor's place \
                and no key; list the origins, or give the service tenants";
            violations.push(Violation { pointer: format!("/services/{id}/cors/origins"), message: message.to_owned() });
        }
    }
}

/// If no region of a service has endpoints, the edge serves nothing of it, so it can't move its clients.
pub(super) fn shedding(rules: &Rules, violations: &mut Vec<Violation>) {
    for (id, service) in &rules.services {
        let mut members = service.regions.iter().filter_map(|name| rules.regions.get(name));
        if service.shed_at == Some(rules::ShedAt::Edge) && members.all(|region| region.endpoints.is_empty()) {
            let message = "is \"edge\", but no region of the service has endpoints, so the edge serves none of it; \
                write \"dns\", or leave it out";
            violations.push(Violation { pointer: format!("/services/{id}/shed_at"), message: message.to_owned() });
        }
    }
}

/// The targets of the CNAME and of the aliases among the service bindings.
pub(super) fn aliases(answers: &Answers) -> impl Iterator<Item = &HostName> {
    let bindings = answers.https.iter().chain(&answers.svcb).filter(|binding| binding.is_alias());
    answers.cname.iter().chain(bindings.filter_map(|binding| binding.target.as_ref()))
}

/// The types of records that these answers have.
fn types(answers: &Answers) -> Vec<&'static str> {
    let present = [
        ("A", !answers.a.is_empty()),
        ("AAAA", !answers.aaaa.is_empty()),
        ("CNAME", answers.cname.is_some()),
        ("TXT", !answers.txt.is_empty()),
        ("HTTPS", !answers.https.is_empty()),
        ("SVCB", !answers.svcb.is_empty()),
    ];
    present.into_iter().filter(|(_, present)| *present).map(|(name, _)| name).collect()
}

/// The names of the members of `section` that have a violation at `field`, or anywhere if `field` is empty.
fn unread<'v>(violations: &'v [Violation], section: &str, field: &str) -> HashSet<&'v str> {
    let name = |violation: &'v Violation| {
        let place = violation.pointer.strip_prefix(section)?;
        let (name, rest) = place.split_once('/').unwrap_or((place, ""));
        let is_there = field.is_empty() || rest.split('/').next() == Some(field);
        is_there.then_some(name)
    };
    violations.iter().filter_map(name).collect()
}

/// If no rule of a service names the residency that a tenant declares, a rule with `*` would match the tenant: a tenant
/// that declared "uk" would be processed wherever any client may be, without a warning. So that is a violation.
pub(super) async fn tenants(rules: &Rules, violations: &mut Vec<Violation>, turns: &mut Turns<'_>) {
    // Parts that couldn't be read are reported already, and aren't checked further.
    let (unread_tenants, unread_services) =
        (unread(violations, "/tenants/", ""), unread(violations, "/services/", "residency"));
    let mut mistakes = Vec::new();
    for (name, tenant) in &rules.tenants {
        turns.spend(super::BUILD * (1 + tenant.services.len())).await;
        if tenant.residency.is_empty() || tenant.process_in.is_some() || unread_tenants.contains(name.as_str()) {
            continue;
        }
        for id in &tenant.services {
            let Some(service) = rules.services.get(id) else { continue };
            let is_declared = |client: &ClientMatch| match client {
                ClientMatch::Jurisdiction(jurisdiction) => tenant.residency.contains(jurisdiction),
                ClientMatch::Known | ClientMatch::Unknown => false,
            };
            let applies = |rule: &&rules::ResidencyRule| {
                rule.clients.iter().any(|client| *client == ClientMatch::Known || is_declared(client))
            };
            let position = service.residency.iter().position(|rule| applies(&rule));
            let Some((index, rule)) = position.and_then(|index| Some((index, service.residency.get(index)?))) else {
                continue;
            };
            if rule.clients.iter().any(is_declared) || unread_services.contains(id.as_str()) {
                continue;
            }
            let declared: Vec<String> = tenant.residency.iter().map(|declared| format!("{declared:?}")).collect();
            let first = declared.first().map_or("", |text| text);
            let message = format!(
                "is {}, which no rule of the service {id} names, so its rule {index} (\"*\") would process this tenant \
                 wherever anybody may be; name it in the \"clients\" of a rule, or say here where: \"process_in\": \
                 [{first}]",
                declared.join(", ")
            );
            mistakes.push(Violation { pointer: format!("/tenants/{name}/residency"), message });
        }
    }
    violations.extend(mistakes);
}
