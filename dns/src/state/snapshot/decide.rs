//! Decides what each class of a service's clients gets. Takes a world (rules, zones, keys and GeoIP data compiled
//! together), the health of a moment and the shares of a plan, returns a decision for each class, and for each part of
//! a class that is moved because of load. Called for each new snapshot; a query only looks the decision up.

use bailiwick_rules::health::RegionHealth;
use bailiwick_rules::steer::{Conditions, Ranking, Steering, decide};
use bailiwick_rules::table::RegionIndex;
use bailiwick_rules::time::Timestamp;

use super::shed::{Moves, PartsByClass};
use super::{ByFamily, Choice, Choices, ChoicesByFamily, NOT_READY, Offer, PROHIBITED, ServiceDecisions, World};
use crate::locate::classes::{ClassId, Classes};
use crate::zone::ServiceIndex;

/// What was decided for one service.
#[derive(Default)]
pub(super) struct Decision {
    choices: Choices,
    by_family: Option<Box<ChoicesByFamily>>,
    parts_by_class: Option<PartsByClass>,
    /// When the first temporary condition of the decisions, such as an override, ends.
    pub(super) until: Option<Timestamp>,
}

impl Decision {
    /// Whether this decision equals an earlier one.
    pub(super) fn is(&self, before: &ServiceDecisions) -> bool {
        before.choices == self.choices
            && before.by_family == self.by_family
            && before.parts_by_class == self.parts_by_class
    }

    /// The decision as a snapshot holds it.
    pub(super) fn of_generation(self, generation: u64) -> ServiceDecisions {
        let Self { choices, by_family, parts_by_class, until: _ } = self;
        ServiceDecisions { choices, by_family, parts_by_class, generation }
    }
}

/// The service that is being decided for.
struct Deciding<'a> {
    world: &'a World,
    service: ServiceIndex,
    /// How each class ranks the regions, by class.
    rankings: &'a [Ranking],
    parts_by_class: Option<PartsByClass>,
    /// The clients that are moved, with the region they go to, by class.
    moves: Vec<(ClassId, RegionIndex)>,
    /// The region that a drill sends clients away from. Clients that are moved to it go to the best other region.
    drilled: Option<RegionIndex>,
}

impl World {
    /// Decides for all clients of a service.
    pub(super) fn decide(
        &self,
        service: ServiceIndex,
        conditions: &Conditions<'_>,
        by_family: Option<&ByFamily>,
        moves: Moves<'_>,
    ) -> Decision {
        let drilled = moves.drilled;
        let Some(rankings) = self.classes_of(service).map(Classes::rankings) else {
            return Decision::default();
        };
        let parts_by_class = PartsByClass::new(&self.rules().table, service, rankings, moves);
        let (parts_by_class, moves) =
            parts_by_class.map_or((None, Vec::new()), |(parts_by_class, moves)| (Some(parts_by_class), moves));
        let drilled = drilled.map(|drilled| drilled.region);
        let deciding = Deciding { world: self, service, rankings, parts_by_class, moves, drilled };
        let (choices, until) = deciding.choices(conditions);
        let by_family = by_family.and_then(|health| deciding.choices_by_family(health, conditions, &choices));
        Decision { choices, by_family, parts_by_class: deciding.parts_by_class, until }
    }
}

impl Deciding<'_> {
    /// What all clients get, and when the first temporary condition of that ends.
    fn choices(&self, conditions: &Conditions<'_>) -> (Choices, Option<Timestamp>) {
        let (mut until, mut moved) = (None, Vec::new());
        let choose = |(class, ranking): (u32, &Ranking)| {
            let (choice, steering) = self.choose(ranking, conditions);
            until = until.into_iter().chain(steering.valid_until).min();
            self.with_moved(ClassId(class), choice, &steering, &mut moved)
        };
        let classes = (0..).zip(self.rankings).map(choose).collect();
        (Choices { classes, moved: moved.into() }, until)
    }

    /// The choices for record types by which a client uses one family of addresses, or both. If a region's addresses of
    /// that family are down, the next region is chosen. If no region has that family up, `usual` is chosen, because
    /// health must not decide whether records exist. `None` if no choice differs from `usual`.
    fn choices_by_family(
        &self,
        health: &ByFamily,
        conditions: &Conditions<'_>,
        usual: &Choices,
    ) -> Option<Box<ChoicesByFamily>> {
        let choices = |health: &[RegionHealth]| -> Choices {
            let conditions = Conditions { health, ..*conditions };
            let mut moved = Vec::new();
            let choose = |((class, ranking), usual): ((u32, &Ranking), &Choice)| {
                let (choice, steering) = self.choose(ranking, &conditions);
                let choice = match (choice.offer, usual.offer) {
                    (Offer::Region(_), _) if !steering.revived => choice,
                    // The TTL is at most the time until a region's family may be up again.
                    (_, Offer::Region(_)) => {
                        let table = &self.world.rules().table;
                        let back = steering.ttl(table, table.service(self.service), ranking, &conditions);
                        Choice { offer: usual.offer, ttl: usual.ttl.min(back) }
                    }
                    (_, Offer::Denied | Offer::Nothing(_)) => *usual,
                };
                self.with_moved(ClassId(class), choice, &steering, &mut moved)
            };
            let classes = (0..).zip(self.rankings).zip(&usual.classes).map(choose).collect();
            Choices { classes, moved: moved.into() }
        };
        let (ipv4, ipv6, whole) = (choices(&health.ipv4), choices(&health.ipv6), choices(&health.whole));
        let differs = [&ipv4, &ipv6, &whole].into_iter().any(|choices| choices != usual);
        differs.then(|| Box::new(ChoicesByFamily { ipv4, ipv6, whole }))
    }

    /// Returns the choice for the clients of a class that stay. Adds to `moved` the choice for the clients of each
    /// move: the records of their region if it is offered, otherwise what the others get. All have the shortest TTL,
    /// because the next plan may move other clients.
    fn with_moved(&self, class: ClassId, choice: Choice, steering: &Steering, moved: &mut Vec<Choice>) -> Choice {
        let first = self.moves.partition_point(|(class_of_move, _)| *class_of_move < class);
        let mut of_class =
            self.moves[first..].iter().take_while(|(class_of_move, _)| *class_of_move == class).peekable();
        if of_class.peek().is_none() {
            return choice;
        }
        let stays = Choice { ttl: self.world.rules().table.service(self.service).ttl.min, ..choice };
        let mut offered = steering.ordered.iter().map(|ranked| ranked.fenced.region);
        let other = offered.find(|region| Some(*region) != self.drilled);
        let offers = |to| steering.ordered.iter().any(|ranked| ranked.fenced.region == to);
        let target = |to| if Some(to) == self.drilled { other } else { Some(to).filter(|to| offers(*to)) };
        moved.extend(of_class.map(|&(_, to)| match target(to).filter(|_| !steering.revived) {
            Some(to) => Choice { offer: Offer::Region(to), ..stays },
            None => stays,
        }));
        stays
    }

    /// What the answer offers to clients with this ranking, and for how long resolvers may keep it.
    fn choose(&self, ranking: &Ranking, conditions: &Conditions<'_>) -> (Choice, Steering) {
        let table = &self.world.rules().table;
        let steering = decide(table, ranking, None, conditions);
        let offer = match steering.ordered.first() {
            Some(first) => Offer::Region(first.fenced.region),
            None if self.world.denied_records(self.service).is_some() => Offer::Denied,
            None if ranking.order.is_empty() => Offer::Nothing(PROHIBITED),
            None => Offer::Nothing(NOT_READY),
        };
        let ttl = match offer {
            Offer::Denied => table.service(self.service).ttl.max,
            Offer::Region(_) | Offer::Nothing(_) => {
                steering.ttl(table, table.service(self.service), ranking, conditions)
            }
        };
        (Choice { offer, ttl }, steering)
    }
}
