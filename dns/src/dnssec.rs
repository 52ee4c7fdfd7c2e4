//! Signed zones. Takes the operator's keys and their state file, returns signed zones: the keys that a zone publishes
//! and signs with at a given time, and the signatures of its records.
//!
//! A [`key::SigningKey`] signs. A [`key_set::KeySet`] says which keys a zone serves and signs with at one moment; it is
//! a pure function of the state file, the keys and the time. [`timeline`] holds the only steps by which a state file
//! may change. They make sure that every validator has a chain of trust, whatever it has cached. `directory` reads and
//! writes the files.
//!
//! `presign` signs everything that is known before a query. `online_signer` signs the rest when a query needs it: the
//! NSEC of compact denial (RFC 9824), and the records of a wildcard at the queried name.

pub(crate) mod budget;
pub(crate) mod canonical;
#[cfg(test)]
mod cost;
pub(crate) mod denial;
pub(crate) mod directory;
pub mod key;
pub mod key_set;
pub(crate) mod lifetime;
pub(crate) mod online_signer;
mod plan;
pub mod policy;
pub(crate) mod presign;
pub(crate) mod presigned;
pub(crate) mod sign;
pub mod state;
pub mod timeline;
pub(crate) mod unsignable;
