//! Which endpoints are asked what they run. Takes the rules; returns each endpoint that serves a release's model, with
//! the way to ask it. Called by the DNS node.

use crate::rules::{Family, HttpProbe, HttpUrl, Monitor, ProbeBudget, RequestTarget, Style};
use crate::table::{RegionIndex, ReleaseIndex, Table};
use crate::time::Millis;

/// How an endpoint is asked what it runs.
#[derive(Clone, PartialEq, Debug)]
pub struct ReleaseSource {
    /// The request for completions: its URL, host names and certificate authorities, and the name of the credential.
    pub http: HttpProbe,
    /// The URL of the list of models. `None` for Azure, which has no list of its deployments.
    pub models: Option<HttpUrl>,
    /// How the credential is sent.
    pub style: Style,
    /// The model, by the endpoint's own name for it.
    pub model: String,
    /// Which family of a host's addresses, IPv4 or IPv6, is used.
    pub family: Family,
    /// How many tokens the monitor's probes may use. Each prompt counts as a probe. `None` means no limit.
    pub budget: Option<ProbeBudget>,
    /// Time between two readings.
    pub interval: Millis,
    /// How far two canaries of the same release may be apart, in nats.
    pub tolerance: f64,
}

/// An endpoint that is asked for one release.
#[derive(Clone, PartialEq, Debug)]
pub struct EndpointToRead {
    /// The region.
    pub region: RegionIndex,
    /// The endpoint's position in the region.
    pub endpoint: usize,
    /// The release.
    pub release: ReleaseIndex,
    /// How the endpoint is asked.
    pub source: ReleaseSource,
}

/// Every endpoint that serves the model of a release and has a monitor that asks a model.
#[must_use]
pub fn sources(table: &Table) -> Vec<EndpointToRead> {
    let mut watched = Vec::new();
    for (region, of_region) in table.regions().iter().enumerate() {
        let region = RegionIndex::new(region);
        for (endpoint, (_, of_endpoint)) in of_region.endpoints.iter().enumerate() {
            for release in (0..table.releases().len()).map(ReleaseIndex::new) {
                let model = table.call_of(region, endpoint, release);
                let source = of_endpoint.monitor.as_ref().zip(model);
                let source = source.and_then(|(monitor, model)| source_of(table, release, monitor, model));
                watched.extend(source.map(|source| EndpointToRead { region, endpoint, release, source }));
            }
        }
    }
    watched
}

/// How an endpoint is asked for a model, derived from what its monitor says. `None` if the monitor asks no model, or if
/// the model's name can't be part of a URL.
fn source_of(table: &Table, release: ReleaseIndex, monitor: &Monitor, model: &str) -> Option<ReleaseSource> {
    let rule = &table.releases().get(release.get())?.rule;
    let probe = monitor.probe.model()?;
    let below = |deployment: Option<&str>, segments: &[&str]| {
        let api_version = probe.api_version.as_deref();
        let path = RequestTarget { style: probe.style, api_version, deployment, segments };
        path.url(&probe.base, &[]).ok().map(HttpUrl::of_request)
    };
    let url = below(Some(model), &["chat", "completions"])?;
    let models = (probe.style == Style::OpenAi).then(|| below(None, &["models"])).flatten();
    Some(ReleaseSource {
        http: HttpProbe { url, ..probe.http.clone() },
        models,
        style: probe.style,
        model: model.to_owned(),
        family: monitor.family.unwrap_or_default(),
        budget: probe.budget,
        interval: rule.interval,
        tolerance: rule.tolerance,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_asked_by_their_own_names_with_what_their_monitors_say() {
        let table = Table::compile(
            br#"{ "version": 1, "revision": 1, "releases": { "chat": {}, "embed": { "interval": "5m" } },
                "regions": { "r": { "countries": ["DE"], "endpoints": {
                    "a": { "url": "https://a.example/v1", "models": { "chat": "llama", "embed": "e5" },
                           "monitor": { "type": "openai", "model": "chat", "secret": "KEY" } },
                    "b": { "url": "https://b.openai.azure.com", "style": "azure", "api_version": "2024-10-21",
                           "models": { "chat": "gpt" }, "monitor": { "type": "openai", "model": "chat" } },
                    "c": { "url": "https://c.example/v1", "models": { "chat": "llama" } } } } } }"#,
        );
        let table = table.unwrap_or_else(|errors| panic!("{errors:?}"));
        let watched = sources(&table);
        let summary = |endpoint: &EndpointToRead| {
            let models = endpoint.source.models.as_ref().map(ToString::to_string).unwrap_or_default();
            (endpoint.endpoint, endpoint.source.model.clone(), endpoint.source.http.url.to_string(), models)
        };
        let asked: Vec<_> = watched.iter().map(summary).collect();
        let owned = |text: &str| text.to_owned();
        assert_eq!(
            asked,
            [
                (
                    0,
                    owned("llama"),
                    owned("https://a.example/v1/chat/completions"),
                    owned("https://a.example/v1/models")
                ),
                (0, owned("e5"), owned("https://a.example/v1/chat/completions"), owned("https://a.example/v1/models")),
                (
                    1,
                    owned("gpt"),
                    owned("https://b.openai.azure.com/openai/deployments/gpt/chat/completions?api-version=2024-10-21"),
                    owned("")
                ),
            ]
        );
        assert_eq!(watched[1].source.interval, Millis(300_000));
        assert_eq!(watched[0].source.http.secret.as_ref().map(|secret| secret.as_str().to_owned()), Some(owned("KEY")));
    }
}
