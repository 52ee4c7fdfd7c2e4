//! The state that one query uses from start to end. Takes rules, zones, keys, geography (GeoIP data) and health from
//! [`crate::state::owner`], returns an immutable snapshot. The answer path reads the records of steered names (names
//! whose records depend on the client) from the snapshot, and the API reads reports.
//!
//! A [`World`] is everything that doesn't depend on health. It is compiled on another thread than those that answer
//! queries. A [`Snapshot`] is a world and the health of one moment, with a decision for each class of clients, so that
//! a query only looks up its class. A class is the set of addresses for which a service decides alike. Worlds and
//! snapshots never change: an update makes another snapshot.

mod audit;
mod decide;
mod fleet;
mod loads;
mod models;
mod planned;
mod records;
mod releases;
mod replicas;
mod report;
#[cfg(test)]
pub(crate) mod scopes;
mod shed;
pub(crate) mod signing;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod world;

use std::collections::BTreeMap;
use std::sync::Arc;

use bailiwick_rules::health::{AddressFamily, Forced, MonitorState, RegionHealth};
use bailiwick_rules::id::Overridden;
use bailiwick_rules::report::{DrillRecord, Drilled, OverrideRecord};
use bailiwick_rules::steer::{Conditions, Local};
use bailiwick_rules::table::{RegionIndex, Table};
use bailiwick_rules::time::{Millis, Timestamp};

use crate::dnssec::lifetime::is_before;
use crate::protocol::rdata::{Rdatas, rtype};
use crate::response::answer::{Asking, Origin, SteeredAnswer, SteeredAnswers};
use crate::zone::ServiceIndex;
use crate::zones::Zones;

pub(crate) use audit::{CountryGroup, Fingerprint, Ttls};
pub(crate) use fleet::FleetHealth;
pub(crate) use loads::{LoadView, endpoints_up};
pub(crate) use models::{ModelView, VerdictCounts};
pub(crate) use planned::PlanFigures;
pub(crate) use releases::ReleaseView;
pub(crate) use replicas::ReplicaView;
pub(crate) use shed::{ClassPart, ClientKey, Shares};
pub(crate) use world::{RejectedZone, Rules, World, ZoneSource};

use shed::{Moves, PartsByClass};

/// No EDNS scope: the answer doesn't depend on the client's address.
const NO_SCOPE: u8 = 0;
/// Extended error "Prohibited": residency allows this client no region (RFC 8914 §4.19).
const PROHIBITED: u16 = 18;
/// Extended error "Not Ready": every region of the fence (the regions that may process the client) is withheld (RFC
/// 8914 §4.15).
const NOT_READY: u16 = 14;

/// Rules, zones, keys, geography and health of one moment, and the decisions made from them.
#[derive(Debug)]
pub(crate) struct Snapshot {
    world: Arc<World>,
    health: Health,
    /// The decisions, by service.
    decided: Vec<Arc<ServiceDecisions>>,
    generation: u64,
    /// When the decisions were made.
    #[cfg(test)]
    at: Timestamp,
    /// The first time at which an override, or another temporary condition of a decision, ends.
    until: Option<Timestamp>,
}

/// The health of all regions at one moment, and everything else that changes while the world stays the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Health {
    /// The health of each region, by region index: the health that the voters (nodes that vote on health) agree on, or
    /// without voters the health by this node's probes. If a monitor probes IPv4 and IPv6 separately, it counts as up
    /// while either family is up.
    pub regions: Vec<RegionHealth>,
    /// The health of regions by family of addresses; `None` if no monitor probes the families separately.
    pub by_family: Option<Arc<ByFamily>>,
    /// Every monitor of the rules. Of each region, its own monitors come first, then those of its endpoints.
    pub monitors: Vec<MonitorView>,
    /// The endpoints whose load is read, by region and position.
    pub loads: Vec<LoadView>,
    /// The copies of replicas that are read, by region and position.
    pub replicas: Vec<ReplicaView>,
    /// The endpoints that are asked which model they run.
    pub releases: Vec<ReleaseView>,
    /// The shares (fractions) of clients to move because of load; `None` without a plan.
    pub shares: Option<Shares>,
    /// The same plan in numbers, for metrics.
    pub planned: Option<Arc<PlanFigures>>,
    /// Overrides from the API, without those that have ended.
    pub overrides: BTreeMap<Overridden, Forced>,
    /// The time since when each region has its effective status, by region index. Not before the start of this program.
    pub since: Vec<Timestamp>,
    /// The health that the voters agree on, and the health by this node's probes; `None` if the rules have no voters.
    pub fleet: Option<Arc<FleetHealth>>,
    /// The overrides that are reported to the other nodes of a fleet; empty without a fleet.
    pub override_records: Vec<OverrideRecord>,
    /// The drill that is under way, or that ended lately.
    pub drill: Option<DrillRecord>,
    /// Other runs of drills that ended lately, for nodes that haven't heard it.
    pub ended_drills: Vec<DrillRecord>,
    /// The share of a region's clients that the drill sends elsewhere; `None` while none does.
    pub drilled: Option<Drilled>,
}

/// The health of regions, by region index, for different types of records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ByFamily {
    /// The health over IPv4, for A.
    pub ipv4: Vec<RegionHealth>,
    /// The health over IPv6, for AAAA.
    pub ipv6: Vec<RegionHealth>,
    /// The health over both families: a region is up if both are up. For records that lead to addresses of both
    /// families (CNAME, HTTPS, SVCB).
    pub whole: Vec<RegionHealth>,
}

/// The state of one monitor for reports. A monitor that probes the families of addresses separately has one view for
/// each family.
#[derive(Debug, Clone)]
pub(crate) struct MonitorView {
    /// The watched region.
    pub region: RegionIndex,
    /// The watched endpoint, by position in its region; `None`: the region as a whole is watched.
    pub endpoint: Option<usize>,
    /// The family of addresses, if the monitor probes the families separately.
    pub family: Option<AddressFamily>,
    /// The monitor's state machine, its interval, and the time of its last result.
    pub monitored: MonitorState,
    /// Why the last probe failed; `None` after a success.
    pub failure: Option<Arc<str>>,
    /// The time since when the monitor has its status. Not before the start of this program.
    pub since: Timestamp,
    /// Probes that succeeded and failed.
    pub probes: Probes,
    /// The last failure, even if successes came after it.
    pub last_failure: Option<(Timestamp, Arc<str>)>,
    /// The state of its probes of a model, if it asks a model.
    pub model: Option<ModelView>,
}

/// The number of probes of one monitor, or of readings of one source, since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Probes {
    /// How many succeeded.
    pub passed: u64,
    /// How many failed.
    pub failed: u64,
}

/// The decisions for one service.
#[derive(Debug)]
struct ServiceDecisions {
    choices: Choices,
    /// The choices by type of records, if the families of a region's addresses differ in health.
    by_family: Option<Box<ChoicesByFamily>>,
    /// The parts of classes that are moved because of load; `None` if no client is moved.
    parts_by_class: Option<PartsByClass>,
    /// Changes whenever an answer of the service changes.
    generation: u64,
}

/// The choices of one service, by class of clients.
#[derive(Debug, Default, PartialEq, Eq)]
struct Choices {
    /// The choices for clients that aren't moved, by class.
    classes: Box<[Choice]>,
    /// The choices for clients that are moved because of load, by move. A move takes clients of one class to one
    /// region.
    moved: Box<[Choice]>,
}

/// The choices of one service by type of records: for A, for AAAA, and for records that lead to both families.
#[derive(Debug, PartialEq, Eq)]
struct ChoicesByFamily {
    ipv4: Choices,
    ipv6: Choices,
    whole: Choices,
}

impl ServiceDecisions {
    /// The choice for records of this type and the clients of a class and part of the class.
    fn choice(&self, client_key: &ClientKey, rtype: u16) -> Option<Choice> {
        let choices = self.choices_for(rtype);
        match self.parts_by_class.as_ref().and_then(|parts_by_class| parts_by_class.moved(client_key)) {
            Some(moved) => choices.moved.get(moved),
            None => choices.classes.get(client_key.class.get()),
        }
        .copied()
    }

    /// The decisions for a type of records: addresses of a family may have decisions of their own.
    fn choices_for(&self, rtype: u16) -> &Choices {
        let Some(by_family) = &self.by_family else { return &self.choices };
        match rtype {
            rtype::A => &by_family.ipv4,
            rtype::AAAA => &by_family.ipv6,
            rtype::CNAME | rtype::HTTPS | rtype::SVCB => &by_family.whole,
            _ => &self.choices,
        }
    }
}

/// The choice for the clients of one class, or of one move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Choice {
    offer: Offer,
    ttl: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Offer {
    /// The records of this region.
    Region(RegionIndex),
    /// The service's `denied_answers`.
    Denied,
    /// No records, with this extended DNS error.
    Nothing(u16),
}

impl Snapshot {
    /// Decides for every class of every service. Decisions of `before` that haven't changed are shared, with their
    /// generation.
    #[must_use]
    pub(crate) fn new(world: Arc<World>, health: Health, at: Timestamp, before: Option<&Self>) -> Self {
        let same_world = before.filter(|before| Arc::ptr_eq(&before.world, &world));
        let generation = before.map_or(1, |before| before.generation + u64::from(same_world.is_none()));
        // Decisions without temporary conditions change only if health or shares change.
        let is_same = |before: &Health| {
            let moves = [before, &health].map(|health| health.shares.as_ref().map(|shares| &shares.dns));
            before.regions == health.regions
                && before.by_family == health.by_family
                && moves[0] == moves[1]
                && before.drilled == health.drilled
        };
        let unchanged = |before: &&Self| before.until.is_none() && is_same(&before.health);
        if let Some(before) = same_world.filter(unchanged) {
            return Self {
                world,
                health,
                decided: before.decided.clone(),
                generation,
                #[cfg(test)]
                at,
                until: None,
            };
        }
        let conditions = Conditions { health: &health.regions, local: &Local::default(), now: at };
        let next =
            before.map_or(1, |before| before.decided.iter().map(|decided| decided.generation).max().unwrap_or(0) + 1);
        let (mut decided, mut until) = (Vec::new(), None);
        for (service, _) in (0..).map(ServiceIndex).zip(world.rules().table.services()) {
            let moves = Moves { shares: health.shares.as_ref().map(|shares| &*shares.dns), drilled: health.drilled };
            let decision = world.decide(service, &conditions, health.by_family.as_deref(), moves);
            until = until.into_iter().chain(decision.until).min();
            let unchanged = same_world.and_then(|before| before.decided.get(service.get()));
            decided.push(match unchanged.filter(|unchanged| decision.is(unchanged)) {
                Some(unchanged) => Arc::clone(unchanged),
                None => Arc::new(decision.of_generation(next)),
            });
        }
        Self {
            world,
            health,
            decided,
            generation,
            #[cfg(test)]
            at,
            until,
        }
    }

    /// When a decision next changes without an event. Shortly before a temporary condition ends, TTLs are shortened
    /// second by second.
    #[must_use]
    pub(crate) fn next_change(&self, now: Timestamp) -> Option<Timestamp> {
        let until = self.until?;
        let longest = self.table().services().iter().map(|service| service.ttl.max).max().unwrap_or(0);
        let countdown = Timestamp(until.0.saturating_sub(i64::from(longest) * 1000));
        Some(countdown.max(now.after(Millis(1000))).min(until))
    }

    /// The compiled rules.
    #[must_use]
    pub(crate) fn table(&self) -> &Table {
        &self.world.rules().table
    }

    /// The rules document, byte for byte.
    #[must_use]
    pub(crate) fn rules_bytes(&self) -> &Arc<[u8]> {
        &self.world.rules().bytes
    }

    /// The zones.
    #[must_use]
    pub(crate) fn zones(&self) -> &Zones {
        self.world.zones()
    }

    /// Whether signatures may be too old to be served. If so, each must be checked before it is served.
    pub(crate) fn has_stale_signatures(&self, now: u32) -> bool {
        self.world.signed_until.is_some_and(|until| !is_before(now, until))
    }

    /// Everything that doesn't depend on health.
    #[must_use]
    pub(crate) fn world(&self) -> &Arc<World> {
        &self.world
    }

    /// The health of regions and monitors, and the overrides that came by the API.
    #[must_use]
    pub(crate) fn health(&self) -> &Health {
        &self.health
    }

    /// A number that changes whenever rules, zones, keys, signatures or geography change.
    #[must_use]
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// A number that changes whenever an answer of this service changes.
    #[must_use]
    pub(crate) fn service_generation(&self, service: ServiceIndex) -> u64 {
        self.decided.get(service.get()).map_or(0, |decided| decided.generation)
    }

    /// The class and part of a client of `service`; `None` for a service that isn't in the rules.
    #[must_use]
    #[inline]
    pub(crate) fn client_key_of(&self, service: ServiceIndex, client: &Asking) -> Option<ClientKey> {
        let ranges = self.world.classes_of(service)?;
        let (address, known, has_subnet) = match client.ecs {
            Some(ecs) if ecs.source > 0 => (ecs.address, ecs.source, true),
            _ => (client.transport, u8::MAX, false),
        };
        let (class, scope, country) = ranges.class_and_country(address, known);
        let whole = ClientKey { class, part: ClassPart::STAYS, scope, origin: Origin::new(country, has_subnet) };
        let client_key = match self.decided.get(service.get()).and_then(|decided| decided.parts_by_class.as_ref()) {
            None => whole,
            Some(parts_by_class) => parts_by_class.client_key(whole, address, ranges),
        };
        Some(if has_subnet { client_key } else { ClientKey { scope: NO_SCOPE, ..client_key } })
    }

    /// The conditions of this snapshot as of `now`.
    #[must_use]
    pub(crate) fn conditions<'a>(&'a self, local: &'a Local, now: Timestamp) -> Conditions<'a> {
        Conditions { health: &self.health.regions, local, now }
    }
}

impl SteeredAnswers for Snapshot {
    fn resolve(&self, service: ServiceIndex, rtype: u16, client: &Asking) -> SteeredAnswer<'_> {
        let decision = self.client_key_of(service, client).and_then(|client_key| {
            Some((self.decided.get(service.get())?.choice(&client_key, rtype)?, client_key.scope))
        });
        // This never happens, because every service that steers a name of these zones is in the rules.
        let Some((choice, scope)) = decision else {
            return SteeredAnswer::Nothing { scope: NO_SCOPE, ede: NOT_READY };
        };
        let (records, region) = match choice.offer {
            Offer::Region(region) => (self.world.records_of_region(service, region), Some(region)),
            Offer::Denied => (self.world.denied_records(service), None),
            Offer::Nothing(ede) => return SteeredAnswer::Nothing { scope, ede },
        };
        let rdatas = records.and_then(|records| records.of_type(rtype)).unwrap_or(Rdatas::EMPTY);
        SteeredAnswer::Records { ttl: choice.ttl, rdatas, scope, region }
    }

    fn origin_of(&self, service: ServiceIndex, client: &Asking) -> Origin {
        self.client_key_of(service, client).map_or(Origin::default(), |client_key| client_key.origin)
    }
}
