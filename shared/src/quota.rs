//! Quotas of providers. Takes the limits of a pool (what a provider's account may be sent) and what was taken of it;
//! returns whether one more request fits and, if not, how long to wait. Called by the edge before it sends a request,
//! and by the nodes that grant leases: parts of a pool that one isolate of the edge may spend.
//!
//! Two types matter. A [`Pool`] counts what was taken of a quota; its whole state is one timestamp for each dimension
//! (requests and tokens) and each reserve. A [`Reading`] holds the limits that a provider's headers report.
//!
//! A pool refills continuously, not once per calendar minute. All numbers are integers, so native code and Wasm give
//! results that are equal to the bit. The time is an argument.

mod amounts;
mod bucket;
mod estimate;
mod fleet;
mod headers;
mod lease;
mod pool;
mod share;
mod store_clock;
#[cfg(test)]
mod tests;

pub use amounts::Amounts;
pub use bucket::{Bucket, Limit, Rate};
pub use estimate::{Ratios, estimated_tokens};
pub use fleet::{Allowance, HELD_FOR, Stamps, Turn, part};
pub use headers::{Dimension, LONGEST_WAIT, Reading, read_span, write_span};
pub use lease::{Ask, Asks, Grant, Grants, LEASE, Ledger, MAX_HOLDERS};
pub use pool::{Cost, Limits, Pool, Refusal};
pub use share::{Basis, Share};
pub use store_clock::StoreClock;
