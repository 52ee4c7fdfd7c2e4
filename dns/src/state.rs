//! What the node knows at one moment, and how it comes to know it.
//!
//! One task, the [`owner`], holds the state. It publishes each [`snapshot`] behind one atomic pointer. [`watch`] sends
//! it new versions of the files, [`probe`] the results of health checks, the API overrides. [`startup`] begins with
//! what [`load`] reads and [`store`] kept.

pub(crate) mod keeper;
pub mod load;
pub mod owner;
pub mod probe;
pub mod snapshot;
pub mod startup;
pub mod store;
pub mod watch;
