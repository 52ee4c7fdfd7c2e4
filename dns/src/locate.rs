//! Where a client is: address ranges, the GeoIP database, and the classes of clients that the rules make of both.

pub mod classes;
pub mod geoip;
pub mod ranges;
