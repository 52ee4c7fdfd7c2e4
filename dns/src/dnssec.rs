//! Signed zones: keys and their state file enter from the operator; what a zone signs with and shows of its keys at a given time leaves.
//!
//! A [`key::SigningKey`] signs. A [`ring::KeyRing`] says which keys a zone serves and signs with at one moment; it is a pure function of the
//! state file, the keys and the time. [`timeline`] holds the only steps by which a state file may change, so that no validator that cached
//! anything is ever left without a chain of trust; [`directory`] reads and writes the files.

pub mod directory;
pub mod key;
pub mod ring;
pub mod state;
pub mod timeline;
