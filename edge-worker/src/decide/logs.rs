//! Events and spans of requests, for the sinks of the rules. Takes what is known of a request that has ended; returns
//! OTLP's JSON. Called by `runtime::logs`.
//!
//! The rules say which sink may get the event of which client (`bailiwick_rules::steer::logged`). What an event may say
//! is a closed list ([`attributes::Field`]): names of the rules, fixed words, numbers, and the request's random id.
//! Nothing that a client or an endpoint has written is among them, but for services that keep prompts and answers on
//! purpose ([`content::Content`]). A [`Queue`] holds what wasn't sent yet.

mod attributes;
mod content;
mod event;
mod pseudonym;
mod queue;
mod reply;
mod subject;
mod trace;

pub(crate) use content::is_kept_type;
pub(crate) use event::{Facts, Sent, record, spans};
pub(crate) use pseudonym::Pseudonyms;
pub(crate) use queue::{Batch, Dropped, Noted, Queue, Settled, Signal};
pub(crate) use reply::{rejected, settled};
pub(crate) use subject::Subject;
