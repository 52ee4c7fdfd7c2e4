//! The Workers runtime (workerd), as [`super`] needs it.

pub(crate) mod background;
pub(crate) mod client_body;
pub(crate) mod console;
pub(crate) mod env;
pub(crate) mod exchange;
pub(crate) mod fetch;
pub(crate) mod isolate;
pub(crate) mod pipe;
pub(crate) mod signer;
pub(crate) mod time;
