//! Checks what a snapshot answers against a plain reading of its rules, and tells where clients of each country go.
//! Takes a snapshot, returns numbers for the picture. Called by the API; no query waits for it.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use bailiwick_rules::audit::{Audit, Book, audit};
use bailiwick_rules::geo::{self, CountryCode};
use bailiwick_rules::steer::{Client, Local, PathClass, decide, rank, stand};
use bailiwick_rules::table::{RegionIndex, ServiceIndex};
use bailiwick_rules::time::Timestamp;

use super::shed::PartsByClass;
use super::{Choice, Choices, Offer, ServiceDecisions, Snapshot, World};

/// The most pairs of service and tenant that are checked.
const MAX_PAIRS: usize = 20_000;

/// Countries whose clients go to the same region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CountryGroup {
    /// The region; `None`: residency allows none, or none is left.
    pub to: Option<RegionIndex>,
    /// Whether the clients' fence has regions, but all are withheld now.
    pub is_withheld: bool,
    /// Whether the region is down, and is offered only because every region of the fence is.
    pub is_revived: bool,
    /// The countries; `None` is for clients that nobody can place.
    pub countries: Vec<Option<CountryCode>>,
}

/// What a snapshot answered, to compare later snapshots with. Keeps neither rules nor decisions alive.
#[derive(Debug, Clone)]
pub(crate) struct Fingerprint {
    world: Weak<World>,
    decided: Vec<Weak<ServiceDecisions>>,
}

impl Fingerprint {
    /// Whether this snapshot answers the same.
    #[must_use]
    pub(crate) fn is_of(&self, snapshot: &Snapshot) -> bool {
        // A weak pointer keeps its address from being used again.
        self.world.as_ptr() == Arc::as_ptr(&snapshot.world)
            && self.decided.len() == snapshot.decided.len()
            && self.decided.iter().zip(&snapshot.decided).all(|(own, others)| own.as_ptr() == Arc::as_ptr(others))
    }
}

/// The TTLs of a region's answers, in seconds: the shortest and the longest.
pub(crate) type Ttls = BTreeMap<RegionIndex, (u32, u32)>;

impl Snapshot {
    /// Checks the decisions for all countries and tenants, and every answer that DNS has ready.
    #[must_use]
    pub(crate) fn audit(&self, book: &Book, now: Timestamp) -> Audit {
        let table = self.table();
        let mut result = audit(table, book, &self.conditions(&Local::default(), now), MAX_PAIRS);
        for (service, class, choice) in self.choices() {
            let ranking = self.world.classes_of(service).and_then(|classes| classes.rankings().get(class));
            if let (Offer::Region(region), Some(ranking)) = (choice.offer, ranking) {
                result.check_answer(book, table, (service, ranking), region);
            }
        }
        result
    }

    /// What to compare a later snapshot with.
    #[must_use]
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        Fingerprint { world: Arc::downgrade(&self.world), decided: self.decided.iter().map(Arc::downgrade).collect() }
    }

    /// Every answer that is ready, with its service and the class of the clients that get it.
    fn choices(&self) -> impl Iterator<Item = (ServiceIndex, usize, Choice)> {
        let services = (0..).map(ServiceIndex).zip(&self.decided);
        services.flat_map(|(service, decided)| {
            // The classes of clients are numbered alike, whatever families of addresses they may get.
            let by_family = decided.by_family.iter().flat_map(|all| [&all.ipv4, &all.ipv6, &all.whole]);
            std::iter::once(&decided.choices).chain(by_family).flat_map(move |choices: &Choices| {
                let stay = choices.classes.iter().copied().enumerate();
                // There is one choice for each move, in this order.
                let moves = decided.parts_by_class.iter().flat_map(PartsByClass::classes_of_moves);
                let moved = moves.zip(choices.moved.iter().copied());
                stay.chain(moved).map(move |(class, choice)| (service, class, choice))
            })
        })
    }

    /// The TTLs of the answers that are ready, by region.
    #[must_use]
    pub(crate) fn ttls(&self) -> Ttls {
        let mut ttls = Ttls::new();
        for (_, _, choice) in self.choices() {
            if let Offer::Region(region) = choice.offer {
                let (least, most) = ttls.entry(region).or_insert((choice.ttl, choice.ttl));
                (*least, *most) = ((*least).min(choice.ttl), (*most).max(choice.ttl));
            }
        }
        ttls
    }

    /// Where clients of each country go first, for a service. It ignores that some clients are moved because of load.
    #[must_use]
    pub(crate) fn countries_by_region(&self, service: ServiceIndex, now: Timestamp) -> Vec<CountryGroup> {
        let (table, local) = (self.table(), Local::default());
        let conditions = self.conditions(&local, now);
        let mut groups: Vec<CountryGroup> = Vec::new();
        for country in geo::countries().map(Some).chain([None]) {
            let standing = stand(table, &Client { country, ..Client::default() });
            let ranking = rank(table, service, &standing, PathClass::Inference);
            let steering = decide(table, &ranking, None, &conditions);
            let to = steering.ordered.first().map(|first| first.fenced.region);
            let is_withheld = to.is_none() && !ranking.order.is_empty();
            let is_revived = to.is_some() && steering.revived;
            let is_same = |group: &&mut CountryGroup| {
                (group.to, group.is_withheld, group.is_revived) == (to, is_withheld, is_revived)
            };
            match groups.iter_mut().find(is_same) {
                Some(group) => group.countries.push(country),
                None => groups.push(CountryGroup { to, is_withheld, is_revived, countries: vec![country] }),
            }
        }
        groups
    }
}
