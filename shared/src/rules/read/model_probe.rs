//! Reads monitors that ask a model. Takes the fields of a monitor of type `openai`, and the endpoint or region that it
//! watches; returns a [`ModelProbe`]. Called by the reader of monitors.

use std::collections::BTreeMap;

use super::http::{api_version, base_url, tls_fields};
use super::value::{declared, duration, one_of, secret_name};
use crate::json::{Fields, Node, Reader};
use crate::rules::{HttpProbe, HttpUrl, ModelProbe, NoUrl, PROBE_TOKENS, ProbeBudget, RequestTarget, Style};
use crate::time::Millis;

/// The fields that only monitors of type `openai` have, except those of TLS.
pub(super) const FIELDS: [&str; 5] = ["model", "first_token", "budget", "style", "api_version"];

/// What a monitor watches.
#[derive(Clone, Copy)]
pub(super) enum ProbeTarget<'e> {
    /// A region as a whole.
    Region,
    /// An endpoint, with what its own fields say; no URL if that couldn't be read.
    Endpoint {
        url: Option<&'e HttpUrl>,
        style: Style,
        api_version: Option<&'e str>,
        models: Option<&'e BTreeMap<String, String>>,
    },
}

const DAY: Millis = Millis(86_400_000);
/// The time between two probes, if the rules don't give it.
pub(super) const INTERVAL: Millis = Millis(30_000);
/// How long a probe waits for a token, if the rules don't say it.
const FIRST_TOKEN: Millis = Millis(5_000);

/// Reads the probe, and how long it waits for a token.
pub(super) fn model_probe(
    fields: &mut Fields<'_, '_, '_>,
    watched: ProbeTarget<'_>,
    interval: Millis,
) -> Option<(ModelProbe, Millis)> {
    let model = fields.required("model", "the model to ask for a token, such as \"chat\"", |reader, node| {
        upstream(reader, node, watched)
    });
    let (url, style, api_version) = base(fields, watched);
    let has_first_token = fields.has("first_token");
    let first_token = fields.optional("first_token", |reader, node| {
        let span = duration(reader, node, Millis(100)..=Millis(300_000))?;
        if span >= interval {
            return reader.fail(format!(
                "is {span}, not less than \"interval\" ({interval}), so that one probe would run into the next; make \
                 \"interval\" longer, or this shorter"
            ));
        }
        Some(span)
    });
    if !has_first_token && FIRST_TOKEN >= interval {
        fields.fail::<()>(format!(
            "has an \"interval\" ({interval}) that isn't longer than its \"first_token\" ({FIRST_TOKEN} unless it is \
             given), so that one probe would run into the next; make it longer, or write a shorter \"first_token\""
        ));
    }
    for key in ["timeout", "status", "body_contains", "address"] {
        let instead = if key == "timeout" { "write \"first_token\"" } else { "leave it out" };
        if fields.has(key) {
            fields.optional(key, |reader, _| {
                reader.fail::<()>(format!("belongs to other types of monitors; with \"openai\" {instead}"))
            });
        }
    }
    let budget = fields.optional("budget", budget);
    let secret = fields.optional("secret", secret_name);
    let (host, sni, ca_file) = tls_fields(fields, url.as_ref());
    let (base, model) = (url?, model?);
    let segments = ["chat", "completions"];
    let (style, deployment) = (style?, Some(model.as_str()));
    let path = RequestTarget { style, api_version: api_version.as_deref(), deployment, segments: &segments };
    let url = match path.url(&base, &[]) {
        Ok(url) => HttpUrl::of_request(url),
        Err(NoUrl::Segment | NoUrl::Base) => {
            return fields.fail(format!("names the deployment {model:?}, which can't be part of a URL; rename it"));
        }
    };
    let http = HttpProbe { url, status: vec![200], body_contains: None, secret, host, sni, ca_file };
    Some((ModelProbe { http, base, api_version, style, model, budget }, first_token.unwrap_or(FIRST_TOKEN)))
}

/// The endpoint's own name for the model that the monitor names by the clients' name.
fn upstream(reader: &mut Reader<'_>, node: &Node, watched: ProbeTarget<'_>) -> Option<String> {
    let name = reader.string(node)?;
    match watched {
        _ if name.is_empty() => reader.fail("is an empty model name; write the model's name"),
        ProbeTarget::Endpoint { models: Some(models), .. } => match models.get(name) {
            Some(upstream) => Some(upstream.clone()),
            None => {
                let names: Vec<String> = models.keys().cloned().collect();
                let hint = declared(name, &names);
                reader.fail(format!("is {name:?}, a model that the endpoint's \"models\" don't have{hint}"))
            }
        },
        ProbeTarget::Endpoint { models: None, .. } | ProbeTarget::Region => Some(name.to_owned()),
    }
}

/// The base URL, the style of the API, and the version of Azure's API. An endpoint has these itself; a region has none,
/// so its monitor gives them.
fn base(fields: &mut Fields<'_, '_, '_>, watched: ProbeTarget<'_>) -> (Option<HttpUrl>, Option<Style>, Option<String>) {
    match watched {
        ProbeTarget::Endpoint { url, style, api_version: version, .. } => {
            for key in ["style", "api_version"] {
                if fields.has(key) {
                    let message = "is the endpoint's own here; leave it out, and say it at the endpoint";
                    fields.optional(key, |reader, _| reader.fail::<()>(message));
                }
            }
            let base = if fields.has("url") { fields.optional("url", base_url) } else { url.cloned() };
            (base, Some(style), version.map(str::to_owned))
        }
        ProbeTarget::Region => {
            let what = "the base URL to ask, which a region has none of, such as https://gpu.example.net/v1, or move \
                the monitor to an endpoint";
            let url = fields.required("url", what, base_url);
            let styles = [("openai", Style::OpenAi), ("azure", Style::Azure)];
            let style = fields.optional("style", |reader, node| one_of(reader, node, &styles)).unwrap_or_default();
            let version = api_version(fields, style);
            // Azure can't be asked without a version of its API. That is reported already.
            let style = (style == Style::OpenAi || version.is_some()).then_some(style);
            (url, style, version)
        }
    }
}

/// Reads how many tokens the probes of a monitor may use.
fn budget(reader: &mut Reader<'_>, node: &Node) -> Option<ProbeBudget> {
    let mut fields = reader.object(node)?;
    let tokens = fields.required("tokens", "how many tokens probes may use, such as 200000", |reader, node| {
        reader.integer(node, 1..=1_000_000_000_000)
    });
    let longest = Millis(31 * DAY.0);
    let per = fields.optional("per", |reader, node| duration(reader, node, Millis(60_000)..=longest)).unwrap_or(DAY);
    let a_day = tokens.map(|tokens| u128::from(tokens) * u128::from(DAY.0) / u128::from(per.0.max(1)));
    if let Some(tokens) = tokens
        && (tokens < PROBE_TOKENS || a_day < Some(u128::from(PROBE_TOKENS)))
    {
        fields.fail::<()>(format!(
            "lets not one probe a day be sent: each counts as {PROBE_TOKENS} tokens; write {} tokens or more, or use \
             \"type\": \"http\"",
            (u128::from(PROBE_TOKENS) * u128::from(per.0.max(DAY.0))).div_ceil(u128::from(DAY.0))
        ));
        return None;
    }
    fields.finish();
    Some(ProbeBudget { tokens: tokens?, per })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{Family, Monitor};
    use crate::table::Table;

    /// The monitor of an endpoint with these fields, or of its region; or what is refused, by field.
    fn read_at(endpoint: &str, fields: &str, is_region: bool) -> Result<Monitor, Vec<String>> {
        let monitor = format!(r#""monitor": {{ "type": "openai", {fields} }}"#);
        let (own, its) = if is_region { (format!(", {monitor}"), String::new()) } else { (String::new(), monitor) };
        let joined = if endpoint.is_empty() || its.is_empty() { "" } else { ", " };
        let json = format!(
            r#"{{ "version": 1, "revision": 1, "regions": {{ "r": {{ "countries": ["DE"], "endpoints": {{ "e": {{
                {endpoint}{joined}{its} }} }}{own} }} }} }}"#
        );
        let table = Table::compile(json.as_bytes()).map_err(|errors| {
            let reported = errors.iter().map(ToString::to_string);
            let bare =
                |line: String| line.replace("/regions/r/endpoints/e/monitor", "").replace("/regions/r/monitor", "");
            reported.map(bare).collect::<Vec<_>>()
        })?;
        let region = &table.regions()[0];
        Ok(region.monitor.clone().or_else(|| region.endpoints[0].1.monitor.clone()).expect("a monitor"))
    }

    const OPENAI: &str = r#""url": "https://e.example/v1", "models": { "chat": "llama-3" }"#;
    const AZURE: &str = r#""url": "https://acme.openai.azure.com", "style": "azure", "api_version": "2024-10-21",
        "models": { "chat": "gpt-41" }"#;

    fn probe(monitor: &Monitor) -> &ModelProbe {
        monitor.probe.model().expect("one that asks a model")
    }

    #[test]
    fn the_endpoints_own_url_style_and_name_of_the_model_are_asked_for() {
        let monitor = read_at(OPENAI, r#""model": "chat", "secret": "KEY""#, false).unwrap();
        assert_eq!(probe(&monitor).http.url.to_string(), "https://e.example/v1/chat/completions");
        assert_eq!((probe(&monitor).model.as_str(), probe(&monitor).style), ("llama-3", Style::OpenAi));
        assert_eq!((monitor.interval, monitor.timeout), (Millis(30_000), Millis(5_000)));
        assert_eq!(probe(&monitor).budget, None);
        let monitor =
            read_at(AZURE, r#""model": "chat", "first_token": "9s", "budget": { "tokens": 64 }"#, false).unwrap();
        assert_eq!(
            probe(&monitor).http.url.to_string(),
            "https://acme.openai.azure.com/openai/deployments/gpt-41/chat/completions?api-version=2024-10-21"
        );
        assert_eq!((monitor.timeout, probe(&monitor).style), (Millis(9_000), Style::Azure));
        assert_eq!(probe(&monitor).budget, Some(ProbeBudget { tokens: 64, per: Millis(86_400_000) }));
        let monitor = read_at(OPENAI, r#""model": "chat", "url": "http://127.0.0.1:9/v1", "family": "ipv4""#, false);
        let monitor = monitor.unwrap();
        assert_eq!(probe(&monitor).http.url.to_string(), "http://127.0.0.1:9/v1/chat/completions");
        assert_eq!(monitor.family, Some(Family::Ipv4));
    }

    #[test]
    fn a_regions_monitor_says_itself_what_a_region_lacks() {
        let monitor = read_at(OPENAI, r#""model": "any", "url": "https://r.example/v1/""#, true).unwrap();
        assert_eq!(probe(&monitor).http.url.to_string(), "https://r.example/v1/chat/completions");
        let azure = r#""model": "gpt", "url": "https://a.example", "style": "azure", "api_version": "2024-10-21""#;
        let monitor = read_at(OPENAI, azure, true).unwrap();
        let url = "https://a.example/openai/deployments/gpt/chat/completions?api-version=2024-10-21";
        assert_eq!(probe(&monitor).http.url.to_string(), url);
        let reported = read_at(OPENAI, r#""model": "chat""#, true).unwrap_err();
        assert!(
            reported.len() == 1
                && reported[0].starts_with("/url: is missing; add the base URL to ask, which a region has")
        );
        let reported =
            read_at(OPENAI, r#""model": "m", "url": "https://a.example", "style": "azure""#, true).unwrap_err();
        assert!(reported.len() == 1 && reported[0].starts_with("/api_version: is missing"), "{reported:?}");
    }

    #[test]
    fn mistakes_are_told_with_their_mends() {
        for (fields, said) in [
            (r#""first_token": "1s""#, "/model: is missing"),
            (r#""model": """#, "/model: is an empty model name"),
            (r#""model": "caht""#, "/model: is \"caht\", a model that the endpoint's \"models\" don't have"),
            (r#""model": "chat", "first_token": "30s""#, "/first_token: is 30s, not less than \"interval\" (30s)"),
            (r#""model": "chat", "interval": "5s""#, ": has an \"interval\" (5s) that isn't longer"),
            (
                r#""model": "chat", "timeout": "3s""#,
                "/timeout: belongs to other types of monitors; with \"openai\" write",
            ),
            (r#""model": "chat", "status": [200]"#, "/status: belongs to other types"),
            (r#""model": "chat", "style": "azure""#, "/style: is the endpoint's own here"),
            (r#""model": "chat", "family": "both""#, "/family: is \"both\", which would have every address"),
            (r#""model": "chat", "budget": { "tokens": 63 }"#, "/budget: lets not one probe a day be sent"),
            (r#""model": "chat", "budget": { "tokens": 640, "per": "31d" }"#, "/budget: lets not one probe a day"),
            (r#""model": "chat", "budget": {}"#, "/budget/tokens: is missing"),
            (r#""model": "chat", "secret": "a b""#, "/secret: is not the name of a secret"),
            (r#""model": "chat", "url": "http://e.example/v1""#, "/url: is http to another machine"),
        ] {
            let reported = read_at(OPENAI, fields, false).unwrap_err();
            assert!(reported.len() == 1 && reported[0].starts_with(said), "{fields}: {reported:?}");
        }
        let reported =
            read_at(OPENAI, r#""model": "chat", "budget": { "tokens": 640, "per": "31d" }"#, false).unwrap_err();
        assert!(reported[0].contains("write 1984 tokens or more"), "{reported:?}");
        assert!(read_at(OPENAI, r#""model": "chat", "budget": { "tokens": 1984, "per": "31d" }"#, false).is_ok());
        let azure = AZURE.replace("gpt-41", "..");
        let reported = read_at(&azure, r#""model": "chat""#, false).unwrap_err();
        assert!(reported.len() == 1 && reported[0].contains("can't be part of a URL"), "{reported:?}");
        let unread = r#""models": { "chat": "llama" }"#;
        let reported = read_at(unread, r#""model": "chat""#, false).unwrap_err();
        assert!(
            reported.len() == 1 && reported[0].starts_with("/regions/r/endpoints/e/url: is missing"),
            "{reported:?}"
        );
        for (kind, key) in [("tcp", r#""address": "a.example:1""#), ("http", r#""url": "https://a.example/""#)] {
            let json = format!(
                r#"{{ "version": 1, "revision": 1, "regions": {{ "r": {{ "countries": ["DE"],
                    "monitor": {{ "type": "{kind}", {key}, "first_token": "1s" }} }} }} }}"#
            );
            let reported = Table::compile(json.as_bytes()).unwrap_err();
            assert!(
                reported.len() == 1 && reported[0].to_string().contains("belongs to \"type\": \"openai\" only"),
                "{reported:?}"
            );
        }
    }
}
