//! Puts clients into classes by their addresses. Takes rules and the places of a GeoIP database, returns for each
//! service the ranges of addresses by [`ClassId`], with exact scopes (how many leading bits of an address decide its
//! class). `snapshot` builds the classes at load, and looks up each query's client in them.
//!
//! Two clients are in the same class of a service if `steer` ranks its regions in the same way for both. Health doesn't
//! matter. An IPv6 address that carries an IPv4 address (v4-mapped, NAT64, 6to4, Teredo) is located by that IPv4
//! address, unless a prefix of `networks` contains the IPv6 address.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use bailiwick_host::locate::carrier::{CARRIERS, Carrier, MAPPED};
use bailiwick_host::locate::geoip::{Place, Places};
use bailiwick_host::locate::ranges::{Bits, Borders, Builder, Ranges};
use bailiwick_rules::geo::{Coordinates, CountryCode};
use bailiwick_rules::steer::{Client, PathClass, Ranking, Standing, distance, rank_by, stand};
use bailiwick_rules::table::{RegionIndex, ServiceIndex, Table};
use ipnet::IpNet;

/// A class of one service's clients: the index of its ranking among the service's rankings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ClassId(pub u32);

impl ClassId {
    /// The index as a `usize`.
    #[must_use]
    pub(crate) fn get(self) -> usize {
        self.0 as usize
    }
}

/// A client is located by the IPv4 address that its address carries only if at least this many bits of that address are
/// known.
const ENOUGH_BITS: u8 = 24;

/// In ranges of IPv6 addresses, values from this one on aren't standings, but stand for the blocks of [`CARRIERS`].
#[allow(clippy::cast_possible_truncation)] // 4
const FIRST_CARRIER: u32 = u32::MAX - CARRIERS.len() as u32;

/// The block that a value of a range stands for; `None` if the value is a standing.
fn carrier_of_value(value: u32) -> Option<Carrier> {
    CARRIERS.get(value.checked_sub(FIRST_CARRIER)? as usize).copied()
}

/// The network of a client: the /24 of an IPv4 address, the /48 of an IPv6 address. An address that carries an IPv4
/// address is in the network of that IPv4 address. All clients of a network are moved together because of load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Network {
    /// The bits of the prefix.
    pub prefix: u64,
    /// The number of bits of the prefix.
    pub length: u8,
    /// How many leading bits of the client's address decide the network. An answer applies to no shorter prefix.
    pub scope: u8,
}

impl Network {
    /// The length of the prefix of an IPv6 network.
    const V6: u8 = 48;

    fn v6(address: u128) -> Self {
        #[allow(clippy::cast_possible_truncation)] // 48 bits are left
        let prefix = (address >> (128 - Self::V6)) as u64;
        Self { prefix, length: Self::V6, scope: Self::V6 }
    }

    /// The network of an IPv4 address that begins after `before` bits of the client's address.
    fn v4(address: u32, before: u8) -> Self {
        let prefix = u64::from(address >> (32 - ENOUGH_BITS));
        Self { prefix, length: ENOUGH_BITS, scope: before + ENOUGH_BITS }
    }
}

/// The standing (country, location and jurisdictions) of the client at each address, for all services of one table. If
/// the table's `networks` and the GeoIP database differ, `networks` count.
#[derive(Debug)]
pub(crate) struct Standings {
    /// The index in `standings` of each IPv4 address.
    v4: Ranges<u32>,
    /// The same for IPv6 addresses. Values from [`FIRST_CARRIER`] on mean blocks whose addresses carry IPv4 addresses.
    v6: Ranges<u128>,
    /// The different standings. The first is that of a client whose place isn't known.
    standings: Vec<Standing>,
}

impl Standings {
    /// Combines the table's `networks` with the places of a database.
    #[must_use]
    pub(crate) fn new(table: &Table, places: &Places) -> Self {
        let of_place = |place: &Place| {
            stand(table, &Client { country: place.country, location: place.location, ..Client::default() })
        };
        let mut networks =
            Networks { table, standings: places.all().iter().map(of_place).collect(), known: HashMap::new() };
        let v4 = networks.ranges_v4();
        let v6 = networks.ranges_v6();
        let top = |below: u32, above: u32| if above == TRANSPARENT { below } else { above };
        Self { v4: places.v4().overlay(&v4, top), v6: places.v6().overlay(&v6, top), standings: networks.standings }
    }
}

/// The index of the standing of a client whose place isn't known.
const UNKNOWN: usize = 0;

/// The value of addresses that aren't in `networks`.
const TRANSPARENT: u32 = u32::MAX;

/// Makes ranges of standings from the table's `networks`.
struct Networks<'a> {
    table: &'a Table,
    standings: Vec<Standing>,
    known: HashMap<(CountryCode, Option<Coordinates>), u32>,
}

impl Networks<'_> {
    fn ranges_v4(&mut self) -> Ranges<u32> {
        let prefixes = self.table.network_prefixes().filter_map(|prefix| match prefix {
            IpNet::V4(prefix) => Some((prefix.network().to_bits(), prefix.prefix_len())),
            IpNet::V6(_) => None,
        });
        ranges(edges(prefixes), |start| self.standing_at(IpAddr::V4(Ipv4Addr::from_bits(start))))
    }

    /// The class of each range of IPv6 addresses that the rules name or that carries IPv4 addresses.
    fn ranges_v6(&mut self) -> Ranges<u128> {
        let prefixes = self.table.network_prefixes().filter_map(|prefix| match prefix {
            IpNet::V6(prefix) => Some((prefix.network().to_bits(), prefix.prefix_len())),
            IpNet::V4(_) => None,
        });
        ranges(edges(prefixes.chain(carriers())), |start| {
            let carrier = CARRIERS.iter().position(|carrier| carrier.holds(start));
            let named = match carrier {
                // `steer` takes a v4-mapped address as its IPv4 address, so `networks` can't name it as an
                // IPv6 address.
                Some(MAPPED) => None,
                _ => self.standing_at(IpAddr::V6(Ipv6Addr::from_bits(start))),
            };
            #[allow(clippy::cast_possible_truncation)] // at most 3
            named.or(carrier.map(|carrier| FIRST_CARRIER + carrier as u32))
        })
    }

    /// The index of the standing of an address in `networks`; `None` for other addresses.
    fn standing_at(&mut self, address: IpAddr) -> Option<u32> {
        let place = self.table.network_of(address)?;
        let next = u32::try_from(self.standings.len()).ok()?;
        Some(*self.known.entry((place.country, place.location)).or_insert_with(|| {
            self.standings.push(stand(self.table, &Client { address: Some(address), ..Client::default() }));
            next
        }))
    }
}

/// The blocks of IPv6 addresses that carry IPv4 addresses: the first address and the prefix length of each.
pub(super) fn carriers() -> impl Iterator<Item = (u128, u8)> {
    CARRIERS.iter().map(|carrier| (carrier.first, carrier.length))
}

/// The addresses at which the value can change: the first address of each prefix, and the first address after it.
pub(super) fn edges<A: Bits>(prefixes: impl Iterator<Item = (A, u8)>) -> Vec<A> {
    let mut edges = vec![A::ZERO];
    for (first, length) in prefixes {
        edges.push(first);
        edges.extend(first.last(length).after());
    }
    edges.sort_unstable();
    edges.dedup();
    edges
}

/// The ranges between edges, each with the value of its first address.
fn ranges<A: Bits>(edges: Vec<A>, mut value: impl FnMut(A) -> Option<u32>) -> Ranges<A> {
    let mut built = Builder::new(TRANSPARENT);
    for start in edges {
        built.begin(start, value(start).unwrap_or(TRANSPARENT));
    }
    built.finish()
}

/// The classes of one service's clients, by address.
#[derive(Debug)]
pub(crate) struct Classes {
    /// The standings, which all services share. Each service has its own borders between them.
    standings: Arc<Standings>,
    /// The class and the country of each standing.
    classes: Box<[Member]>,
    v4: Borders,
    v6: Borders,
    /// The ranking of each class.
    rankings: Vec<Ranking>,
}

/// The class and the country of a standing. Looked up for each query, which is counted by country.
#[derive(Debug, Clone, Copy)]
struct Member {
    class: ClassId,
    /// The country's number; 0 if the client's place is unknown.
    country: u8,
}

/// Collects the classes of one service's clients.
#[derive(Default)]
struct Classing {
    /// The class of each standing.
    classes: Vec<ClassId>,
    /// The ranking of each class.
    rankings: Vec<Ranking>,
    known: HashMap<RankingKey, ClassId>,
}

impl Classing {
    /// Adds the ranking of the service's regions for the next standing.
    fn push(&mut self, ranking: Ranking) {
        let next = ClassId(u32::try_from(self.rankings.len()).unwrap_or(u32::MAX));
        let class = *self.known.entry(key(&ranking)).or_insert(next);
        if class == next {
            self.rankings.push(ranking);
        }
        self.classes.push(class);
    }

    /// Ends the classing of one service: the class of each standing, and where the classes of addresses change.
    fn finish(self, standings: &Arc<Standings>) -> Classes {
        let country = |standing: &Standing| standing.country.map_or(0, CountryCode::number);
        let members = self.classes.into_iter().zip(&standings.standings);
        let classes: Box<[Member]> =
            members.map(|(class, standing)| Member { class, country: country(standing) }).collect();
        // A value that means a carrier has no standing, so it stays as it is.
        let class_or_mark = |value: u32| classes.get(value as usize).map_or(value, |member| member.class.0);
        let (v4, v6) = (standings.v4.borders(class_or_mark), standings.v6.borders(class_or_mark));
        Classes { standings: Arc::clone(standings), classes, v4, v6, rankings: self.rankings }
    }
}

impl Classes {
    /// Ranks each service's regions for every standing. Uses all cores, because there may be a hundred services and a
    /// hundred thousand standings.
    #[must_use]
    pub(crate) fn of_services(table: &Table, services: &[ServiceIndex], standings: &Arc<Standings>) -> Vec<Self> {
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let share = services.len().div_ceil(threads).max(1);
        std::thread::scope(|scope| {
            let of_share = |services| move || Self::one_by_one(table, services, standings);
            let running: Vec<_> = services.chunks(share).map(|services| scope.spawn(of_share(services))).collect();
            let finished = running.into_iter().map(std::thread::ScopedJoinHandle::join);
            finished.flat_map(|classes| classes.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
        })
    }

    /// Does the work of [`Classes::of_services`] on one core. The outer loop is over the standings, so that the
    /// distances of each standing are computed only once.
    fn one_by_one(table: &Table, services: &[ServiceIndex], standings: &Arc<Standings>) -> Vec<Self> {
        let mut classings: Vec<Classing> = services.iter().map(|_| Classing::default()).collect();
        let mut distances: Vec<Option<u32>> = Vec::with_capacity(table.regions().len());
        for standing in &standings.standings {
            distances.clear();
            let regions = (0..).map(RegionIndex).zip(table.regions());
            distances.extend(regions.map(|(region, _)| distance(table, standing, region)));
            for (service, classing) in services.iter().zip(&mut classings) {
                let km = |region: RegionIndex| distances[region.get()];
                classing.push(rank_by(table, *service, standing, PathClass::Inference, km));
            }
        }
        classings.into_iter().map(|classing| classing.finish(standings)).collect()
    }

    /// The class of an address whose first `known` bits are known (255 for all bits), and the length of the prefix to
    /// which the class applies.
    #[must_use]
    #[cfg(test)]
    pub(crate) fn class(&self, address: IpAddr, known: u8) -> (ClassId, u8) {
        let (class, scope, _) = self.class_and_country(address, known);
        (class, scope)
    }

    /// The class of an address whose first `known` bits are known (255 for all bits), the length of the prefix to which
    /// the class applies, and the number of the client's country (0 if the client's place is unknown).
    #[must_use]
    pub(crate) fn class_and_country(&self, address: IpAddr, known: u8) -> (ClassId, u8, u8) {
        let (Member { class, country }, scope) = self.member(address, known);
        (class, scope, country)
    }

    /// The class of an address, and the length of the shortest prefix whose clients all have it. `known` is how many
    /// bits of the address are known.
    fn member(&self, address: IpAddr, known: u8) -> (Member, u8) {
        let address = match address {
            IpAddr::V4(address) => return self.member_v4(address.to_bits()),
            IpAddr::V6(address) => address.to_bits(),
        };
        let (standing, scope) = self.standings.v6.value_and_scope(address, &self.v6);
        let Some(carrier) = carrier_of_value(standing) else { return (self.classes[standing as usize], scope) };
        if known < carrier.at + ENOUGH_BITS {
            // A client that reveals more bits may get another class. So this class applies to no shorter prefix than
            // those bits.
            return (self.classes[UNKNOWN], scope.max(carrier.at + ENOUGH_BITS));
        }
        let (member, inner) = self.member_v4(carrier.inside(address));
        (member, scope.max(carrier.at + inner))
    }

    /// Prefetches what [`Self::class`] will read, without waiting for it.
    pub(crate) fn expect(&self, address: IpAddr) {
        match address {
            IpAddr::V4(address) => self.standings.v4.expect(address.to_bits(), &self.v4),
            IpAddr::V6(address) => self.standings.v6.expect(address.to_bits(), &self.v6),
        }
    }

    fn member_v4(&self, address: u32) -> (Member, u8) {
        let (standing, scope) = self.standings.v4.value_and_scope(address, &self.v4);
        (self.classes[standing as usize], scope)
    }

    /// The ranking of each class: its regions in base order.
    #[must_use]
    pub(crate) fn rankings(&self) -> &[Ranking] {
        &self.rankings
    }

    /// The network of a client at an address whose unknown bits are zero.
    #[must_use]
    pub(crate) fn network(&self, address: IpAddr) -> Network {
        let address = match address {
            IpAddr::V4(address) => return Network::v4(address.to_bits(), 0),
            IpAddr::V6(address) => address.to_bits(),
        };
        match carrier_of_value(self.standings.v6.value(address)) {
            Some(carrier) => Network::v4(carrier.inside(address), carrier.at),
            None => Network::v6(address),
        }
    }

    /// The number of IPv4 addresses of each class. Addresses whose place is unknown don't count.
    #[must_use]
    pub(crate) fn addresses(&self) -> Vec<u64> {
        let mut addresses = vec![0; self.rankings.len()];
        for (standing, count) in self.standings.v4.sizes() {
            let class = self.classes.get(standing as usize).filter(|_| standing as usize != UNKNOWN);
            if let Some(of_class) = class.and_then(|member| addresses.get_mut(member.class.get())) {
                *of_class += count;
            }
        }
        addresses
    }

    /// How many ranges of IPv4 and of IPv6 addresses the classes make.
    #[cfg(test)]
    fn range_counts(&self) -> (usize, usize) {
        (self.v4.count(), self.v6.count())
    }
}

/// The parts of a ranking by which classes differ: the order with its tiers, and the only region that may serve.
/// Distances don't count.
type RankingKey = (Vec<(RegionIndex, usize)>, Option<Option<RegionIndex>>);

fn key(ranking: &Ranking) -> RankingKey {
    (ranking.order.iter().map(|ranked| (ranked.fenced.region, ranked.fenced.tier)).collect(), ranking.only)
}
