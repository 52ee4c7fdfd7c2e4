//! From the JSON tree to [`Rules`], noting every violation with its place. Called by [`crate::table`] only.
//!
//! Names are gathered first, so that a reference to nothing is told where it stands, with the nearest name that exists.
//! What can't be read is left out or replaced by a default: such a `Rules` serves to find further violations, never to steer.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

use ipnet::IpNet;

use super::{
    Allowance, Answers, ClientMatch, Endpoint, HostName, HttpUrl, Hub, Jurisdiction, KeyDigest, Limits, Monitor,
    Network, Override, Pattern, Place, Probe, Region, ResidencyRule, Rules, SecretName, Service, Style, Tenant, Tier,
    TtlBounds, WhenAllDown,
};
use crate::geo::{self, Coordinates, CountryCode};
use crate::health::{Status, Thresholds};
use crate::id::{JurisdictionId, NOT_A_NAME, RegionId, ServiceId};
use crate::json::{Fields, Node, Reader, nearest};
use crate::time::{Millis, Timestamp};

/// What the whole document declares, and what may stand in it once only.
#[derive(Default)]
struct Context {
    jurisdictions: Vec<String>,
    regions: Vec<String>,
    services: Vec<String>,
    hosts: HashMap<HostName, String>,
    digests: HashMap<KeyDigest, String>,
    prefixes: HashMap<IpNet, usize>,
    overridden: HashMap<RegionId, usize>,
}

impl Context {
    fn gather(node: &Node) -> Self {
        let keys = |section: &str| match node {
            Node::Object(entries) => entries
                .iter()
                .filter(|(key, _)| key == section)
                .flat_map(|(_, node)| match node {
                    Node::Object(entries) => entries.iter().map(|(key, _)| key.clone()).collect(),
                    _ => Vec::new(),
                })
                .collect(),
            _ => Vec::new(),
        };
        Self {
            jurisdictions: keys("jurisdictions"),
            regions: keys("regions"),
            services: keys("services"),
            ..Self::default()
        }
    }
}

/// Reads a whole document; `None` if it isn't an object. Violations go to `reader`.
pub(crate) fn rules(reader: &mut Reader<'_>, node: &Node) -> Option<Rules> {
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
    let rules = Rules {
        version: version.unwrap_or(1),
        revision: revision.unwrap_or(1),
        jurisdictions: map(&mut fields, "jurisdictions", context, jurisdiction_name, jurisdiction),
        regions: map(&mut fields, "regions", context, RegionId::parse, region),
        services: map(&mut fields, "services", context, ServiceId::parse, service),
        tenants: map(&mut fields, "tenants", context, crate::id::TenantId::parse, tenant),
        networks: list(&mut fields, "networks", context, network),
        overrides: list(&mut fields, "overrides", context, an_override),
    };
    fields.finish();
    Some(rules)
}

fn map<K: Ord, V>(
    fields: &mut Fields<'_, '_, '_>,
    key: &'static str,
    context: &mut Context,
    name: fn(&str) -> Option<K>,
    value: impl Fn(&mut Reader<'_>, &Node, &mut Context) -> Option<V>,
) -> BTreeMap<K, V> {
    let read = |reader: &mut Reader<'_>, node: &_| {
        let mut map = BTreeMap::new();
        for (key, node) in reader.entries(node)? {
            let reader = &mut reader.at(key);
            let value = value(reader, node, context);
            match name(key) {
                Some(name) => map.extend(value.map(|value| (name, value))),
                None => reader
                    .fail(format!("{NOT_A_NAME}; a jurisdiction is neither \"unknown\" nor like a country code"))?,
            }
        }
        Some(map)
    };
    fields.optional(key, read).unwrap_or_default()
}

fn list<V>(
    fields: &mut Fields<'_, '_, '_>,
    key: &'static str,
    context: &mut Context,
    value: fn(&mut Reader<'_>, usize, &Node, &mut Context) -> Option<V>,
) -> Vec<V> {
    let mut index = 0;
    let read = |reader: &mut Reader<'_>, node: &Node| {
        index += 1;
        value(reader, index - 1, node, context)
    };
    fields.optional(key, |reader, node| reader.list(node, read)).unwrap_or_default()
}

/// `unknown` and what looks like a country code would be ambiguous where jurisdictions are named.
fn jurisdiction_name(text: &str) -> Option<JurisdictionId> {
    let ambiguous = text == "unknown" || CountryCode::parse(text).is_some();
    JurisdictionId::parse(text).filter(|_| !ambiguous)
}

fn jurisdiction(reader: &mut Reader<'_>, node: &Node, _: &mut Context) -> Option<Jurisdiction> {
    let mut fields = reader.object(node)?;
    if !fields.has("countries") && !fields.has("include") {
        fields.fail::<()>("holds no country; add \"countries\": [\"DE\", …] or \"include\": [\"EU\"]");
    }
    let countries = fields.optional("countries", |reader, node| reader.filled_list(node, country));
    let include = fields.optional("include", |reader, node| {
        reader.filled_list(node, |reader, node| {
            let name = reader.string(node)?;
            match geo::built_in_set(name) {
                Some(_) => Some(name.to_owned()),
                None => reader.fail(format!(
                    "names {name:?}, but the built-in sets are \"EU\" and \"EEA\"; list others as \"countries\""
                )),
            }
        })
    });
    fields.finish();
    Some(Jurisdiction { countries: countries.unwrap_or_default(), include: include.unwrap_or_default() })
}

fn region(reader: &mut Reader<'_>, node: &Node, context: &mut Context) -> Option<Region> {
    let mut fields = reader.object(node)?;
    let countries = fields.required("countries", "a list of all the countries it may process in", |reader, node| {
        let many = matches!(node, Node::Array(items) if items.len() > 1);
        reader.filled_list(node, |reader, node| place(reader, node, many, context))
    });
    let region = Region {
        countries: countries.unwrap_or_default(),
        location: fields.optional("location", location),
        standby: fields.optional("standby", boolean).unwrap_or(false),
        answers: fields.optional("answers", answers),
        endpoints: map(&mut fields, "endpoints", context, crate::id::EndpointId::parse, endpoint),
        monitor: fields.optional("monitor", monitor),
    };
    fields.finish();
    Some(region)
}

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
            if let Some(country) = CountryCode::parse(&text.to_ascii_uppercase()).filter(CountryCode::is_assigned) {
                problem += &format!("; for the country write \"{country}\"");
            } else {
                problem += &declared(text, &context.jurisdictions);
            }
            reader.fail(problem)
        }
    }
}

fn country(reader: &mut Reader<'_>, node: &Node) -> Option<CountryCode> {
    let text = reader.string(node)?;
    match CountryCode::parse(text).filter(CountryCode::is_assigned) {
        Some(country) => Some(country),
        None if text.eq_ignore_ascii_case("UK") => {
            reader.fail("is \"UK\", which ISO 3166-1 doesn't assign; write \"GB\"")
        }
        None => match CountryCode::parse(&text.to_ascii_uppercase()).filter(CountryCode::is_assigned) {
            Some(upper) => reader.fail(format!("is {text:?}; write the code in upper case: \"{upper}\"")),
            None => reader.fail(format!("is {text:?}; write an ISO 3166-1 alpha-2 code such as \"DE\"")),
        },
    }
}

fn boolean(reader: &mut Reader<'_>, node: &Node) -> Option<bool> {
    reader.boolean(node)
}

fn number(reader: &mut Reader<'_>, node: &Node) -> Option<f64> {
    reader.number(node)
}

fn location(reader: &mut Reader<'_>, node: &Node) -> Option<Coordinates> {
    let mut fields = reader.object(node)?;
    let latitude = fields.required("latitude", "degrees north, from -90 to 90", number);
    let longitude = fields.required("longitude", "degrees east, from -180 to 180", number);
    let place = match (latitude, longitude) {
        (Some(latitude), Some(longitude)) => Coordinates::from_degrees(latitude, longitude).or_else(|| {
            fields.fail(format!("is {latitude}, {longitude}; write a latitude within ±90 and a longitude within ±180"))
        }),
        _ => None,
    };
    fields.finish();
    place
}

fn answers(reader: &mut Reader<'_>, node: &Node) -> Option<Answers> {
    let mut fields = reader.object(node)?;
    let had_cname = fields.has("CNAME");
    let others = ["A", "AAAA", "TXT"].iter().filter(|kind| fields.has(kind)).count();
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
    };
    for kind in ["HTTPS", "SVCB"] {
        fields.optional(kind, |reader, _| reader.fail::<()>("can't be steered by this version; leave it out"));
    }
    if had_cname && others > 0 {
        fields.fail::<()>("holds a CNAME beside other types; a CNAME stands alone (RFC 1034 §3.6.2)");
    } else if !had_cname && others == 0 {
        fields.fail::<()>("holds no records; add \"A\" or \"AAAA\" addresses, or leave \"answers\" out");
    }
    fields.finish();
    Some(answers)
}

fn parsed<T: core::str::FromStr>(reader: &mut Reader<'_>, node: &Node, what: &str) -> Option<T> {
    let text = reader.string(node)?;
    text.parse().ok().or_else(|| reader.fail(format!("is {text:?}; write {what}")))
}

/// Longest TXT record: well within what a message can hold.
const TXT_LONGEST: usize = 4096;

fn text_record(reader: &mut Reader<'_>, node: &Node) -> Option<String> {
    let text = reader.string(node)?;
    if text.len() > TXT_LONGEST {
        return reader.fail(format!("is {} bytes long; a TXT record here may have {TXT_LONGEST}", text.len()));
    }
    Some(text.to_owned())
}

fn cname(reader: &mut Reader<'_>, node: &Node) -> Option<HostName> {
    let names = reader.filled_list(node, host_name)?;
    match (&names[..], node) {
        ([name], Node::Array(items)) if items.len() == 1 => Some(name.clone()),
        (_, Node::Array(items)) if items.len() > 1 => reader.fail("holds several names; a CNAME is exactly one"),
        _ => None,
    }
}

fn host_name(reader: &mut Reader<'_>, node: &Node) -> Option<HostName> {
    let text = reader.string(node)?;
    HostName::parse(text).or_else(|| {
        reader.fail(format!("is {text:?}, which is no host name; write one such as \"chat.ai.example.com\""))
    })
}

fn endpoint(reader: &mut Reader<'_>, node: &Node, _: &mut Context) -> Option<Endpoint> {
    let mut fields = reader.object(node)?;
    let url = fields.required("url", "its base URL, such as https://gpu.example.net/v1", |reader, node| {
        let url = http_url(reader, node)?;
        match url.unfit_for_endpoint() {
            Some(message) => reader.fail(message),
            None => Some(url),
        }
    });
    let style = fields
        .optional("style", |reader, node| one_of(reader, node, &[("openai", Style::OpenAi), ("azure", Style::Azure)]));
    let style = style.unwrap_or_default();
    let read_version = |reader: &mut Reader<'_>, node: &Node| {
        let text = reader.string(node)?;
        let fits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'));
        if fits { Some(text.to_owned()) } else { reader.fail("is no version; write one such as \"2024-10-21\"") }
    };
    let api_version = match style {
        Style::Azure => fields.required("api_version", "the Azure API's version, such as \"2024-10-21\"", read_version),
        Style::OpenAi if fields.has("api_version") => fields
            .optional("api_version", |reader, _| reader.fail("belongs to \"style\": \"azure\" only; leave it out")),
        Style::OpenAi => None,
    };
    let secret = fields.optional("secret", secret_name);
    let models = fields.optional("models", models);
    let small = u64::from(u16::MAX);
    let priority = fields.optional("priority", |reader, node| reader.integer(node, 0..=small));
    let weight = fields.optional("weight", |reader, node| reader.integer(node, 1..=small));
    let monitor = fields.optional("monitor", monitor);
    fields.finish();
    Some(Endpoint {
        url: url?,
        style,
        api_version,
        secret,
        models,
        priority: priority.and_then(|n| n.try_into().ok()).unwrap_or(0),
        weight: weight.and_then(|n| n.try_into().ok()).unwrap_or(1),
        monitor,
    })
}

fn http_url(reader: &mut Reader<'_>, node: &Node) -> Option<HttpUrl> {
    let text = reader.string(node)?;
    HttpUrl::parse(text).map_or_else(|message| reader.fail(message), Some)
}

fn secret_name(reader: &mut Reader<'_>, node: &Node) -> Option<SecretName> {
    let text = reader.string(node)?;
    // The text itself is not repeated: somebody may have put the secret there.
    SecretName::parse(text)
        .or_else(|| reader.fail("is not the name of a secret; write a name such as \"FRA_KEY\", never the value"))
}

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

fn monitor(reader: &mut Reader<'_>, node: &Node) -> Option<Monitor> {
    let mut fields = reader.object(node)?;
    let kind = fields.required("type", "\"tcp\" or \"http\"", |reader, node| match reader.string(node)? {
        kind @ ("tcp" | "http") => Some(kind),
        kind @ ("openai" | "vllm") => {
            reader.fail(format!("is {kind:?}, a monitor this version doesn't have yet; use \"http\" or \"tcp\""))
        }
        kind => reader.fail(format!("is {kind:?}; write \"http\" or \"tcp\"")),
    });
    let probe = match kind {
        Some("tcp") => fields
            .required("address", "what to connect to, such as \"192.0.2.10:443\"", tcp_address)
            .map(|address| Probe::Tcp { address }),
        Some(_) => http_probe(&mut fields),
        None => {
            // Without its type nobody knows which fields belong: say only what is certain.
            for key in ["address", "url", "status", "body_contains", "secret"] {
                fields.optional(key, |_, _| Some(()));
            }
            None
        }
    };
    let span = |low, high| move |reader: &mut Reader<'_>, node: &Node| duration(reader, node, low..=high);
    let interval = fields.optional("interval", span(Millis(100), Millis(3_600_000)));
    let timeout = fields.optional("timeout", span(Millis(10), Millis(300_000)));
    let count =
        |reader: &mut Reader<'_>, node: &Node| reader.integer(node, 1..=1000).and_then(|n| u32::try_from(n).ok());
    let thresholds = Thresholds {
        up: fields.optional("up_thresh", count).unwrap_or(3),
        ok: fields.optional("ok_thresh", count).unwrap_or(5),
        down: fields.optional("down_thresh", count).unwrap_or(3),
    };
    fields.finish();
    Some(Monitor {
        probe: probe?,
        interval: interval.unwrap_or(Millis(10_000)),
        timeout: timeout.unwrap_or(Millis(3_000)),
        thresholds,
    })
}

fn http_probe(fields: &mut Fields<'_, '_, '_>) -> Option<Probe> {
    let url = fields.required("url", "what to GET, such as https://gpu.example.net/health", http_url);
    let status = fields.optional("status", |reader, node| {
        reader.filled_list(node, |reader, node| reader.integer(node, 100..=599).and_then(|n| u16::try_from(n).ok()))
    });
    let body_contains = fields.optional("body_contains", |reader, node| match reader.string(node)? {
        "" => reader.fail("is empty and would always match; write some text, or leave it out"),
        text => Some(text.to_owned()),
    });
    let secret = fields.optional("secret", secret_name);
    Some(Probe::Http { url: url?, status: status.unwrap_or_else(|| vec![200]), body_contains, secret })
}

fn tcp_address(reader: &mut Reader<'_>, node: &Node) -> Option<String> {
    let text = reader.string(node)?;
    let named = |text: &str| {
        let (host, port) = text.rsplit_once(':')?;
        HostName::parse(host)?;
        port.parse::<u16>().ok().filter(|&port| port != 0)
    };
    let socket = text.parse::<core::net::SocketAddr>().is_ok_and(|address| address.port() != 0);
    if socket || named(text).is_some() {
        return Some(text.to_owned());
    }
    reader.fail(format!("is {text:?}; write an address and port such as \"192.0.2.10:443\" or \"[2001:db8::10]:443\""))
}

fn duration(reader: &mut Reader<'_>, node: &Node, range: core::ops::RangeInclusive<Millis>) -> Option<Millis> {
    let (low, high) = (range.start(), range.end());
    let Node::String(text) = node else {
        return reader.expected("a duration such as \"5s\"", node);
    };
    match Millis::parse(text) {
        Some(span) if range.contains(&span) => Some(span),
        Some(_) => reader.fail(format!("is {text:?}; write a duration from \"{low}\" to \"{high}\"")),
        None => reader.fail(format!("is {text:?}; write a duration such as \"500ms\", \"5s\", \"2m\" or \"1h\"")),
    }
}

fn one_of<T: Copy>(reader: &mut Reader<'_>, node: &Node, choices: &[(&str, T)]) -> Option<T> {
    let text = reader.string(node)?;
    if let Some((_, value)) = choices.iter().find(|(name, _)| *name == text) {
        return Some(*value);
    }
    let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
    reader.fail(format!("is {text:?}; write one of {names:?}"))
}

fn service(reader: &mut Reader<'_>, node: &Node, context: &mut Context) -> Option<Service> {
    let mut fields = reader.object(node)?;
    let hosts = fields.required("hosts", "the host names to steer", |reader, node| {
        reader.filled_list(node, |reader, node| {
            let name = host_name(reader, node)?;
            once(reader, name, &mut context.hosts, "is the host of another service too, or listed twice")
        })
    });
    let pattern = fields.required(
        "pattern",
        "one of \"active-active\", \"active-passive\", \"regional-sharding\", \"hub-and-spoke\"",
        |reader, node| {
            let choices = [
                ("active-active", Pattern::ActiveActive),
                ("active-passive", Pattern::ActivePassive),
                ("regional-sharding", Pattern::RegionalSharding),
                ("hub-and-spoke", Pattern::HubAndSpoke),
            ];
            one_of(reader, node, &choices)
        },
    );
    let regions = fields.required("regions", "the regions that serve it", |reader, node| {
        distinct(reader, node, |reader, node| reference(reader, node, "region", &context.regions, RegionId::parse))
    });
    let residency = fields.required(
        "residency",
        "at least one rule such as {\"clients\": [\"eu\"], \"process_in\": [\"eu\"]}",
        |reader, node| residency(reader, node, context),
    );
    let choices = [("serve-fence", WhenAllDown::ServeFence), ("fail", WhenAllDown::Fail)];
    let when_all_down = fields.optional("when_all_down", |reader, node| one_of(reader, node, &choices));
    let ttl = fields.optional("ttl", ttl);
    let denied_answers = fields.optional("denied_answers", answers);
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
    let limits = fields.optional("limits", limits);
    let allow = fields.optional("allow", |reader, node| {
        reader.list(node, |reader, node| {
            let choices = [
                ("remote_urls", Allowance::RemoteUrls),
                ("hosted_tools", Allowance::HostedTools),
                ("background", Allowance::Background),
                ("store", Allowance::Store),
                ("batch", Allowance::Batch),
            ];
            one_of(reader, node, &choices)
        })
    });
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
    })
}

/// A non-empty list whose items differ.
fn distinct<T: PartialEq>(
    reader: &mut Reader<'_>,
    node: &Node,
    mut item: impl FnMut(&mut Reader<'_>, &Node) -> Option<T>,
) -> Option<Vec<T>> {
    let mut seen: Vec<Node> = Vec::new();
    reader.filled_list(node, |reader, node| {
        if seen.contains(node) {
            return reader.fail("stands twice in the list; keep one");
        }
        seen.push(node.clone());
        item(reader, node)
    })
}

/// Something that may stand once in the whole document.
fn once<K: Hash + Eq + Clone>(
    reader: &mut Reader<'_>,
    key: K,
    seen: &mut HashMap<K, String>,
    problem: &str,
) -> Option<K> {
    let here = reader.place().to_owned();
    match seen.get(&key) {
        Some(first) => reader.fail(format!("{problem} (first at {first}); keep one")),
        None => {
            seen.insert(key.clone(), here);
            Some(key)
        }
    }
}

/// The name of something the document declares.
fn reference<T>(
    reader: &mut Reader<'_>,
    node: &Node,
    kind: &str,
    names: &[String],
    parse: fn(&str) -> Option<T>,
) -> Option<T> {
    let text = reader.string(node)?;
    if names.iter().any(|name| name == text) {
        return parse(text); // a bad name is noted where it is declared
    }
    reader.fail(format!("names the {kind} {text:?}, which isn't declared{}", declared(text, names)))
}

/// The end of a sentence about a name that isn't there: the nearest that is, or all.
fn declared(text: &str, names: &[String]) -> String {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    match (nearest(text, &names), &names[..]) {
        (Some(name), _) => format!("; did you mean {name:?}?"),
        (None, []) => "; none is declared, so declare it first".to_owned(),
        (None, names) if names.len() <= 8 => format!("; declare it, or name one of {names:?}"),
        (None, _) => "; declare it first".to_owned(),
    }
}

fn residency(reader: &mut Reader<'_>, node: &Node, context: &Context) -> Option<Vec<ResidencyRule>> {
    let mut catch_all = None;
    let mut index = 0;
    reader.filled_list(node, |reader, node| {
        let mut fields = reader.object(node)?;
        let clients = fields.required("clients", "jurisdictions, \"*\" or \"unknown\"", |reader, node| {
            distinct(reader, node, |reader, node| match reader.string(node)? {
                "*" => Some(ClientMatch::Known),
                "unknown" => Some(ClientMatch::Unknown),
                _ => reference(reader, node, "jurisdiction", &context.jurisdictions, JurisdictionId::parse).map(ClientMatch::Jurisdiction),
            })
        });
        let process_in = fields.required("process_in", "tiers, each a jurisdiction, a list of them, or \"*\"", |reader, node| {
            reader.filled_list(node, |reader, node| tier(reader, node, context))
        });
        let clients = clients.unwrap_or_default();
        // A rule after `*` can only be reached by clients nobody can place.
        if let Some(earlier) = catch_all
            && clients.iter().any(|client| *client != ClientMatch::Unknown)
        {
            fields.fail::<()>(format!("comes after rule {earlier}, whose \"*\" matches first; move \"*\" last (only \"unknown\" may follow it)"));
        }
        if clients.contains(&ClientMatch::Known) {
            catch_all = catch_all.or(Some(index));
        }
        index += 1;
        fields.finish();
        Some(ResidencyRule {
            clients,
            process_in: process_in.unwrap_or_default(),
        })
    })
}

fn tier(reader: &mut Reader<'_>, node: &Node, context: &Context) -> Option<Tier> {
    let jurisdiction = |reader: &mut Reader<'_>, node: &Node| match node {
        Node::String(text) if text == "*" => reader.fail("is \"*\" within a list; let \"*\" stand alone as a tier"),
        _ => reference(reader, node, "jurisdiction", &context.jurisdictions, JurisdictionId::parse),
    };
    match node {
        Node::String(text) if text == "*" => Some(Tier::Anywhere),
        Node::Array(_) => distinct(reader, node, jurisdiction).map(Tier::In),
        Node::String(_) => jurisdiction(reader, node).map(|id| Tier::In(vec![id])),
        other => reader.expected("a jurisdiction, a list of them, or \"*\"", other),
    }
}

fn ttl(reader: &mut Reader<'_>, node: &Node) -> Option<TtlBounds> {
    let mut fields = reader.object(node)?;
    let seconds = |low: u64| {
        move |reader: &mut Reader<'_>, node: &Node| {
            reader.integer(node, low..=86_400).and_then(|n| u32::try_from(n).ok())
        }
    };
    let defaults = TtlBounds::default();
    let given = (fields.optional("min", seconds(0)), fields.optional("max", seconds(1)));
    // One bound given alone moves the other's default along.
    let bounds = match given {
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

fn limits(reader: &mut Reader<'_>, node: &Node) -> Option<Limits> {
    let mut fields = reader.object(node)?;
    let span = |reader: &mut Reader<'_>, node: &Node| duration(reader, node, Millis(10)..=Millis(3_600_000));
    let defaults = Limits::default();
    let limits = Limits {
        headers_streamed: fields.optional("headers_streamed", span).unwrap_or(defaults.headers_streamed),
        headers_unary: fields.optional("headers_unary", span).unwrap_or(defaults.headers_unary),
        idle: fields.optional("idle", span).unwrap_or(defaults.idle),
        total: fields.optional("total", span).unwrap_or(defaults.total),
        body_bytes: fields
            .optional("body_bytes", |reader, node| reader.integer(node, 1..=(32 << 20)))
            .unwrap_or(defaults.body_bytes),
        sends: fields
            .optional("sends", |reader, node| reader.integer(node, 1..=3).and_then(|n| u8::try_from(n).ok()))
            .unwrap_or(defaults.sends),
    };
    fields.finish();
    Some(limits)
}

fn tenant(reader: &mut Reader<'_>, node: &Node, context: &mut Context) -> Option<Tenant> {
    let mut fields = reader.object(node)?;
    let key_sha256 = fields.required("key_sha256", "the digests that `bailiwick hash-key` prints", |reader, node| {
        reader.filled_list(node, |reader, node| {
            let text = reader.string(node)?;
            // The text is not repeated: somebody may have put the key itself there.
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
    let services = fields.required("services", "the services it may use", |reader, node| {
        distinct(reader, node, |reader, node| reference(reader, node, "service", &context.services, ServiceId::parse))
    });
    fields.finish();
    Some(Tenant {
        key_sha256: key_sha256.unwrap_or_default(),
        residency: residency.unwrap_or_default(),
        services: services.unwrap_or_default(),
    })
}

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

fn an_override(reader: &mut Reader<'_>, index: usize, node: &Node, context: &mut Context) -> Option<Override> {
    let mut fields = reader.object(node)?;
    let region = fields.required("region", "the region's name", |reader, node| {
        let region = reference(reader, node, "region", &context.regions, RegionId::parse)?;
        match context.overridden.insert(region.clone(), index) {
            Some(first) => reader.fail(format!("is overridden at /overrides/{first} too; keep one")),
            None => Some(region),
        }
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
    Some(Override { region: region?, status: status?, until: until?, reason: reason? })
}
