//! Reads the JSON tree of a rules document. Returns [`Rules`], and every violation with its JSON pointer. Called by
//! [`crate::table`] only.
//!
//! The names that the document declares are gathered first. So a reference to a name that doesn't exist is reported at
//! its place, with the most similar name that exists. A part that can't be read is left out or replaced by a default.
//! [`Rules`] with such a part are used only to find further violations, never to steer.

mod aggregate;
mod bundle;
#[cfg(any(test, feature = "drills"))]
mod drill;
mod fleet;
mod http;
mod load;
mod logs;
mod model_probe;
mod monitor;
mod quota;
mod region;
mod release;
mod replica;
mod rollout;
mod service;
mod source;
mod value;

use std::collections::{BTreeMap, HashMap};

use ipnet::IpNet;

use super::{Jurisdiction, Keeping, KeyDigest, Network, Override, Rules, SteeredHost, Tenant};
use crate::geo::{self, CountryCode};
use crate::health::Status;
#[cfg(any(test, feature = "drills"))]
use crate::id::DrillId;
use crate::id::{
    BundleId, EndpointId, JurisdictionId, NOT_A_NAME, Overridden, QuotaId, RegionId, ReplicaId, RolloutId, ServiceId,
    SinkId, TenantId, TierId,
};
use crate::json::{Fields, Node, Reader};
use crate::time::{Millis, Timestamp};
use crate::turns::Turns;
use region::region;
use service::service;
use value::{country, distinct, duration, location, once, one_of, parsed, reference};

/// The longest time that a document may be used without confirmation: a year, which means for ever.
const LONGEST_STALE: Millis = Millis(365 * 24 * 3_600_000);

/// What the whole document declares, and what may stand in it once only.
#[derive(Default)]
struct Context {
    jurisdictions: Vec<String>,
    regions: Vec<String>,
    services: Vec<String>,
    bundles: Vec<String>,
    quotas: Vec<String>,
    tiers: Vec<String>,
    replicas: Vec<String>,
    sinks: Vec<String>,
    hosts: HashMap<SteeredHost, String>,
    digests: HashMap<KeyDigest, String>,
    prefixes: HashMap<IpNet, usize>,
    endpoints: HashMap<String, Vec<String>>,
    overridden: HashMap<Overridden, usize>,
    rolled_out: HashMap<ServiceId, String>,
    moved: HashMap<BundleId, String>,
}

impl Context {
    /// Collects the names that the document declares, before anything that refers to them is read.
    fn gather(node: &Node) -> Self {
        let keys = |section: &str| members(node, section).map(|(key, _)| key.clone()).collect();
        let endpoints = members(node, "regions")
            .map(|(region, node)| (region.clone(), members(node, "endpoints").map(|(key, _)| key.clone()).collect()));
        Self {
            endpoints: endpoints.collect(),
            jurisdictions: keys("jurisdictions"),
            regions: keys("regions"),
            services: keys("services"),
            bundles: keys("bundles"),
            quotas: keys("quotas"),
            tiers: keys("tiers"),
            replicas: keys("replicas"),
            sinks: keys("logs"),
            ..Self::default()
        }
    }
}

/// The members of the object under a key; none if there is no such object.
fn members<'n>(node: &'n Node, key: &str) -> impl Iterator<Item = &'n (String, Node)> {
    let entries = |node: &'n Node| if let Node::Object(entries) = node { entries.as_slice() } else { &[] };
    entries(node).iter().filter(move |(name, _)| name == key).flat_map(move |(_, node)| entries(node))
}

/// Reads a whole document; `None` if it isn't an object. Violations go to `reader`.
pub(crate) async fn rules(reader: &mut Reader<'_>, node: &Node, turns: &mut Turns<'_>) -> Option<Rules> {
    let context = &mut Context::gather(node);
    let mut fields = reader.object(node)?;
    fields.optional("$schema", |reader, node| reader.string(node).map(|_| ()));
    let version = fields.required("version", "\"version\": 1", |reader, node| match node {
        Node::Number(number) if number.as_u64() == Some(1) => Some(1),
        Node::Number(number) => reader.fail(format!("is {number}; this program reads version 1")),
        other => reader.expected("1", other),
    });
    let revision = fields.required("revision", "\"revision\": 1 and count up with every change", |reader, node| {
        reader.integer(node, 1..=(1 << 53))
    });
    // The edge follows the drill that nodes report.
    #[cfg(not(any(test, feature = "drills")))]
    let _ = fields.take("drills");
    let rules = Rules {
        version: version.unwrap_or(1),
        revision: revision.unwrap_or(1),
        jurisdictions: map(&mut fields, "jurisdictions", context, turns, jurisdiction_name, jurisdiction).await,
        regions: map(&mut fields, "regions", context, turns, RegionId::parse, region).await,
        services: map(&mut fields, "services", context, turns, ServiceId::parse, service).await,
        tenants: map(&mut fields, "tenants", context, turns, TenantId::parse, tenant).await,
        quotas: map(&mut fields, "quotas", context, turns, QuotaId::parse, quota::quota).await,
        tiers: map(&mut fields, "tiers", context, turns, TierId::parse, quota::service_tier).await,
        rollouts: map(&mut fields, "rollouts", context, turns, RolloutId::parse, rollout::rollout).await,
        #[cfg(any(test, feature = "drills"))]
        drills: map(&mut fields, "drills", context, turns, DrillId::parse, drill::drill).await,
        replicas: map(&mut fields, "replicas", context, turns, ReplicaId::parse, replica::replica).await,
        bundles: map(&mut fields, "bundles", context, turns, BundleId::parse, bundle::bundle).await,
        releases: map(&mut fields, "releases", context, turns, release::model_name, release::release).await,
        logs: map(&mut fields, "logs", context, turns, SinkId::parse, logs::sink).await,
        fleet: fields.optional("fleet", |reader, node| fleet::fleet(reader, node, context)),
        aggregate: fields.optional("aggregate", aggregate::aggregate),
        networks: list(&mut fields, "networks", context, turns, network).await,
        overrides: list(&mut fields, "overrides", context, turns, an_override).await,
        rules: fields.optional("rules", keeping).unwrap_or_default(),
    };
    fields.finish();
    Some(rules)
}

/// Reads a section: an object of names and values.
async fn map<K: Ord, V>(
    fields: &mut Fields<'_, '_, '_>,
    section: &'static str,
    context: &mut Context,
    turns: &mut Turns<'_>,
    name: fn(&str) -> Option<K>,
    value: impl Fn(&mut Reader<'_>, &Node, &mut Context) -> Option<V>,
) -> BTreeMap<K, V> {
    let mut map = BTreeMap::new();
    let Some((mut reader, node)) = fields.take(section) else { return map };
    for (key, node) in reader.entries(node).unwrap_or_default() {
        turns.spend(node.weight()).await;
        let reader = &mut reader.at(key);
        let value = value(reader, node, context);
        match name(key) {
            Some(name) => map.extend(value.map(|value| (name, value))),
            None => {
                let reserved = match section {
                    "jurisdictions" => "; a jurisdiction is neither \"unknown\" nor like a country code",
                    _ => "",
                };
                reader.fail::<()>(format!("{NOT_A_NAME}{reserved}"));
            }
        }
    }
    map
}

/// Reads a section that is a list.
async fn list<V>(
    fields: &mut Fields<'_, '_, '_>,
    key: &'static str,
    context: &mut Context,
    turns: &mut Turns<'_>,
    value: fn(&mut Reader<'_>, usize, &Node, &mut Context) -> Option<V>,
) -> Vec<V> {
    let Some((mut reader, node)) = fields.take(key) else { return Vec::new() };
    let mut list = Vec::new();
    for (index, node) in reader.items(node).unwrap_or_default().iter().enumerate() {
        turns.spend(node.weight()).await;
        list.extend(value(&mut reader.at(index), index, node, context));
    }
    list
}

/// The name of a jurisdiction. It can't be `unknown`, nor look like a country code: either would be ambiguous in lists
/// where jurisdictions are named.
fn jurisdiction_name(text: &str) -> Option<JurisdictionId> {
    let like_a_code = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_uppercase());
    JurisdictionId::parse(text).filter(|_| !like_a_code && text != "unknown")
}

/// Reads a jurisdiction: the countries that it consists of.
fn jurisdiction(reader: &mut Reader<'_>, node: &Node, _: &mut Context) -> Option<Jurisdiction> {
    let mut fields = reader.object(node)?;
    if !fields.has("countries") && !fields.has("include") {
        fields.fail::<()>("holds no country; add \"countries\": [\"DE\", …] or \"include\": [\"EU\"]");
    }
    let countries = fields.optional("countries", |reader, node| reader.filled_list(node, country)).unwrap_or_default();
    let include = fields.optional("include", |reader, node| reader.filled_list(node, built_in)).unwrap_or_default();
    let exclude = fields.optional("exclude", |reader, node| {
        reader.filled_list(node, |reader, node| excluded(reader, node, &countries, &include))
    });
    let description = fields.optional("description", |reader, node| reader.string(node).map(str::to_owned));
    let read = Jurisdiction { countries, include, exclude: exclude.unwrap_or_default(), description };
    if !read.exclude.is_empty() && read.territory().is_empty() {
        fields.fail::<()>("excludes all it includes, so it holds no country; exclude less, or remove it");
    }
    fields.finish();
    Some(read)
}

/// Reads the name of a built-in set of countries.
fn built_in(reader: &mut Reader<'_>, node: &Node) -> Option<String> {
    let name = reader.string(node)?;
    if geo::BUILT_IN_SETS.contains(&name) {
        return Some(name.to_owned());
    }
    let sets = geo::BUILT_IN_SETS.map(|name| format!("{name:?}")).join(" and ");
    reader.fail(format!("names {name:?}, but the built-in sets are {sets}; list others as \"countries\""))
}

/// A code of `exclude`. An included set has to hold it, otherwise excluding it is a mistake.
fn excluded(
    reader: &mut Reader<'_>,
    node: &Node,
    countries: &[CountryCode],
    include: &[String],
) -> Option<CountryCode> {
    let code = country(reader, node)?;
    if countries.contains(&code) {
        return reader.fail(format!("is {code}, which stands in \"countries\" too; keep it in one of them"));
    }
    if !include.iter().filter_map(|name| geo::built_in_set(name)).any(|set| set.contains(code)) {
        let why = geo::territory(code).map(|territory| format!(": {code} {}", territory.why)).unwrap_or_default();
        return reader.fail(format!("is {code}, which no included set holds{why}; leave it out"));
    }
    Some(code)
}

/// Reads a tenant.
fn tenant(reader: &mut Reader<'_>, node: &Node, context: &mut Context) -> Option<Tenant> {
    let mut fields = reader.object(node)?;
    let key_sha256 = fields.required("key_sha256", "the digests that `bailiwick hash-key` prints", |reader, node| {
        reader.filled_list(node, |reader, node| {
            let text = reader.string(node)?;
            // The message doesn't repeat the text: somebody may have put the key itself there.
            let Some(digest) = KeyDigest::parse(text) else {
                return reader
                    .fail("is not a SHA-256 digest of 64 lower-case hex digits; make one with `bailiwick hash-key`");
            };
            once(reader, digest, &mut context.digests, "is another tenant's digest too, or listed twice")
        })
    });
    let named = |reader: &mut Reader<'_>, node: &Node| {
        reference(reader, node, "jurisdiction", &context.jurisdictions, JurisdictionId::parse)
    };
    let residency = fields.optional("residency", |reader, node| match node {
        Node::Array(_) => distinct(reader, node, named),
        _ => named(reader, node).map(|id| vec![id]),
    });
    let process_in = fields.optional("process_in", |reader, node| service::tiers(reader, node, &context.jurisdictions));
    let logs = fields.optional("logs", |reader, node| {
        if process_in.is_none() {
            return reader.fail(
                "stands in a tenant without \"process_in\", whose events go where its services' rules say; write it \
                 there, or leave it out",
            );
        }
        logs::named(reader, node, context)
    });
    let services = fields.required("services", "the services it may use", |reader, node| {
        distinct(reader, node, |reader, node| reference(reader, node, "service", &context.services, ServiceId::parse))
    });
    let limits = quota::tenant_limits(&mut fields, context);
    fields.finish();
    Some(Tenant {
        key_sha256: key_sha256.unwrap_or_default(),
        residency: residency.unwrap_or_default(),
        process_in,
        logs,
        services: services.unwrap_or_default(),
        limits,
    })
}

/// Reads a network whose country the document declares.
fn network(reader: &mut Reader<'_>, index: usize, node: &Node, context: &mut Context) -> Option<Network> {
    let mut fields = reader.object(node)?;
    let prefix = fields.required("prefix", "a prefix such as \"198.51.100.0/24\"", |reader, node| {
        let prefix: IpNet = parsed(reader, node, "a prefix such as \"198.51.100.0/24\" or \"2001:db8::/32\"")?;
        if prefix != prefix.trunc() {
            return reader.fail(format!("has bits beyond its length; write {}", prefix.trunc()));
        }
        match context.prefixes.insert(prefix, index) {
            Some(first) => reader.fail(format!("is the prefix of /networks/{first} too; keep one")),
            None => Some(prefix),
        }
    });
    let country = fields.required("country", "its country's code", country);
    let location = fields.optional("location", location);
    fields.finish();
    Some(Network { prefix: prefix?, country: country?, location })
}

fn keeping(reader: &mut Reader<'_>, node: &Node) -> Option<Keeping> {
    let mut fields = reader.object(node)?;
    let span = |reader: &mut Reader<'_>, node: &Node| duration(reader, node, Millis(0)..=LONGEST_STALE);
    let stale_for = fields.optional("stale_for", span).unwrap_or(Keeping::default().stale_for);
    fields.finish();
    Some(Keeping { stale_for })
}

/// Reads an override, which forces a region or an endpoint up or down until a time.
fn an_override(reader: &mut Reader<'_>, index: usize, node: &Node, context: &mut Context) -> Option<Override> {
    let mut fields = reader.object(node)?;
    let is_whole = !fields.has("endpoint");
    let once = |reader: &mut Reader<'_>, overridden: &mut HashMap<_, _>, subject: Overridden| match overridden
        .insert(subject, index)
    {
        Some(first) => reader.fail(format!("is overridden at /overrides/{first} too; keep one")),
        None => Some(()),
    };
    let region = fields.required("region", "the region's name", |reader, node| {
        let region = reference(reader, node, "region", &context.regions, RegionId::parse)?;
        if is_whole {
            once(reader, &mut context.overridden, region.clone().into())?;
        }
        Some(region)
    });
    let names = region.as_ref().and_then(|region| context.endpoints.get(region.as_str()));
    let names = names.map_or(&[][..], Vec::as_slice);
    let endpoint = fields.optional("endpoint", |reader, node| {
        let endpoint = reference(reader, node, "endpoint", names, EndpointId::parse)?;
        let subject = Overridden { region: region.clone()?, endpoint: Some(endpoint.clone()) };
        once(reader, &mut context.overridden, subject)?;
        Some(endpoint)
    });
    let choices = [("up", Status::Up), ("down", Status::Down)];
    let status = fields.required("status", "\"up\" or \"down\"", |reader, node| one_of(reader, node, &choices));
    let until = fields.required("until", "when it ends, such as \"2026-12-01T06:00:00Z\"", |reader, node| {
        let text = reader.string(node)?;
        Timestamp::parse(text)
            .or_else(|| reader.fail(format!("is {text:?}; write a time such as \"2026-12-01T06:00:00Z\"")))
    });
    let reason = fields.required("reason", "why, for those who wonder later", |reader, node| {
        match reader.string(node)?.trim() {
            "" => reader.fail("is empty; say why, for those who wonder later"),
            reason => Some(reason.to_owned()),
        }
    });
    fields.finish();
    Some(Override { region: region?, endpoint, status: status?, until: until?, reason: reason? })
}
