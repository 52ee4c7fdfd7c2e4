//! Whether the edge moves clients of a service to other regions because of load ("sheds"), and the header that tells
//! the client so. Called by `prepare` and `explain`. [`bailiwick_rules::report::Shares`] says which clients move.

use std::rc::Rc;

use bailiwick_rules::report::{Drilled, Shed};
use bailiwick_rules::rules::{Ratio, ShedAt};
use bailiwick_rules::steer::{PathClass, Steering};
use bailiwick_rules::table::{Service, Table};

/// Whether the edge moves clients of a service because of load. It doesn't if DNS moves them, or they would be moved
/// twice. It moves only inference: requests for the paths of a hub (the one region that serves them) stay there.
#[must_use]
pub(crate) fn sheds(service: &Service, path_class: PathClass) -> bool {
    service.shedding.moves && service.shedding.at == ShedAt::Edge && path_class == PathClass::Inference
}

/// The value of `x-bailiwick-shed`, such as `from=eu-frankfurt;to=eu-paris;share=0.12`. `share` is the moved part of
/// the clients, between 0 and 1.
#[must_use]
pub(crate) fn header(table: &Table, shed: &Shed) -> Rc<str> {
    let name = |region| table.region(region).id.as_str();
    let share = f64::from(shed.share.0) / f64::from(Ratio::ONE.0);
    format!("from={};to={};share={share}", name(shed.from), name(shed.to)).into()
}

/// The same for a request that a drill sends elsewhere, with `;drill` at the end. `steering` is the one with the other
/// region first.
#[must_use]
pub(crate) fn drilled_header(table: &Table, drilled: Drilled, steering: &Steering) -> Option<Rc<str>> {
    let to = steering.ordered.first()?.fenced.region;
    let header = header(table, &Shed { from: drilled.region, to, share: drilled.share });
    Some(format!("{header};drill").into())
}
