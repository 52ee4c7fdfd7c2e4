//! Where things are: country codes and sets of them, coordinates, distances.

mod centroids;

use core::fmt;

use centroids::CENTROIDS;

/// A country by its ISO 3166-1 alpha-2 code, such as `DE`.
///
/// ```
/// use bailiwick_rules::geo::CountryCode;
/// assert_eq!(CountryCode::parse("DE").unwrap().as_str(), "DE");
/// assert!(CountryCode::parse("de").is_none());
/// assert!(CountryCode::parse("XX").is_none(), "XX means: not known");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CountryCode([u8; 2]);

impl CountryCode {
    /// Two upper-case letters. `XX` (not known) and Cloudflare's `T1` (Tor) are no countries and give `None`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.as_bytes() {
            [b'X', b'X'] => None,
            &[a, b] if a.is_ascii_uppercase() && b.is_ascii_uppercase() => Some(Self([a, b])),
            _ => None,
        }
    }

    /// The two letters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Two ASCII letters, by construction.
        core::str::from_utf8(&self.0).unwrap_or("??")
    }

    /// Whether ISO 3166-1 assigns the code (or, as for Kosovo's `XK`, everybody uses it).
    #[must_use]
    pub fn is_assigned(&self) -> bool {
        row(*self).is_some()
    }

    fn bit(self) -> usize {
        usize::from(self.0[0] - b'A') * 26 + usize::from(self.0[1] - b'A')
    }
}

impl fmt::Display for CountryCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for CountryCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl serde::Serialize for CountryCode {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// A set of countries, or all of them (a region that may process anywhere).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CountrySet {
    bits: [u64; 11],
    everywhere: bool,
}

impl CountrySet {
    /// The set of a region whose `countries` is `["*"]`: it lies in no jurisdiction.
    pub const EVERYWHERE: Self = Self { bits: [0; 11], everywhere: true };

    /// Adds one country.
    pub fn insert(&mut self, country: CountryCode) {
        self.bits[country.bit() / 64] |= 1 << (country.bit() % 64);
    }

    /// Adds every country of `other`.
    pub fn extend(&mut self, other: &Self) {
        for (mine, theirs) in self.bits.iter_mut().zip(other.bits) {
            *mine |= theirs;
        }
        self.everywhere |= other.everywhere;
    }

    /// Whether the set holds `country`.
    #[must_use]
    pub fn contains(&self, country: CountryCode) -> bool {
        self.everywhere || self.bits[country.bit() / 64] >> (country.bit() % 64) & 1 == 1
    }

    /// Whether every country of this set is in `other`: how a region lies in a jurisdiction.
    #[must_use]
    pub fn is_subset(&self, other: &Self) -> bool {
        other.everywhere || !self.everywhere && self.bits.iter().zip(other.bits).all(|(a, b)| a & !b == 0)
    }

    /// Whether no country is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.everywhere && self.bits == [0; 11]
    }

    /// The assigned countries of the set, in the order of their codes; none for [`CountrySet::EVERYWHERE`].
    pub fn iter(&self) -> impl Iterator<Item = CountryCode> {
        CENTROIDS
            .iter()
            .filter_map(|(code, ..)| CountryCode::parse(code))
            .filter(|&country| !self.everywhere && self.contains(country))
    }
}

impl FromIterator<CountryCode> for CountrySet {
    fn from_iter<I: IntoIterator<Item = CountryCode>>(countries: I) -> Self {
        let mut set = Self::default();
        for country in countries {
            set.insert(country);
        }
        set
    }
}

/// The 27 members of the European Union: Treaty on European Union, Article 52, after the United Kingdom's withdrawal on
/// 2020-01-31. Checked 2026-11-01.
const EU: &str = "AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IT LT LU LV MT NL PL PT RO SE SI SK";

/// What the European Economic Area adds to the Union: Agreement on the European Economic Area, OJ L 1, 3.1.1994, Article 2,
/// and Article 128 for accessions. Checked 2026-11-01.
const EEA_BEYOND_EU: &str = "IS LI NO";

/// The built-in set a jurisdiction may `include`, by name: `EU` or `EEA`. A set is built in only where public law defines it.
///
/// ```
/// use bailiwick_rules::geo::{built_in_set, CountryCode};
/// let eu = built_in_set("EU").unwrap();
/// assert_eq!(eu.iter().count(), 27);
/// assert!(!eu.contains(CountryCode::parse("GB").unwrap()));
/// ```
#[must_use]
pub fn built_in_set(name: &str) -> Option<CountrySet> {
    let parse = |list: &str| list.split(' ').filter_map(CountryCode::parse).collect::<CountrySet>();
    match name {
        "EU" => Some(parse(EU)),
        "EEA" => {
            let mut set = parse(EU);
            set.extend(&parse(EEA_BEYOND_EU));
            Some(set)
        }
        _ => None,
    }
}

/// A point on Earth, in hundredths of a degree (about a kilometre), so that native code and Wasm agree to the bit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Coordinates {
    latitude: i16,
    longitude: i16,
}

impl Coordinates {
    /// From degrees north and east; `None` outside ±90 and ±180 or for what is no number.
    #[must_use]
    #[allow(clippy::cast_possible_truncation)] // ±18,000 fits, and the range was checked
    pub fn from_degrees(latitude: f64, longitude: f64) -> Option<Self> {
        let inside = (-90.0..=90.0).contains(&latitude) && (-180.0..=180.0).contains(&longitude);
        inside.then(|| Self {
            latitude: libm::round(latitude * 100.0) as i16,
            longitude: libm::round(longitude * 100.0) as i16,
        })
    }

    /// Degrees north.
    #[must_use]
    pub fn latitude(self) -> f64 {
        f64::from(self.latitude) / 100.0
    }

    /// Degrees east.
    #[must_use]
    pub fn longitude(self) -> f64 {
        f64::from(self.longitude) / 100.0
    }

    /// The great-circle distance in whole kilometres, by the haversine formula on a sphere of 6,371 km.
    ///
    /// ```
    /// use bailiwick_rules::geo::Coordinates;
    /// let frankfurt = Coordinates::from_degrees(50.11, 8.68).unwrap();
    /// let london = Coordinates::from_degrees(51.51, -0.13).unwrap();
    /// assert_eq!(frankfurt.km_to(london), 638);
    /// ```
    #[must_use]
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // 0..=20,016
    pub fn km_to(self, other: Self) -> u32 {
        let (phi1, phi2) = (self.latitude().to_radians(), other.latitude().to_radians());
        let half = |a: f64, b: f64| {
            let sine = libm::sin((a - b) / 2.0);
            sine * sine
        };
        let lambda = half(self.longitude().to_radians(), other.longitude().to_radians());
        let haversine = half(phi1, phi2) + libm::cos(phi1) * libm::cos(phi2) * lambda;
        libm::round(2.0 * 6371.0 * libm::asin(libm::sqrt(haversine.min(1.0)))) as u32
    }
}

/// The middle of a country; `None` for a code that ISO 3166-1 doesn't assign.
#[must_use]
pub fn centroid(country: CountryCode) -> Option<Coordinates> {
    let &(_, latitude, longitude) = row(country)?;
    Coordinates::from_degrees(f64::from(latitude), f64::from(longitude))
}

fn row(country: CountryCode) -> Option<&'static (&'static str, f32, f32)> {
    let index = CENTROIDS.binary_search_by(|(code, ..)| (*code).cmp(country.as_str())).ok()?;
    CENTROIDS.get(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn country(code: &str) -> CountryCode {
        CountryCode::parse(code).unwrap()
    }

    #[test]
    fn centroids_are_sorted_and_on_earth() {
        assert!(CENTROIDS.is_sorted_by(|a, b| a.0 < b.0));
        for (code, ..) in CENTROIDS {
            assert!(centroid(country(code)).is_some(), "{code}");
        }
    }

    #[test]
    fn built_in_sets_are_the_law() {
        let (eu, eea) = (built_in_set("EU").unwrap(), built_in_set("EEA").unwrap());
        assert_eq!(eu.iter().count(), 27);
        assert_eq!(eea.iter().count(), 30);
        assert!(eu.is_subset(&eea) && !eea.is_subset(&eu));
        assert!(!eea.contains(country("CH")) && !eea.contains(country("GB")));
        assert!(built_in_set("eu").is_none());
    }

    #[test]
    fn everywhere_lies_in_nothing_but_itself() {
        let eu = built_in_set("EU").unwrap();
        assert!(!CountrySet::EVERYWHERE.is_subset(&eu));
        assert!(eu.is_subset(&CountrySet::EVERYWHERE));
        assert!(CountrySet::EVERYWHERE.contains(country("DE")));
    }

    #[test]
    fn distances_are_known_ones() {
        let at = |latitude, longitude| Coordinates::from_degrees(latitude, longitude).unwrap();
        assert_eq!(at(0.0, 0.0).km_to(at(0.0, 180.0)), 20015);
        assert_eq!(at(90.0, 0.0).km_to(at(-90.0, 77.0)), 20015);
        assert_eq!(at(51.5, 0.0).km_to(at(51.5, 0.0)), 0);
        assert_eq!(at(0.0, 179.99).km_to(at(0.0, -179.99)), 2, "across the date line");
    }

    #[test]
    fn coordinates_off_earth_are_refused() {
        for (latitude, longitude) in [(90.01, 0.0), (0.0, 180.01), (f64::NAN, 0.0), (0.0, f64::INFINITY)] {
            assert_eq!(Coordinates::from_degrees(latitude, longitude), None);
        }
    }
}
