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

    use super::Additions;
    use crate::decide::body::tests::inspect;
    use crate::decide::route::Route;

    fn sent(path: &str, text: &str, usage: bool) -> String {
        let _ = Route::parse("POST", path).unwrap();
        let body = inspect(path, text, &[]).unwrap();
        String::from_utf8(body.for_endpoint_with(None, None, None, Additions { usage }).concat()).unwrap()
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
