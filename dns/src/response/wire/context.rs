//! What a response depends on besides zones, rules and the packet: the node's own settings, the time and whoever limits
//! rates. `serve` makes it, every transport hands it to [`super::respond`].

use std::net::IpAddr;
use std::time::Duration;

use super::cookies::Cookies;
use crate::response::answer::identity::Identity;
use crate::response::answer::{Answer, Rcode, Responses};

/// How the packet came: it bounds the size of the response and decides which options may be in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// A datagram: at most what the client offers between 512 and 1,232 octets.
    Udp,
    /// TCP: at most 65,535 octets, as every other stream.
    Tcp,
    /// TLS over TCP (RFC 7858).
    Tls,
    /// QUIC (RFC 9250).
    Quic,
    /// HTTPS (RFC 8484).
    Https,
}

impl Transport {
    /// Whether nobody between can read it, so that padding has a point (RFC 8467).
    #[must_use]
    pub fn is_encrypted(self) -> bool {
        matches!(self, Self::Tls | Self::Quic | Self::Https)
    }

    /// Whether the source address was proven by a handshake.
    #[must_use]
    pub fn is_stream(self) -> bool {
        self != Self::Udp
    }

    /// Whether the connection itself is DNS's to keep: neither datagrams (RFC 7828 §3.2.1), nor QUIC (RFC 9250 §5.5.2),
    /// nor HTTP.
    pub(super) fn has_keepalive(self) -> bool {
        matches!(self, Self::Tcp | Self::Tls)
    }
}

/// The node's own facts that show in responses.
#[derive(Debug)]
pub struct Settings {
    /// What the server says of itself, if asked.
    pub identity: Identity,
    /// The secrets of server cookies.
    pub cookies: Cookies,
    /// How long a stream may be idle: what keepalive announces (RFC 7828).
    pub idle: Duration,
    /// How much positive answers tell.
    pub responses: Responses,
}

impl Settings {
    /// Settings that tell nothing of the node and share nothing: a random cookie secret, no identity, ten seconds of
    /// idleness, full responses.
    #[must_use]
    pub fn anonymous() -> Self {
        Self {
            identity: Identity::default(),
            cookies: Cookies::random(),
            idle: Duration::from_secs(10),
            responses: Responses::Full,
        }
    }
}

/// What one packet is answered with besides zones and rules.
#[derive(Clone, Copy)]
pub struct Context<'s> {
    /// The node's settings.
    pub settings: &'s Settings,
    /// Whoever limits rates, if anyone does.
    pub limiter: Option<&'s dyn Limiter>,
    /// Seconds since 1970; cookies carry the lower 32 bits.
    pub now: u32,
}

/// Decides whether an answer may go out. It is asked only for datagrams whose source address is proven by no valid
/// server cookie.
pub trait Limiter: Send + Sync {
    /// Counts a query of `from` before anything is spent on its answer, and judges.
    fn admit(&self, from: IpAddr) -> Verdict;
    /// Counts an answer of this class and judges.
    fn judge(&self, from: IpAddr, class: Class) -> Verdict;
}

/// Classes of answers that a [`Limiter`] counts apart; what floods one leaves the others alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Records in the answer section.
    Positive,
    /// A name or type that doesn't exist: what a flood of random names earns.
    Negative,
    /// A delegation.
    Referral,
    /// An error.
    Error,
}

impl Class {
    /// The class of an answer.
    pub(super) fn of(answer: &Answer<'_>) -> Self {
        match answer.rcode {
            Rcode::NOERROR if !answer.answer.is_empty() => Self::Positive,
            Rcode::NOERROR if !answer.authoritative && !answer.authority.is_empty() => Self::Referral,
            Rcode::NOERROR | Rcode::NXDOMAIN => Self::Negative,
            _ => Self::Error,
        }
    }
}

/// What a [`Limiter`] wants to become of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Send it.
    Answer,
    /// Send a truncated one, so that a real client comes back by TCP; one that sent a cookie gets BADCOOKIE and comes
    /// back with a valid one.
    Slip,
    /// Send nothing.
    Drop,
}
