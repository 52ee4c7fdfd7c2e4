//! Reads releases: what every region should run under one name of a model. Called by [`super::rules`].

use super::Context;
use super::value::{duration, number, one_of};
use crate::json::{Node, Reader};
use crate::rules::release::{hour, tolerance};
use crate::rules::{Canary, Glob, Release, Skew};
use crate::time::Millis;

/// The values of `interval`.
const INTERVALS: core::ops::RangeInclusive<Millis> = Millis(1_000)..=Millis(7 * 24 * 3_600_000);
/// The values of `tolerance`, in nats.
const TOLERANCES: core::ops::RangeInclusive<f64> = 0.001..=10.0;

/// One of the document's `releases`.
pub(super) fn release(reader: &mut Reader<'_>, node: &Node, _: &mut Context) -> Option<Release> {
    let mut fields = reader.object(node)?;
    let (model, root) = (fields.optional("model", glob), fields.optional("root", glob));
    let fingerprint = fields.optional("fingerprint", glob);
    let max_model_len = fields.optional("max_model_len", |reader, node| reader.integer(node, 1..=(1 << 53)));
    let canary = fields.optional("canary", |reader, node| {
        let text = reader.string(node)?;
        Canary::parse(text).or_else(|| {
            reader.fail(
                "is no record of a canary, or one of another version of this program; take it from `bailiwick releases \
                 --json`",
            )
        })
    });
    let apart = fields.optional("tolerance", |reader, node| {
        let nats = number(reader, node)?;
        let (low, high) = (TOLERANCES.start(), TOLERANCES.end());
        let fits = TOLERANCES.contains(&nats);
        if fits { Some(nats) } else { reader.fail(format!("is {nats}; write nats from {low} to {high}, such as 0.1")) }
    });
    let interval = fields.optional("interval", |reader, node| duration(reader, node, INTERVALS));
    let skews = [("warn", Skew::Warn), ("withhold", Skew::Withhold)];
    let skew = fields.optional("skew", |reader, node| one_of(reader, node, &skews));
    fields.finish();
    Some(Release {
        model,
        root,
        fingerprint,
        max_model_len,
        canary,
        tolerance: apart.unwrap_or_else(tolerance),
        interval: interval.unwrap_or_else(hour),
        skew: skew.unwrap_or_default(),
    })
}

/// The clients' name of a model: any text. `check` reports a name that no endpoint has.
#[expect(clippy::unnecessary_wraps, reason = "names of other sections may be refused")]
pub(super) fn model_name(text: &str) -> Option<String> {
    Some(text.to_owned())
}

/// Reads a pattern in which `*` stands for any characters.
fn glob(reader: &mut Reader<'_>, node: &Node) -> Option<Glob> {
    let text = reader.string(node)?;
    Glob::parse(text).or_else(|| {
        reader.fail(format!(
            "is {text:?}; write 1 to 256 bytes without control characters, in which \"*\" stands for any characters"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Table;

    /// Reads the release of `chat` with these fields. The error has one message for each place.
    fn read(fields: &str) -> Result<Release, Vec<String>> {
        let json = format!(
            r#"{{ "version": 1, "revision": 1, "releases": {{ "chat": {{ {fields} }} }}, "regions": {{ "r": {{
                "countries": ["DE"], "endpoints": {{ "e": {{ "url": "https://e.example/v1" }} }} }} }} }}"#
        );
        let table = Table::compile(json.as_bytes());
        let table = table.map_err(|errors| {
            let reported = errors.iter().map(ToString::to_string);
            reported.map(|line| line.replace("/releases/chat/", "")).collect::<Vec<_>>()
        })?;
        Ok(table.releases()[0].rule.clone())
    }

    #[test]
    fn every_field_has_a_default_and_is_read() {
        let default = read("").unwrap();
        assert_eq!((default.skew, default.interval, default.model), (Skew::Warn, Millis(3_600_000), None));
        let text = Canary { prompts: vec![Vec::new()] }.to_string();
        let all = format!(
            r#""model": "llama*", "root": "x/*", "fingerprint": "vllm-0.11.*", "max_model_len": 8, "canary": "{text}",
               "tolerance": 0.06, "interval": "5m", "skew": "withhold""#
        );
        let all = read(&all).unwrap();
        assert_eq!((all.skew, all.interval, all.max_model_len), (Skew::Withhold, Millis(300_000), Some(8)));
        assert_eq!(all.canary, Some(Canary { prompts: vec![Vec::new()] }));
        assert!(all.model.is_some_and(|glob| glob.matches("llama-3")));
    }

    #[test]
    fn mistakes_are_told_with_their_mends() {
        for (fields, said) in [
            (r#""model": """#, "model: is \"\"; write 1 to 256 bytes"),
            (r#""fingerprint": 7"#, "fingerprint: is a number"),
            (r#""max_model_len": 0"#, "max_model_len: is 0"),
            (r#""canary": "abc""#, "canary: is no record of a canary"),
            (r#""tolerance": 0"#, "tolerance: is 0; write nats from 0.001 to 10"),
            (r#""interval": "1ms""#, "interval: is \"1ms\"; write a duration from \"1s\" to \"168h\""),
            (r#""skew": "refuse""#, "skew: is \"refuse\"; write one of [\"warn\", \"withhold\"]"),
            (r#""modle": "x""#, "modle: "),
        ] {
            let reported = read(fields).unwrap_err();
            assert!(reported.len() == 1 && reported[0].starts_with(said), "{fields}: {reported:?}");
        }
    }

    #[test]
    fn a_release_is_of_a_model_that_some_endpoint_has() {
        let compile = |endpoint: &str| {
            let json = format!(
                r#"{{ "version": 1, "revision": 1, "releases": {{ "chat-lagre": {{}} }}, "regions": {{ "r": {{
                    "countries": ["DE"], "endpoints": {{
                        "e": {{ "url": "https://e.example/v1"{endpoint} }} }} }} }} }}"#
            );
            Table::compile(json.as_bytes()).map(|table| table.warnings(crate::time::Timestamp(0)))
        };
        let reported = compile(r#", "models": { "chat-large": "m" }"#).unwrap_err();
        assert!(
            reported.len() == 1 && reported[0].to_string().ends_with("did you mean \"chat-large\"?"),
            "{reported:?}"
        );
        let warned = compile("").unwrap();
        assert!(warned.iter().any(|one| one.message.contains("no node can check what it runs")), "{warned:?}");
    }
}
