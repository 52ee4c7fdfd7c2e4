//! Groups clients into classes. Takes a table and the demand by service and country, returns [`Classes`]. The clients
//! of a service form one class if their fence (the regions that may process them) has the same regions in the same
//! order. Called before [`super::plan`], once per table.

use std::collections::{BTreeMap, HashMap};

use super::{Amount, requests};
use crate::geo::{self, CountryCode};
use crate::rules::Pattern;
use crate::steer::{Client, PathClass, Ranking, Standing, rank, stand};
use crate::table::{RegionIndex, ServiceIndex, Table};

/// A class's position in its [`Classes`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClassIndex(pub usize);

/// Requests in flight by service and country; `None` for clients whose country isn't known.
pub type Demand = BTreeMap<(ServiceIndex, Option<CountryCode>), Amount>;

/// The clients of one service whose fence has the same regions in the same order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Class {
    /// The service that the clients use.
    pub service: ServiceIndex,
    /// The regions of the fence, best first, never empty. The first region is the home of the class.
    pub order: Vec<RegionIndex>,
    /// Whether the clients may be moved because of load.
    pub moves: bool,
    /// Whether the clients may ever be served outside of their home, such as when it is down.
    pub leaves_home: bool,
    /// The requests that the clients have in flight.
    pub demand: Amount,
}

impl Class {
    /// The home: the region of the clients while nothing is moved and every region is up.
    #[must_use]
    pub fn home(&self) -> RegionIndex {
        self.order.first().copied().unwrap_or(RegionIndex(u32::MAX))
    }
}

/// The classes of a table's clients.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Classes {
    list: Vec<Class>,
    by_order: HashMap<(ServiceIndex, Vec<RegionIndex>), ClassIndex>,
}

/// The regions of a fence, sorted by index.
pub(super) fn as_set(order: &[RegionIndex]) -> Vec<RegionIndex> {
    let mut set = order.to_vec();
    set.sort_unstable();
    set
}

/// Where a client stands of whom only the country is known: the jurisdictions and the location that the table gives it.
#[must_use]
pub fn place_of_country(table: &Table, country: Option<CountryCode>) -> Standing {
    stand(table, &Client { country, ..Client::default() })
}

impl Classes {
    /// The classes of a demand that was counted or estimated.
    #[must_use]
    pub fn new(table: &Table, demand: &Demand) -> Self {
        let mut classes = Self::default();
        for (&(service, country), &amount) in demand {
            let standing = place_of_country(table, country);
            classes.add(table, service, &rank(table, service, &standing, PathClass::Inference), amount);
        }
        classes
    }

    /// The classes of the demand that the rules state. The `load.demand` of a region is split into equal parts: one
    /// for every service and country whose nearest region this is.
    #[must_use]
    pub fn stated(table: &Table) -> Self {
        let countries = || geo::countries().map(Some).chain([None]);
        let services = (0..table.services().len()).map(ServiceIndex::new);
        let mut at_home: BTreeMap<RegionIndex, Vec<(ServiceIndex, Option<CountryCode>)>> = BTreeMap::new();
        for service in services {
            for country in countries() {
                let ranking = rank(table, service, &place_of_country(table, country), PathClass::Inference);
                let home = ranking.order.first().map(|first| first.fenced.region);
                if let Some(home) = home {
                    at_home.entry(home).or_default().push((service, country));
                }
            }
        }
        let mut demand = Demand::new();
        for (region, origins) in at_home {
            let stated = table.region(region).load.as_ref().and_then(|load| load.demand).map_or(0, requests);
            let count = origins.len() as u64;
            for (nth, origin) in (0..count).zip(origins) {
                // The difference of two rounded sums, so that the parts add up to `stated`.
                let part = super::proportion(stated, nth + 1, count) - super::proportion(stated, nth, count);
                if part > 0 {
                    demand.insert(origin, part);
                }
            }
        }
        Self::new(table, &demand)
    }

    /// Adds demand of clients that have this ranking of regions.
    fn add(&mut self, table: &Table, service: ServiceIndex, ranking: &Ranking, amount: Amount) {
        self.add_order(table, service, ranking.regions(), ranking.only.is_none(), amount);
    }

    /// Adds demand of the clients whose fence has this order.
    fn add_order(
        &mut self,
        table: &Table,
        service: ServiceIndex,
        order: Vec<RegionIndex>,
        leaves_home: bool,
        amount: Amount,
    ) {
        if order.is_empty() {
            return;
        }
        let next = ClassIndex(self.list.len());
        let index = *self.by_order.entry((service, order.clone())).or_insert(next);
        match self.list.get_mut(index.0) {
            Some(class) => class.demand = class.demand.saturating_add(amount),
            None => {
                let moves = leaves_home && table.service(service).shedding.moves;
                self.list.push(Class { service, order, moves, leaves_home, demand: amount });
            }
        }
    }

    /// All classes.
    #[must_use]
    pub fn list(&self) -> &[Class] {
        &self.list
    }

    /// The class of a client with this ranking; `None` if no class has that order.
    #[must_use]
    pub fn find(&self, service: ServiceIndex, ranking: &Ranking) -> Option<ClassIndex> {
        self.of_order(service, ranking.regions())
    }

    /// The class of a service whose fence has this order; `None` if there is none.
    pub(super) fn of_order(&self, service: ServiceIndex, order: Vec<RegionIndex>) -> Option<ClassIndex> {
        self.by_order.get(&(service, order)).copied()
    }

    /// Replaces the demand of all classes by counts per service and order of the fence. Classes without a count get
    /// demand 0. Orders without a class, such as those of tenants with a residency of their own, become new classes.
    pub fn observe(
        &mut self,
        table: &Table,
        counted: impl IntoIterator<Item = (ServiceIndex, Vec<RegionIndex>, Amount)>,
    ) {
        self.list.iter_mut().for_each(|class| class.demand = 0);
        for (service, order, amount) in counted {
            let leaves_home = table.service(service).pattern != Pattern::RegionalSharding;
            self.add_order(table, service, order, leaves_home, amount);
        }
    }

    /// Forbids moving the clients of all services for which `may_move` is false.
    pub fn move_only(&mut self, may_move: impl Fn(ServiceIndex) -> bool) {
        self.list.iter_mut().for_each(|class| class.moves &= may_move(class.service));
    }

    /// Changes how many requests the clients of a class have in flight.
    pub fn set_demand(&mut self, class: ClassIndex, demand: Amount) {
        if let Some(class) = self.list.get_mut(class.0) {
            class.demand = demand;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        Table::compile(
            br#"{ "version": 1, "revision": 1,
                  "jurisdictions": { "eu": { "include": ["EU"] }, "uk": { "countries": ["GB"] } },
                  "regions": { "fra": { "countries": ["DE"], "load": { "capacity": 10, "demand": 7 } },
                               "par": { "countries": ["FR"], "load": { "capacity": 10, "demand": 100 } },
                               "lon": { "countries": ["GB"], "load": { "capacity": 10 } } },
                  "services": {
                    "chat": { "hosts": ["chat.example"], "pattern": "active-active", "regions": ["fra", "par", "lon"],
                              "residency": [{ "clients": ["eu"], "process_in": ["eu"] },
                                            { "clients": ["uk"], "process_in": ["uk", "eu"] }] },
                    "home": { "hosts": ["home.example"], "pattern": "regional-sharding", "regions": ["fra", "lon"],
                              "residency": [{ "clients": ["eu"], "process_in": ["eu"] }] } } }"#,
        )
        .unwrap()
    }

    #[test]
    fn clients_whose_fence_has_the_same_order_are_one_class() {
        let table = table();
        let (chat, home) = (ServiceIndex(0), ServiceIndex(1));
        let of = |code: &str| CountryCode::parse(code);
        let demand = [
            ((chat, of("DE")), 5),
            ((chat, of("AT")), 7),
            ((chat, of("GB")), 1),
            ((chat, of("US")), 9),
            ((home, of("DE")), 3),
        ];
        let classes = Classes::new(&table, &demand.into_iter().collect());
        let found: Vec<_> = classes.list().iter().map(|class| (class.order.len(), class.demand, class.moves)).collect();
        assert_eq!(found, [(2, 12, true), (3, 1, true), (1, 3, false)], "clients from the US have no fence");
        let ranking = rank(&table, chat, &place_of_country(&table, of("PL")), PathClass::Inference);
        assert_eq!(classes.find(chat, &ranking), Some(ClassIndex(0)), "Poland has the same order as Austria");
    }

    #[test]
    fn counted_demand_replaces_stated_demand_and_classes_keep_their_indexes() {
        let table = table();
        let mut classes = Classes::stated(&table);
        let stated: Vec<_> = classes.list().iter().map(|class| class.order.clone()).collect();
        let region = |name: &str| table.region_named(name).unwrap();
        let (known, own) = (stated[0].clone(), vec![region("lon"), region("par"), region("fra")]);
        classes.observe(&table, [(ServiceIndex(0), known, 7), (ServiceIndex(0), own.clone(), 5)]);
        let demand: Vec<_> = classes.list().iter().map(|class| class.demand).collect();
        assert_eq!((demand[0], demand.iter().sum::<u64>()), (7, 12));
        assert_eq!(classes.list().len(), stated.len() + 1, "a tenant's own fence is a new class");
        assert!(stated.iter().zip(classes.list()).all(|(order, class)| *order == class.order));
        assert_eq!((&classes.list()[stated.len()].order, classes.list()[stated.len()].moves), (&own, true));
        classes.observe(&table, [(ServiceIndex(0), own, 1)]);
        assert_eq!((classes.list().len(), classes.list()[0].demand), (stated.len() + 1, 0));
    }

    #[test]
    fn the_parts_of_stated_demand_add_up_to_that_of_the_region() {
        let table = table();
        let classes = Classes::stated(&table);
        let mut at_home = BTreeMap::new();
        for class in classes.list() {
            *at_home.entry(table.region(class.home()).id.as_str()).or_insert(0) += class.demand;
        }
        assert_eq!(at_home, BTreeMap::from([("fra", 7_000), ("par", 100_000)]));
    }
}
