//! What the edge itself adds to a body for some endpoints. Takes where things stand in the body; returns what to write
//! there. Called by the parent module when it makes the bytes for an endpoint.

use core::ops::Range;
use std::borrow::Cow;

use crate::decide::json::{InvalidJson, Kind, Scan};

/// What an endpoint gets beside what the client sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Additions {
    /// A stream ends with an event that tells its usage.
    pub(crate) usage: bool,
    /// The importance of its tenant in place of what the client says of it; `None`: as the client says.
    pub(crate) priority: Option<Priority>,
}

/// How a body tells the importance of its tenant. What a client says of it is left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Priority {
    /// Not at all.
    Untold,
    /// As vLLM's `priority`.
    Vllm(u16),
    /// As the `service_tier` of the OpenAI API.
    OpenAi(u16),
}

/// From this rank on, requests are `flex` at the OpenAI API.
const FLEX_FROM: u16 = 9;

/// The fields by which a body says how important it is, and where more can be written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct PriorityFields {
    /// Where another field can be inserted. Others follow.
    inside: usize,
    /// Whether the path has vLLM's `priority`, and `service_tier`.
    takes: (bool, bool),
    /// Each field that is there: its name, its value, and all of it with one comma.
    given: Vec<(&'static str, Range<usize>, Range<usize>)>,
}

impl PriorityFields {
    /// The fields of a body whose object begins at `brace`, on a path that takes some of them.
    pub(super) fn new(brace: usize, takes: (bool, bool)) -> Self {
        Self { inside: brace + 1, takes, given: Vec::new() }
    }

    /// Notes a field that is there, by the range of its value.
    pub(super) fn note(&mut self, text: &str, key: &'static str, value: Range<usize>) {
        let whole = member(text, key, value.clone()).unwrap_or_else(|| value.clone());
        self.given.push((key, value, whole));
    }

    /// What to write, and where.
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
        let is_wanted = |key: &str| wanted.as_ref().is_some_and(|(wanted, _)| *wanted == key);
        let given = self.given.iter().map(|(key, value, whole)| match &wanted {
            Some((wanted, text)) if wanted == key => (value.clone(), Cow::Owned(text.clone())),
            _ => (whole.clone(), Cow::Borrowed("")),
        });
        let is_given = self.given.iter().any(|(key, ..)| is_wanted(key));
        let inserted = wanted
            .as_ref()
            .filter(|_| !is_given)
            .map(|(key, text)| (self.inside..self.inside, Cow::Owned(format!("\"{key}\":{text},"))));
        given.chain(inserted).collect()
    }
}

/// All of a member of an object, by its key and the range of its value, with the comma behind it, or else the one
/// before it.
fn member(text: &str, key: &str, value: Range<usize>) -> Option<Range<usize>> {
    let start = text.get(..value.start)?.rfind(&format!("\"{key}\""))?;
    let after = text.get(value.end..)?;
    if let Some(rest) = after.trim_start().strip_prefix(',') {
        return Some(start..text.len() - rest.len());
    }
    let before = text.get(..start)?.trim_end();
    Some(before.strip_suffix(',').map_or(start, str::len)..value.end)
}

/// Where a body says whether its stream tells its usage.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum UsageOption {
    /// It says that it does.
    Asked,
    /// It doesn't: what to write, and where.
    Unasked(Range<usize>, &'static str),
}

impl UsageOption {
    /// Reads the value of `stream_options`, which stands at `range` of the body.
    pub(super) fn read(text: &str, kind: Kind, range: Range<usize>) -> Option<Self> {
        let value = text.get(range.clone())?;
        match kind {
            Kind::Null => Some(Self::Unasked(range, "{\"include_usage\":true}")),
            Kind::Object => within(value, range.start).ok(),
            // The endpoint refuses it.
            _ => None,
        }
    }

    /// What to write into a body without `stream_options`, whose object begins at `brace`. Other fields follow.
    pub(super) fn absent(brace: usize) -> Self {
        Self::Unasked(brace + 1..brace + 1, "\"stream_options\":{\"include_usage\":true},")
    }

    /// What to write, and where, so that the stream tells its usage.
    pub(super) fn edit(&self) -> Option<(Range<usize>, Cow<'static, str>)> {
        match self {
            Self::Asked => None,
            Self::Unasked(range, text) => Some((range.clone(), Cow::Borrowed(text))),
        }
    }
}

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
    use crate::decide::route::Route;

    fn sent(path: &str, text: &str, usage: bool) -> String {
        let _ = Route::parse("POST", path).unwrap();
        let body = inspect(path, text, &[]).unwrap();
        let additions = Additions { usage, priority: None };
        String::from_utf8(body.for_endpoint_with(None, None, None, additions).concat()).unwrap()
    }

    #[test]
    fn a_tenants_importance_is_told_as_the_endpoint_reads_it() {
        let reported = |path: &str, fields: &str, priority: Priority| {
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
            assert_eq!(reported(chat, fields, Priority::Vllm(7)), (Some(7.into()), None), "{fields}");
            assert_eq!(reported(chat, fields, Priority::OpenAi(0)), (None, Some("priority".into())), "{fields}");
            assert_eq!(reported(chat, fields, Priority::OpenAi(3)), (None, Some("default".into())), "{fields}");
            assert_eq!(reported(chat, fields, Priority::OpenAi(9)), (None, Some("flex".into())), "{fields}");
            assert_eq!(reported(chat, fields, Priority::Untold), (None, None), "{fields}");
        }
        assert_eq!(reported(completion, "", Priority::Vllm(7)), (Some(7.into()), None));
        assert_eq!(reported(completion, "", Priority::OpenAi(0)), (None, None), "it has no such field");
        assert_eq!(reported(response, "", Priority::OpenAi(0)), (None, Some("priority".into())));
        let last = r#"{"model":"m","messages":[] , "service_tier": "priority" }"#;
        let body = inspect(chat, last, &[]).unwrap();
        let additions = Additions { usage: false, priority: Some(Priority::Untold) };
        let sent = body.for_endpoint_with(None, None, None, additions).concat();
        assert_eq!(String::from_utf8(sent).unwrap(), r#"{"model":"m","messages":[]  }"#);
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
        assert_eq!(sent("/v1/chat/completions", plain, false), plain, "an endpoint without a quota");
        let unary = r#"{"model":"m","messages":[]}"#;
        assert_eq!(sent("/v1/chat/completions", unary, true), unary);
        let response = r#"{"store":false,"model":"m","stream":true,"input":"x"}"#;
        assert_eq!(sent("/v1/responses", response, true), response, "these tell it anyway");
    }
}
