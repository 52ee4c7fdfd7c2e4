//! Where the event of a request may be kept. Takes the client's [`Standing`], returns its fence and the sink that lies
//! in it. Called by the edge. It looks at the same fence as [`super::rank`], whatever health says.

use super::{FenceBy, Standing, fence};
use crate::table::{Fenced, ServiceIndex, SinkIndex, Table};

/// The fence of a client, and the sink of its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Logged<'t> {
    /// The regions that may process the client, in the order of the service's `regions`.
    pub fence: &'t [Fenced],
    /// The sink; `None` if none lies in every tier of the fence.
    pub sink: Option<SinkIndex>,
}

/// The fence of a client of a service, and the sink that gets its events.
#[must_use]
pub fn logged<'t>(table: &'t Table, service: ServiceIndex, standing: &Standing) -> Logged<'t> {
    let (by, fence) = fence(table, service, standing);
    let sink = match (by, standing.fenced) {
        (Some(FenceBy::Rule(rule)), _) => table.sink_of_rule(service, rule),
        (Some(FenceBy::Tenant), Some(tenant)) => table.sink_of_tenant(tenant),
        (Some(FenceBy::Tenant) | None, _) => None,
    };
    Logged { fence, sink }
}
