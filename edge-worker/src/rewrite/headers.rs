//! The header allow-lists, both ways.

use crate::envelope::Failure;

/// The client's headers that may pass to an endpoint, names in lower case.
///
/// # Errors
/// 415 for a `Content-Encoding` other than `identity`.
pub fn to_endpoint<'h>(_headers: impl Iterator<Item = (&'h str, &'h str)>) -> Result<Vec<(String, String)>, Failure> {
    unimplemented!()
}

/// The endpoint's headers that may pass to the client, names in lower case, `cache-control: no-store` added.
pub fn to_client<'h>(_headers: impl Iterator<Item = (&'h str, &'h str)>) -> Vec<(String, String)> {
    unimplemented!()
}
