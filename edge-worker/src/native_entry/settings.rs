//! What all threads have, and what all connections of one have. Made by `native_entry` and `isolate`; read by
//! `connection`.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::config::Limits;
use super::counts::Counts;
use super::request::Locator;
use crate::platform::Env;

/// What all threads have.
pub(super) struct Settings {
    pub(super) env: Env,
    pub(super) locator: Locator,
    pub(super) limits: Limits,
    pub(super) tls: Option<TlsAcceptor>,
    pub(super) speaks_proxy_protocol: bool,
    /// How many threads there are.
    pub(super) threads: usize,
}

/// What all connections of a thread have.
pub(super) struct Isolate {
    pub(super) env: Env,
    pub(super) settings: Arc<Settings>,
    pub(super) counts: Arc<Counts>,
    pub(super) is_ending: watch::Receiver<bool>,
}
