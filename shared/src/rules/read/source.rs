//! Reads the source of an endpoint's load: the metrics page where a node reads how full the endpoint is. Takes the JSON
//! of `load` at an endpoint, returns a [`LoadSource`]. Called by the reader of regions.

use std::collections::BTreeMap;

use super::http::tls_fields;
use super::value::{duration, http_url, one_of, secret_name};
use crate::json::{Fields, Node, Reader};
use crate::rules::{HttpProbe, LoadSource, MetricsOf, NamedSeries, Series};
use crate::time::Millis;

/// The fields that only `"type": "prometheus"` has.
const NAMED: [&str; 4] = ["waiting", "running", "kv", "progress"];

const KINDS: [&str; 6] = ["vllm", "sglang", "tgi", "trtllm", "dynamo", "prometheus"];

/// Reads where the load of an endpoint is read.
pub(super) fn load_source(reader: &mut Reader<'_>, node: &Node) -> Option<LoadSource> {
    let mut fields = reader.object(node)?;
    let kinds = KINDS.map(|kind| (kind, kind));
    let kind = fields.required("type", "what serves the models there, such as \"vllm\"", |reader, node| {
        one_of(reader, node, &kinds)
    });
    let engine = engine(&mut fields, kind);
    let url = fields.required("url", "its metrics page, such as https://gpu.example.net/metrics", http_url);
    let secret = fields.optional("secret", secret_name);
    let (host, sni, ca_file) = tls_fields(&mut fields, url.as_ref());
    let interval = fields.optional("interval", |reader, node| duration(reader, node, Millis(500)..=Millis(60_000)));
    let timeout = fields.optional("timeout", |reader, node| duration(reader, node, Millis(10)..=Millis(60_000)));
    fields.finish();
    let status = vec![200];
    Some(LoadSource {
        engine: engine?,
        http: HttpProbe { url: url?, status, body_contains: None, secret, host, sni, ca_file },
        interval: interval.unwrap_or(Millis(2_000)),
        timeout: timeout.unwrap_or(Millis(2_000)),
    })
}

/// Reads what kind of engine serves the metrics, and the names of its series.
fn engine(fields: &mut Fields<'_, '_, '_>, kind: Option<&str>) -> Option<MetricsOf> {
    if kind != Some("prometheus") {
        for key in NAMED {
            fields.optional(key, |reader, _| match kind {
                Some(_) => reader.fail("belongs to \"type\": \"prometheus\" only; leave it out"),
                // Without a type it isn't known which fields belong to the source.
                None => Some(()),
            });
        }
    }
    Some(match kind? {
        "vllm" => MetricsOf::Vllm,
        "sglang" => MetricsOf::Sglang,
        "tgi" => MetricsOf::Tgi,
        "trtllm" => MetricsOf::TrtLlm,
        "dynamo" => MetricsOf::Dynamo,
        _ => MetricsOf::Prometheus(Box::new(named_series(fields)?)),
    })
}

/// Reads the names of the series to read the load by.
fn named_series(fields: &mut Fields<'_, '_, '_>) -> Option<NamedSeries> {
    if !NAMED.iter().take(3).any(|key| fields.has(key)) {
        return fields.fail(
            "names no series to read the load by; add \"waiting\", \"running\" or \"kv\", such as \"waiting\": \
             {\"name\": \"queue_depth\"}",
        );
    }
    let has_key = ["waiting", "running", "kv"].map(|key| fields.has(key));
    let read = ["waiting", "running", "kv"].map(|key| fields.optional(key, series));
    let progress = fields.optional("progress", series);
    // A series with a mistake is reported already, and isn't reported as missing too.
    if has_key.iter().zip(&read).any(|(has_key, read)| *has_key && read.is_none()) {
        return None;
    }
    let [waiting, running, kv] = read;
    Some(NamedSeries { waiting, running, kv, progress })
}

/// A series by its name and labels.
pub(super) fn series(reader: &mut Reader<'_>, node: &Node) -> Option<Series> {
    let mut fields = reader.object(node)?;
    let name = fields.required("name", "the exact name of a series, such as \"queue_depth\"", |reader, node| {
        let text = reader.string(node)?;
        let is_name = !text.is_empty() && !text.chars().any(|c| c.is_control() || c == '"' || c == '{' || c == ' ');
        let problem = "which is no name of a series; write it as the page does, and its labels in \"labels\"";
        if is_name { Some(text.to_owned()) } else { reader.fail(format!("is {text:?}, {problem}")) }
    });
    let labels = fields.optional("labels", |reader, node| {
        let mut labels = BTreeMap::new();
        for (label, node) in reader.entries(node)? {
            labels.extend(reader.at(label).string(node).map(|value| (label.to_owned(), value.to_owned())));
        }
        Some(labels)
    });
    fields.finish();
    Some(Series { name: name?, labels: labels.unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Table;

    /// Reads a source of an endpoint with these fields. The error has one message for each field.
    fn read(fields: &str) -> Result<LoadSource, Vec<String>> {
        let json = format!(
            r#"{{ "version": 1, "revision": 1, "regions": {{ "r": {{ "countries": ["DE"], "endpoints": {{ "e": {{
                "url": "https://e.example/v1", "load": {{ {fields} }} }} }} }} }} }}"#
        );
        let table = Table::compile(json.as_bytes()).map_err(|errors| {
            let reported = errors.iter().map(ToString::to_string);
            reported.map(|line| line.replace("/regions/r/endpoints/e/load", "")).collect::<Vec<_>>()
        })?;
        Ok(table.regions()[0].endpoints[0].1.load.as_deref().cloned().expect("a source"))
    }

    #[test]
    fn a_source_of_each_engine_is_read_with_its_defaults() {
        for kind in ["vllm", "sglang", "tgi", "trtllm", "dynamo"] {
            let source = read(&format!(r#""type": "{kind}", "url": "https://e.example/metrics""#)).unwrap();
            assert_eq!((source.engine.as_str(), source.interval, source.timeout), (kind, Millis(2_000), Millis(2_000)));
        }
        let source = read(
            r#""type": "prometheus", "url": "http://127.0.0.1:9/m", "interval": "5s", "secret": "KEY",
               "host": "a.example",
               "waiting": { "name": "nv_requests", "labels": { "request_type": "waiting" } }"#,
        )
        .unwrap();
        let MetricsOf::Prometheus(series) = &source.engine else { panic!("{source:?}") };
        assert_eq!(series.waiting.as_ref().map(|one| one.labels["request_type"].as_str()), Some("waiting"));
        assert_eq!((series.running.is_none(), source.http.secret.is_some()), (true, true));
    }

    #[test]
    fn invalid_values_are_reported_at_their_place() {
        let url = r#""url": "https://e.example/metrics""#;
        for (fields, said) in [
            (url.to_owned(), "/type: is missing; add what serves the models there"),
            (format!(r#""type": "vlm", {url}"#), "/type: is \"vlm\"; write one of [\"vllm\", "),
            (r#""type": "vllm""#.to_owned(), "/url: is missing"),
            (format!(r#""type": "vllm", {url}, "kv": {{ "name": "a" }}"#), "/kv: belongs to \"type\": \"prometheus\""),
            (format!(r#""type": "prometheus", {url}"#), ": names no series to read the load by"),
            (format!(r#""type": "prometheus", {url}, "kv": {{}}"#), "/kv/name: is missing"),
            (format!(r#""type": "prometheus", {url}, "kv": {{ "name": "a{{b}}" }}"#), "/kv/name: is \"a{b}\", which"),
            (
                format!(r#""type": "prometheus", {url}, "kv": {{ "name": "a", "labels": {{ "b": 1 }} }}"#),
                "/kv/labels/b: is a number",
            ),
            (format!(r#""type": "tgi", {url}, "interval": "1ms""#), "/interval: is \"1ms\"; write a duration from"),
            (
                r#""type": "tgi", "url": "http://e.example/m", "sni": "e.example""#.to_owned(),
                "/sni: belongs to an https",
            ),
        ] {
            let reported = read(&fields).unwrap_err();
            assert!(reported.len() == 1 && reported[0].starts_with(said), "{fields}: {reported:?}");
        }
        let running = read(&format!(r#""type": "prometheus", {url}, "running": {{ "name": "a" }}"#)).unwrap_err();
        assert!(running[0].starts_with("/regions/r/endpoints/e: reads its load by \"running\" alone"), "{running:?}");
    }
}
