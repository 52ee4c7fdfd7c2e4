//! Checks what replicas, regions and services say of each other. Takes the rules, adds violations. Called by
//! [`super::super::Table::compile`]. A replica is knowledge, such as a search index, of which regions hold copies.

use crate::id::ReplicaId;
use crate::json::Violation;
use crate::rules::{GroupBy, LagUnit, RegionReplica, Replica, Rules};

/// All violations about replicas. None for a document without them.
pub(in super::super) fn replicas(rules: &Rules, violations: &mut Vec<Violation>) {
    if rules.replicas.is_empty() {
        return;
    }
    // Parts that couldn't be read are reported already. Checking the rest of them would report the same mistake twice.
    let is_unread = |place: &str| {
        violations
            .iter()
            .any(|violation| violation.pointer == place || violation.pointer.starts_with(&format!("{place}/")))
    };
    let mut mistakes = Vec::new();
    for (region, rule) in &rules.regions {
        for (id, copy) in &rule.replicas {
            let place = format!("/regions/{region}/replicas/{id}");
            let Some(replica) = rules.replicas.get(id) else { continue };
            if !is_unread(&place) && !is_unread(&format!("/replicas/{id}")) {
                mistakes.extend(misread(id, replica, copy, &place));
            }
        }
    }
    for (id, service) in &rules.services {
        for (path, needed) in &service.needs {
            let place = format!("/services/{id}/needs/{}", path.replace('~', "~0").replace('/', "~1"));
            let members = service.regions.iter().filter_map(|name| Some((name, rules.regions.get(name)?)));
            for (name, region) in members {
                let is_told = |replica: &ReplicaId| {
                    region.replicas.contains_key(replica) || is_unread(&format!("/regions/{name}/replicas"))
                };
                let untold = needed.iter().find(|replica| !is_told(replica));
                // A region with a copy that couldn't be read is reported already.
                let any_unread = violations
                    .iter()
                    .any(|violation| violation.pointer.starts_with(&format!("/regions/{name}/replicas/")));
                if let Some(replica) = untold.filter(|_| !any_unread) {
                    let message = format!(
                        "needs {replica}, of which the region {name} says nothing; add /regions/{name}/replicas/\
                         {replica}, with \"leader\": true where the original is"
                    );
                    mistakes.push(Violation { pointer: place.clone(), message });
                }
            }
        }
    }
    violations.extend(mistakes);
}

/// The violation of a region's copy that doesn't fit its replica.
fn misread(id: &ReplicaId, replica: &Replica, copy: &RegionReplica, place: &str) -> Option<Violation> {
    let at = |field: &str, message: String| Some(Violation { pointer: format!("{place}{field}"), message });
    let Some(source) = copy.source.as_ref() else {
        let message = format!(
            "tells no version, by which {id} is grouped; add where it is read: \"url\", \"as\", \"read\"{}",
            if replica.max_lag.is_some() { " and \"version\"" } else { "" }
        );
        return (replica.group == Some(GroupBy::Version)).then(|| at("", message)).flatten();
    };
    let unit = source.reads.unit();
    match (unit, replica.max_lag) {
        (Some(unit), Some(max)) if !unit.fits(max) => {
            let (reads, limit) = match unit {
                LagUnit::Timestamp | LagUnit::Seconds => ("a time", "a duration such as \"60s\""),
                LagUnit::Bytes => ("bytes", "a number of bytes such as 1048576"),
                LagUnit::Count => ("a count", "a number such as 1000"),
            };
            return at(
                "/as",
                format!("reads {reads}, which \"max_lag\" of {id} isn't; write {limit} there, or read something else"),
            );
        }
        (Some(_), None) => {
            let message = format!(
                "reads a lag, but {id} has no \"max_lag\"; add it there, or read the version alone (\"as\": \
                 \"version\")"
            );
            return at("/as", message);
        }
        (None, Some(_)) => {
            let message =
                format!("reads no lag, which \"max_lag\" of {id} is about; read a lag, with the version beside it");
            return at("/as", message);
        }
        _ => {}
    }
    if replica.group == Some(GroupBy::Version) && !source.reads.has_version() {
        let message =
            format!("reads no version, by which {id} is grouped; add \"version\": \"/model\" beside \"read\"");
        return at("", message);
    }
    None
}
