//! Makes the edits that add fields to a body for some endpoints: the option to report usage, and a priority. Takes the
//! offsets of fields in the body, returns the edits. Called by `body` when it makes the bytes for an endpoint.

use core::ops::Range;
use std::borrow::Cow;

use crate::decide::json::{InvalidJson, Kind, Scan};

/// The fields to add for an endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Additions {
    /// Whether the body must ask for an event at the end of the stream that reports the usage.
    pub(crate) usage: bool,
    /// The priority of the tenant, which replaces the client's priority. With `None` the client's priority stays.
    pub(crate) priority: Option<Priority>,
}

/// The field in which an endpoint expects the tenant's priority, with the rank of the tenant's service tier: 0 is the
/// most important. Priorities that the client wrote are removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Priority {
    /// The body states no priority.
    Absent,
    /// vLLM's `priority`.
    Vllm(u16),
    /// The `service_tier` of the OpenAI API.
    OpenAi(u16),
}

/// Requests of this rank or a higher number get the service tier `flex` in the OpenAI API.
const FLEX_FROM: u16 = 9;

/// The fields of a body that state its priority.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct PriorityFields {
    /// The offset after the opening brace, where a field can be inserted.
    inside: usize,
    /// Whether the request's path has the field `priority`, and whether it has the field `service_tier`.
    takes: (bool, bool),
    /// The fields that the client wrote.
    given: Vec<ClientField>,
}

/// A field that the client wrote.
#[derive(Clone, PartialEq, Eq, Debug)]
struct ClientField {
    key: &'static str,
    value: Range<usize>,
    /// From the key's opening quote to the end of the value.
    field: Range<usize>,
    /// The offsets of the commas before and after the field. The first and the last field of an object lack one.
    commas: [Option<usize>; 2],
}

impl PriorityFields {
    /// The fields of a body whose object begins at `brace`. `takes` says which of them the path has.
    pub(super) fn new(brace: usize, takes: (bool, bool)) -> Self {
        Self { inside: brace + 1, takes, given: Vec::new() }
    }

    /// Records a field that the client wrote, with the range of its value.
    pub(super) fn note(&mut self, text: &str, key: &'static str, value: Range<usize>) {
        let before = text.get(..value.start).unwrap_or_default().trim_end();
        // A client may write a letter of the key as an escape, but no quote stands within these keys.
        let name = before.strip_suffix(':').map(str::trim_end).and_then(|before| before.strip_suffix('"'));
        let start = name.and_then(|name| name.rfind('"')).unwrap_or(value.start);
        let before = text.get(..start).unwrap_or_default().trim_end().strip_suffix(',');
        let after = text.get(value.end..).unwrap_or_default();
        let after = after.trim_start().strip_prefix(',').map(|rest| text.len() - rest.len() - 1);
        self.given.push(ClientField { key, field: start..value.end, value, commas: [before.map(str::len), after] });
    }

    /// The edits that make the body state this priority: ranges of the body with their new text.
    pub(super) fn edits(&self, priority: Priority) -> Vec<(Range<usize>, Cow<'static, str>)> {
        let wanted = match priority {
            Priority::Vllm(rank) if self.takes.0 => Some(("priority", rank.to_string())),
            Priority::OpenAi(rank) if self.takes.1 => {
                let word = match rank {
                    0 => "\"priority\"",
                    FLEX_FROM.. => "\"flex\"",
                    _ => "\"default\"",
                };
                Some(("service_tier", word.to_owned()))
            }
            _ => None,
        };
        let is_wanted = |field: &&ClientField| wanted.as_ref().is_some_and(|(wanted, _)| *wanted == field.key);
        let replaced = self.given.iter().find(is_wanted);
        let removed = removals(self.given.iter().filter(|field| !is_wanted(field)).collect());
        let edit = wanted.as_ref().map(|(key, text)| match replaced {
            Some(field) => (field.value.clone(), Cow::Owned(text.clone())),
            None => (self.inside..self.inside, Cow::Owned(format!("\"{key}\":{text},"))),
        });
        removed.into_iter().map(|range| (range, Cow::Borrowed(""))).chain(edit).collect()
    }
}

/// The ranges to cut out so that these fields are gone, and every field that stays has the commas that it needs.
fn removals(mut removed: Vec<&ClientField>) -> Vec<Range<usize>> {
    removed.sort_by_key(|given| given.field.start);
    // Each with the comma before it.
    let mut ranges: Vec<(Range<usize>, Option<usize>)> = Vec::new();
    for given in removed {
        let [mut before, after] = given.commas;
        if let Some(after) = after {
            ranges.push((given.field.start..after + 1, before));
            continue;
        }
        // The last field of the object takes the comma before it along. If the field before is cut out too, that comma
        // is gone already, and the one before that field is in the way.
        let mut start = given.field.start;
        while let Some((range, earlier)) =
            ranges.pop_if(|(range, _)| before.is_some_and(|comma| range.end == comma + 1))
        {
            (start, before) = (range.start, earlier);
        }
        ranges.push((before.unwrap_or(start)..given.field.end, None));
    }
    ranges.into_iter().map(|(range, _)| range).collect()
}

/// Whether a body asks for a stream that reports its usage (`stream_options.include_usage`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum UsageOption {
    /// The client asks for usage.
    Asked,
    /// The client doesn't ask. If the text replaces the range, the body asks for usage.
    Unasked(Range<usize>, &'static str),
}

impl UsageOption {
    /// Reads the value of `stream_options`, which is at `range` of the body. `None` for an invalid value.
    pub(super) fn read(text: &str, kind: Kind, range: Range<usize>) -> Option<Self> {
        let value = text.get(range.clone())?;
        match kind {
            Kind::Null => Some(Self::Unasked(range, "{\"include_usage\":true}")),
            Kind::Object => within(value, range.start).ok(),
            // The endpoint refuses other values.
            _ => None,
        }
    }

    /// The option for a body without `stream_options`, whose object begins at `brace` and has other fields.
    pub(super) fn absent(brace: usize) -> Self {
        Self::Unasked(brace + 1..brace + 1, "\"stream_options\":{\"include_usage\":true},")
    }

    /// The edit that makes the stream report its usage, if an edit is needed.
    pub(super) fn edit(&self) -> Option<(Range<usize>, Cow<'static, str>)> {
        match self {
            Self::Asked => None,
            Self::Unasked(range, text) => Some((range.clone(), Cow::Borrowed(text))),
        }
    }
}

/// Reads `include_usage` in an object that begins at the offset `start` of the body.
fn within(value: &str, start: usize) -> Result<UsageOption, InvalidJson> {
    let mut scan = Scan::new(value);
    scan.kind()?;
    let inside = start + scan.at() + 1;
    let (mut is_empty, mut found) = (true, None);
    scan.object(|key, value| {
        is_empty = false;
        let (kind, from) = (value.kind()?, value.at());
        value.skip()?;
        if key == "include_usage" {
            found = Some((kind, start + from..start + value.at()));
        }
        Ok(())
    })?;
    Ok(match found {
        Some((Kind::True, _)) => UsageOption::Asked,
        Some((_, range)) => UsageOption::Unasked(range, "true"),
        None if is_empty => UsageOption::Unasked(inside..inside, "\"include_usage\":true"),
        None => UsageOption::Unasked(inside..inside, "\"include_usage\":true,"),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::{Additions, Priority};
    use crate::decide::body::tests::inspect;
    use bailiwick_rules::rules::Allowance;

    fn sent(path: &str, text: &str, usage: bool) -> String {
        let body = inspect(path, text, &[]).unwrap();
        let additions = Additions { usage, priority: None };
        String::from_utf8(body.for_endpoint_with(None, None, None, additions).concat()).unwrap()
    }

    #[test]
    fn the_tenants_priority_replaces_that_of_the_client_in_the_endpoints_form() {
        let sent_fields = |path: &str, fields: &str, priority: Priority| {
            let text = format!(r#"{{"model":"m",{fields}"messages":[],"input":"x","prompt":"x"}}"#);
            let field = if path.ends_with("chat/completions") { r#""input":"x","prompt":"x"}"# } else { "" };
            let text = match path {
                "/v1/chat/completions" => text.replace(&format!(",{field}"), "}"),
                "/v1/responses" => {
                    text.replace(r#""messages":[],"#, r#""store":false,"#).replace(r#","prompt":"x""#, "")
                }
                _ => text.replace(r#""messages":[],"input":"x","#, ""),
            };
            let body = inspect(path, &text, &[]).unwrap();
            let additions = Additions { usage: false, priority: Some(priority) };
            let sent = body.for_endpoint_with(None, None, None, additions).concat();
            let value: Value = serde_json::from_slice(&sent).unwrap_or_else(|_| panic!("{text}"));
            assert_eq!(value["model"], "m", "{text}");
            (value.get("priority").cloned(), value.get("service_tier").cloned())
        };
        let (chat, completion, response) = ("/v1/chat/completions", "/v1/completions", "/v1/responses");
        for fields in
            ["", r#""priority":0,"#, r#""service_tier":"priority","#, r#""priority" : 0 , "service_tier":"auto","#]
        {
            assert_eq!(sent_fields(chat, fields, Priority::Vllm(7)), (Some(7.into()), None), "{fields}");
            assert_eq!(sent_fields(chat, fields, Priority::OpenAi(0)), (None, Some("priority".into())), "{fields}");
            assert_eq!(sent_fields(chat, fields, Priority::OpenAi(3)), (None, Some("default".into())), "{fields}");
            assert_eq!(sent_fields(chat, fields, Priority::OpenAi(9)), (None, Some("flex".into())), "{fields}");
            assert_eq!(sent_fields(chat, fields, Priority::Absent), (None, None), "{fields}");
        }
        assert_eq!(sent_fields(completion, "", Priority::Vllm(7)), (Some(7.into()), None));
        assert_eq!(sent_fields(completion, "", Priority::OpenAi(0)), (None, None), "completions have no service_tier");
        assert_eq!(sent_fields(response, "", Priority::OpenAi(0)), (None, Some("priority".into())));
        let last = r#"{"model":"m","messages":[] , "service_tier": "priority" }"#;
        let body = inspect(chat, last, &[]).unwrap();
        let additions = Additions { usage: false, priority: Some(Priority::Absent) };
        let sent = body.for_endpoint_with(None, None, None, additions).concat();
        assert_eq!(String::from_utf8(sent).unwrap(), r#"{"model":"m","messages":[]  }"#);
    }

    /// All orders of these.
    fn orders<'a>(members: &[&'a str]) -> Vec<Vec<&'a str>> {
        if members.is_empty() {
            return vec![Vec::new()];
        }
        let first = |at: usize| {
            let others = [&members[..at], &members[at + 1..]].concat();
            orders(&others).into_iter().map(move |rest| [vec![members[at]], rest].concat())
        };
        (0..members.len()).flat_map(first).collect()
    }

    #[test]
    fn the_clients_priority_is_removed_wherever_it_stands_and_nothing_else_is() {
        let escaped = [r#""priority" : 0"#, r#""\u0070\u0072iority":0"#, r#""\u0070riority": 0 "#];
        let (mut cases, lures) = (0, [r#""foo\"priority":1"#, r#""note":"\"priority\":2,""#]);
        for priority in escaped {
            let members =
                [r#""model":"m""#, lures[0], lures[1], priority, r#" "service_tier" : "auto""#, r#""messages":[]"#];
            for order in orders(&members) {
                let text = format!("{{{}}}", order.join(" ,"));
                let body = inspect("/v1/chat/completions", &text, &[Allowance::UnknownFields]).unwrap();
                for (priority, rank) in [(Priority::Absent, None), (Priority::Vllm(7), Some(7))] {
                    let additions = Additions { usage: false, priority: Some(priority) };
                    let sent = body.for_endpoint_with(None, None, None, additions).concat();
                    let sent: Value = serde_json::from_slice(&sent)
                        .unwrap_or_else(|error| panic!("{error}: {text}: {}", String::from_utf8_lossy(&sent)));
                    let mut expected: Value = serde_json::from_str(&text).unwrap();
                    let fields = expected.as_object_mut().unwrap();
                    fields.retain(|key, _| key != "priority" && key != "service_tier");
                    fields.extend(rank.map(|rank: u16| ("priority".to_owned(), rank.into())));
                    assert_eq!(sent, expected, "{text}");
                    cases += 1;
                }
            }
        }
        println!("{cases} bodies");
    }

    #[test]
    fn a_stream_is_asked_for_its_usage_where_the_client_did_not_ask() {
        for options in [
            "",
            r#","stream_options":null"#,
            r#","stream_options":{}"#,
            r#","stream_options": { "include_usage" :false}"#,
            r#","stream_options":{"include_obfuscation":false}"#,
            r#","stream_options":{"include_usage":null}"#,
        ] {
            let text = format!(r#"{{"model":"m","stream":true{options},"messages":[]}}"#);
            let sent = sent("/v1/chat/completions", &text, true);
            let value: Value = serde_json::from_str(&sent).unwrap();
            assert_eq!(value["stream_options"]["include_usage"], true, "{text}: {sent}");
            assert_eq!(value["messages"], serde_json::json!([]), "{sent}");
        }
        let asked = r#"{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[]}"#;
        assert_eq!(sent("/v1/chat/completions", asked, true), asked);
        let plain = r#"{"model":"m","stream":true,"messages":[]}"#;
        assert_eq!(sent("/v1/chat/completions", plain, false), plain, "no usage is needed without a quota");
        let unary = r#"{"model":"m","messages":[]}"#;
        assert_eq!(sent("/v1/chat/completions", unary, true), unary);
        let response = r#"{"store":false,"model":"m","stream":true,"input":"x"}"#;
        assert_eq!(sent("/v1/responses", response, true), response, "streams of the Responses API always report usage");
    }
}
