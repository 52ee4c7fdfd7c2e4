//! The function that decides which regions may serve a client, and in which order. Takes the compiled rules, a client
//! with its request, and the conditions of the moment; returns a [`Steering`]. Called by the DNS node's snapshot, the
//! edge and `bailiwick explain`.
//!
//! A decision takes four steps:
//!
//! 1. [`stand`] finds the client's jurisdictions and location.
//! 2. [`rank`] finds the fence, which is the set of regions that may process the client, and sorts it by the service's
//!    pattern, regardless of health.
//! 3. [`decide`] withholds regions, for instance because they are down.
//! 4. If no region is left, [`decide`] revives some, which means that it offers them nevertheless.
//!
//! DNS ranks once per class of clients and decides whenever health changes; the edge does both at once by [`steer`].

pub mod first_token;
mod forced;
mod knowledge;
mod logs;
mod skew;

use core::net::IpAddr;

use crate::geo::{self, Coordinates, CountryCode};
use crate::health::{RegionHealth, ReplicaSet, Status};
use crate::id::EndpointId;
use crate::rules::{Pattern, WhenAllDown};
use crate::table::{Fenced, JurisdictionIndex, RegionIndex, Service, ServiceIndex, Table, TenantIndex};
use crate::time::{Millis, Timestamp};

use forced::judge_forced_endpoints;
use knowledge::{Knowledge, time_to_lag, time_to_return};

pub use forced::{InForce, effective_status, endpoint_in_force, forced, forced_endpoint, forces_endpoints};
pub use knowledge::{Behind, behind};
pub use logs::{Logged, logged};
pub use skew::{DifferingEndpoint, Skew, differing_endpoints};

/// The client, as far as it is known. In DNS the tenant is never known.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Client {
    /// The customer, if one was recognised.
    pub tenant: Option<TenantIndex>,
    /// The client's address (or its resolver's), which is looked up in `networks` of the rules.
    pub address: Option<IpAddr>,
    /// The country of the address by a GeoIP database or Cloudflare.
    pub country: Option<CountryCode>,
    /// The coordinates of the address by a GeoIP database or Cloudflare.
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

/// The request of a client. DNS leaves `model` and `path_class` empty.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The service.
    pub service: ServiceIndex,
    /// The client.
    pub client: Client,
    /// The requested model, by the client's name for it.
    pub model: Option<&'a str>,
    /// The class of the request's path.
    pub path_class: PathClass,
    /// The replicas of knowledge that the request needs. `None` where the path isn't known: then those count that every
    /// path needs.
    pub needs: Option<ReplicaSet>,
}

/// The conditions of one moment.
#[derive(Clone, Copy, Debug)]
pub struct Conditions<'a> {
    /// Health by region index. The health of regions beyond the end of the list is unknown.
    pub health: &'a [RegionHealth],
    /// The state of one edge isolate; empty in DNS.
    pub local: &'a Local,
    /// The time.
    pub now: Timestamp,
}

/// What one edge isolate knows about endpoints.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Local {
    /// Endpoints that get no requests for a while, because they asked for a pause.
    pub cooling: Vec<Cooling>,
}

/// An endpoint that gets no requests for a while, for one model or all models.
#[derive(Clone, Debug, PartialEq)]
pub struct Cooling {
    /// The endpoint's region.
    pub region: RegionIndex,
    /// The endpoint.
    pub endpoint: EndpointId,
    /// The model, by the client's name; `None` for all models.
    pub model: Option<String>,
    /// The time from which the endpoint may be tried again.
    pub until: Timestamp,
}

/// The legal and geographic position of a client: the result of [`stand`].
#[derive(Clone, PartialEq, Debug)]
pub struct Standing {
    /// The client's country.
    pub country: Option<CountryCode>,
    /// The client's jurisdictions, by name. Empty for a country that lies in no jurisdiction.
    pub jurisdictions: Vec<JurisdictionIndex>,
    /// How the jurisdictions were found.
    pub source: JurisdictionSource,
    /// The client's location, for distances.
    pub location: Option<Coordinates>,
    /// The client's tenant, if the tenant's own `process_in` is the fence. The other fields don't matter for the fence
    /// then.
    pub fenced: Option<TenantIndex>,
}

/// How a client's jurisdictions were found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JurisdictionSource {
    /// The tenant's declared residency.
    Tenant,
    /// An entry of `networks`.
    Network,
    /// The country of the client's address.
    Geography,
    /// The jurisdictions aren't known.
    Unknown,
}

/// A region of the fence with its place in the order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ranked {
    /// The region, its tier, and the jurisdiction because of which it is in the fence.
    pub fenced: Fenced,
    /// The distance to the client in whole kilometres, if both locations are known.
    pub km: Option<u32>,
}

/// The rule that defines a client's fence.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum FenceBy {
    /// The first residency rule of the service that matches the client, by its index.
    Rule(usize),
    /// The `process_in` of the client's tenant.
    Tenant,
}

impl FenceBy {
    /// The word in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rule(_) => "rule",
            Self::Tenant => "tenant",
        }
    }
}

/// The fence, sorted but before any region is withheld: the result of [`rank`]. This order is called the base order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ranking {
    /// The rule that defines the fence; `None` if no rule matches the client. The fence is empty then.
    pub fence_by: Option<FenceBy>,
    /// The fence, best first.
    pub order: Vec<Ranked>,
    /// The only region that may serve, if the pattern allows only one. `Some(None)` if the hub lies outside the fence.
    pub only: Option<Option<RegionIndex>>,
    /// Whether regions may be offered nevertheless if all regions of the fence are withheld.
    pub revivable: bool,
    /// The replicas of knowledge that have to be fresh: those that the request's path needs, or, if the path isn't
    /// known, those that every path of the service needs.
    pub needs: ReplicaSet,
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
    /// The pattern allows only another region.
    NotHome,
    /// An operator forced the region down.
    Forced,
    /// The monitors of the region report it down, or the monitors of every endpoint that has the model.
    Down,
    /// No endpoint has the model.
    NoModel,
    /// A replica that the request needs is too far behind there.
    Lagging,
    /// A replica that the request needs has another version there.
    Version,
    /// Every endpoint that has the model and isn't down runs another release (version of the model) than the fence
    /// should run.
    Skew,
    /// Every endpoint that has the model is cooling: it asked for a pause.
    Cooling,
}

impl Reason {
    /// The word in JSON, logs and explanations.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotHome => "not_home",
            Self::Forced => "forced",
            Self::Down => "down",
            Self::NoModel => "no_model",
            Self::Lagging => "lagging",
            Self::Version => "version",
            Self::Skew => "skew",
            Self::Cooling => "cooling",
        }
    }
}

/// A region of the fence that isn't offered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Withheld {
    /// The region.
    pub ranked: Ranked,
    /// The reason.
    pub reason: Reason,
}

/// The decision for one client. Each region of the fence is either in `ordered` or in `withheld`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Steering {
    /// The regions offered, best first.
    pub ordered: Vec<Ranked>,
    /// The regions not offered, in base order.
    pub withheld: Vec<Withheld>,
    /// Whether `ordered` was revived because all of the fence was withheld.
    pub revived: bool,
    /// Whether `ordered` holds only the region whose copies of knowledge are least behind, because the copies of every
    /// region that could serve are too far behind.
    pub stale: bool,
    /// Whether `ordered` holds regions that run another release, because no other region of the fence could be offered.
    pub skewed: bool,
    /// The earliest end of an override or cool-down that influenced the decision.
    pub valid_until: Option<Timestamp>,
}

/// Decides for one request: takes all steps from the client to the regions that are offered.
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
/// let service = table.service_named("chat").unwrap();
/// let ask = Ask { service, client, model: None, path_class: PathClass::Inference, needs: None };
/// let conditions = Conditions { health: &[], local: &Local::default(), now: Timestamp(0) };
///
/// let steering = steer(&table, &ask, &conditions);
/// let first = steering.ordered[0].fenced.region;
/// assert_eq!(table.region(first).id.as_str(), "fra");
/// assert_eq!(steering.fence().count(), 1, "New York is outside the fence");
/// ```
#[must_use]
pub fn steer(table: &Table, ask: &Ask<'_>, conditions: &Conditions<'_>) -> Steering {
    let standing = stand(table, &ask.client);
    decide(table, &rank_for(table, ask, &standing), ask.model, conditions)
}

/// Step 1: finds the client's jurisdictions, by the first of these that is known: the tenant's declared residency, an
/// entry of `networks`, the country. The location always comes from `networks` or geography, even if the tenant
/// declares a residency or has its own fence.
#[must_use]
pub fn stand(table: &Table, client: &Client) -> Standing {
    let network = client.address.and_then(|address| table.network_of(address));
    let (country, location, geographic) = match network {
        Some(place) => (Some(place.country), place.location, JurisdictionSource::Network),
        None => (client.country, client.location, JurisdictionSource::Geography),
    };
    let location = location.or_else(|| geo::centroid(country?));
    let tenant = client.tenant.map(|index| (index, table.tenant(index)));
    let declared = tenant.map(|(_, tenant)| &tenant.residency).filter(|declared| !declared.is_empty());
    let fenced = tenant.filter(|(_, tenant)| tenant.has_fence()).map(|(index, _)| index);
    let (jurisdictions, source) = match (declared, country) {
        (Some(declared), _) => (declared.clone(), JurisdictionSource::Tenant),
        (None, Some(country)) => (table.jurisdictions_of(country), geographic),
        (None, None) => (Vec::new(), JurisdictionSource::Unknown),
    };
    Standing { country, jurisdictions, source, location, fenced }
}

/// The fence of step 2: by the tenant's own `process_in`, or by the first residency rule that matches the client.
fn fence<'t>(table: &'t Table, index: ServiceIndex, standing: &Standing) -> (Option<FenceBy>, &'t [Fenced]) {
    if let Some(fence) = standing.fenced.and_then(|tenant| table.tenant(tenant).fence(index)) {
        return (Some(FenceBy::Tenant), fence);
    }
    let matches_client = |rule: &crate::table::ResidencyRule| match standing.source {
        JurisdictionSource::Unknown => rule.unknown,
        _ => rule.known || rule.jurisdictions.iter().any(|listed| standing.jurisdictions.contains(listed)),
    };
    let rules = &table.service(index).residency;
    let rule = rules.iter().position(matches_client);
    (rule.map(FenceBy::Rule), rule.and_then(|rule| rules.get(rule)).map_or(&[], |rule| &rule.fence))
}

/// Step 2: the fence, sorted by standby (last), then by tier, then by the pattern, then by region id. The ranking
/// doesn't depend on health, so it can be computed once for all clients with the same [`Standing`].
#[must_use]
pub fn rank(table: &Table, service: ServiceIndex, standing: &Standing, path_class: PathClass) -> Ranking {
    rank_by(table, service, standing, path_class, |region| distance(table, standing, region))
}

/// What the path of a request (without `/v1`) says of it: its class, and the replicas that it needs.
#[must_use]
pub fn by_path(service: &Service, path: &str) -> (PathClass, ReplicaSet) {
    let class = if service.is_hub_path(path) { PathClass::Hub } else { PathClass::Inference };
    (class, service.needs_of(path))
}

/// As [`rank`], for a request whose path may be known. The path says which replicas the request needs.
#[must_use]
pub fn rank_for(table: &Table, ask: &Ask<'_>, standing: &Standing) -> Ranking {
    let ranking = rank(table, ask.service, standing, ask.path_class);
    Ranking { needs: ask.needs.unwrap_or(ranking.needs), ..ranking }
}

/// The distance between a client and a region in kilometres, if both locations are known.
#[must_use]
pub fn distance(table: &Table, standing: &Standing, region: RegionIndex) -> Option<u32> {
    Some(standing.location?.km_to(table.region(region).location?))
}

/// As [`rank`], for callers that rank many services for one client and have computed each [`distance`] already.
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
    // The sort is stable, and the fence has the order of the rules. So this order decides for `active-passive` and for
    // clients without a location.
    let by_distance = service.pattern != Pattern::ActivePassive && standing.location.is_some();
    // In the table, regions are sorted by their names, so sorting by index sorts by name.
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
        // The hub holds state, which no other region has, so a hub that is down isn't revived.
        revivable: hub.is_none() && service.when_all_down == WhenAllDown::ServeFence,
        needs: service.needs_everywhere(),
    }
}

/// Steps 3 and 4: withholds regions, offers the others, and revives some if no region is left to offer.
///
/// A region that runs another release than it should is withheld only while other regions are left. If none is left,
/// the decision is made again without looking at releases.
#[must_use]
pub fn decide(table: &Table, ranking: &Ranking, model: Option<&str>, conditions: &Conditions<'_>) -> Steering {
    if table.releases().is_empty() {
        return decide_by(table, ranking, model, conditions, None);
    }
    let Some(skew) = Skew::of(table, &ranking.regions(), model, conditions) else {
        return decide_by(table, ranking, model, conditions, None);
    };
    let steering = decide_by(table, ranking, model, conditions, Some(&skew));
    if !steering.ordered.is_empty() {
        return steering;
    }
    let steering = decide_by(table, ranking, model, conditions, None);
    let skewed = steering.ordered.iter().any(|ranked| skew.withholds(ranked.fenced.region));
    Steering { skewed, ..steering }
}

/// As [`decide`]. `skew` says which regions and endpoints are withheld because of the release that they run. If `skew`
/// is given, no region is revived.
fn decide_by(
    table: &Table,
    ranking: &Ranking,
    model: Option<&str>,
    conditions: &Conditions<'_>,
    skew: Option<&Skew>,
) -> Steering {
    let knowledge = Knowledge::of(table, ranking, conditions);
    let mut ordered = Vec::with_capacity(ranking.order.len());
    let mut withheld = Vec::new();
    let mut valid_until = None;
    for &ranked in &ranking.order {
        let judgement = judge((table, ranking, conditions), ranked.fenced.region, model, knowledge.as_ref(), skew);
        valid_until = earliest(valid_until, judgement.until);
        match judgement.reason {
            None => ordered.push(ranked),
            Some(reason) => withheld.push((Withheld { ranked, reason }, judgement)),
        }
    }
    let freshest = if ordered.is_empty() && skew.is_none() { freshest(&withheld) } else { None };
    if let Some(position) = freshest {
        ordered.push(withheld.remove(position).0.ranked);
    }
    let revived = ordered.is_empty()
        && skew.is_none()
        && ranking.revivable
        && withheld.iter().any(|(_, withholding)| withholding.passing);
    if revived {
        ordered.extend(
            withheld.iter().filter(|(_, withholding)| withholding.passing).map(|(withheld, _)| withheld.ranked),
        );
        withheld.retain(|(_, withholding)| !withholding.passing);
    }
    let withheld = withheld.into_iter().map(|(withheld, _)| withheld).collect();
    Steering { ordered, withheld, revived, stale: freshest.is_some(), skewed: false, valid_until }
}

/// The position of the region that is least behind, among those that are withheld only for their lag and whose replicas
/// allow a stale region. If several are equally far behind, the first in the order counts.
fn freshest(withheld: &[(Withheld, Judgement)]) -> Option<usize> {
    let positions =
        withheld.iter().enumerate().filter_map(|(position, (_, withholding))| Some((withholding.kept_at?, position)));
    positions.min().map(|(_, position)| position)
}

/// Whether a region is withheld, and why.
struct Judgement {
    /// The first reason to withhold the region, in the order of [`Reason`].
    reason: Option<Reason>,
    /// Whether the region may be revived, because the only reasons are `down` and `cooling`.
    passing: bool,
    /// How far the region is behind, if it may be kept as the freshest, because the only reason is `lagging`.
    kept_at: Option<u64>,
    /// The earliest end of an override or cool-down that was considered.
    until: Option<Timestamp>,
}

/// Finds the reasons to withhold one region.
fn judge(
    (table, ranking, conditions): (&Table, &Ranking, &Conditions<'_>),
    index: RegionIndex,
    model: Option<&str>,
    knowledge: Option<&Knowledge<'_>>,
    skew: Option<&Skew>,
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
    // An endpoint that isn't cooling gives `None`, which is the minimum: then the region isn't withheld. An endpoint
    // that runs another release gets no requests, so it can't keep its region from being withheld.
    let rested = able().filter(|i| !skew.is_some_and(|skew| skew.has(index, *i))).map(cooling_until).min().flatten();

    let not_home = ranking.only.is_some_and(|only| only != Some(index));
    let forced_down = forced.is_some_and(|forced| forced.status == Status::Down) || is_drained;
    let down = forced.is_none() && probed_down;
    let copies = knowledge.map(|knowledge| knowledge.judge(index)).unwrap_or_default();
    let reasons = [
        (not_home, Reason::NotHome),
        (forced_down, Reason::Forced),
        (down, Reason::Down),
        (no_model, Reason::NoModel),
        (copies.lags, Reason::Lagging),
        (copies.has_other_version, Reason::Version),
        (skew.is_some_and(|skew| skew.withholds(index)), Reason::Skew),
        (rested.is_some(), Reason::Cooling),
    ];
    Judgement {
        reason: reasons.iter().find(|(applies, _)| *applies).map(|(_, reason)| *reason),
        passing: !not_home && !forced_down && !no_model && !copies.lags && !copies.has_other_version,
        kept_at: copies.kept_at.filter(|_| !not_home && !forced_down && !down && !no_model && rested.is_none()),
        until: earliest(earliest(forced.map(|forced| forced.until), drained_until), rested),
    }
}

/// The earlier of two times; a time counts as earlier than `None`.
fn earliest(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    a.into_iter().chain(b).min()
}

impl Steering {
    /// The fence: every region, offered or withheld.
    pub fn fence(&self) -> impl Iterator<Item = Ranked> {
        self.ordered.iter().copied().chain(self.withheld.iter().map(|withheld| withheld.ranked))
    }

    /// The DNS TTL in seconds of an answer by this steering of `ranking`. The TTL ends before probes could declare the
    /// chosen region down or a better region up, and before the steering is no longer valid. It stays within the
    /// service's bounds.
    #[must_use]
    pub fn ttl(&self, table: &Table, service: &Service, ranking: &Ranking, conditions: &Conditions<'_>) -> u32 {
        let health = |region: RegionIndex| conditions.health.get(region.get());
        let probed = |region: RegionIndex| forced(table, region, conditions).is_none();
        let chosen = self.ordered.first().map(|first| first.fenced.region);
        // A region after the chosen one in the order changes nothing when it is up again.
        let regions = ranking.order.iter().map(|ranked| ranked.fenced.region);
        let better = regions.take_while(|&region| Some(region) != chosen);
        let is_withheld = |region: RegionIndex, reason: Reason| {
            let is_of_region = |withheld: &&Withheld| withheld.ranked.fenced.region == region;
            self.withheld.iter().filter(is_of_region).any(|withheld| withheld.reason == reason)
        };
        let needs = ranking.needs;
        let lagging = ranking.order.iter().map(|ranked| ranked.fenced.region).filter(|_| !needs.is_empty());
        // If only the freshest region is offered, the answer changes when the lag of any region of the fence is small
        // enough again, even that of the offered region itself.
        let lagging = lagging.take_while(|&region| self.stale || Some(region) != chosen);
        let lagging =
            lagging.filter(|&region| is_withheld(region, Reason::Lagging) || self.stale && Some(region) == chosen);
        let to_return = lagging.filter_map(|region| time_to_return(needs, health(region)?));
        let to_lag = chosen.filter(|_| !self.stale && !needs.is_empty());
        let to_lag = to_lag.and_then(|region| time_to_lag(needs, health(region)?));
        let returning = better.filter(|&region| is_withheld(region, Reason::Down));
        // If the fence was revived, each of its regions changes the answer when it is up again, even the chosen region.
        let revived = self.ordered.iter().filter(|_| self.revived).map(|ranked| ranked.fenced.region);
        let to_up = returning.chain(revived).filter_map(|region| health(region)?.time_to_up);
        let to_down =
            chosen.filter(|&region| !self.revived && probed(region)).and_then(|region| health(region)?.time_to_down);
        let to_end = self.valid_until.map(|until| until.since(conditions.now));
        let least = to_up.chain(to_down).chain(to_end).chain(to_return).chain(to_lag).min().unwrap_or(Millis(u64::MAX));
        u32::try_from(least.0 / 1000).unwrap_or(u32::MAX).clamp(service.ttl.min, service.ttl.max)
    }
}

#[cfg(test)]
mod properties;
