//! Finds where a client is: ranges of addresses, the GeoIP database, and the classes of clients that the rules form by
//! both.

pub(crate) mod classes;
pub(crate) mod geoip;
pub(crate) mod population;
pub(crate) mod ranges;
