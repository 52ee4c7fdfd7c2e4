//! The steps by which a zone's keys change. Takes a state, the time and the longest TTLs in caches; returns the next
//! state, or the time from which the step may be taken. Called by `bailiwick keys`. Uses no clock and no files.
//!
//! A zone has one key that signs everything. So a rollover replaces a zone-signing and a key-signing key at once. Data
//! is signed by one key at a time, which keeps answers small, as in the pre-publish rollover of a ZSK (RFC 6781
//! §4.1.1.1). Only the DNSKEY RRset is signed by all keys in it, as in the double-signature rollover of a KSK (RFC 6781
//! §4.1.2). O is the old key and N the new key. [`first`] makes the state of a zone's first key.
//!
//! | step | DNSKEY RRset | signed by | data signed by | DS at the parent |
//! | --- | --- | --- | --- | --- |
//! | at rest | O | O | O | O |
//! | [`begin`]: N is published | O, N | O, N | O | O |
//! | N is ready | O, N | O, N | O | O, then N by the operator |
//! | [`finish`]: N is active, O retired | O, N | O, N | N | N |
//! | O is removed | N | N | N | N |
//!
//! - **N is ready** once no cache can hold a DNSKEY RRset without N. This takes the time until all nodes have N
//!   (propagation), then the TTL of DNSKEY (RFC 7583 §3.2.1, Dprp + TTLkey). Only then may the parent's DS change, and
//!   only then may N sign data.
//! - **O is removed** once no cache can hold anything that only O verifies. This takes propagation, then the longest of
//!   the zone's TTLs (data signed by O), the TTL of DNSKEY and the TTL of the DS (a DS of O alone; RFC 7583 §3.3.1).
//!   The signer drops it then. The operator says when all of the parent's servers have the new DS, because that
//!   depends on the parent.
//! - **The first key of a zone** is ready once no cache can hold data without signatures. This takes propagation, then
//!   the longer of the zone's longest TTL and the TTL of DNSKEY.
//!
//! All keys of a zone share one algorithm. A change of the algorithm isn't supported: at first, all data would have to
//! be signed by both algorithms (RFC 6781 §4.1.4).

#[cfg(test)]
mod tests;

use bailiwick_rules::time::{Millis, Timestamp};

use super::key::Algorithm;
use super::policy::Policy;
use super::state::{KeyState, Stage, State};
use crate::protocol::name::Name;

/// A new key, which isn't in a state yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewKey {
    /// The name of the key's file.
    pub file: String,
    /// The key tag.
    pub tag: u16,
    /// The algorithm of the key.
    pub algorithm: Algorithm,
}

/// Why a step is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// A resolver may still hold data that can't be validated after the step.
    #[error("{why}; try again at {until} or later")]
    TooEarly {
        /// The time from which the step may be taken.
        until: Timestamp,
        /// The reason for the wait.
        why: String,
    },
    /// A rollover has begun already.
    #[error(
        "a rollover to key {tag} is under way; from {ready} on, not earlier, bring its DS to the parent, \
         then finish with --ds-seen"
    )]
    UnderWay {
        /// The tag of the new key.
        tag: u16,
        /// The time from which the parent may have the new key's DS.
        ready: Timestamp,
    },
    /// There is no rollover to finish.
    #[error("no rollover is under way; begin one with `bailiwick keys roll`")]
    NotBegun,
    /// The new key has another algorithm.
    #[error("the zone's key has algorithm {}, the new one {}; all have to share one", old.number(), new.number())]
    OtherAlgorithm {
        /// The algorithm of the zone's keys.
        old: Algorithm,
        /// The algorithm of the new key.
        new: Algorithm,
    },
}

/// The state of a zone's first key, which signs the zone from `now` on. `max_ttl` is the zone's longest TTL.
#[must_use]
pub fn first(zone: Name, key: NewKey, policy: &Policy, max_ttl: Millis, now: Timestamp) -> State {
    let ready = after_waits(now, policy.propagation, max_ttl.max(policy.dnskey_ttl));
    State { zone, keys: vec![key_state(key, now, ready, Stage::Active { since: now })] }
}

/// Begins a rollover: publishes `key`.
///
/// # Errors
/// If a rollover is under way, if resolvers may still need the old key, or if `key` has another algorithm.
pub fn begin(state: &State, key: NewKey, policy: &Policy, now: Timestamp) -> Result<State, StepError> {
    if let Some(successor) = state.successor() {
        return Err(StepError::UnderWay { tag: successor.tag, ready: successor.ready });
    }
    if let Some(old) = state.keys.iter().find(|old| old.algorithm != key.algorithm) {
        return Err(StepError::OtherAlgorithm { old: old.algorithm, new: key.algorithm });
    }
    let waits = state.keys.iter().filter_map(|old| match old.stage {
        Stage::Retired { remove, .. } => {
            Some((remove, format!("the last rollover isn't over: resolvers may hold data signed by key {}", old.tag)))
        }
        Stage::Active { .. } => {
            Some((old.ready, format!("resolvers may hold answers from before the zone's key {} was known", old.tag)))
        }
        Stage::Published => None,
    });
    if let Some((until, why)) = waits.max_by_key(|(until, _)| *until).filter(|(until, _)| *until > now) {
        return Err(StepError::TooEarly { until, why });
    }
    let ready = after_waits(now, policy.propagation, policy.dnskey_ttl);
    let mut next = state.clone();
    next.keys.push(key_state(key, now, ready, Stage::Published));
    Ok(next)
}

/// Finishes a rollover, once the operator has seen the new key's DS at all of the parent's servers: the new key
/// signs, the old key is retired. `max_ttl` is the zone's longest TTL.
///
/// # Errors
/// If no rollover is under way, or the new key isn't ready.
pub fn finish(state: &State, policy: &Policy, max_ttl: Millis, now: Timestamp) -> Result<State, StepError> {
    let Some(successor) = state.successor() else { return Err(StepError::NotBegun) };
    if successor.ready > now {
        let why = format!("resolvers may hold the zone's keys without key {}", successor.tag);
        return Err(StepError::TooEarly { until: successor.ready, why });
    }
    // The TTL of DNSKEY counts too, because CDS and CDNSKEY have this TTL and are signed by the key that signs data.
    let remove = after_waits(now, policy.propagation, max_ttl.max(policy.dnskey_ttl).max(policy.ds_ttl));
    let mut next = state.clone();
    for key in &mut next.keys {
        key.stage = match key.stage {
            Stage::Published => Stage::Active { since: now },
            Stage::Active { since } => Stage::Retired { active: since, since: now, remove },
            retired @ Stage::Retired { .. } => retired,
        };
    }
    Ok(next)
}

/// The time `propagation` and `ttl` after `now`, rounded up, as states are written in whole seconds.
fn after_waits(now: Timestamp, propagation: Millis, ttl: Millis) -> Timestamp {
    let Timestamp(exact) = now.after(propagation).after(ttl);
    Timestamp(exact.saturating_add(999).div_euclid(1000).saturating_mul(1000))
}

fn key_state(key: NewKey, published: Timestamp, ready: Timestamp, stage: Stage) -> KeyState {
    let NewKey { file, tag, algorithm } = key;
    KeyState { file, tag, algorithm, published, ready, stage }
}
