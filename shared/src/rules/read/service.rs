//! Reads the services of a rules document. A service is an API of models at some host names. Takes the JSON of one
//! service and the names that the document declares; returns the service, or `None` after a violation, which the
//! reader has then noted. Called by [`super::rules`].

use super::Context;
use super::fleet::guard;
use super::load::{order, shedding};
use super::logs;
use super::region::answers;
use super::replica::needs;
use super::value::{boolean, distinct, duration, once, one_of, reference, steered_host};
use crate::id::{JurisdictionId, RegionId};
use crate::json::{Node, Reader};
use crate::rules::{
    Allowance, ClientMatch, Cors, Hub, Limits, Pattern, Receipts, ResidencyRule, Service, SteeredHost, Streams, Tier,
    TtlBounds, WebOrigin, WhenAllDown,
};
use crate::time::Millis;

/// The values of `keepalive`.
const KEEPALIVE: core::ops::RangeInclusive<Millis> = Millis(1_000)..=Millis(3_600_000);
/// The values of `when_all_down`.
const WHEN_ALL_DOWN: [(&str, WhenAllDown); 2] = [("serve-fence", WhenAllDown::ServeFence), ("fail", WhenAllDown::Fail)];
/// The values of `receipts`.
const RECEIPTS: [(&str, Receipts); 3] =
    [("off", Receipts::Off), ("optional", Receipts::Optional), ("required", Receipts::Required)];
/// The values of `streams`.
const STREAMS: [(&str, Streams); 2] = [("inspect", Streams::Inspect), ("pipe", Streams::Pipe)];

/// The values of `pattern`, which says how regions are ordered for a client.
const PATTERNS: [(&str, Pattern); 4] = [
    ("active-active", Pattern::ActiveActive),
    ("active-passive", Pattern::ActivePassive),
    ("regional-sharding", Pattern::RegionalSharding),
    ("hub-and-spoke", Pattern::HubAndSpoke),
];
/// The values of `allow`: what requests may ask for that is forbidden by default.
const ALLOWANCES: [(&str, Allowance); 7] = [
    ("remote_urls", Allowance::RemoteUrls),
    ("hosted_tools", Allowance::HostedTools),
    ("background", Allowance::Background),
    ("store", Allowance::Store),
    ("batch", Allowance::Batch),
    ("unknown_fields", Allowance::UnknownFields),
    ("engine_inputs", Allowance::EngineInputs),
];

/// Reads a service.
pub(super) fn service(reader: &mut Reader<'_>, node: &Node, context: &mut Context) -> Option<Service> {
    let mut fields = reader.object(node)?;
    let hosts = fields.required("hosts", "the host names to steer", |reader, node| hosts(reader, node, context));
    let pattern = fields.required(
        "pattern",
        "one of \"active-active\", \"active-passive\", \"regional-sharding\", \"hub-and-spoke\"",
        |reader, node| one_of(reader, node, &PATTERNS),
    );
    let regions = fields.required("regions", "the regions that serve it", |reader, node| {
        distinct(reader, node, |reader, node| reference(reader, node, "region", &context.regions, RegionId::parse))
    });
    let residency = fields.required(
        "residency",
        "at least one rule such as {\"clients\": [\"eu\"], \"process_in\": [\"eu\"]}",
        |reader, node| residency(reader, node, context),
    );
    let when_all_down = fields.optional("when_all_down", |reader, node| one_of(reader, node, &WHEN_ALL_DOWN));
    let (ttl, denied_answers) = (fields.optional("ttl", ttl), fields.optional("denied_answers", answers));
    let hub = match pattern {
        Some(Pattern::HubAndSpoke) => {
            fields.required("hub", "\"hub\": {\"region\": …, \"paths\": [\"/fine_tuning\"]}", |reader, node| {
                hub(reader, node, regions.as_deref(), context)
            })
        }
        Some(_) if fields.has("hub") => fields
            .optional("hub", |reader, _| reader.fail("belongs to \"pattern\": \"hub-and-spoke\" only; leave it out")),
        _ => fields.optional("hub", |reader, node| hub(reader, node, regions.as_deref(), context)),
    };
    let (limits, allow) = (fields.optional("limits", limits), fields.optional("allow", allow));
    let receipts = fields.optional("receipts", |reader, node| one_of(reader, node, &RECEIPTS));
    let keepalive = |reader: &mut Reader<'_>, node: &Node| duration(reader, node, KEEPALIVE);
    let (cors, keepalive) = (fields.optional("cors", cors), fields.optional("keepalive", keepalive));
    let streams = fields.optional("streams", |reader, node| one_of(reader, node, &STREAMS));
    let (shed, shed_at, slew) = shedding(&mut fields, pattern);
    let (order, guard) = (order(&mut fields).unwrap_or_default(), fields.optional("guard", guard));
    let needs = fields.optional("needs", |reader, node| needs(reader, node, context));
    let log_content = fields.optional("log_content", boolean).unwrap_or_default();
    fields.finish();
    Some(Service {
        hosts: hosts.unwrap_or_default(),
        pattern: pattern.unwrap_or(Pattern::ActiveActive),
        regions: regions.unwrap_or_default(),
        residency: residency.unwrap_or_default(),
        when_all_down: when_all_down.unwrap_or_default(),
        ttl: ttl.unwrap_or_default(),
        denied_answers,
        hub,
        limits: limits.unwrap_or_default(),
        allow: allow.unwrap_or_default(),
        receipts: receipts.unwrap_or_default(),
        cors,
        keepalive,
        streams: streams.unwrap_or_default(),
        shed,
        shed_at,
        slew,
        order,
        guard,
        needs: needs.unwrap_or_default(),
        log_content,
    })
}

/// Reads the host names of the service.
fn hosts(reader: &mut Reader<'_>, node: &Node, context: &mut Context) -> Option<Vec<SteeredHost>> {
    reader.filled_list(node, |reader, node| {
        let name = steered_host(reader, node)?;
        once(reader, name, &mut context.hosts, "is the host of another service too, or listed twice")
    })
}

/// Reads the rules that say where the data of which clients may be processed.
fn residency(reader: &mut Reader<'_>, node: &Node, context: &Context) -> Option<Vec<ResidencyRule>> {
    let mut catch_all = None;
    let mut next = 0;
    reader.filled_list(node, |reader, node| {
        let index = next;
        next += 1;
        let mut fields = reader.object(node)?;
        let clients = fields.required("clients", "jurisdictions, \"*\" or \"unknown\"", |reader, node| {
            distinct(reader, node, |reader, node| match reader.string(node)? {
                "*" => Some(ClientMatch::Known),
                "unknown" => Some(ClientMatch::Unknown),
                _ => reference(reader, node, "jurisdiction", &context.jurisdictions, JurisdictionId::parse)
                    .map(ClientMatch::Jurisdiction),
            })
        });
        let process_in = fields.required(
            "process_in",
            "tiers, each a jurisdiction, a list of them, or \
            \"*\"",
            |reader, node| {
                // An empty list denies these clients on purpose.
                reader.list(node, |reader, node| tier(reader, node, &context.jurisdictions))
            },
        );
        let clients = clients.unwrap_or_default();
        // A rule after `*` can match only clients whose country isn't known.
        if let Some(earlier) = catch_all
            && clients.iter().any(|client| *client != ClientMatch::Unknown)
        {
            fields.fail::<()>(format!(
                "comes after rule {earlier}, whose \"*\" matches first; move \"*\" last (only \
                \"unknown\" may follow it)"
            ));
        }
        if clients.contains(&ClientMatch::Known) {
            catch_all = catch_all.or(Some(index));
        }
        let logs = fields.optional("logs", |reader, node| logs::named(reader, node, context));
        fields.finish();
        Some(ResidencyRule { clients, process_in: process_in.unwrap_or_default(), logs })
    })
}

/// The `process_in` of a tenant.
pub(super) fn tiers(reader: &mut Reader<'_>, node: &Node, jurisdictions: &[String]) -> Option<Vec<Tier>> {
    reader.filled_list(node, |reader, node| tier(reader, node, jurisdictions))
}

/// Reads a tier of `process_in`: the regions of these jurisdictions are tried before those of the next tier.
fn tier(reader: &mut Reader<'_>, node: &Node, jurisdictions: &[String]) -> Option<Tier> {
    let jurisdiction = |reader: &mut Reader<'_>, node: &Node| match node {
        Node::String(text) if text == "*" => reader.fail("is \"*\" within a list; let \"*\" stand alone as a tier"),
        _ => reference(reader, node, "jurisdiction", jurisdictions, JurisdictionId::parse),
    };
    match node {
        Node::String(text) if text == "*" => Some(Tier::Anywhere),
        Node::Array(_) => distinct(reader, node, jurisdiction).map(Tier::In),
        Node::String(_) => jurisdiction(reader, node).map(|id| Tier::In(vec![id])),
        other => reader.expected("a jurisdiction, a list of them, or \"*\"", other),
    }
}

/// Reads what requests may ask for that is forbidden by default.
fn allow(reader: &mut Reader<'_>, node: &Node) -> Option<Vec<Allowance>> {
    reader.list(node, |reader, node| one_of(reader, node, &ALLOWANCES))
}

/// Reads the least and the greatest TTL of answers.
fn ttl(reader: &mut Reader<'_>, node: &Node) -> Option<TtlBounds> {
    let mut fields = reader.object(node)?;
    let seconds = |low: u64| {
        move |reader: &mut Reader<'_>, node: &Node| {
            reader.integer(node, low..=86_400).and_then(|n| u32::try_from(n).ok())
        }
    };
    let defaults = TtlBounds::default();
    let written = (fields.optional("min", seconds(0)), fields.optional("max", seconds(1)));
    // If only one bound is given, it may lie beyond the default of the other, which then moves.
    let bounds = match written {
        (Some(min), None) => TtlBounds { min, max: defaults.max.max(min) },
        (None, Some(max)) => TtlBounds { min: defaults.min.min(max), max },
        (min, max) => TtlBounds { min: min.unwrap_or(defaults.min), max: max.unwrap_or(defaults.max) },
    };
    if bounds.min > bounds.max {
        fields.fail::<()>(format!("has a min of {} above its max of {}; swap them", bounds.min, bounds.max));
    }
    fields.finish();
    Some(bounds)
}

/// Reads the hub: the only region for some paths.
fn hub(reader: &mut Reader<'_>, node: &Node, regions: Option<&[RegionId]>, context: &Context) -> Option<Hub> {
    let mut fields = reader.object(node)?;
    let region = fields.required("region", "the hub's name", |reader, node| {
        let region = reference(reader, node, "region", &context.regions, RegionId::parse)?;
        if regions.is_some_and(|regions| !regions.contains(&region)) {
            return reader.fail(format!("names {region}, which isn't one of the service's regions; add it there"));
        }
        Some(region)
    });
    let paths = fields.required("paths", "path prefixes such as \"/fine_tuning\"", |reader, node| {
        distinct(reader, node, |reader, node| {
            let path = reader.string(node)?;
            let segment = |s: &str| {
                !s.is_empty()
                    && s != "."
                    && s != ".."
                    && s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
            };
            match path.strip_prefix('/') {
                Some(rest) if rest.split('/').next() == Some("v1") => reader.fail("begins with /v1; leave that out"),
                Some(rest) if rest.split('/').all(segment) => Some(path.to_owned()),
                _ => reader.fail(format!(
                    "is {path:?}; write whole segments such as \"/fine_tuning\" or \"/fine_tuning/jobs\""
                )),
            }
        })
    });
    fields.finish();
    Some(Hub { region: region?, paths: paths? })
}

/// Reads which web pages may use the service.
fn cors(reader: &mut Reader<'_>, node: &Node) -> Option<Cors> {
    let mut fields = reader.object(node)?;
    let origins = fields.required("origins", "origins such as \"https://app.example.com\"", |reader, node| {
        distinct(reader, node, |reader, node| match WebOrigin::parse(reader.string(node)?) {
            Ok(origin) => Some(origin),
            Err(message) => reader.fail(message),
        })
    });
    if origins.as_ref().is_some_and(|origins| origins.len() > 1 && origins.iter().any(WebOrigin::is_any)) {
        fields.fail::<()>("names \"*\" beside other origins; let it stand alone, or leave it out");
    }
    let max_age =
        fields.optional("max_age", |reader, node| duration(reader, node, Millis(1_000)..=Millis(24 * 3_600_000)));
    fields.finish();
    Some(Cors { origins: origins?, max_age })
}

/// Reads the time limits and sizes of requests.
fn limits(reader: &mut Reader<'_>, node: &Node) -> Option<Limits> {
    let mut fields = reader.object(node)?;
    let span = |reader: &mut Reader<'_>, node: &Node| duration(reader, node, Millis(10)..=Millis(3_600_000));
    let defaults = Limits::default();
    let headers_streamed = fields.optional("headers_streamed", span).unwrap_or(defaults.headers_streamed);
    let limits = Limits {
        headers_streamed,
        // By default, the wait for the first token is at least as long as the wait for headers.
        first_token: fields.optional("first_token", span).unwrap_or(defaults.first_token.max(headers_streamed)),
        headers_unary: fields.optional("headers_unary", span).unwrap_or(defaults.headers_unary),
        idle: fields.optional("idle", span).unwrap_or(defaults.idle),
        total: fields.optional("total", span).unwrap_or(defaults.total),
        body_bytes: fields
            .optional("body_bytes", |reader, node| reader.integer(node, 1..=(64 << 20)))
            .unwrap_or(defaults.body_bytes),
        sends: fields
            .optional("sends", |reader, node| reader.integer(node, 1..=3).and_then(|n| u8::try_from(n).ok()))
            .unwrap_or(defaults.sends),
    };
    fields.finish();
    Some(limits)
}
