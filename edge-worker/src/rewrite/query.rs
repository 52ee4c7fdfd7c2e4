//! The query allow-list: a raw query string in, the pairs that may pass out.

use crate::envelope::Failure;

/// Pairs that may pass.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Query {
    pub(crate) pairs: Vec<(String, String)>,
}

impl Query {
    /// Reads a raw query string (without `?`).
    ///
    /// # Errors
    /// 400 for a credential in it.
    pub fn parse(_raw: &str) -> Result<Self, Failure> {
        unimplemented!()
    }
}
