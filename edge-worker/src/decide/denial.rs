//! Finds the reason why a request has nowhere to go. Takes a steering (what the rules decided for the client) that
//! offers no endpoint; returns the reason in the words of `explain`. Called by `serve`.

use std::rc::Rc;

use bailiwick_rules::steer::{Ask, Steering, rank, stand};
use bailiwick_rules::table::Table;

/// Why a request has nowhere to go, in the words of `explain`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Denial {
    /// The reason.
    pub(crate) reason: &'static str,
    /// The regions of the fence that were withheld, each with its reason.
    pub(crate) withheld: Vec<(String, &'static str)>,
}

impl Denial {
    /// Finds the reason in a steering that offers no endpoint.
    #[inline(never)]
    pub(crate) fn of(table: &Table, ask: &Ask<'_>, steering: &Steering) -> Rc<Self> {
        let name = |entry: &bailiwick_rules::steer::Withheld| table.region(entry.ranked.fenced.region).id.to_string();
        let withheld: Vec<(String, &'static str)> =
            steering.withheld.iter().map(|entry| (name(entry), entry.reason.as_str())).collect();
        let ranking = rank(table, ask.service, &stand(table, &ask.client), ask.path_class);
        let first = withheld.first().map(|(_, reason)| *reason);
        let reason = match first {
            _ if ranking.fence_by.is_none() => "no_rule",
            _ if ranking.order.is_empty() => "empty_fence",
            _ if ranking.only == Some(None) => "hub_outside",
            Some(first) if withheld.iter().all(|(_, reason)| *reason == first) => first,
            Some(_) => "withheld",
            None => "no_endpoint",
        };
        Rc::new(Self { reason, withheld })
    }
}
