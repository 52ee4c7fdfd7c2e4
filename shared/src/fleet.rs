//! Many nodes that follow one rules document. Takes what other nodes, a store or a person offer, returns what this node
//! does about the offer. Called by the code of the DNS half that exchanges documents, and by its command line.
//!
//! Documents have a total order already: by revision, then by digest. So nodes can spread the highest valid revision
//! without agreeing on anything. Only publishing needs agreement, and that is one compare-and-set of the [`head`], a
//! small document that names the published rules. Whatever spreads documents may therefore be slow, cut off, restored
//! from an old backup or lying: a node goes on with the last good document it has.
//!
//! Nodes do agree on health, by [`verdicts`]: DNS nodes and the edge come to the same verdict from the same reports.

mod agreed;
mod ballot;
pub mod blind;
mod combined;
pub mod follow;
pub mod gates;
pub mod guard;
pub mod head;
pub mod impact;
pub mod lease;
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
pub use ballot::{Ballot, OwnProbes};
pub use combined::{combined, fold};
pub use overrides::Overrides;
pub use verdict::{Verdict, VerdictInput, verdicts};
