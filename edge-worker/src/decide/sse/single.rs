//! Turns a JSON answer into a stream of events. Takes the complete answer; returns events with the same content. Called
//! by the attempt machine (`run`) if the client asked for a stream and the server ignored `"stream": true`. Some
//! servers do this for all models, others for some models.
//!
//! Values are written unchanged. The answer isn't parsed into a tree, so a number like `1e400` doesn't change.

use core::fmt::Write as _;

use crate::decide::json::{InvalidJson, Kind, Scan, quoted, with_nulls};

/// The kind of a path's JSON answer, if the same content can also come as a stream of events.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum AnswerKind {
    /// `/chat/completions`: one `chat.completion.chunk`, and `[DONE]`.
    Chat,
    /// `/completions`: one `text_completion`, and `[DONE]`.
    Completion,
    /// `/responses`: events for each item of the output, and a last event with the whole response.
    Response,
}

/// Makes the events of an answer; `None` if the answer isn't of this kind.
#[must_use]
pub(crate) fn events(answer_kind: AnswerKind, answer: &str) -> Option<Vec<u8>> {
    let answer = with_nulls(answer);
    let mut scan = Scan::new(&answer);
    let written = match answer_kind {
        AnswerKind::Chat => chunk(&mut scan, true),
        AnswerKind::Completion => chunk(&mut scan, false),
        AnswerKind::Response => response(&mut scan),
    };
    let mut events = written.ok()??;
    scan.end().ok()?;
    if answer_kind != AnswerKind::Response {
        events.push_str("data: [DONE]\n\n");
    }
    Some(events.into_bytes())
}

/// Writes one event. `data` is JSON, so line breaks stand between values only, where a space means the same.
fn event(name: Option<&str>, data: &str) -> String {
    let name = name.map_or_else(String::new, |name| format!("event: {name}\n"));
    format!("{name}data: {}\n\n", data.replace(['\n', '\r'], " "))
}

/// Rewrites an object. Calls `each` for every key, with the scanner at the value. `each` returns the key and the value
/// to write, or `None` if both stay.
fn rewritten<'a>(
    scan: &mut Scan<'a>,
    mut each: impl FnMut(&str, &mut Scan<'a>) -> Result<Option<(&'static str, String)>, InvalidJson>,
) -> Result<String, InvalidJson> {
    let mut fields: Vec<String> = Vec::new();
    scan.object(|key, value| {
        fields.push(match each(&key, value)? {
            Some((key, value)) => format!("\"{key}\":{value}"),
            None => format!("{}:{}", quoted(&key), value.text()?),
        });
        Ok(())
    })?;
    Ok(format!("{{{}}}", fields.join(",")))
}

/// Rewrites a list. `each` returns the text to write for an item.
fn listed<'a>(
    scan: &mut Scan<'a>,
    mut each: impl FnMut(usize, &mut Scan<'a>) -> Result<String, InvalidJson>,
) -> Result<String, InvalidJson> {
    let mut items: Vec<String> = Vec::new();
    scan.array(|item| {
        let written = each(items.len(), item)?;
        items.push(written);
        Ok(())
    })?;
    Ok(format!("[{}]", items.join(",")))
}

/// Writes a completion as a chunk. In a chat, `message` becomes `delta`.
fn chunk(scan: &mut Scan<'_>, is_chat: bool) -> Result<Option<String>, InvalidJson> {
    let mut has_choices = false;
    let data = rewritten(scan, |key, value| {
        Ok(match (key, value.kind()?) {
            ("object", _) if is_chat => {
                value.skip()?;
                Some(("object", "\"chat.completion.chunk\"".to_owned()))
            }
            ("choices", Kind::Array) => {
                has_choices = true;
                Some((
                    "choices",
                    listed(value, |_, choice| if is_chat { delta(choice) } else { choice.text().map(str::to_owned) })?,
                ))
            }
            _ => None,
        })
    })?;
    Ok(has_choices.then(|| event(None, &data)))
}

/// Writes a choice of a chunk. In a chunk, tool calls need an index.
fn delta(choice: &mut Scan<'_>) -> Result<String, InvalidJson> {
    rewritten(choice, |key, value| {
        Ok(match (key, value.kind()?) {
            ("message", Kind::Object) => {
                let message = rewritten(value, |key, value| {
                    Ok(match (key, value.kind()?) {
                        ("tool_calls", Kind::Array) => Some(("tool_calls", listed(value, tool_call)?)),
                        _ => None,
                    })
                })?;
                Some(("delta", message))
            }
            _ => None,
        })
    })
}

/// Writes a tool call, and adds its position as the index if it has no index.
fn tool_call(position: usize, call: &mut Scan<'_>) -> Result<String, InvalidJson> {
    if call.kind()? != Kind::Object {
        return call.text().map(str::to_owned);
    }
    let mut has_index = false;
    let written = rewritten(call, |key, _| {
        has_index |= key == "index";
        Ok(None)
    })?;
    let rest = written.strip_prefix('{').unwrap_or_default();
    let comma = if rest == "}" { "" } else { "," };
    Ok(if has_index { written } else { format!("{{\"index\":{position}{comma}{rest}") })
}

/// Makes the events of a response.
fn response(scan: &mut Scan<'_>) -> Result<Option<String>, InvalidJson> {
    let start = scan.at();
    let mut status = None;
    let mut items: Vec<String> = Vec::new();
    let mut has_output = false;
    let begun = rewritten(scan, |key, value| {
        Ok(match (key, value.kind()?) {
            ("status", Kind::String) => {
                status = Some(value.string()?.into_owned());
                Some(("status", "\"in_progress\"".to_owned()))
            }
            ("output", Kind::Array) => {
                has_output = true;
                value.array(|item| {
                    items.push(item.text()?.to_owned());
                    Ok(())
                })?;
                Some(("output", "[]".to_owned()))
            }
            _ => None,
        })
    })?;
    let last = match status.as_deref() {
        None | Some("completed") => "response.completed",
        Some("incomplete") => "response.incomplete",
        Some("failed") => "response.failed",
        Some(_) => return Ok(None),
    };
    if !has_output {
        return Ok(None);
    }
    let mut reported = ResponseEvents::default();
    reported.push("response.created", &format!("\"response\":{begun}"));
    for (position, item) in items.iter().enumerate() {
        reported.item(position, item)?;
    }
    let whole = scan.since(start);
    reported.push(last, &format!("\"response\":{whole}"));
    Ok(Some(reported.events))
}

/// The events of a response that were written so far.
#[derive(Default)]
struct ResponseEvents {
    events: String,
    count: usize,
}

impl ResponseEvents {
    /// Writes an event of the type `kind` with these fields.
    fn push(&mut self, kind: &str, fields: &str) {
        let data = format!("{{\"type\":\"{kind}\",\"sequence_number\":{},{fields}}}", self.count);
        self.events.push_str(&event(Some(kind), &data));
        self.count += 1;
    }

    /// Writes the events of an item of the output: its beginning, the texts of a message, and the complete item.
    fn item(&mut self, position: usize, item: &str) -> Result<(), InvalidJson> {
        let mut parts: Vec<String> = Vec::new();
        let (mut id, mut is_message) = ("null".to_owned(), false);
        let mut scan = Scan::new(item);
        if scan.kind()? != Kind::Object {
            return Ok(());
        }
        let begun = rewritten(&mut scan, |key, value| {
            Ok(match (key, value.kind()?) {
                ("id", Kind::String) => {
                    let text = value.text()?.to_owned();
                    id.clone_from(&text);
                    Some(("id", text))
                }
                ("type", Kind::String) => {
                    let text = value.text()?.to_owned();
                    is_message = text == "\"message\"";
                    Some(("type", text))
                }
                ("content", Kind::Array) => {
                    value.array(|part| {
                        parts.push(part.text()?.to_owned());
                        Ok(())
                    })?;
                    Some(("content", "[]".to_owned()))
                }
                _ => None,
            })
        })?;
        let at = format!("\"output_index\":{position}");
        self.push("response.output_item.added", &format!("{at},\"item\":{}", if is_message { &begun } else { item }));
        for (content, part) in parts.iter().enumerate().filter(|_| is_message) {
            self.part(&format!("\"item_id\":{id},{at},\"content_index\":{content}"), part)?;
        }
        self.push("response.output_item.done", &format!("{at},\"item\":{item}"));
        Ok(())
    }

    /// Writes the events of a part of a message, and of its text, if it has one.
    fn part(&mut self, at: &str, part: &str) -> Result<(), InvalidJson> {
        let mut text = None;
        let mut scan = Scan::new(part);
        if scan.kind()? != Kind::Object {
            return Ok(());
        }
        let empty = rewritten(&mut scan, |key, value| {
            Ok(match (key, value.kind()?) {
                ("text", Kind::String) => {
                    text = Some(value.text()?.to_owned());
                    Some(("text", "\"\"".to_owned()))
                }
                _ => None,
            })
        })?;
        self.push("response.content_part.added", &format!("{at},\"part\":{empty}"));
        if let Some(text) = text {
            let mut fields = at.to_owned();
            let _ = write!(fields, ",\"logprobs\":[]");
            self.push("response.output_text.delta", &format!("{fields},\"delta\":{text}"));
            self.push("response.output_text.done", &format!("{fields},\"text\":{text}"));
        }
        self.push("response.content_part.done", &format!("{at},\"part\":{part}"));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::sse::{Framer, Meaning};

    fn made(answer_kind: AnswerKind, answer: &str) -> Option<String> {
        events(answer_kind, answer).map(|events| String::from_utf8(events).unwrap())
    }

    #[test]
    fn a_chat_completion_is_one_chunk() {
        let answer = "{\n \"id\": \"c-1\",\r\n \"object\":\"chat.completion\",\"n\":1e400,\
            \"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"a\\nb\",\
            \"tool_calls\":[{\"id\":\"t\",\"function\":{\"name\":\"f\"}},{}]},\
            \"logprobs\":NaN,\"finish_reason\":\"stop\"}],\"usage\":{\"total_tokens\":2}}";
        let expected = "data: {\"id\":\"c-1\",\"object\":\"chat.completion.chunk\",\"n\":1e400,\
            \"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"a\\nb\",\
            \"tool_calls\":[{\"index\":0,\"id\":\"t\",\"function\":{\"name\":\"f\"}},\
            {\"index\":1}]},\"logprobs\":null,\"finish_reason\":\"stop\"}],\
            \"usage\":{\"total_tokens\":2}}\n\ndata: [DONE]\n\n";
        assert_eq!(made(AnswerKind::Chat, answer).unwrap(), expected);
    }

    #[test]
    fn a_completion_is_one_event_as_it_is() {
        let answer = r#"{"object":"text_completion","choices":[{"text":"a","index":0,"finish_reason":"stop"}]}"#;
        assert_eq!(made(AnswerKind::Completion, answer).unwrap(), format!("data: {answer}\n\ndata: [DONE]\n\n"));
    }

    #[test]
    fn a_response_becomes_events_from_its_beginning_to_its_end() {
        let answer = r#"{"object":"response","id":"resp_1","status":"completed","output":[
            {"type":"reasoning","id":"rs_1","summary":[]},
            {"type":"message","id":"msg_1","content":[{"type":"output_text","text":"Hi","annotations":[]}]}]}"#;
        let events = made(AnswerKind::Response, answer).unwrap();
        let names: Vec<&str> = events.lines().filter_map(|line| line.strip_prefix("event: response.")).collect();
        let of_text = ["content_part.added", "output_text.delta", "output_text.done", "content_part.done"];
        let expected = [
            &["created", "output_item.added", "output_item.done", "output_item.added"][..],
            &of_text,
            &["output_item.done", "completed"],
        ];
        assert_eq!(names, expected.concat());
        let data: Vec<serde_json::Value> = events
            .lines()
            .filter_map(|line| line.strip_prefix("data: "))
            .map(|data| serde_json::from_str(data).unwrap())
            .collect();
        assert!(data.iter().enumerate().all(|(count, data)| data["sequence_number"] == count));
        assert_eq!(
            (&data[0]["response"]["output"], &data[0]["response"]["status"]),
            (&serde_json::json!([]), &"in_progress".into())
        );
        assert_eq!(
            (&data[5]["delta"], &data[5]["item_id"], &data[5]["output_index"]),
            (&"Hi".into(), &"msg_1".into(), &1.into())
        );
        assert_eq!(data.last().unwrap()["response"], serde_json::from_str::<serde_json::Value>(answer).unwrap());
        let mut framer = Framer::default();
        assert_eq!(
            framer.push(events.into_bytes()).events.last().map(|(_, meaning)| *meaning),
            Some(Meaning::Completed)
        );
    }

    #[test]
    fn other_answers_give_no_events() {
        for answer in [
            "[]",
            "{}",
            "{\"choices\":null}",
            "{\"choices\":[]",
            "{\"choices\":[]} x",
            "\"x\"",
            "{\"output\":[],\"status\":\"queued\"}",
        ] {
            for answer_kind in [AnswerKind::Chat, AnswerKind::Completion, AnswerKind::Response] {
                assert_eq!(made(answer_kind, answer), None, "{answer}");
            }
        }
    }
}
