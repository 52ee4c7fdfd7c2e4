//! Classifies an event. Takes one complete event; returns whether it carries content, ends the stream, or is an error.
//! The event's bytes are read once, and no state is kept between events. Called by `sse`.

use std::borrow::Cow;

use super::choices::Choices;
use super::heartbeat;
use super::shape::FreeValues;
use crate::decide::json::{InvalidJson, Kind, Scan};
use crate::decide::usage::Usage;

/// The meaning of an event for the attempt machine.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Meaning {
    /// The event carries a part of the answer.
    Content,
    /// The event has no content of the model: a comment, the role of a message, or an announcement of later events.
    Nothing,
    /// The event's data is a word that isn't JSON. It only shows that the endpoint is alive.
    Heartbeat,
    /// The endpoint reports a failure.
    Error,
    /// `response.failed`. Before any content, the event counts as an error; after content, as the end of the stream.
    Failed,
    /// `[DONE]`: the end of a stream with content.
    Done,
    /// `response.completed` or `response.incomplete`: the end of the stream. The event holds the complete answer.
    Completed,
    /// The end of one transcript, audio or image. The event carries content, and the stream may end after it.
    Final,
}

/// The meaning of a single event. Data that isn't JSON is an error of the endpoint.
#[cfg(test)]
pub(super) fn meaning(event: &[u8]) -> Meaning {
    read_event(event, &mut FreeValues::default(), &mut Choices::default(), &mut Usage::default())
}

/// The meaning of an event of which only the beginning is known. If its type is one that ends a stream, the event is
/// the end. Any other event is content. The last image of a stream may be such a long event, of several megabytes.
pub(super) fn beginning(event: &[u8]) -> Meaning {
    let event = match core::str::from_utf8(event) {
        Ok(event) => event,
        Err(error) => core::str::from_utf8(&event[..error.valid_up_to()]).unwrap_or_default(),
    };
    let mut name = "";
    let mut kind: Option<Cow<'_, str>> = None;
    for line in event.split(['\n', '\r']) {
        match line.split_once(':') {
            Some(("event", value)) => name = value.strip_prefix(' ').unwrap_or(value),
            Some(("data", data)) => {
                let data = data.strip_prefix(' ').unwrap_or(data);
                // The JSON breaks off, so the scan ends with an error. It has read `type` if that stands before.
                let _ = Scan::of_answer(data).object(|key, value| {
                    if key == "type" && value.kind()? == Kind::String {
                        kind = Some(value.string()?);
                        return Ok(());
                    }
                    value.skip().map(drop)
                });
                break;
            }
            _ => {}
        }
    }
    match by_kind(kind.as_deref().unwrap_or(name)) {
        Some(end @ (Meaning::Completed | Meaning::Failed | Meaning::Final)) => end,
        _ => Meaning::Content,
    }
}

/// Returns an event's meaning. Also records the values that may differ without changing the meaning (`free`), the
/// choices, and the usage.
pub(super) fn read_event(event: &[u8], free: &mut FreeValues, choices: &mut Choices, usage: &mut Usage) -> Meaning {
    let Ok(event) = core::str::from_utf8(event) else { return Meaning::Error };
    let mut name = "";
    let mut data: Option<Cow<'_, str>> = None;
    let (mut line_start, mut data_start) = (0, 0);
    for line in event.split(['\n', '\r']) {
        let line_end = line_start + line.len();
        line_start = line_end + 1;
        // WHATWG *Server-sent events* §9.2.6: one space after the colon doesn't belong to the value.
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match (field, &mut data) {
            ("event", _) => name = value,
            ("data", None) => {
                data_start = line_end - value.len();
                data = Some(Cow::Borrowed(value));
            }
            ("data", Some(data)) => {
                let data = data.to_mut();
                data.push('\n');
                data.push_str(value);
            }
            _ => {}
        }
    }
    let Some(data) = data.filter(|data| !data.is_empty()) else { return Meaning::Nothing };
    if data.trim() == "[DONE]" {
        return Meaning::Done;
    }
    free.begin(data_start);
    let Ok(payload) = read(&data, free, choices, usage) else {
        return if heartbeat::is_heartbeat(name, &data) { Meaning::Heartbeat } else { Meaning::Error };
    };
    if matches!(data, Cow::Owned(_)) {
        free.begin(0); // the positions belong to the joined data, not to the event
    }
    if payload.error || name == "error" {
        return Meaning::Error;
    }
    // The payload's own `type` has priority over the event's name, because some endpoints send no names.
    let kind = payload.kind.as_deref().unwrap_or(name);
    match (by_kind(kind), payload.choices) {
        (Some(meaning), _) if meaning != Meaning::Final => meaning,
        (_, Some(false)) => Meaning::Nothing,
        (Some(meaning), None) => meaning,
        (None, None) if payload.empty => Meaning::Nothing,
        _ => Meaning::Content,
    }
}

/// The meaning of an event by its type; `None` if the type alone doesn't decide.
fn by_kind(kind: &str) -> Option<Meaning> {
    Some(match kind {
        "error" => Meaning::Error,
        "response.completed" | "response.incomplete" => Meaning::Completed,
        "response.failed" => Meaning::Failed,
        "ping"
        | "heartbeat"
        | "keepalive"
        | "keep-alive"
        | "keep_alive"
        | "response.created"
        | "response.queued"
        | "response.in_progress"
        | "response.output_item.added"
        | "response.content_part.added" => Meaning::Nothing,
        "transcript.text.done" | "speech.audio.done" | "image_generation.completed" | "image_edit.completed" => {
            Meaning::Final
        }
        _ => return None,
    })
}

/// The parts of an event's JSON that decide its meaning.
#[derive(Default)]
struct Payload<'a> {
    /// `type`.
    kind: Option<Cow<'a, str>>,
    /// A top-level `error` that isn't null, or vLLM's `"object": "error"`.
    error: bool,
    /// Whether any of `choices` has content; `None` without `choices`.
    choices: Option<bool>,
    /// `{}` or `null`.
    empty: bool,
}

/// Reads the data of an event, as far as its meaning depends on them.
fn read<'a>(
    data: &'a str,
    free: &mut FreeValues,
    choices: &mut Choices,
    usage: &mut Usage,
) -> Result<Payload<'a>, InvalidJson> {
    let mut payload = Payload { empty: true, ..Payload::default() };
    let mut scan = Scan::of_answer(data);
    match scan.kind()? {
        Kind::Object => scan.object(|key, value| {
            payload.empty = false;
            match (key.as_ref(), value.kind()?) {
                ("type", Kind::String) => payload.kind = Some(value.string()?),
                ("object", Kind::String) => payload.error |= value.string()? == "error",
                ("error", Kind::Null) => value.skip().map(drop)?,
                ("error", _) => {
                    payload.error = true;
                    value.skip()?;
                }
                ("choices", Kind::Array) => {
                    let mut says = payload.choices.unwrap_or(false);
                    let mut position = 0;
                    value.array(|choice| {
                        says |= choice_has_content(choice, position, free, choices, usage)?;
                        position += 1;
                        Ok(())
                    })?;
                    payload.choices = Some(says);
                }
                ("usage", Kind::Object) => note_usage(value, free, usage)?,
                // The last event of a response holds the whole response.
                ("response", Kind::Object) => value.object(|key, value| match (key.as_ref(), value.kind()?) {
                    ("usage", Kind::Object) => note_usage(value, free, usage),
                    ("status", Kind::String) => {
                        let status = value.text()?;
                        if matches!(status, "\"completed\"" | "\"incomplete\"") {
                            usage.note_finish(status);
                        }
                        Ok(())
                    }
                    _ => pass(value, free),
                })?,
                _ => pass(value, free)?,
            }
            Ok(())
        })?,
        kind => {
            // No event of the model API is a plain number or word. Some servers send such data, for example the time in
            // seconds, to keep the connection alive.
            payload.empty = kind != Kind::Array;
            scan.skip()?;
        }
    }
    scan.end()?;
    Ok(payload)
}

/// Whether a choice carries content: a delta with more than a role, a text, or a finish reason. A choice without an
/// index gets its position as the index.
fn choice_has_content(
    choice: &mut Scan<'_>,
    position: usize,
    free: &mut FreeValues,
    choices: &mut Choices,
    usage: &mut Usage,
) -> Result<bool, InvalidJson> {
    if choice.kind()? != Kind::Object {
        pass(choice, free)?;
        return Ok(false);
    }
    let (mut says, mut finished, mut index) = (false, false, Some(position));
    choice.object(|key, value| {
        match (key.as_ref(), value.kind()?) {
            ("delta" | "message", Kind::Object) => value.object(|key, value| {
                if key == "role" {
                    pass(value, free)?;
                } else {
                    says |= is_something(value, free)?;
                }
                Ok(())
            })?,
            ("text", _) => says |= is_something(value, free)?,
            ("finish_reason", Kind::String) => {
                let range = value.skip()?;
                finished |= range.len() > 2;
                usage.note_finish(value.since(range.start));
                free.note(Kind::String, range, true);
            }
            ("finish_reason", _) => finished |= is_something(value, free)?,
            // The index isn't noted in `free`, because it says to which choice the event belongs.
            ("index", Kind::Number) => index = value.text()?.parse().ok(),
            _ => pass(value, free)?,
        }
        Ok(())
    })?;
    choices.note(index, finished);
    Ok(says || finished)
}

/// Reads a value. Returns whether it is more than `null`, `""`, `[]` or `{}`.
fn is_something(value: &mut Scan<'_>, free: &mut FreeValues) -> Result<bool, InvalidJson> {
    let kind = value.kind()?;
    let mut any = false;
    match kind {
        Kind::Array => value.array(|item| {
            any = true;
            pass(item, free)
        })?,
        Kind::Object => value.object(|_, item| {
            any = true;
            pass(item, free)
        })?,
        Kind::String | Kind::Number | Kind::Null | Kind::True | Kind::False => {
            let range = value.skip()?;
            any = kind != Kind::Null && (kind != Kind::String || range.len() > 2);
            if any {
                free.note(kind, range, true);
            }
        }
    }
    Ok(any)
}

/// Reads a `usage` object. Its numbers may differ from event to event, because some engines send a usage with each
/// event.
fn note_usage(value: &mut Scan<'_>, free: &mut FreeValues, usage: &mut Usage) -> Result<(), InvalidJson> {
    value.object(|key, value| match value.kind()? {
        Kind::Number => {
            let range = value.skip()?;
            usage.note(&key, value.since(range.start));
            free.note(Kind::Number, range, false);
            Ok(())
        }
        _ => pass(value, free),
    })
}

/// Reads a value whose content doesn't matter. It only has to be JSON.
fn pass(value: &mut Scan<'_>, free: &mut FreeValues) -> Result<(), InvalidJson> {
    match value.kind()? {
        Kind::Array => value.array(|item| pass(item, free)),
        Kind::Object => value.object(|_, item| pass(item, free)),
        kind => {
            free.note(kind, value.skip()?, false);
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Meaning::{Completed, Content, Done, Error, Failed, Final, Heartbeat, Nothing};
    use super::*;

    #[test]
    fn events_of_chat_completions() {
        for (data, expected) in [
            (r#"{"choices":[{"delta":{"role":"assistant","content":"","refusal":null}}]}"#, Nothing),
            (r#"{"choices":[{"delta":{"role":"assistant","content":"Hi"}}]}"#, Content),
            (r#"{"choices":[{"delta":{"tool_calls":[{"id":"a"}]}}]}"#, Content),
            (r#"{"choices":[{"delta":{"reasoning_content":"hm"}}]}"#, Content),
            (r#"{"choices":[{"delta":{},"finish_reason":null}]}"#, Nothing),
            (r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#, Content),
            (r#"{"choices":[{"text":""}]}"#, Nothing),
            (r#"{"choices":[{"text":"a"}]}"#, Content),
            (r#"{"choices":[],"usage":{"total_tokens":1e400}}"#, Nothing),
            (r#"{"choices":[],"prompt_filter_results":[{"x":1}]}"#, Nothing),
            (r#"{"error":{"message":"x"}}"#, Error),
            (r#"{"error":null,"choices":[{"text":"a"}]}"#, Content),
            (r#"{"object":"error","message":"x"}"#, Error),
            (r#"{"choices":["#, Error),
            (r#"{"choices":[{"text":"a","logprobs":{"token_logprobs":[NaN,-Infinity]}}]}"#, Content),
            (r#"{"choices":[{"text":"a","logprobs":-NaN}]}"#, Error),
            ("upstream connect error", Error),
            ("ping", Heartbeat),
            ("OPENROUTER PROCESSING", Heartbeat),
            ("\"ping\"", Nothing),
            ("1796000000", Nothing),
            (r#"{"type":"keepalive","sequence_number":1}"#, Nothing),
            ("{}", Nothing),
            ("[DONE]", Done),
            (" [DONE] ", Done),
        ] {
            assert_eq!(meaning(format!("data: {data}\n\n").as_bytes()), expected, "{data}");
        }
    }

    #[test]
    fn events_of_responses() {
        for (kind, expected) in [
            ("response.created", Nothing),
            ("response.in_progress", Nothing),
            ("response.output_item.added", Nothing),
            ("response.output_text.delta", Content),
            ("response.completed", Completed),
            ("response.incomplete", Completed),
            ("image_generation.completed", Final),
            ("response.failed", Failed),
            ("error", Error),
        ] {
            let named = format!("event: {kind}\ndata: {{\"x\":1}}\n\n");
            assert_eq!(meaning(named.as_bytes()), expected, "{named}");
            let typed = format!("data: {{\"response\":{{\"error\":null}},\"type\":\"{kind}\"}}\r\n\r\n");
            assert_eq!(meaning(typed.as_bytes()), expected, "{typed}");
        }
    }

    #[test]
    fn comments_and_fields_without_data_have_no_meaning() {
        for text in [
            "\n",
            ": keep-alive\n\n",
            "event: ping\ndata: {}\n\n",
            "event: heartbeat\ndata: {\"t\":1}\n\n",
            "id: 7\nretry: 10\n\n",
            "data\n\n",
            "data:\n\n",
        ] {
            assert_eq!(meaning(text.as_bytes()), Nothing, "{text:?}");
        }
    }

    #[test]
    fn data_over_several_lines_is_joined() {
        assert_eq!(meaning(b"data: {\"choices\":\ndata: [{\"text\":\"a\"}]}\n\n"), Content);
        assert_eq!(meaning(b"data:{\"error\"\r\ndata::{}}\r\n\r\n"), Error);
        assert_eq!(meaning(b"data: \xff\n\n"), Error);
    }
}
