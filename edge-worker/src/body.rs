//! A request's body in; what the edge has to know of it, and the bytes to send each endpoint, out.

use bailiwick_rules::rules::Allowance;

use crate::envelope::Failure;
use crate::rewrite::path::Route;

/// A body that was looked through.
#[derive(Clone)]
pub struct Inspected {}

impl Inspected {
    /// Looks a JSON body through, whatever its Content-Type.
    ///
    /// # Errors
    /// 400 with what is wrong, or what the service doesn't allow.
    pub fn json(_bytes: Vec<u8>, _route: &Route, _allow: &[Allowance]) -> Result<Self, Failure> {
        unimplemented!()
    }

    /// The model, by the client's name.
    #[must_use]
    pub fn model(&self) -> Option<&str> {
        unimplemented!()
    }

    /// Whether the answer is to be streamed.
    #[must_use]
    pub fn stream(&self) -> bool {
        unimplemented!()
    }

    /// What keeps related requests together: `prompt_cache_key`, else `user`. (`x-session-id` stands between them.)
    #[must_use]
    pub fn affinity(&self) -> Affinity<'_> {
        unimplemented!()
    }

    /// The bytes for an endpoint that calls the model `model`: every other byte as the client sent it.
    #[must_use]
    pub fn for_endpoint(&self, _model: Option<&str>) -> Vec<u8> {
        unimplemented!()
    }
}

/// The body's hints on what belongs together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Affinity<'a> {
    /// `prompt_cache_key`.
    pub prompt_cache_key: Option<&'a str>,
    /// `user`.
    pub user: Option<&'a str>,
}
