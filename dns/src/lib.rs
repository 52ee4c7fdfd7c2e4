//! The DNS half: an authoritative server. Its static records come from zone files, its steered names are answered by
//! the rule book.
//!
//! Each module is a floor. It uses the floors above it in this list and never one below; a test holds the order.
//!
//! 1. [`system`] and [`text`]: what the kernel, the disk and the clock offer; text for people.
//! 2. [`protocol`]: names and record data.
//! 3. [`zone`] and [`dnssec`]: zone files, compiled zones, keys and signatures.
//! 4. [`locate`]: where a client is.
//! 5. [`response`]: a packet enters, its response leaves. Pure.
//! 6. [`net`]: the sockets that call it.
//! 7. [`state`]: rules, zones, places and health of one moment, and the one task that changes them.
//! 8. `memo`: answers that were given before, for datagrams that ask the same.
//! 9. [`program`]: configuration, command line, API, metrics, and `serve`, which joins all of it.

pub mod system;
pub mod text;

pub mod protocol;

pub mod dnssec;
pub mod zone;

pub mod locate;

pub mod response;

pub mod net;

pub mod state;

mod memo;

pub mod program;

#[cfg(test)]
mod testing;
