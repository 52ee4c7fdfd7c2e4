//! Reads a JSON answer by the pointers of the rules. Takes the answer, returns a reading. Called by [`super::read`].

use std::sync::Arc;

use serde_json::Value;

use super::{MAX_JSON, ReadFailure, ReplicaReading, behind, lag, quoted, wrong};
use crate::rules::{JsonPointer, JsonReads, LagUnit};
use crate::time::Timestamp;

/// The longest version, in bytes.
const LONGEST_VERSION: usize = 256;
/// Times before 2000 and after 2100 are no times at which anything was applied.
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

/// What stands where the pointers lead.
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

/// What stands at a pointer. `null` is nothing: databases answer it where they know no value.
fn at<'v>(answer: &'v Value, pointer: &JsonPointer) -> Result<&'v Value, ReadFailure> {
    match answer.pointer(pointer.as_str()) {
        None => wrong(format!("the answer has nothing at {}", quoted(pointer.as_str()))),
        Some(Value::Null) => wrong(format!("the answer has null at {}", quoted(pointer.as_str()))),
        Some(value) => Ok(value),
    }
}

/// The failure of a value of another kind.
fn not<T>(pointer: &JsonPointer, what: &str) -> Result<T, ReadFailure> {
    wrong(format!("what stands at {} is no {what}", quoted(pointer.as_str())))
}

/// A number, or a text that is one.
fn number(answer: &Value, pointer: &JsonPointer) -> Result<f64, ReadFailure> {
    let number = match at(answer, pointer)? {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    number.filter(|number| number.is_finite()).map_or_else(|| not(pointer, "number"), Ok)
}

/// A time: RFC 3339, or a number since 1970.
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

/// The time of a number since 1970, whose size says whether it counts seconds, milliseconds, microseconds or
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

/// A time at which something may have been applied.
fn plausible(time: Timestamp) -> Result<Timestamp, ReadFailure> {
    if (FIRST..LAST).contains(&time.0) { Ok(time) } else { wrong("the time lies before 2000 or after 2100") }
}

/// Whether a value says that this is the leader.
fn leads(answer: &Value, pointer: &JsonPointer) -> Result<bool, ReadFailure> {
    match at(answer, pointer)? {
        Value::Bool(leads) => Ok(*leads),
        Value::String(role) => Ok(is_leading(role)),
        _ => not(pointer, "boolean and no role"),
    }
}

/// Whether a role is that of a leader.
pub(super) fn is_leading(role: &str) -> bool {
    ["leader", "primary", "master"].iter().any(|one| role.eq_ignore_ascii_case(one))
}

/// A version: a text, or a number.
fn version(answer: &Value, pointer: &JsonPointer) -> Result<Arc<str>, ReadFailure> {
    let text = match at(answer, pointer)? {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return not(pointer, "version"),
    };
    let fits = !text.is_empty() && text.len() <= LONGEST_VERSION && !text.chars().any(char::is_control);
    if fits { Ok(text.into()) } else { not(pointer, "version of 1 to 256 bytes") }
}
