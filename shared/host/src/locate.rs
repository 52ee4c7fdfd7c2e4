//! Finds where a client is: ranges of addresses, the GeoIP database, and the IPv4 addresses that IPv6 addresses carry.

pub mod carrier;
pub mod client;
pub mod geoip;
pub mod ranges;
