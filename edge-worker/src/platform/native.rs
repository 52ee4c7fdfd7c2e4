//! A server of our own on tokio and hyper, as [`super`] needs it. Each of its threads is an isolate: it has requests,
//! connections and memory of its own, and shares none.

pub(crate) mod background;
pub(crate) mod client_body;
pub(crate) mod console;
pub(crate) mod env;
pub(crate) mod exchange;
pub(crate) mod fetch;
pub(crate) mod http;
pub(crate) mod isolate;
pub(crate) mod later;
pub(crate) mod pipe;
pub(crate) mod signer;
pub(crate) mod time;
