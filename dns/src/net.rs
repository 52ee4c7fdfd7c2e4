//! The sockets of DNS: datagrams, streams and their limits. Each packet is given to
//! [`Respond`](crate::response::respond::Respond). This module knows nothing of zones, rules or health.

pub(crate) mod cookie_files;
pub mod listeners;
pub(crate) mod rate_limit;
pub mod streams;
pub(crate) mod udp;
