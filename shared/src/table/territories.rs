//! The jurisdictions of a document with their countries. Takes a jurisdiction's name, returns its position and
//! countries; takes tiers of jurisdictions, returns the regions that lie in them. Used by `build` and `warn`.

use super::{Fenced, JurisdictionIndex, Region, RegionIndex};
use crate::geo::CountrySet;
use crate::id::JurisdictionId;
use crate::rules::{Place, Rules, Tier};

/// Every jurisdiction with its countries, by index.
pub(super) struct Territories(pub(super) Vec<(JurisdictionId, CountrySet)>);

impl Territories {
    pub(super) fn new(rules: &Rules) -> Self {
        Self(rules.jurisdictions.iter().map(|(id, jurisdiction)| (id.clone(), jurisdiction.territory())).collect())
    }

    pub(super) fn index(&self, name: &JurisdictionId) -> Option<JurisdictionIndex> {
        position(&self.0, |(id, _)| id == name).map(JurisdictionIndex::new)
    }

    /// The countries of a jurisdiction; none if the name isn't declared.
    pub(super) fn of(&self, name: &JurisdictionId) -> CountrySet {
        self.index(name).map(|index| self.0[index.get()].1).unwrap_or_default()
    }

    /// All countries of these places.
    pub(super) fn countries(&self, places: &[Place]) -> CountrySet {
        let mut countries = CountrySet::default();
        for place in places {
            countries.extend(&self.of_place(place));
        }
        countries
    }

    /// The countries of a place.
    pub(super) fn of_place(&self, place: &Place) -> CountrySet {
        match place {
            Place::Anywhere => CountrySet::EVERYWHERE,
            Place::Country(country) => CountrySet::from_iter([*country]),
            Place::Jurisdiction(name) => self.of(name),
        }
    }

    /// The fence: those of `members` that lie in a tier of `process_in`. Each has the first tier that it lies in, and
    /// the first jurisdiction of that tier that holds all its countries.
    pub(super) fn fence(&self, process_in: &[Tier], members: &[RegionIndex], regions: &[Region]) -> Vec<Fenced> {
        let lies_in = |region: RegionIndex, set: &JurisdictionIndex| {
            regions[region.get()].countries.is_subset(&self.0[set.get()].1)
        };
        let fenced = |&region: &RegionIndex| {
            process_in.iter().enumerate().find_map(|(tier, process_in)| match process_in {
                Tier::Anywhere => Some(Fenced { region, tier, jurisdiction: None }),
                Tier::In(names) => {
                    let jurisdiction =
                        names.iter().filter_map(|name| self.index(name)).find(|set| lies_in(region, set))?;
                    Some(Fenced { region, tier, jurisdiction: Some(jurisdiction) })
                }
            })
        };
        members.iter().filter_map(fenced).collect()
    }
}

pub(super) fn position<T>(items: &[T], matches: impl Fn(&T) -> bool) -> Option<usize> {
    items.iter().position(matches)
}
