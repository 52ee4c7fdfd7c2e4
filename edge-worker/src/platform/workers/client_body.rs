//! The body of a client's request, as the runtime has it. Called by `runtime`; the exchange reads it.

use worker::web_sys;

/// The runtime's request object.
#[derive(Clone)]
pub(crate) struct ClientBody(pub(super) web_sys::Request);

impl ClientBody {
    /// The body of the request that the runtime gave.
    pub(crate) fn of(request: web_sys::Request) -> Self {
        Self(request)
    }

    /// Whether there is a body that nobody has read.
    pub(crate) fn is_unread(&self) -> bool {
        !self.0.body_used() && self.0.body().is_some()
    }

    /// The whole body as text.
    #[cfg(feature = "vectors")]
    pub(crate) async fn text(&self) -> String {
        worker::Request::from(Clone::clone(&self.0)).text().await.unwrap_or_default()
    }

    /// The URL of the request.
    #[cfg(feature = "vectors")]
    pub(crate) fn url(&self) -> String {
        self.0.url()
    }
}
