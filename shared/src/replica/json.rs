//! Reads a JSON answer by the JSON pointers (RFC 6901) that the rules name. Takes the answer, returns a reading. Called
//! by [`super::read`].

use std::sync::Arc;

use serde_json::Value;

use super::{MAX_JSON, ReadFailure, ReplicaReading, behind, lag, quoted, wrong};
use crate::rules::{JsonPointer, JsonReads, LagUnit};
use crate::time::Timestamp;

/// The longest version, in bytes.
const LONGEST_VERSION: usize = 256;
/// The first and last plausible time, 2000 and 2100, in milliseconds since 1970. A time outside of them is a failure.
const FIRST: i64 = 946_684_800_000;
const LAST: i64 = 4_102_444_800_000;

/// The answer as JSON.
pub(super) fn parsed(bytes: &[u8]) -> Result<Value, ReadFailure> {
    if bytes.len() > MAX_JSON {
        return wrong(format!("the answer is longer than {} KiB", MAX_JSON >> 10));
    }
    match serde_json::from_slice(bytes) {
        Ok(value) => Ok(value),
        Err(error) => wrong(format!("the answer isn't JSON (line {}, column {})", error.line(), error.column())),
    }
}

/// The reading: the values at the pointers. `now` is the node's time; the answer's own time counts more, if the rules
/// have it read.
pub(super) fn read(reads: &JsonReads, answer: &Value, now: Timestamp) -> Result<ReplicaReading, ReadFailure> {
    let version = reads.version.as_ref().map(|at| version(answer, at)).transpose()?;
    let is_leader = reads.leader.as_ref().map(|at| leads(answer, at)).transpose()?.unwrap_or(false);
    let lag = match &reads.lag {
        Some((at, unit)) if !is_leader => {
            let now = reads.now.as_ref().map(|at| time(answer, at)).transpose()?.unwrap_or(now);
            Some(match unit {
                LagUnit::Timestamp => behind(time(answer, at)?, now)?,
                _ => lag(number(answer, at)?, *unit, now)?,
            })
        }
        _ => None,
    };
    Ok(ReplicaReading { lag, is_leader, version })
}

/// The value at a pointer. `null` counts as missing: databases answer `null` if they don't know the value.
fn at<'v>(answer: &'v Value, pointer: &JsonPointer) -> Result<&'v Value, ReadFailure> {
    match answer.pointer(pointer.as_str()) {
        None => wrong(format!("the answer has nothing at {}", quoted(pointer.as_str()))),
        Some(Value::Null) => wrong(format!("the answer has null at {}", quoted(pointer.as_str()))),
        Some(value) => Ok(value),
    }
}

/// The failure for a value of the wrong kind. `what` is the kind that was expected.
fn not<T>(pointer: &JsonPointer, what: &str) -> Result<T, ReadFailure> {
    wrong(format!("what stands at {} is no {what}", quoted(pointer.as_str())))
}

/// The number at a pointer, which may be written as a text.
fn number(answer: &Value, pointer: &JsonPointer) -> Result<f64, ReadFailure> {
    let number = match at(answer, pointer)? {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    number.filter(|number| number.is_finite()).map_or_else(|| not(pointer, "number"), Ok)
}

/// The time at a pointer: a text in the form of RFC 3339, or a number since 1970.
fn time(answer: &Value, pointer: &JsonPointer) -> Result<Timestamp, ReadFailure> {
    if let Value::String(text) = at(answer, pointer)?
        && let Some(time) = Timestamp::parse(text.trim())
    {
        return plausible(time);
    }
    match number(answer, pointer) {
        Ok(number) => instant(number),
        Err(_) => not(pointer, "time (RFC 3339, or a number since 1970)"),
    }
}

/// The time that a number since 1970 means. Its size says whether it counts seconds, milliseconds, microseconds or
/// nanoseconds.
#[allow(clippy::cast_possible_truncation)] // a cast of floats saturates
pub(super) fn instant(number: f64) -> Result<Timestamp, ReadFailure> {
    let ms = match number {
        _ if number < 1e11 => number * 1e3,
        _ if number < 1e14 => number,
        _ if number < 1e17 => number / 1e3,
        _ => number / 1e6,
    };
    plausible(Timestamp(libm::floor(ms) as i64))
}

/// The time, if something may have been applied at it.
fn plausible(time: Timestamp) -> Result<Timestamp, ReadFailure> {
    if (FIRST..LAST).contains(&time.0) { Ok(time) } else { wrong("the time lies before 2000 or after 2100") }
}

/// Whether the value at a pointer says that this copy is the leader: a boolean, or the name of a role.
fn leads(answer: &Value, pointer: &JsonPointer) -> Result<bool, ReadFailure> {
    match at(answer, pointer)? {
        Value::Bool(leads) => Ok(*leads),
        Value::String(role) => Ok(is_leading(role)),
        _ => not(pointer, "boolean and no role"),
    }
}

/// Whether the name of a role means a leader.
pub(super) fn is_leading(role: &str) -> bool {
    ["leader", "primary", "master"].iter().any(|word| role.eq_ignore_ascii_case(word))
}

/// The version at a pointer: a text, or a number.
fn version(answer: &Value, pointer: &JsonPointer) -> Result<Arc<str>, ReadFailure> {
    let text = match at(answer, pointer)? {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return not(pointer, "version"),
    };
    let fits = !text.is_empty() && text.len() <= LONGEST_VERSION && !text.chars().any(char::is_control);
    if fits { Ok(text.into()) } else { not(pointer, "version of 1 to 256 bytes") }
}
