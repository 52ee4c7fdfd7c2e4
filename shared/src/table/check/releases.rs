//! Checks that each release is of a model that some endpoint has. Takes the rules, adds violations. Called by
//! [`super::super::Table::compile`].

use std::collections::BTreeSet;

use crate::json::{Violation, nearest};
use crate::rules::Rules;

/// All violations about releases. None for a document without them.
pub(in super::super) fn releases(rules: &Rules, violations: &mut Vec<Violation>) {
    // Regions that couldn't be read are reported already. An endpoint that couldn't be read may have the model.
    if rules.releases.is_empty() || violations.iter().any(|violation| violation.pointer.starts_with("/regions")) {
        return;
    }
    let mut names = BTreeSet::new();
    for endpoint in rules.regions.values().flat_map(|region| region.endpoints.values()) {
        match &endpoint.models {
            Some(models) => names.extend(models.keys().map(String::as_str)),
            // This endpoint takes any model.
            None => return,
        }
    }
    let names: Vec<&str> = names.into_iter().collect();
    for model in rules.releases.keys().filter(|model| !names.contains(&model.as_str())) {
        let hint = match nearest(model, &names) {
            Some(name) => format!("did you mean {name:?}?"),
            None => "write the clients' name of a model, or remove it".to_owned(),
        };
        let message = format!("is of the model {model:?}, which no endpoint has among its \"models\"; {hint}");
        violations.push(Violation { pointer: format!("/releases/{}", escaped(model)), message });
    }
}

/// A step of a JSON pointer (RFC 6901 §3).
fn escaped(step: &str) -> String {
    step.replace('~', "~0").replace('/', "~1")
}
