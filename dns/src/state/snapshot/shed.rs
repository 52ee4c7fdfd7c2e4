//! Clients that DNS moves to other regions because of load. Takes the shares of a plan (the fractions of clients to
//! move) and a client's network, returns the client's part of its class. Called by the snapshot for each query of a
//! service whose clients are moved.

use std::net::IpAddr;
use std::sync::Arc;

use bailiwick_rules::explain::Explanation;
use bailiwick_rules::load::{BUCKETS, BucketShares, Buckets, Home, Point};
use bailiwick_rules::report::{Drilled, SharesReport};
use bailiwick_rules::rules::{Ratio, ShedAt};
use bailiwick_rules::steer::{Ask, PathClass, Ranking, rank, stand};
use bailiwick_rules::table::{RegionIndex, ServiceIndex, Table};

use super::{Offer, ServiceDecisions, Snapshot};
use crate::locate::classes::{ClassId, Classes};
use crate::response::answer::{Asking, Origin};

/// The shares of clients that a plan moves.
#[derive(Debug, Clone)]
pub(crate) struct Shares {
    /// The shares as reported to edge Workers and operators.
    pub report: Arc<SharesReport>,
    /// The shares by which DNS moves clients.
    pub dns: Arc<BucketShares>,
}

/// What moves clients away from the region that distance and health choose.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Moves<'a> {
    /// The shares of a plan.
    pub(super) shares: Option<&'a BucketShares>,
    /// The region that a drill sends a share of its clients away from.
    pub(super) drilled: Option<Drilled>,
}

/// A part of a class: the clients that are moved to one region, or the clients that stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClassPart(u8);

impl ClassPart {
    /// The clients that stay. If no client of the class is moved, these are all.
    pub(crate) const STAYS: Self = Self(0);

    /// The number of the part, which distinguishes the answers to clients of one class.
    #[must_use]
    pub(crate) fn number(self) -> u8 {
        self.0
    }
}

/// The client of a query, as far as the answer depends on the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClientKey {
    /// The client's class.
    pub class: ClassId,
    /// The client's part of the class.
    pub part: ClassPart,
    /// The prefix length around the client's address within which all clients have this class and part.
    pub scope: u8,
    /// The origin under which the client's queries are counted.
    pub origin: Origin,
}

/// The parts of one service's classes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PartsByClass(Box<[Option<Box<OfClass>>]>);

/// The parts of one class.
#[derive(Debug, PartialEq, Eq)]
struct OfClass {
    home: Home,
    /// The position of this class's first move among all moves of the service.
    first_move: usize,
    /// By bucket: 0 if its clients stay, otherwise the number of the move, from 1.
    parts: [u8; BUCKETS as usize],
}

impl PartsByClass {
    /// The parts of a service's classes, and the class and region of each move. A move to the region of a drill stands
    /// for the best other region. `None` if no client is moved.
    pub(super) fn new(
        table: &Table,
        service: ServiceIndex,
        rankings: &[Ranking],
        Moves { shares, drilled }: Moves<'_>,
    ) -> Option<(Self, Vec<(ClassId, RegionIndex)>)> {
        let shares = shares.filter(|shares| shares.moves(service));
        let drilled = drilled.filter(|drilled| table.service(service).regions.contains(&drilled.region));
        if shares.is_none() && drilled.is_none() {
            return None;
        }
        let mut moves: Vec<(ClassId, RegionIndex)> = Vec::new();
        let of_class = |(class, ranking): (u32, &Ranking)| {
            let order = ranking.regions();
            let planned = shares.and_then(|shares| shares.of(service, &order));
            let buckets = drilled.and_then(|drilled| taken_away(planned, drilled, ranking));
            let buckets = buckets.as_ref().or(planned)?;
            let home = Home::named(table.region(*order.first()?).id.as_str());
            let first_move = moves.len();
            let (parts, regions) = parts(buckets);
            moves.extend(regions.into_iter().map(|region| (ClassId(class), region)));
            Some(Box::new(OfClass { home, first_move, parts }))
        };
        let classes: Box<[_]> = (0..).zip(rankings).map(of_class).collect();
        (!moves.is_empty()).then_some((Self(classes), moves))
    }

    /// The key of the client at `address`: `whole`, which is the key of its class without moves, with the client's part
    /// of the class filled in.
    #[inline]
    pub(super) fn client_key(&self, whole: ClientKey, address: IpAddr, classes: &Classes) -> ClientKey {
        let Some(Some(of_class)) = self.0.get(whole.class.get()) else { return whole };
        let network = classes.network(address);
        let point = Point::of_network(network.prefix, network.length, of_class.home);
        let part = of_class.parts.get(point.bucket() as usize).copied().unwrap_or(0);
        ClientKey { part: ClassPart(part), scope: whole.scope.max(network.scope), ..whole }
    }

    /// The class of each move, in the order of the moves.
    pub(super) fn classes_of_moves(&self) -> impl Iterator<Item = usize> {
        let moves = |of_class: &OfClass| of_class.parts.iter().copied().max().map_or(0, usize::from);
        let classes = self.0.iter().enumerate();
        classes.flat_map(move |(class, of_class)| std::iter::repeat_n(class, of_class.as_deref().map_or(0, moves)))
    }

    /// The position of a client's move among all moves of the service; `None` if the client stays.
    pub(super) fn moved(&self, client_key: &ClientKey) -> Option<usize> {
        let number = usize::from(client_key.part.0).checked_sub(1)?;
        Some(self.0.get(client_key.class.get())?.as_deref()?.first_move + number)
    }
}

impl Snapshot {
    /// Adds two facts to an explanation: to which regions DNS moves clients because of load, and whether it moves this
    /// client.
    pub(crate) fn explain_shed(&self, explanation: &mut Explanation, ask: &Ask<'_>) {
        let (table, shedding) = (self.table(), &self.table().service(ask.service).shedding);
        let Some(shares) = &self.health.shares else { return };
        if !shedding.moves || shedding.at != ShedAt::Dns || ask.path_class != PathClass::Inference {
            return;
        }
        let ranking = rank(table, ask.service, &stand(table, &ask.client), ask.path_class);
        let order = ranking.regions();
        let buckets = shares.dns.of(ask.service, &order).map_or(&[][..], |buckets| &buckets[..]);
        let moves = order.iter().map(|to| (*to, buckets.iter().filter(|region| **region == Some(*to)).count() as u64));
        let moves: Vec<_> = moves.map(|(to, count)| (to, Ratio::between(count, u64::from(BUCKETS)))).collect();
        explanation.add_shed(table, &moves);
        let Some(address) = ask.client.address.filter(|_| ask.client.tenant.is_none()) else { return };
        let client_key = self.client_key_of(ask.service, &Asking { transport: address, ecs: None });
        let moved = client_key.and_then(|client_key| self.decided.get(ask.service.get())?.region_of_move(&client_key));
        let name = moved.map(|region| &table.region(region).id);
        explanation.moved_to =
            name.filter(|name| explanation.ordered.iter().any(|ranked| ranked.region == **name)).cloned();
    }
}

impl ServiceDecisions {
    /// The region to which a client is moved.
    fn region_of_move(&self, client_key: &ClientKey) -> Option<RegionIndex> {
        match self.choices.moved.get(self.parts_by_class.as_ref()?.moved(client_key)?)?.offer {
            Offer::Region(region) => Some(region),
            Offer::Denied | Offer::Nothing(_) => None,
        }
    }
}

/// The buckets of a class with those that a drill moves; `None` if it moves none.
fn taken_away(planned: Option<&Buckets>, drilled: Drilled, ranking: &Ranking) -> Option<Buckets> {
    let is_home = ranking.order.first().is_some_and(|first| first.fenced.region == drilled.region);
    // Clients that may go nowhere else stay.
    if !is_home || ranking.only.is_some() || ranking.order.len() < 2 {
        return None;
    }
    let mut buckets = planned.copied().unwrap_or([None; BUCKETS as usize]);
    for (bucket, region) in (0..BUCKETS).zip(&mut buckets) {
        if region.is_none() && Point::of_bucket(bucket).is_within(drilled.share) {
            *region = Some(drilled.region);
        }
    }
    Some(buckets)
}

/// The number of each bucket's move, and the regions of the moves.
fn parts(buckets: &Buckets) -> ([u8; BUCKETS as usize], Vec<RegionIndex>) {
    let mut regions = Vec::new();
    let mut parts = [0; BUCKETS as usize];
    for (part, region) in parts.iter_mut().zip(buckets) {
        let Some(region) = region else { continue };
        let known = regions.iter().position(|known| known == region);
        let position = known.unwrap_or_else(|| {
            regions.push(*region);
            regions.len() - 1
        });
        // There are at most as many regions as buckets, so the number fits into a byte.
        *part = u8::try_from(position + 1).unwrap_or(0);
    }
    (parts, regions)
}
