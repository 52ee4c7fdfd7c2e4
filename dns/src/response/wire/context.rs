//! The [`Context`] of a response: the node's settings, the time and the rate limiter. Besides the context, a response
//! depends on zones, rules and the packet. `serve` makes the context, and every transport passes it to
//! [`super::respond`].

use std::net::IpAddr;
use std::time::Duration;

use super::cookies::Cookies;
use crate::response::answer::identity::Identity;
use crate::response::answer::{Answer, Rcode, Responses};

/// The transport of a packet. It limits the size of the response and decides which options may be in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// A datagram. The response has at most the octets that the client offers, between 512 and 1,232.
    Udp,
    /// TCP. The response has at most 65,535 octets, as on every other stream.
    Tcp,
    /// TLS over TCP (RFC 7858).
    Tls,
    /// QUIC (RFC 9250).
    Quic,
    /// HTTPS (RFC 8484).
    Https,
}

impl Transport {
    /// Whether the transport is encrypted, so that padding is useful (RFC 8467).
    #[must_use]
    pub fn is_encrypted(self) -> bool {
        matches!(self, Self::Tls | Self::Quic | Self::Https)
    }

    /// Whether the source address was proven by a handshake.
    #[must_use]
    pub fn is_stream(self) -> bool {
        self != Self::Udp
    }

    /// Whether the response may have the option edns-tcp-keepalive: not over UDP (RFC 7828 §3.2.1), QUIC (RFC 9250
    /// §5.5.2) or HTTP.
    pub(super) fn has_keepalive(self) -> bool {
        matches!(self, Self::Tcp | Self::Tls)
    }
}

/// The node's settings that show in responses.
#[derive(Debug)]
pub struct Settings {
    /// The answers to queries for the server's identity.
    pub identity: Identity,
    /// The secrets of server cookies.
    pub cookies: Cookies,
    /// How long a stream may be idle. The option edns-tcp-keepalive announces this time (RFC 7828).
    pub idle: Duration,
    /// Whether positive answers have authority and additional sections.
    pub responses: Responses,
}

impl Settings {
    /// Settings without anything that identifies the node: a random cookie secret, no identity, an idle timeout of ten
    /// seconds, full responses.
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

/// The inputs of a response besides the packet, zones and rules.
#[derive(Clone, Copy)]
pub struct Context<'s> {
    /// The node's settings.
    pub settings: &'s Settings,
    /// The rate limiter, if rates are limited.
    pub limiter: Option<&'s dyn Limiter>,
    /// Seconds since 1970; cookies carry the lower 32 bits.
    pub now: u32,
}

/// Decides whether an answer may be sent. Called only for datagrams without a valid server cookie, because their source
/// address isn't proven.
pub trait Limiter: Send + Sync {
    /// Counts a query before it is parsed, and decides whether it is answered.
    fn admit(&self, from: IpAddr) -> Verdict;
    /// Counts an answer of this class, and decides whether it is sent.
    fn judge(&self, from: IpAddr, class: Class) -> Verdict;
}

/// Classes of answers. A [`Limiter`] counts each class separately, so that a flood of one class doesn't affect the
/// others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Records in the answer section.
    Positive,
    /// A name or type that doesn't exist, as in a flood of random names.
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

/// What to do with an answer, as a [`Limiter`] decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Send the answer.
    Answer,
    /// Send a truncated answer, so that a real client repeats the query over TCP. A client that sent a cookie gets
    /// BADCOOKIE instead, and repeats the query with a valid cookie.
    Slip,
    /// Don't send the answer.
    Drop,
}
