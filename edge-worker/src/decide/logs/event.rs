//! The event and the spans of one request, as OTLP's JSON. Takes the [`Facts`] of a request that has ended; returns a
//! log record, or spans. Called by `runtime::logs`.
//!
//! Names and values follow OpenTelemetry's semantic conventions for generative AI. The event that describes an
//! inference is `gen_ai.client.inference.operation.details`; of other requests it is `bailiwick.request`.

use core::fmt::Write as _;

use bailiwick_rules::rollout::Arm;
use bailiwick_rules::rules::Style;
use bailiwick_rules::time::Timestamp;

use super::attributes::{Attributes, Field};
use super::content::Content;
use super::trace::{Trace, span_id};
use crate::decide::attempt::{Attempt, Outcome, Record};
use crate::decide::json::quoted;
use crate::decide::plan::Target;
use crate::decide::route::{Class, Route};

/// The most regions of a fence that an event lists.
const MOST_OF_FENCE: usize = 16;

/// What a request asks for, in OpenTelemetry's words; `None` for what they have no word for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Operation(Option<&'static str>);

impl Operation {
    /// The operation of a path.
    #[must_use]
    pub(crate) fn of(route: &Route) -> Self {
        Self(match route.pattern() {
            _ if route.class() != Class::Inference => None,
            ["chat", "completions"] | ["responses"] | ["responses", "compact"] => Some("chat"),
            ["completions"] => Some("text_completion"),
            ["embeddings"] => Some("embeddings"),
            ["images" | "audio", ..] => Some("generate_content"),
            _ => None,
        })
    }
}

/// What is known of a request that has ended.
#[derive(Clone, Copy)]
pub(crate) struct Facts<'a> {
    /// The request's id.
    pub(crate) request_id: &'a str,
    /// The revision of the rules.
    pub(crate) revision: u64,
    /// The service's name.
    pub(crate) service: &'a str,
    /// The tenant's pseudonym.
    pub(crate) tenant: Option<&'a str>,
    /// The tenant's service tier.
    pub(crate) tier: Option<&'a str>,
    /// The names of the regions that may process the client.
    pub(crate) fence: &'a [&'a str],
    /// What the request asked for.
    pub(crate) operation: Operation,
    /// The client's name of the model.
    pub(crate) model: Option<&'a str>,
    /// `ok`, the edge's error code, or how the answer broke off.
    pub(crate) code: &'static str,
    /// The status that the client got, if it is known.
    pub(crate) status: Option<u16>,
    /// When the request arrived.
    pub(crate) began: Timestamp,
    /// When it ended.
    pub(crate) ended: Timestamp,
    /// What was sent to endpoints.
    pub(crate) sent: Option<Sent<'a>>,
    /// The request's trace, if spans are made.
    pub(crate) trace: Option<&'a Trace>,
    /// Prompt and answer, if the service keeps them.
    pub(crate) content: Option<&'a Content>,
}

/// The attempts of a request.
#[derive(Clone, Copy)]
pub(crate) struct Sent<'a> {
    /// The record of the attempts.
    pub(crate) record: &'a Record,
    /// The endpoint of each attempt.
    pub(crate) targets: &'a [Option<&'a Target>],
}

impl<'a> Sent<'a> {
    /// The attempt that served, and its endpoint.
    fn served(&self) -> Option<(&'a Attempt, Option<&'a Target>)> {
        let mut attempts = self.record.attempts.iter().zip(self.targets.iter().copied());
        attempts.find(|(attempt, _)| attempt.outcome == Some(Outcome::Committed))
    }
}

/// The log record of a request.
#[must_use]
pub(crate) fn record(facts: &Facts<'_>) -> String {
    let mut attributes = of_request(facts);
    if let Some(content) = facts.content.filter(|content| content.has_receipt()) {
        attributes.maybe(Field::Prompt, content.prompt().as_deref());
        attributes.maybe(Field::Answer, content.answer().as_deref());
        if content.is_truncated() {
            attributes.yes(Field::Truncated);
        }
    }
    let name = match facts.operation.0 {
        Some(_) => "gen_ai.client.inference.operation.details",
        None => "bailiwick.request",
    };
    let (severity, word) = if facts.code == "ok" { (9, "INFO") } else { (13, "WARN") };
    let ended = nanos(facts.ended);
    let mut out = format!(
        "{{\"timeUnixNano\":\"{ended}\",\"observedTimeUnixNano\":\"{ended}\",\"severityNumber\":{severity},\
         \"severityText\":\"{word}\",\"eventName\":\"{name}\",\"body\":{{\"stringValue\":\"{}\"}},\"attributes\":[{}]",
        facts.code,
        attributes.into_json()
    );
    if let Some(trace) = facts.trace {
        let span = span_id(facts.request_id, 0);
        let _ = write!(out, ",\"traceId\":\"{}\",\"spanId\":\"{span}\",\"flags\":{}", trace.id(), trace.flags());
    }
    out.push('}');
    out
}

/// The spans of a request: one of the request, and one below it for each attempt. None if the trace isn't sampled.
#[must_use]
pub(crate) fn spans(facts: &Facts<'_>) -> Vec<String> {
    let Some(trace) = facts.trace.filter(|trace| trace.is_sampled()) else { return Vec::new() };
    let whole = Span {
        id: span_id(facts.request_id, 0),
        parent: trace.parent().map(str::to_owned),
        kind: 2,
        model: facts.sent.and_then(|sent| model_names(sent.served()?.1, facts.model)).map(|(model, _)| model),
        times: (facts.began.0, facts.ended.0),
        // Of a server, a request that the client got wrong is no error (semantic conventions for HTTP).
        failed: !matches!(facts.code, "ok" | "client_gone")
            && !facts.status.is_some_and(|one| (400..500).contains(&one)),
        attributes: of_request(facts),
    };
    let mut spans = vec![whole.json(facts, trace)];
    for (nth, (attempt, target)) in
        facts.sent.iter().flat_map(|sent| sent.record.attempts.iter().zip(sent.targets)).enumerate()
    {
        let is_served = attempt.outcome == Some(Outcome::Committed);
        let lasted = attempt.started_ms.saturating_add_unsigned(attempt.ms);
        let span = Span {
            id: span_id(facts.request_id, nth + 1),
            parent: Some(span_id(facts.request_id, 0)),
            kind: 3,
            model: model_names(*target, facts.model).map(|(model, _)| model),
            // The endpoint whose answer was passed on was busy until the end.
            times: (attempt.started_ms, if is_served { facts.ended.0 } else { lasted }),
            failed: !matches!(attempt.outcome, Some(Outcome::Committed | Outcome::ClientGone)),
            attributes: of_attempt(facts, attempt, *target),
        };
        spans.push(span.json(facts, trace));
    }
    spans
}

/// One span.
struct Span<'a> {
    id: String,
    parent: Option<String>,
    /// 2: a server's; 3: a client's.
    kind: u8,
    model: Option<&'a str>,
    /// Begin and end, in milliseconds since 1970.
    times: (i64, i64),
    failed: bool,
    attributes: Attributes,
}

impl Span<'_> {
    fn json(self, facts: &Facts<'_>, trace: &Trace) -> String {
        let operation = facts.operation.0.unwrap_or("request");
        let name = self.model.map_or_else(|| operation.to_owned(), |model| format!("{operation} {model}"));
        let (began, ended) = (nanos(Timestamp(self.times.0)), nanos(Timestamp(self.times.1.max(self.times.0))));
        let parent = self.parent.map(|parent| format!("\"parentSpanId\":\"{parent}\",")).unwrap_or_default();
        let status = if self.failed { "{\"code\":2}" } else { "{}" };
        format!(
            "{{\"traceId\":\"{}\",\"spanId\":\"{}\",{parent}\"name\":{},\"kind\":{},\"startTimeUnixNano\":\"{began}\",\
             \"endTimeUnixNano\":\"{ended}\",\"attributes\":[{}],\"status\":{status},\"flags\":{}}}",
            trace.id(),
            self.id,
            quoted(&name),
            self.kind,
            self.attributes.into_json(),
            trace.flags(),
        )
    }
}

/// What event and span of a request say alike.
fn of_request(facts: &Facts<'_>) -> Attributes {
    let mut out = Attributes::default();
    let served = facts.sent.and_then(|sent| sent.served());
    out.maybe(Field::Operation, facts.operation.0);
    if facts.code != "ok" {
        out.text(Field::Error, facts.code);
    }
    out.number(Field::Status, facts.status.map(u64::from));
    out.text(Field::RequestId, facts.request_id);
    out.text(Field::Service, facts.service);
    out.maybe(Field::Tenant, facts.tenant);
    out.maybe(Field::Tier, facts.tier);
    out.number(Field::Revision, Some(facts.revision));
    out.texts(Field::Fence, facts.fence.iter().copied().take(MOST_OF_FENCE));
    out.number(
        Field::FenceMore,
        facts.fence.len().checked_sub(MOST_OF_FENCE).filter(|more| *more > 0).map(|more| more as u64),
    );
    out.number(Field::Duration, Some(facts.ended.since(facts.began).0));
    if let Some(sent) = facts.sent {
        out.text(Field::Attempts, &sent.record.header());
        let contents = sent.record.contents;
        let first = || Timestamp(contents.first_ms).since(facts.began).0;
        out.number(Field::FirstToken, (contents.count > 0).then(first));
    }
    if let Some((attempt, target)) = served {
        served_by(&mut out, facts, attempt, target);
    }
    out
}

/// What the span of an attempt says.
fn of_attempt(facts: &Facts<'_>, attempt: &Attempt, target: Option<&Target>) -> Attributes {
    let mut out = Attributes::default();
    out.maybe(Field::Operation, facts.operation.0);
    out.text(Field::RequestId, facts.request_id);
    out.text(Field::Service, facts.service);
    match attempt.outcome {
        Some(Outcome::Committed) => {}
        Some(outcome) => out.text(Field::Error, outcome.label()),
        None => out.text(Field::Error, "pending"),
    }
    if let Some(Outcome::Status(status) | Outcome::Refused(status)) = attempt.outcome {
        out.number(Field::Status, Some(status.into()));
    }
    served_by(&mut out, facts, attempt, target);
    out
}

/// Says where an attempt was made, and what its answer used.
fn served_by(out: &mut Attributes, facts: &Facts<'_>, attempt: &Attempt, target: Option<&Target>) {
    out.text(Field::Region, attempt.region.as_str());
    out.text(Field::Endpoint, attempt.endpoint.as_str());
    out.maybe(Field::Arm, attempt.arm.map(Arm::as_str));
    if let Some(target) = target {
        out.text(Field::Jurisdiction, target.jurisdiction());
        out.text(
            Field::Provider,
            match target.style() {
                Style::OpenAi => "openai",
                Style::Azure => "azure.ai.openai",
            },
        );
    }
    if let Some((ours, theirs)) = model_names(target, facts.model) {
        out.text(Field::RequestModel, ours);
        out.text(Field::ResponseModel, theirs);
    }
    if let Some(sent) = facts.sent.filter(|_| attempt.outcome == Some(Outcome::Committed)) {
        out.number(Field::InputTokens, sent.record.usage.tokens_in);
        out.number(Field::OutputTokens, sent.record.usage.tokens_out);
    }
}

/// The client's and the endpoint's name of the model, if the rules map them. Any other name is text of the client.
fn model_names<'t>(target: Option<&'t Target>, model: Option<&str>) -> Option<(&'t str, &'t str)> {
    let (ours, theirs) = target?.models()?.get_key_value(model?)?;
    Some((ours, theirs))
}

/// Nanoseconds since 1970, which OTLP counts in.
fn nanos(time: Timestamp) -> String {
    format!("{}000000", time.0.max(1))
}

#[cfg(test)]
mod tests;
