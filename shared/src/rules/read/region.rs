//! Reads regions: where they may process, what DNS answers for them, and their endpoints. Called by [`super::rules`].

use std::collections::BTreeMap;

use super::http::{api_version, base_url};
use super::load::{MAX_REQUESTS, region_load};
use super::model_probe::ProbeTarget;
use super::monitor::monitor;
use super::quota;
use super::replica::region_replica;
use super::source::load_source;
use super::value::{boolean, country, declared, host_name, location, one_of, parsed, secret_name};
use super::{Context, map};
use crate::geo::CountryCode;
use crate::id::{EndpointId, JurisdictionId, ReplicaId};
use crate::json::{Fields, Node, Reader};
use crate::rules::{
    Answers, Endpoint, Engine, HostName, LoadSource, Place, Region, RegionReplica, ServiceBinding, Style,
};
use crate::turns::{Turns, at_once};

/// Reads a region.
pub(super) fn region(reader: &mut Reader<'_>, node: &Node, context: &mut Context) -> Option<Region> {
    let mut fields = reader.object(node)?;
    let countries = fields.required("countries", "a list of all the countries it may process in", |reader, node| {
        places(reader, node, context)
    });
    let region = Region {
        countries: countries.unwrap_or_default(),
        location: fields.optional("location", location),
        standby: fields.optional("standby", boolean).unwrap_or(false),
        answers: fields.optional("answers", answers),
        endpoints: at_once(map(&mut fields, "endpoints", context, &mut Turns::unbroken(), EndpointId::parse, endpoint)),
        monitor: fields.optional("monitor", |reader, node| monitor(reader, node, ProbeTarget::Region)),
        load: fields.optional("load", region_load),
        replicas: replicas(&mut fields, context),
    };
    let says = |endpoint: &Endpoint| endpoint.capacity.is_some();
    if region.load.is_some_and(|load| load.capacity.is_some()) && region.endpoints.values().any(says) {
        fields.fail::<()>(
            "has a \"capacity\" in its \"load\" and at its endpoints too; leave it to the endpoints, which are added \
             up",
        );
    }
    fields.finish();
    Some(region)
}

/// Reads the region's copies of replicas of knowledge, each of which the document has to declare.
fn replicas(fields: &mut Fields<'_, '_, '_>, context: &mut Context) -> BTreeMap<ReplicaId, RegionReplica> {
    fields
        .optional("replicas", |reader, node| {
            let mut replicas = BTreeMap::new();
            for (name, node) in reader.entries(node)? {
                let reader = &mut reader.at(name);
                if !context.replicas.iter().any(|declared| declared == name) {
                    let hint = declared(name, &context.replicas);
                    reader.fail::<()>(format!("is no replica of the document's \"replicas\"{hint}"));
                }
                let read = region_replica(reader, node, context);
                replicas.extend(ReplicaId::parse(name).zip(read));
            }
            Some(replicas)
        })
        .unwrap_or_default()
}

/// Places: ISO codes, jurisdictions by name, or `*` alone.
pub(super) fn places(reader: &mut Reader<'_>, node: &Node, context: &Context) -> Option<Vec<Place>> {
    let many = matches!(node, Node::Array(items) if items.len() > 1);
    reader.filled_list(node, |reader, node| place(reader, node, many, context))
}

/// Reads a country code, a jurisdiction, or `*`. `many` says whether the list has other places too.
fn place(reader: &mut Reader<'_>, node: &Node, many: bool, context: &Context) -> Option<Place> {
    let text = reader.string(node)?;
    match text {
        "*" if many => reader.fail("is \"*\" beside others; let \"*\" stand alone, it holds them all"),
        "*" => Some(Place::Anywhere),
        _ if context.jurisdictions.iter().any(|name| name == text) => {
            JurisdictionId::parse(text).map(Place::Jurisdiction)
        }
        _ if text.len() == 2 && !text.bytes().all(|byte| byte.is_ascii_lowercase()) => {
            country(reader, node).map(Place::Country)
        }
        _ => {
            let mut problem = format!("names {text:?}, which is no country code and no jurisdiction");
            if let Some(country) = CountryCode::parse(&text.to_ascii_uppercase()) {
                problem += &format!("; for the country write \"{country}\"");
            } else {
                problem += &declared(text, &context.jurisdictions);
            }
            reader.fail(problem)
        }
    }
}

/// Reads the DNS records of a region.
pub(super) fn answers(reader: &mut Reader<'_>, node: &Node) -> Option<Answers> {
    let mut fields = reader.object(node)?;
    let had_cname = fields.has("CNAME");
    let others = ["A", "AAAA", "TXT", "HTTPS", "SVCB"].iter().filter(|kind| fields.has(kind)).count();
    let answers = Answers {
        a: fields
            .optional("A", |reader, node| {
                reader.filled_list(node, |r, n| parsed(r, n, "an IPv4 address such as 192.0.2.10"))
            })
            .unwrap_or_default(),
        aaaa: fields
            .optional("AAAA", |reader, node| {
                reader.filled_list(node, |r, n| parsed(r, n, "an IPv6 address such as 2001:db8::10"))
            })
            .unwrap_or_default(),
        txt: fields.optional("TXT", |reader, node| reader.filled_list(node, text_record)).unwrap_or_default(),
        cname: fields.optional("CNAME", cname),
        https: fields.optional("HTTPS", bindings).unwrap_or_default(),
        svcb: fields.optional("SVCB", bindings).unwrap_or_default(),
    };
    if had_cname && others > 0 {
        fields.fail::<()>("holds a CNAME beside other types; a CNAME stands alone (RFC 1034 §3.6.2)");
    } else if !had_cname && others == 0 {
        fields.fail::<()>("holds no records; add \"A\" or \"AAAA\" addresses, or leave \"answers\" out");
    }
    fields.finish();
    Some(answers)
}

/// The longest TXT record, in bytes: well below what a DNS message can hold.
const TXT_LONGEST: usize = 4096;

fn text_record(reader: &mut Reader<'_>, node: &Node) -> Option<String> {
    let text = reader.string(node)?;
    if text.len() > TXT_LONGEST {
        return reader.fail(format!("is {} bytes long; a TXT record here may have {TXT_LONGEST}", text.len()));
    }
    Some(text.to_owned())
}

/// Reads HTTPS or SVCB records.
fn bindings(reader: &mut Reader<'_>, node: &Node) -> Option<Vec<ServiceBinding>> {
    let bindings = reader.filled_list(node, |reader, node| {
        let text = reader.string(node)?;
        ServiceBinding::parse(text).map_or_else(|message| reader.fail(message), Some)
    })?;
    if bindings.iter().any(ServiceBinding::is_alias) && bindings.len() > 1 {
        return reader.fail("holds an alias (priority 0) beside others; an alias stands alone (RFC 9460 §2.4)");
    }
    Some(bindings)
}

/// Reads a CNAME record.
fn cname(reader: &mut Reader<'_>, node: &Node) -> Option<HostName> {
    let names = reader.filled_list(node, host_name)?;
    match (&names[..], node) {
        ([name], Node::Array(items)) if items.len() == 1 => Some(name.clone()),
        (_, Node::Array(items)) if items.len() > 1 => reader.fail("holds several names; a CNAME is exactly one"),
        _ => None,
    }
}

/// Reads an endpoint of a region.
fn endpoint(reader: &mut Reader<'_>, node: &Node, context: &mut Context) -> Option<Endpoint> {
    let mut fields = reader.object(node)?;
    let url = fields.required("url", "its base URL, such as https://gpu.example.net/v1", base_url);
    let style = fields
        .optional("style", |reader, node| one_of(reader, node, &[("openai", Style::OpenAi), ("azure", Style::Azure)]));
    let style = style.unwrap_or_default();
    let engines = [("vllm", Engine::Vllm), ("sglang", Engine::Sglang)];
    let engine = fields.optional("engine", |reader, node| one_of(reader, node, &engines));
    let api_version = api_version(&mut fields, style);
    let secret = fields.optional("secret", secret_name);
    let models = fields.optional("models", models);
    let small = u64::from(u16::MAX);
    let priority = fields.optional("priority", |reader, node| reader.integer(node, 0..=small));
    let weight = fields.optional("weight", |reader, node| reader.integer(node, 1..=small));
    let (base, version, model_names) = (url.as_ref(), api_version.as_deref(), models.as_ref());
    let watched = ProbeTarget::Endpoint { url: base, style, api_version: version, models: model_names };
    let monitor = fields.optional("monitor", |reader, node| monitor(reader, node, watched));
    let capacity = fields.optional("capacity", |reader, node| reader.integer(node, 1..=MAX_REQUESTS));
    let (quota, priority_as) = quota::of_endpoint(&mut fields, context);
    let load = fields.optional("load", load_source);
    if capacity.is_none() && load.as_ref().is_some_and(LoadSource::needs_capacity) {
        fields.fail::<()>("reads its load by \"running\" alone, which says nothing without a \"capacity\"; add it");
    }
    fields.finish();
    Some(Endpoint {
        url: url?,
        style,
        engine,
        api_version,
        secret,
        models,
        priority: priority.and_then(|n| n.try_into().ok()).unwrap_or(0),
        weight: weight.and_then(|n| n.try_into().ok()).unwrap_or(1),
        monitor,
        capacity: capacity.and_then(|n| n.try_into().ok()),
        quota,
        priority_as,
        load: load.map(Box::new),
    })
}

/// Reads the models of an endpoint: the clients' names, and the endpoint's own names.
fn models(reader: &mut Reader<'_>, node: &Node) -> Option<BTreeMap<String, String>> {
    let entries = reader.entries(node)?;
    if entries.is_empty() {
        return reader.fail("is empty, so no model could be asked for; list models, or leave it out to allow any");
    }
    let mut models = BTreeMap::new();
    for (name, node) in entries {
        let reader = &mut reader.at(name);
        let upstream = reader.string(node);
        if name.is_empty() || upstream == Some("") {
            reader.fail::<()>("is an empty model name; write the model's name");
        }
        models.extend(upstream.map(|upstream| (name.to_owned(), upstream.to_owned())));
    }
    Some(models)
}
