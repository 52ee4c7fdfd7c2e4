//! The DNS half: an authoritative server. Its static records come from zone files, its steered names are answered by
//! the rule book.
//!
//! Each module is a floor. It uses the floors above it in this list and never one below; a test holds the order.
//!
//! 1. [`system`] and `text`: what the kernel, the disk and the clock offer; text for people.
//! 2. [`protocol`]: names and record data.
//! 3. [`zone`]: zone files and compiled zones, without signatures.
//! 4. [`dnssec`]: keys and signatures.
//! 5. [`zones`]: the zones of a server, each with its signatures if it is signed.
//! 6. `locate`: where a client is.
//! 7. [`response`]: takes a packet, returns its response. Pure.
//! 8. [`net`]: the sockets that call it.
//! 9. `state`: rules, zones, places and health of one moment, and the one task that changes them.
//! 10. `memo`: answers that were given before, for datagrams that ask the same.
//! 11. [`program`]: configuration, command line, API, metrics, and `serve`, which joins all of it.

pub mod system;
mod text;

pub mod protocol;

pub mod zone;

pub mod dnssec;

pub mod zones;

mod locate;

pub mod response;

pub mod net;

mod state;

mod memo;

pub mod program;

#[cfg(test)]
mod testing;
