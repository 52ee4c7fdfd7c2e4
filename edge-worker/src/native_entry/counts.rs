//! What the gateway counts of connections, for all threads together. Called by `isolate` and `connection`; told by
//! `metrics`.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::watch::Reason;

/// Why a connection gets no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It ended, or its beginning isn't that of the PROXY protocol.
    Proxy,
    /// The handshake of TLS failed.
    Handshake,
}

/// Counts of connections.
#[derive(Debug, Default)]
pub(super) struct Counts {
    accepted: AtomicU64,
    ended: AtomicU64,
    accept_errors: AtomicU64,
    closed: [AtomicU64; REASONS.len()],
    refused: [AtomicU64; REFUSALS.len()],
}

const REASONS: [(Reason, &str); 4] =
    [(Reason::Silent, "silent"), (Reason::Idle, "idle"), (Reason::Stalled, "stalled"), (Reason::Resets, "resets")];
const REFUSALS: [(Refusal, &str); 2] = [(Refusal::Proxy, "proxy_header"), (Refusal::Handshake, "tls_handshake")];

impl Counts {
    pub(super) fn accepted(&self) {
        self.accepted.fetch_add(1, Relaxed);
    }

    pub(super) fn ended(&self) {
        self.ended.fetch_add(1, Relaxed);
    }

    pub(super) fn failed_to_accept(&self) {
        self.accept_errors.fetch_add(1, Relaxed);
    }

    pub(super) fn closed(&self, reason: Reason) {
        for ((known, _), count) in REASONS.iter().zip(&self.closed) {
            count.fetch_add(u64::from(*known == reason), Relaxed);
        }
    }

    pub(super) fn refused(&self, refusal: Refusal) {
        for ((known, _), count) in REFUSALS.iter().zip(&self.refused) {
            count.fetch_add(u64::from(*known == refusal), Relaxed);
        }
    }

    /// How many connections there have been, and how many there are.
    pub(super) fn connections(&self) -> (u64, u64) {
        let (accepted, ended) = (self.accepted.load(Relaxed), self.ended.load(Relaxed));
        (accepted, accepted.saturating_sub(ended))
    }

    /// How often no connection could be accepted.
    pub(super) fn accept_errors(&self) -> u64 {
        self.accept_errors.load(Relaxed)
    }

    /// Connections that the gateway closed, by the reason.
    pub(super) fn closed_by_reason(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let closed = REASONS.iter().zip(&self.closed).map(|((_, name), count)| (*name, count.load(Relaxed)));
        closed.chain(REFUSALS.iter().zip(&self.refused).map(|((_, name), count)| (*name, count.load(Relaxed))))
    }
}
