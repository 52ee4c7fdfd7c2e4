//! What the node knows at one moment, and how it comes to know it.
//!
//! One task, the [`owner`], holds the state. It publishes each [`snapshot`] behind one atomic pointer. [`watch`] sends
//! it new versions of the files, [`probe`] the results of health checks, the API overrides. [`startup`] begins with
//! what [`load`] reads and [`store`] kept. [`fleet`] brings rules of other nodes. [`bundles`] holds the
//! files that applications fetch.

pub(crate) mod bundles;
pub(crate) mod fleet;
pub(crate) mod fleet_status;
pub(crate) mod keeper;
pub(crate) mod leases;
pub(crate) mod load;
pub(crate) mod observed;
pub(crate) mod owner;
pub(crate) mod probe;
pub(crate) mod snapshot;
pub(crate) mod startup;
pub(crate) mod store;
pub(crate) mod watch;
