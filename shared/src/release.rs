//! What endpoints really run: a release is the model, engine and settings that should run under one name of a model.
//! Takes an endpoint's answers to `/v1/models` and to a few fixed prompts, returns a [`Reading`]. Takes the readings of
//! all endpoints, returns what steering compares ([`health`]). Called by the DNS node for its own readings, and by the
//! edge for the readings that nodes report.
//!
//! The same name of a model may stand for other weights, another quantisation or another chat template in each region.
//! The likeliest tokens of the answers to fixed prompts (the canary) tell such models apart: they differ a little
//! between GPUs and batches, and much more between models.

mod answer;
mod ask;
mod confirm;
mod distance;
mod judge;
#[cfg(test)]
mod properties;
mod reading;
mod source;

pub use answer::{CompletionReport, LONGEST_ANSWER, ModelListing, completion, models};
pub use ask::{Form, PROMPTS, Refusal, body};
pub use confirm::{Confirmed, Next};
pub use distance::distance;
pub use judge::{EndpointReading, health};
pub use reading::{Reading, Round, most_told};
pub use source::{EndpointToRead, ReleaseSource, sources};
