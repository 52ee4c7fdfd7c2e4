//! The harness of the behaviour tests: starts the real `bailiwick`, asks it by real clients, and clears up.
//!
//! Nothing here sleeps for a fixed time or uses a fixed port: [`wait::until`] polls for a condition, every server binds
//! port 0 or one that [`net::free_port`] found, and every process is ended by the handle that started it.

pub mod chat_stand_in;
pub mod dns;
pub mod geo;
pub mod gpu_stand_in;
pub mod link;
pub mod load;
pub mod namespace;
pub mod nats;
pub mod net;
pub mod network;
pub mod node;
pub mod otlp_receiver;
pub mod peer;
pub mod postgres;
pub mod process;
pub mod stand_in;
pub mod store_stand_in;
pub mod tls_stand_in;
pub mod wait;
