//! A client's request in, what is sent to one endpoint out: URL, headers and body by allow-lists, nothing joined as text.

pub mod headers;
pub mod path;
pub mod query;

use url::Url;

use crate::body::Inspected;
use crate::envelope::Failure;
use crate::plan::Target;
use path::Route;
use query::Query;

/// A request to an endpoint, ready to send with redirects off.
#[derive(Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// The method.
    pub method: &'static str,
    /// The URL; its origin is the endpoint's.
    pub url: Url,
    /// All headers, the credential among them.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Option<Vec<u8>>,
}

/// What is sent to `target`. `secret` is the value of `target.secret()`; `headers` are the client's.
///
/// # Errors
/// When the model's name can't stand in a URL.
pub fn outgoing<'h>(
    _target: &Target,
    _route: &Route,
    _query: &Query,
    _headers: impl Iterator<Item = (&'h str, &'h str)>,
    _body: Option<&Inspected>,
    _secret: Option<&str>,
) -> Result<Outgoing, Failure> {
    unimplemented!()
}
