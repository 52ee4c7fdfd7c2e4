//! The DNS half: an authoritative server. Its static records come from zone files, its steered names are answered by
//! the rule book.
//!
//! Two types matter. A snapshot (`state::snapshot::Snapshot`) is rules, zones, keys and health of one moment; it never
//! changes, and every answer is made from one. The owner (`state::owner`) is the one task that makes the next snapshot
//! when files, probes or operators change something.
//!
//! # Words
//!
//! - **node**: one running DNS server; **fleet**: all nodes that follow the same rules; **peer**: another node, asked
//!   over HTTP; **NATS**: a message broker that a fleet may use instead.
//! - **steered name**: a DNS name whose records depend on the client; **static** records come from a zone file.
//! - **world**: rules, zones, keys and places of addresses, compiled together. A world with health is a snapshot.
//! - **place**: the country and location of an address, from the GeoIP database.
//! - **class**: the clients for which a service decides alike; **part** of a class: those of its clients that a load
//!   plan moves to one region, or those that stay.
//! - **scope**: how many leading bits of an address an answer holds for (RFC 7871).
//! - **memo**: the encoded answers that one UDP thread keeps; a **hit** is a query that is answered from it.
//! - **source**: a file or group of files that the owner follows: rules, zones, keys, GeoIP.
//! - **monitor**: a health check of the rules; **probe**: one run of it; **reading**: what a probe read of load, lag or
//!   release.
//! - **override**: a status of a region or an endpoint that an operator forces until a time.
//! - **head**: a small signed document that says which rules are published, by whom and why.
//! - **picture**: the page at `/ui/`, and what a node keeps to show there.
//!
//! [`bailiwick_rules`] explains the words of the rules: fence, tenant, replica, release, rollout and so on.
//! [`bailiwick_host`] has what this half needs of the machine that it runs on: files, certificates, the GeoIP database.
//!
//! # Modules
//!
//! Each module is a floor. It uses the floors above it in this list and never one below; a test holds the order.
//!
//! 1. `text`: text for people.
//! 2. [`protocol`]: names and record data.
//! 3. [`zone`]: zone files and compiled zones, without signatures.
//! 4. [`dnssec`]: keys and signatures.
//! 5. [`zones`]: the zones of a server, each with its signatures if it is signed.
//! 6. `locate`: the classes of clients by where they are.
//! 7. [`response`]: takes a packet, returns its response. Pure.
//! 8. [`net`]: the sockets that call it.
//! 9. `state`: rules, zones, places and health of one moment, and the one task that changes them.
//! 10. `memo`: answers that were given before, for datagrams that ask the same.
//! 11. [`program`]: configuration, command line, API, metrics, and `serve`, which joins all of it.

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
