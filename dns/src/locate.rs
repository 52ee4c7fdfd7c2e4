//! Where a client is: address ranges, the GeoIP database, and the classes of clients that the rules make of both.

pub(crate) mod classes;
pub(crate) mod geoip;
pub(crate) mod population;
pub(crate) mod ranges;
