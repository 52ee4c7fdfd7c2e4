//! The one function that decides: a compiled rule book, who asks for what, and the conditions of the moment in; a
//! [`Steering`] out.
//!
//! The steps stand in the order in which they are taken: who is the client, what is the fence, what does the pattern
//! make of it ([`rank`], free of health), what is withheld, what if that is everything ([`decide`]). DNS ranks once per
//! class of clients and decides on every change of health; the edge does both at once by [`steer`].

pub mod first_token;
mod forced;

use core::net::IpAddr;

use crate::geo::{self, Coordinates, CountryCode};
use crate::health::{RegionHealth, Status};
use crate::id::EndpointId;
use crate::rules::{Pattern, WhenAllDown};
use crate::table::{Fenced, JurisdictionIndex, RegionIndex, Service, ServiceIndex, Table, TenantIndex};
use crate::time::{Millis, Timestamp};

use forced::judge_forced_endpoints;
pub use forced::{InForce, effective_status, endpoint_in_force, forced, forced_endpoint, forces_endpoints};

/// Who asks, as far as anybody could tell. DNS knows no tenant.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Client {
    /// The customer, if one was recognised.
    pub tenant: Option<TenantIndex>,
    /// The client's address (or its resolver's), for `networks`.
    pub address: Option<IpAddr>,
    /// The country that geography gives: a GeoIP database or Cloudflare.
    pub country: Option<CountryCode>,
    /// The coordinates that geography gives.
    pub location: Option<Coordinates>,
}

/// Whether a request is inference or belongs to the hub of `hub-and-spoke`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PathClass {
    /// Everything but hub paths.
    #[default]
    Inference,
    /// One of the service's `hub.paths`.
    Hub,
}

/// What is asked. DNS leaves `model` and `path_class` empty.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The service.
    pub service: ServiceIndex,
    /// Who asks.
    pub client: Client,
    /// The model asked for, by the client's name for it.
    pub model: Option<&'a str>,
    /// What kind of path it is.
    pub path_class: PathClass,
}

/// The conditions of one moment.
#[derive(Clone, Copy, Debug)]
pub struct Conditions<'a> {
    /// Health by region index; a region beyond its end is unknown.
    pub health: &'a [RegionHealth],
    /// What one edge isolate knows; empty in DNS.
    pub local: &'a Local,
    /// The time.
    pub now: Timestamp,
}

/// What one edge isolate knows of endpoints.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Local {
    /// Endpoints that asked for a rest.
    pub cooling: Vec<Cooling>,
}

/// An endpoint at rest, for one model or all.
#[derive(Clone, Debug, PartialEq)]
pub struct Cooling {
    /// Its region.
    pub region: RegionIndex,
    /// The endpoint.
    pub endpoint: EndpointId,
    /// The model, by the client's name; `None`: all.
    pub model: Option<String>,
    /// When it may be tried again.
    pub until: Timestamp,
}

/// Where a client stands: step 1.
#[derive(Clone, PartialEq, Debug)]
pub struct Standing {
    /// Its country.
    pub country: Option<CountryCode>,
    /// Its jurisdictions, by name. Empty for a country that lies in none.
    pub jurisdictions: Vec<JurisdictionIndex>,
    /// How they were learnt.
    pub source: Source,
    /// Where it is, for distances.
    pub location: Option<Coordinates>,
    /// The tenant whose own `process_in` is the fence, whatever the rest says.
    pub fenced: Option<TenantIndex>,
}

/// How a client's jurisdictions were learnt.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The tenant's declared residency.
    Tenant,
    /// An entry of `networks`.
    Network,
    /// The country of its address.
    Geography,
    /// Not at all.
    Unknown,
}

/// A region of the fence with its place in the order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ranked {
    /// The region, its tier and the jurisdiction by which it is in the fence.
    pub fenced: Fenced,
    /// Whole kilometres to the client, where both places are known.
    pub km: Option<u32>,
}

/// What gives a client its fence.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum FenceBy {
    /// The service's residency rule that took the client, by position.
    Rule(usize),
    /// The `process_in` of its tenant.
    Tenant,
}

impl FenceBy {
    /// The word for it in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rule(_) => "rule",
            Self::Tenant => "tenant",
        }
    }
}

/// The fence in base order, before anything is withheld: steps 1 and 2, and what the pattern makes of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ranking {
    /// What gave the client its fence; `None`: nothing did, and it is empty.
    pub fence_by: Option<FenceBy>,
    /// The fence, best first.
    pub order: Vec<Ranked>,
    /// The only region that may serve, where the pattern says so. `Some(None)`: the hub lies outside the fence.
    pub only: Option<Option<RegionIndex>>,
    /// Whether an all-withheld fence may be offered again.
    pub revivable: bool,
}

impl Ranking {
    /// The regions of the fence, best first.
    #[must_use]
    pub fn regions(&self) -> Vec<RegionIndex> {
        self.order.iter().map(|ranked| ranked.fenced.region).collect()
    }
}

/// Why a region of the fence isn't offered.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The pattern keeps the client at another region.
    NotHome,
    /// An operator forced it down.
    Forced,
    /// Its monitors say so, or those of every endpoint that has the model.
    Down,
    /// No endpoint has the model.
    NoModel,
    /// Every endpoint that has the model is cooling.
    Cooling,
}

impl Reason {
    /// The word for it in JSON, logs and explanations.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotHome => "not_home",
            Self::Forced => "forced",
            Self::Down => "down",
            Self::NoModel => "no_model",
            Self::Cooling => "cooling",
        }
    }
}

/// A region of the fence that isn't offered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Withheld {
    /// The region.
    pub ranked: Ranked,
    /// Why.
    pub reason: Reason,
}

/// What was decided. `ordered` and `withheld` partition the fence.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Steering {
    /// The regions offered, best first.
    pub ordered: Vec<Ranked>,
    /// The regions not offered, in base order.
    pub withheld: Vec<Withheld>,
    /// Whether `ordered` was revived because all of the fence was withheld.
    pub revived: bool,
    /// When an override or cool-down that played a part ends.
    pub valid_until: Option<Timestamp>,
}

/// Decides: steps 1 to 6.
///
/// ```
/// use bailiwick_rules::geo::CountryCode;
/// use bailiwick_rules::steer::{Ask, Client, Conditions, Local, PathClass, steer};
/// use bailiwick_rules::table::Table;
/// use bailiwick_rules::time::Timestamp;
///
/// let table = Table::compile(br#"{
///     "version": 1, "revision": 1,
///     "jurisdictions": { "eu": { "include": ["EU"] } },
///     "regions": { "fra": { "countries": ["DE"] }, "nyc": { "countries": ["US"] } },
///     "services": { "chat": { "hosts": ["chat.example"], "pattern": "active-active", "regions": ["nyc", "fra"],
///                             "residency": [{ "clients": ["eu"], "process_in": ["eu"] }] } }
/// }"#).unwrap();
/// let client = Client { country: CountryCode::parse("AT"), ..Client::default() };
/// let ask = Ask { service: table.service_named("chat").unwrap(), client, model: None, path_class: PathClass::Inference
/// }; let conditions = Conditions { health: &[], local: &Local::default(), now: Timestamp(0) };
///
/// let steering = steer(&table, &ask, &conditions);
/// let first = steering.ordered[0].fenced.region;
/// assert_eq!(table.region(first).id.as_str(), "fra");
/// assert_eq!(steering.fence().count(), 1, "New York is no part of the fence");
/// ```
#[must_use]
pub fn steer(table: &Table, ask: &Ask<'_>, conditions: &Conditions<'_>) -> Steering {
    let standing = stand(table, &ask.client);
    let ranking = rank(table, ask.service, &standing, ask.path_class);
    decide(table, &ranking, ask.model, conditions)
}

/// Step 1: the tenant's declared residency; else `networks`; else the country; else unknown. A declared residency
/// leaves the location to geography, and so does a tenant's own fence.
#[must_use]
pub fn stand(table: &Table, client: &Client) -> Standing {
    let network = client.address.and_then(|address| table.network_of(address));
    let (country, location, geographic) = match network {
        Some(place) => (Some(place.country), place.location, Source::Network),
        None => (client.country, client.location, Source::Geography),
    };
    let location = location.or_else(|| geo::centroid(country?));
    let tenant = client.tenant.map(|index| (index, table.tenant(index)));
    let declared = tenant.map(|(_, tenant)| &tenant.residency).filter(|declared| !declared.is_empty());
    let fenced = tenant.filter(|(_, tenant)| tenant.has_fence()).map(|(index, _)| index);
    let (jurisdictions, source) = match (declared, country) {
        (Some(declared), _) => (declared.clone(), Source::Tenant),
        (None, Some(country)) => (table.jurisdictions_of(country), geographic),
        (None, None) => (Vec::new(), Source::Unknown),
    };
    Standing { country, jurisdictions, source, location, fenced }
}

/// Step 2: what the tenant's own `process_in` allows, or the fence of the first rule that takes the client.
fn fence<'t>(table: &'t Table, index: ServiceIndex, standing: &Standing) -> (Option<FenceBy>, &'t [Fenced]) {
    if let Some(fence) = standing.fenced.and_then(|tenant| table.tenant(tenant).fence(index)) {
        return (Some(FenceBy::Tenant), fence);
    }
    let takes = |rule: &crate::table::ResidencyRule| match standing.source {
        Source::Unknown => rule.unknown,
        _ => rule.known || rule.jurisdictions.iter().any(|one| standing.jurisdictions.contains(one)),
    };
    let rules = &table.service(index).residency;
    let rule = rules.iter().position(takes);
    (rule.map(FenceBy::Rule), rule.and_then(|rule| rules.get(rule)).map_or(&[], |rule| &rule.fence))
}

/// Step 2 and the base order of step 4: the fence, sorted standby last, then by tier,
/// then by the pattern, then by region id. Free of health, so it can be computed once for all clients that stand alike.
#[must_use]
pub fn rank(table: &Table, service: ServiceIndex, standing: &Standing, path_class: PathClass) -> Ranking {
    rank_by(table, service, standing, path_class, |region| distance(table, standing, region))
}

/// How far a region is from where a client stands, in kilometres, if both places are known.
#[must_use]
pub fn distance(table: &Table, standing: &Standing, region: RegionIndex) -> Option<u32> {
    Some(standing.location?.km_to(table.region(region).location?))
}

/// [`rank`] for whoever ranks many services for one client, and so has the [`distance`]s already.
pub fn rank_by(
    table: &Table,
    service: ServiceIndex,
    standing: &Standing,
    path_class: PathClass,
    km: impl Fn(RegionIndex) -> Option<u32>,
) -> Ranking {
    let (fence_by, fence) = fence(table, service, standing);
    let service = table.service(service);

    let mut order: Vec<Ranked> = fence.iter().map(|&fenced| Ranked { fenced, km: km(fenced.region) }).collect();
    let hub = service.hub.as_ref().filter(|_| path_class == PathClass::Hub);
    // The sort is stable and the fence is in the order written, which thus decides for `active-passive` and for clients
    // without a location.
    let by_distance = service.pattern != Pattern::ActivePassive && standing.location.is_some();
    // Regions stand in the table in the order of their names.
    order.sort_by_key(|ranked| {
        let distance = by_distance.then(|| (ranked.km.unwrap_or(u32::MAX), ranked.fenced.region));
        (table.region(ranked.fenced.region).standby, ranked.fenced.tier, distance)
    });

    let only = match (hub, service.pattern) {
        (Some(hub), _) => {
            let in_fence = |ranked: &&Ranked| table.region(ranked.fenced.region).id == hub.region;
            Some(order.iter().find(in_fence).map(|ranked| ranked.fenced.region))
        }
        (None, Pattern::RegionalSharding) => Some(order.first().map(|home| home.fenced.region)),
        (None, Pattern::ActiveActive | Pattern::ActivePassive | Pattern::HubAndSpoke) => None,
    };
    Ranking {
        fence_by,
        order,
        only,
        // Work at a hub has its state there: a hub that is down is down.
        revivable: hub.is_none() && service.when_all_down == WhenAllDown::ServeFence,
    }
}

/// Steps 3, 4 and 6: what is withheld, what remains, and what is revived if nothing does.
#[must_use]
pub fn decide(table: &Table, ranking: &Ranking, model: Option<&str>, conditions: &Conditions<'_>) -> Steering {
    let mut ordered = Vec::with_capacity(ranking.order.len());
    let mut withheld = Vec::new();
    let mut valid_until = None;
    for &ranked in &ranking.order {
        let judgement = judge(table, ranking, ranked.fenced.region, model, conditions);
        valid_until = earliest(valid_until, judgement.until);
        match judgement.reason {
            None => ordered.push(ranked),
            Some(reason) => withheld.push((Withheld { ranked, reason }, judgement.passing)),
        }
    }
    let revived = ordered.is_empty() && ranking.revivable && withheld.iter().any(|(_, passing)| *passing);
    if revived {
        ordered.extend(withheld.iter().filter(|(_, passing)| *passing).map(|(one, _)| one.ranked));
        withheld.retain(|(_, passing)| !passing);
    }
    Steering { ordered, withheld: withheld.into_iter().map(|(one, _)| one).collect(), revived, valid_until }
}

/// What speaks against one region.
struct Judgement {
    /// The first reason, in the order of [`Reason`].
    reason: Option<Reason>,
    /// Whether nothing but `down` and `cooling` speaks against it, so that it may be revived.
    passing: bool,
    /// When an override or cool-down that was looked at ends.
    until: Option<Timestamp>,
}

fn judge(
    table: &Table,
    ranking: &Ranking,
    index: RegionIndex,
    model: Option<&str>,
    conditions: &Conditions<'_>,
) -> Judgement {
    let region = table.region(index);
    let health = conditions.health.get(index.get());
    let has_model = |endpoint: &crate::rules::Endpoint| match (model, &endpoint.models) {
        (Some(model), Some(models)) => models.contains_key(model),
        _ => true,
    };
    let able = || (0..region.endpoints.len()).filter(|&i| has_model(&region.endpoints[i].1));
    let no_model = model.is_some() && able().next().is_none();
    let forced = forced(table, index, conditions);

    let endpoint_down = |i: usize| health.and_then(|health| health.endpoints.get(i)) == Some(&Status::Down);
    let mut probed_down = health.is_some_and(|health| health.probed == Status::Down)
        || model.is_some() && !no_model && able().all(endpoint_down);
    let (mut is_drained, mut drained_until) = (false, None);
    if forces_endpoints(table, index, conditions) {
        let reported = judge_forced_endpoints(table, index, able(), conditions);
        probed_down =
            reported.is_down.unwrap_or(probed_down) || health.is_some_and(|health| health.probed == Status::Down);
        (is_drained, drained_until) = (reported.is_drained, reported.until);
    }
    let cooling_until = |i: usize| {
        let name = &region.endpoints[i].0;
        let mine = |cooling: &&Cooling| {
            let same_model = cooling.model.is_none() || cooling.model.as_deref() == model;
            cooling.region == index && cooling.endpoint == *name && same_model && cooling.until > conditions.now
        };
        conditions.local.cooling.iter().filter(mine).map(|cooling| cooling.until).max()
    };
    // `None` sorts first: one endpoint that isn't cooling is enough.
    let rested = able().map(cooling_until).min().flatten();

    let not_home = ranking.only.is_some_and(|only| only != Some(index));
    let forced_down = forced.is_some_and(|forced| forced.status == Status::Down) || is_drained;
    let down = forced.is_none() && probed_down;
    let reasons = [
        (not_home, Reason::NotHome),
        (forced_down, Reason::Forced),
        (down, Reason::Down),
        (no_model, Reason::NoModel),
        (rested.is_some(), Reason::Cooling),
    ];
    Judgement {
        reason: reasons.iter().find(|(applies, _)| *applies).map(|(_, reason)| *reason),
        passing: !not_home && !forced_down && !no_model,
        until: earliest(earliest(forced.map(|forced| forced.until), drained_until), rested),
    }
}

fn earliest(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    a.into_iter().chain(b).min()
}

impl Steering {
    /// The fence: every region, offered or withheld.
    pub fn fence(&self) -> impl Iterator<Item = Ranked> {
        self.ordered.iter().copied().chain(self.withheld.iter().map(|withheld| withheld.ranked))
    }

    /// The DNS TTL in seconds of what this steering of `ranking` answers: no longer than the least time in which probes
    /// could take the chosen region away or bring a better one back, nor than the steering is valid; within the
    /// service's bounds.
    #[must_use]
    pub fn ttl(&self, table: &Table, service: &Service, ranking: &Ranking, conditions: &Conditions<'_>) -> u32 {
        let health = |region: RegionIndex| conditions.health.get(region.get());
        let probed = |region: RegionIndex| forced(table, region, conditions).is_none();
        let chosen = self.ordered.first().map(|first| first.fenced.region);
        // Whoever comes back behind the chosen region changes nothing.
        let better = ranking.order.iter().map(|ranked| ranked.fenced.region).take_while(|&one| Some(one) != chosen);
        let is_down = |&region: &RegionIndex| {
            self.withheld.iter().any(|one| one.ranked.fenced.region == region && one.reason == Reason::Down)
        };
        let returning = better.filter(is_down);
        // When the fence was revived every probed recovery in it matters, the chosen region's own included.
        let revived = self.ordered.iter().filter(|_| self.revived).map(|one| one.fenced.region);
        let to_up = returning.chain(revived).filter_map(|region| health(region)?.time_to_up);
        let to_down =
            chosen.filter(|&region| !self.revived && probed(region)).and_then(|region| health(region)?.time_to_down);
        let to_end = self.valid_until.map(|until| until.since(conditions.now));
        let least = to_up.chain(to_down).chain(to_end).min().unwrap_or(Millis(u64::MAX));
        u32::try_from(least.0 / 1000).unwrap_or(u32::MAX).clamp(service.ttl.min, service.ttl.max)
    }
}

#[cfg(test)]
mod properties;
