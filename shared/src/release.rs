//! What endpoints really run. A release is what should run under a model's name. Takes the answers of `/v1/models` and
//! those to a few fixed prompts, returns a [`Reading`]; takes the readings of all endpoints, returns what steering
//! compares ([`health`]). Called by the DNS node, and by the edge with the readings that nodes report.
//!
//! The same name of a model may stand for other weights, another quantisation or another chat template in each region.
//! The likeliest tokens of the answers to fixed prompts (the canary) tell such variants apart. Between GPUs and batches
//! they differ a little, between models much more.

mod answer;
mod ask;
mod confirm;
mod distance;
mod judge;
#[cfg(test)]
mod properties;
mod reading;
mod source;

pub use answer::{LONGEST_ANSWER, Listed, Told, completion, models};
pub use ask::{Form, PROMPTS, Refusal, body};
pub use confirm::{Confirmed, Next};
pub use distance::distance;
pub use judge::{Known, health};
pub use reading::{Reading, Round, most_told};
pub use source::{ReleaseSource, Watched, sources};
