//! Many nodes that follow one rules document. Takes what other nodes, a store or a person offer, returns what this node
//! does about it. Called by the transports of the DNS half and by its command line.
//!
//! A document has a total order already: its revision, then its digest. To spread the highest valid revision needs no
//! agreement. Only publishing does, and that is one compare-and-set of the [`head`]. So whatever spreads documents may
//! be slow, cut off, restored from an old backup or lying: a node goes on with the last good document it has.
//!
//! Health is agreed on by [`verdicts`]: the nodes and the edge make the same of the same reports.

mod agreed;
mod ballot;
pub mod blind;
mod combined;
pub mod follow;
pub mod gates;
pub mod guard;
pub mod head;
pub mod impact;
mod overrides;
pub mod pace;
#[cfg(test)]
mod properties;
pub mod stages;
pub mod traffic;
mod verdict;
mod votes;
#[cfg(test)]
mod week;

pub use agreed::Agreed;
pub use ballot::{Ballot, OwnSight};
pub use combined::{combined, fold};
pub use overrides::Overrides;
pub use verdict::{Hearing, Verdict, verdicts};
