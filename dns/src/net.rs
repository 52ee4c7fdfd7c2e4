//! The sockets of DNS: datagrams, streams, their certificates and their limits. They call
//! [`Respond`](crate::response::respond::Respond) and know nothing of zones, rules or health.

pub(crate) mod certificate;
pub(crate) mod cookie_files;
pub mod listeners;
pub(crate) mod rate_limit;
pub mod streams;
pub(crate) mod udp;
