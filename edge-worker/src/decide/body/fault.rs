//! Takes a fault of a field in a body, returns the error for the client. Called by `field`, `form_name`, `line`
//! and `multipart`.

use super::walk::BodyFault;
use crate::decide::envelope::{Failure, FieldFault};

/// The failure for a field that is documented nowhere.
pub(crate) fn unknown(field: String) -> Failure {
    Failure::UnknownField { field, odd: FieldFault::Undocumented }
}

/// The failure to answer with. `field` makes the name of the field at fault.
pub(super) fn failure(fault: BodyFault, field: impl FnOnce() -> String) -> Failure {
    let odd = |odd: FieldFault, field: String| Failure::UnknownField { field, odd };
    match fault {
        BodyFault::Place => Failure::RemoteUrl { field: field() },
        BodyFault::Routes => odd(FieldFault::Routes, field()),
        BodyFault::Kind => odd(FieldFault::Kind, field()),
        BodyFault::Unknown => odd(FieldFault::Undocumented, field()),
        BodyFault::Priority => odd(FieldFault::Priority, field()),
        BodyFault::Twice(key) => Failure::DuplicateKey { key: key.to_owned() },
        BodyFault::Tool(tool) => Failure::HostedTool { tool },
        BodyFault::EngineInput => odd(FieldFault::EngineInput, field()),
        BodyFault::Reference => Failure::ItemReference,
        BodyFault::NoText => odd(FieldFault::NoText, field()),
        BodyFault::Id => Failure::UnknownId,
    }
}
