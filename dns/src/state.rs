//! The node's state (rules, zones, keys, health) at one moment, and the tasks that change it.
//!
//! One task, the [`owner`], holds the state. It publishes each [`snapshot`] behind one atomic pointer. The owner gets
//! new versions of the files from [`watch`], the results of health checks from [`probe`], and overrides (statuses that
//! an operator forces) from the API. At the start, [`startup`] builds the first snapshot from the files that [`load`]
//! reads and from what [`store`] keeps in the state directory. [`fleet`] gets rules from other nodes. [`bundles`] holds
//! the files that applications fetch.

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
