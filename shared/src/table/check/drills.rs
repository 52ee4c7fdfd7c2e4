//! Checks what drills say of regions. Takes the rules, adds violations. Called by [`super::super::Table::compile`].

use crate::json::Violation;
use crate::rules::Rules;

/// All violations about drills. None for a document without them.
pub(in super::super) fn drills(rules: &Rules, violations: &mut Vec<Violation>) {
    // Parts that couldn't be read are reported already. The rest of them may wrongly look like mistakes.
    if rules.drills.is_empty() || violations.iter().any(|violation| violation.pointer.starts_with("/services")) {
        return;
    }
    for (id, drill) in &rules.drills {
        if !rules.services.values().any(|service| service.regions.contains(&drill.region)) {
            violations.push(Violation {
                pointer: format!("/drills/{id}/region"),
                message: format!(
                    "is {}, which no service has, so nobody would be sent elsewhere; name a region of a service",
                    drill.region
                ),
            });
        }
    }
}
