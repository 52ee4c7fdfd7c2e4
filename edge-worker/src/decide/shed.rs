//! Whether the edge moves clients of a service because of load, and how it tells so. Called by `prepare` and `explain`;
//! [`bailiwick_rules::report::Shares`] says which clients.

use std::rc::Rc;

use bailiwick_rules::report::Shed;
use bailiwick_rules::rules::{Ratio, ShedAt};
use bailiwick_rules::steer::PathClass;
use bailiwick_rules::table::{Service, Table};

/// Whether the edge moves clients of a service. Where DNS moves them, both would move the same clients twice. Work at a
/// hub stays there.
#[must_use]
pub(crate) fn sheds(service: &Service, path_class: PathClass) -> bool {
    service.shedding.moves && service.shedding.at == ShedAt::Edge && path_class == PathClass::Inference
}

/// The value of `x-bailiwick-shed`: `from=eu-frankfurt;to=eu-paris;share=0.12`.
#[must_use]
pub(crate) fn header(table: &Table, shed: &Shed) -> Rc<str> {
    let name = |region| table.region(region).id.as_str();
    let share = f64::from(shed.share.0) / f64::from(Ratio::ONE.0);
    format!("from={};to={};share={share}", name(shed.from), name(shed.to)).into()
}
