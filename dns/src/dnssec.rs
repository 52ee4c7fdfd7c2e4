//! Signed zones: keys and their state file enter from the operator; what a zone signs with and shows of its keys at a
//! given time leaves, and what it is signed with.
//!
//! A [`key::SigningKey`] signs. A [`key_set::KeySet`] says which keys a zone serves and signs with at one moment; it is
//! a pure function of the state file, the keys and the time. [`timeline`] holds the only steps by which a state file
//! may change, so that no validator that cached anything is ever left without a chain of trust; `directory` reads and
//! writes the files.
//!
//! All that can be signed before it is asked for, `presigned` signs off the query path. The rest is signed by
//! `online_signer` when it is asked for: the NSEC of compact denial, and what wildcards stand for.

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
