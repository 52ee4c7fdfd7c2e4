//! The body of a client's request. Called by `runtime`; the exchange reads it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use hyper::body::{Body, Incoming};

/// The body, which may still be arriving.
#[derive(Clone)]
pub(crate) struct ClientBody(Rc<Shared>);

struct Shared {
    /// `None` while it is being read.
    incoming: RefCell<Option<Incoming>>,
    has_body: bool,
    is_used: Cell<bool>,
}

impl ClientBody {
    /// The body of a request.
    pub(crate) fn of(incoming: Incoming) -> Self {
        let has_body = !incoming.is_end_stream();
        Self(Rc::new(Shared { incoming: RefCell::new(Some(incoming)), has_body, is_used: Cell::new(false) }))
    }

    /// Whether there is a body that nobody has read.
    pub(crate) fn is_unread(&self) -> bool {
        self.0.has_body && !self.0.is_used.get()
    }

    /// The whole body as text.
    #[cfg(feature = "vectors")]
    pub(crate) async fn text(&self) -> String {
        use http_body_util::BodyExt;
        let Some(incoming) = self.take() else { return String::new() };
        let body = incoming.collect().await;
        body.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned()).unwrap_or_default()
    }

    /// The URL of the request isn't kept.
    #[cfg(feature = "vectors")]
    #[expect(clippy::unused_self, reason = "other platforms have it")]
    pub(crate) fn url(&self) -> String {
        String::new()
    }

    /// Takes the body to read it.
    pub(super) fn take(&self) -> Option<Incoming> {
        self.0.is_used.set(true);
        self.0.incoming.take()
    }

    /// Gives the body back after a piece of it was read.
    pub(super) fn give_back(&self, incoming: Incoming) {
        self.0.incoming.replace(Some(incoming));
    }
}
