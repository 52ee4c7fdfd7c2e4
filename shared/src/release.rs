//! What endpoints really run. Takes the answers of `/v1/models` and of a few fixed prompts, returns a [`Reading`];
//! takes the readings of all endpoints, returns what steering compares ([`health`]). Called by the DNS node, and by the
//! edge for what nodes tell.
//!
//! One name of a model may hide other weights, another quantisation or another chat template in each region. The
//! likeliest tokens of fixed prompts (the canary) tell them apart: they differ a little between GPUs and batches, and
//! much more between models.

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
