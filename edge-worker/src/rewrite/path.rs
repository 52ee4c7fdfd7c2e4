//! The path allow-list: a client's path and method in, a [`Route`] of checked segments out.

use crate::attempt::Expect;
use crate::envelope::Failure;

/// What kind of work a path is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Class {
    /// Inference: any endpoint of the plan, retried.
    Inference,
    /// The list of models, or one.
    Models,
    /// Files, batches, fine-tuning, vector stores, responses by id: state at one endpoint.
    State,
}

/// What body a path takes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Takes {
    /// None; one that comes is dropped.
    Nothing,
    /// A JSON object.
    Json,
    /// A multipart form.
    Form,
}

/// A known path of the model API, in checked segments without `/v1`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Route {}

impl Route {
    /// Reads the raw path of a request (neither decoded nor normalised) and its method.
    ///
    /// # Errors
    /// 400 for a path with tricks, 404 for an unknown one, 405, 501 for realtime.
    pub fn parse(_method: &str, _path: &str) -> Result<Self, Failure> {
        unimplemented!()
    }

    /// The path without `/v1`, such as `/chat/completions`, for [`is_hub_path`](bailiwick_rules::table::Service::is_hub_path).
    #[must_use]
    pub fn path(&self) -> String {
        unimplemented!()
    }

    /// What kind of work it is.
    #[must_use]
    pub fn class(&self) -> Class {
        unimplemented!()
    }

    /// What body it takes.
    #[must_use]
    pub fn takes(&self) -> Takes {
        unimplemented!()
    }

    /// What a good answer looks like.
    #[must_use]
    pub fn expect(&self, _stream: bool) -> Expect {
        unimplemented!()
    }
    /// The model named in the path (`/models/{model}`).
    #[must_use]
    pub fn model(&self) -> Option<&str> {
        unimplemented!()
    }
}
