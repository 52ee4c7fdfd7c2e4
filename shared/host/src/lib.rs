//! What both halves need of the machine that they run on: files that change, certificates, places of addresses,
//! sockets, the service manager, and the watch over long-lived tasks. Called by the DNS server and by the native
//! gateway. The Worker never links it.
//!
//! Two types matter. [`Renewal`](system::file_reload::Renewal) reads files again when they change, such as those of a
//! [`Certificate`](certificate::Certificate). [`Places`](locate::geoip::Places) is a GeoIP database in memory, in which
//! [`client_at`](locate::client::client_at) finds the client at an address.
//!
//! # Words
//!
//! - **place**: the country and location of an address, from the GeoIP database.
//! - **carrier**: a block of IPv6 addresses that carry IPv4 addresses.
//! - **scope**: how many leading bits of an address a value holds for.
//! - **stamp**: the metadata of a file at one moment. A file has changed if its stamp differs.
//! - **takeover**: a new process gets the sockets of the one that serves, and replaces it.
//! - **task**: a thread or a future that runs as long as the program; **pulse**: what it reports its turns by.
//!
//! [`bailiwick_rules`] explains the words of the rules.
//!
//! # Modules
//!
//! Each module is a floor. It uses the floors above it in this list and never one below; a test holds the order. None
//! parses or answers DNS or HTTP.
//!
//! 1. [`system`]: what the kernel, the disk and the clock offer.
//! 2. [`certificate`]: the certificate in service. [`locate`]: where a client is. [`sockets`]: sockets that listen.
//! 3. [`process`]: how a process is started, watched and replaced.

#[cfg(target_arch = "wasm32")]
compile_error!("bailiwick-host is for native programs; the Worker must not depend on it");

pub mod system;

pub mod certificate;

pub mod locate;

pub mod sockets;

pub mod process;
