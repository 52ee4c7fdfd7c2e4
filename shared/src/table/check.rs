//! What one part of a document says of another, beyond names that don't exist: called by [`super::Table::compile`].

use std::collections::BTreeSet;

use super::ResidencyRule;
use crate::id::{RegionId, ServiceId};
use crate::json::Violation;
use crate::rules::{self, Answers, HostName, Rules, Tier};

/// Every region of a service publishes the same record types, or NODATA would depend on who asks.
pub(super) fn services(rules: &Rules, violations: &mut Vec<Violation>) {
    // Answers that couldn't be read have been told of; comparing what is left of them would tell it twice.
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
            match answers {
                None => fail(
                    "regions",
                    format!(
                        "holds {name}, which has no \"answers\", and {first}, which has; give all of them answers, or none"
                    ),
                ),
                Some(answers) if types(answers) != expected => {
                    let (these, those) = (types(answers).join(", "), expected.join(", "));
                    fail(
                        "regions",
                        format!(
                            "holds {name}, which publishes {these}, and {first}, which publishes {those}; publish the same types in every region of a service"
                        ),
                    );
                }
                Some(_) => {}
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
        let loops: BTreeSet<_> = published.flat_map(aliases).filter(|target| service.hosts.contains(target)).collect();
        for target in loops {
            fail(
                "hosts",
                format!("holds {target}, which is also an alias's target of this service; that would be a loop"),
            );
        }
    }
}

/// A page of any origin may ask with a key of its own. Without keys it would ask as whoever looks at it.
pub(super) fn cors(rules: &Rules, violations: &mut Vec<Violation>) {
    for (id, service) in &rules.services {
        let is_any = service.cors.as_ref().is_some_and(|cors| cors.origins.iter().any(rules::WebOrigin::is_any));
        let has_keys = rules.tenants.values().any(|tenant| tenant.services.contains(id));
        if is_any && !has_keys {
            let message = "is \"*\" for a service that no tenant names, so any page could ask with its visitor's place and no \
                           key; list the origins, or give the service tenants";
            violations.push(Violation { pointer: format!("/services/{id}/cors/origins"), message: message.to_owned() });
        }
    }
}

/// Where CNAME and the aliases among the service bindings lead.
fn aliases(answers: &Answers) -> impl Iterator<Item = &HostName> {
    let bindings = answers.https.iter().chain(&answers.svcb).filter(|binding| binding.is_alias());
    answers.cname.iter().chain(bindings.filter_map(|binding| binding.target.as_ref()))
}

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

/// A tier without any region of the service is probably a slip; a rule without any is more so.
pub(super) fn warn_of_empty_tiers(
    id: &ServiceId,
    written: &[rules::ResidencyRule],
    compiled: &[ResidencyRule],
    warnings: &mut Vec<Violation>,
) {
    for (index, (written, compiled)) in written.iter().zip(compiled).enumerate() {
        let rule = format!("/services/{id}/residency/{index}/process_in");
        if compiled.fence.is_empty() {
            let message =
                "holds no region of the service: these clients are always denied; list a region that lies there"
                    .to_owned();
            warnings.push(Violation { pointer: rule, message });
            continue;
        }
        for (tier, process_in) in written.process_in.iter().enumerate() {
            if matches!(process_in, Tier::In(_)) && !compiled.fence.iter().any(|fenced| fenced.tier == tier) {
                let message =
                    "adds no region of the service; a region lies in a jurisdiction only if all its countries do"
                        .to_owned();
                warnings.push(Violation { pointer: format!("{rule}/{tier}"), message });
            }
        }
    }
}
