//! Puts clients into classes and groups by where they are, from the rules and the GeoIP database.

pub(crate) mod classes;
pub(crate) mod population;
