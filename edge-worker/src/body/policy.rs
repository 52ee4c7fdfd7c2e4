//! What would let a model host reach out of the fence, and where ids stand: a top-level field of a body in, a refusal with its
//! sentence or what was found out. One pass over the field for both.

use core::ops::Range;

use bailiwick_rules::rules::Allowance;

use crate::envelope::Failure;
use crate::json::{Broken, Kind, Scan, known_as, reads_as};
use crate::state::fields::{Field, field};

/// Tools that the client runs itself. Every other type is run by the model host.
const LOCAL_TOOLS: &[&str] = &["function", "custom", "local_shell", "computer_use_preview", "apply_patch"];

/// Fields by which hosts are asked to search or call out without `tools`.
const HOSTED_FIELDS: &[&str] = &[
    "web_search_options",
    "search_parameters",
    "enable_search",
    "data_sources",
    "mcp_servers",
    "plugins",
    "integrations",
];

/// Fields whose URL the model host fetches, wherever they stand.
const URL_FIELDS: &[&str] = &["image_url", "file_url", "audio_url", "video_url", "document_url"];

/// What was found in a body.
#[derive(Default)]
pub(super) struct Found {
    /// Ids, and where in the body they stand, in order.
    pub(super) ids: Vec<(Range<usize>, String)>,
    failure: Option<Failure>,
}

/// Checks one top-level field, whose value is known to be JSON and begins at `start` of the body.
pub(super) fn check(
    key: &str,
    kind: Kind,
    value: &str,
    start: usize,
    allow: &[Allowance],
    found: &mut Found,
) -> Result<(), Failure> {
    if !allow.contains(&Allowance::HostedTools) {
        if known_as(key, HOSTED_FIELDS).is_some() && !matches!(kind, Kind::Null | Kind::False) {
            return Err(Failure::HostedTool { tool: key.to_owned() });
        }
        if key == "tools" && kind == Kind::Array {
            let _ = tools(&mut Scan::new(value), &mut found.failure);
        }
    }
    let walk = Walk { start, remote_urls: allow.contains(&Allowance::RemoteUrls) };
    // Most fields are plain values of no meaning here.
    let plain = !matches!(kind, Kind::Object | Kind::Array | Kind::String);
    if !plain {
        let _ = walk.value(key, field(key), &mut Scan::new(value), found);
    }
    found.failure.take().map_or(Ok(()), Err)
}

/// Every item of `tools` is an object with one or more `type`s, all of them local.
fn tools(scan: &mut Scan<'_>, failure: &mut Option<Failure>) -> Result<(), Broken> {
    scan.array(|tool| {
        let mut named = false;
        if tool.kind()? != Kind::Object {
            failure.get_or_insert(Failure::HostedTool { tool: "a tool without a type".to_owned() });
            return tool.skip().map(drop);
        }
        tool.object(|key, value| {
            if !reads_as(&key, "type") || value.kind()? != Kind::String {
                return value.skip().map(drop);
            }
            named = true;
            let kind = value.string()?;
            if !LOCAL_TOOLS.contains(&kind.as_ref()) {
                failure.get_or_insert(Failure::HostedTool { tool: kind.into_owned() });
            }
            Ok(())
        })?;
        if !named {
            failure.get_or_insert(Failure::HostedTool { tool: "a tool without a type".to_owned() });
        }
        Ok(())
    })
}

/// Looks at every value below a field, duplicates included.
struct Walk {
    start: usize,
    remote_urls: bool,
}

impl Walk {
    /// `key` is that of the value, or the nearest above it; `meaning` what stands under it.
    fn value(&self, key: &str, meaning: Field, scan: &mut Scan<'_>, found: &mut Found) -> Result<(), Broken> {
        let holds_url = !self.remote_urls && known_as(key, URL_FIELDS).is_some();
        match scan.kind()? {
            Kind::Object => {
                let mut kind_is_reference = false;
                scan.object(|inner, value| {
                    if meaning != Field::Opaque && reads_as(&inner, "type") && value.kind()? == Kind::String {
                        kind_is_reference |= value.string()? == "item_reference";
                        return Ok(());
                    }
                    let inner_meaning = if meaning == Field::Opaque { Field::Opaque } else { field(&inner) };
                    // `{"image_url": {"url": …}}`: the outer name counts.
                    let inner = if holds_url && reads_as(&inner, "url") { key } else { &inner };
                    self.value(inner, inner_meaning, value, found)
                })?;
                if kind_is_reference {
                    // It names an item that is stored somewhere by an id that never was sealed.
                    found.failure.get_or_insert(Failure::NotCarried { what: "Item references" });
                }
                Ok(())
            }
            Kind::Array => {
                // In a list under the key of one id a lenient server may take the first.
                scan.array(|item| self.value(key, meaning, item, found))
            }
            Kind::String if matches!(meaning, Field::Id | Field::Ids) => {
                let start = scan.at();
                let id = scan.string()?.into_owned();
                found.ids.push((self.start + start..self.start + scan.at(), id));
                Ok(())
            }
            Kind::String if holds_url => {
                if is_remote(&scan.string()?) {
                    found.failure.get_or_insert(Failure::RemoteUrl { field: key.to_owned() });
                }
                Ok(())
            }
            _ => scan.skip().map(drop),
        }
    }
}

/// Whether a host would fetch it. `data:` holds the content itself; bare base64 has no colon.
pub(crate) fn is_remote(text: &str) -> bool {
    let text = text.trim_start();
    let data = text.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("data:"));
    !data && (text.contains(':') || text.starts_with("//"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::Inspected;
    use crate::rewrite::path::Route;

    fn refused(fields: &str, allow: &[Allowance]) -> Option<&'static str> {
        let text = format!("{{\"model\":\"a\",{fields}}}");
        let route = Route::parse("POST", "/v1/responses").unwrap();
        let failure = Inspected::json(text.into_bytes(), &route, allow).err()?;
        Some(match failure {
            Failure::RemoteUrl { .. } => "url",
            Failure::HostedTool { .. } => "tool",
            _ => "other",
        })
    }

    #[test]
    fn remote_urls_are_found_wherever_they_stand() {
        for fields in [
            r#""messages":[{"content":[{"type":"image_url","image_url":{"url":"https://a/b.png"}}]}]"#,
            r#""input":[{"content":[{"type":"input_image","image_url":"http://a"}]}]"#,
            r#""input":[{"content":[{"type":"input_file","file_url":"gs://a/b"}]}]"#,
            r#""messages":[{"content":[{"image_\u0075rl":{"\u0075rl":"\u0068ttps://a"}}]}]"#,
            r#""messages":[{"image_url":{"url":"data:,","url":"https://a"}}]"#,
            r#""messages":[{"Image_URL":{"URL":"//a/b"}}]"#,
            r#""input":[{"image_url":[{"url":" https://a"}]}]"#,
            r#""messages":[{"content":[{"type":"document_url","document_url":"https://a"}]}]"#,
        ] {
            assert_eq!(refused(fields, &[]), Some("url"), "{fields}");
            assert_eq!(refused(fields, &[Allowance::RemoteUrls]), None, "{fields}");
        }
        for fields in [
            r#""messages":[{"image_url":{"url":"data:image/png;base64,AAAA","detail":"low"}}]"#,
            r#""messages":[{"image_url":"AAAA"}]"#,
            r#""messages":[{"content":"see https://a/image_url"}]"#,
            r#""tools":[{"type":"function","parameters":{"properties":{"image_url":{"type":"string"}}}}]"#,
        ] {
            assert_eq!(refused(fields, &[]), None, "{fields}");
        }
    }

    #[test]
    fn tools_the_host_runs_are_refused() {
        for fields in [
            r#""tools":[{"type":"web_search"}]"#,
            r#""tools":[{"type":"function"},{"type":"mcp","server_url":"x"}]"#,
            r#""tools":[{"type":"function","type":"code_interpreter"}]"#,
            r#""tools":[{"google_search":{}}]"#,
            r#""tools":["web_search"]"#,
            r#""web_search_options":{}"#,
            r#""data_sources":[{}]"#,
            r#""search_parameters":{"mode":"on"}"#,
            r#""enable_search":true"#,
            "\"enable_\u{17f}earch\":true",
            "\"tools\":[{\"type\":\"function\",\"TYPE\":\"mcp\"}]",
        ] {
            assert_eq!(refused(fields, &[]), Some("tool"), "{fields}");
            assert_eq!(refused(fields, &[Allowance::HostedTools]), None, "{fields}");
        }
        assert_eq!(refused(r#""tools":[{"type":"function","function":{"name":"f"}},{"type":"custom"}]"#, &[]), None);
        assert_eq!(refused(r#""tools":null,"web_search_options":null,"enable_search":false"#, &[]), None);
        assert_eq!(refused(r#""input":[{"Type":"item_reference","id":"msg_1"}]"#, &[]), Some("other"));
    }
}
