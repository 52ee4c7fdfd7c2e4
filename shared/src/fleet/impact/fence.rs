//! How one fence differs from another. A fence is the regions that may process a client. Takes the regions of both,
//! returns what was added and what was taken away. Called by `compare`.
//!
//! Regions are identified by name. A fence is wider than the old one if its regions process in a country in which no
//! region of the old fence does; another region in the same countries doesn't make it wider. It is smaller if a region
//! or a country is missing.

use crate::geo::{CountryCode, CountrySet};
use crate::table::{RegionIndex, Table};

/// A fence of one document: its regions by number, and the countries where they process.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Fence {
    /// By ascending number; numbers are the same in both documents.
    regions: Vec<usize>,
    countries: CountrySet,
}

/// What one fence has and another hasn't.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Difference {
    /// Regions by number.
    pub(super) regions: Vec<usize>,
    /// Countries in which only the one fence lies.
    pub(super) countries: Vec<CountryCode>,
    /// Whether this fence covers every country, and the other doesn't.
    pub(super) anywhere: bool,
}

impl Fence {
    /// The fence of the regions `of` of a table. `numbers` gives each region's number, by region index.
    pub(super) fn new(table: &Table, numbers: &[usize], of: impl Iterator<Item = RegionIndex>) -> Self {
        let mut fence = Self::default();
        for region in of {
            fence.regions.push(numbers[region.get()]);
            fence.countries.extend(&table.region(region).countries);
        }
        fence.regions.sort_unstable();
        fence
    }

    /// How many regions the fence has.
    pub(super) fn len(&self) -> usize {
        self.regions.len()
    }

    fn beyond(&self, other: &Self) -> Difference {
        let regions = self.regions.iter().filter(|region| !other.regions.contains(region)).copied().collect();
        let countries = self.countries.iter().filter(|country| !other.countries.contains(*country)).collect();
        let is_everywhere = |fence: &Self| CountrySet::EVERYWHERE.is_subset(&fence.countries);
        Difference { regions, countries, anywhere: is_everywhere(self) && !is_everywhere(other) }
    }

    /// What makes this fence wider than another; `None` if it isn't wider.
    pub(super) fn wider_than(&self, other: &Self) -> Option<Difference> {
        (!self.countries.is_subset(&other.countries)).then(|| self.beyond(other))
    }

    /// What this fence lacks of another; `None` if it lacks nothing.
    pub(super) fn smaller_than(&self, other: &Self) -> Option<Difference> {
        let lost = other.beyond(self);
        (!lost.regions.is_empty() || !other.countries.is_subset(&self.countries)).then_some(lost)
    }
}
