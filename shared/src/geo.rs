//! Countries and points on Earth. Takes country codes and degrees, returns checked codes, sets of countries,
//! coordinates and distances. Called by the reader of the rules, by [`crate::steer`], and by the DNS server and the
//! Worker when they locate a client.

mod centroids;
mod territory;

use core::fmt;

use centroids::CENTROIDS;
use territory::{EEA_BEYOND_EU, EU_MEMBERS, EU_TERRITORIES};
pub use territory::{NonCountry, Territory, is_like_code, non_country, territory};

/// A country's ISO 3166-1 alpha-2 code, such as `DE`. Kosovo has no such code. Here it is `XK`, which is in common use.
///
/// ```
/// use bailiwick_rules::geo::CountryCode;
/// assert_eq!(CountryCode::parse("DE").unwrap().as_str(), "DE");
/// assert!(CountryCode::parse("de").is_none());
/// assert!(CountryCode::parse("ZZ").is_none(), "ZZ means an unknown country");
/// assert!(CountryCode::parse("UK").is_none(), "the code of the United Kingdom is GB");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CountryCode([u8; 2]);

impl CountryCode {
    /// Accepts two upper-case letters that ISO 3166-1 assigns, or `XK`. Anything else (`XX`, `ZZ`, `T1`, `EU`, `UK`, a
    /// withdrawn code) is `None`: a client with such a code is unknown.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.as_bytes() {
            &[a, b] if a.is_ascii_uppercase() && b.is_ascii_uppercase() => {
                let country = Self([a, b]);
                (ASSIGNED[country.bit() / 64] >> (country.bit() % 64) & 1 == 1).then_some(country)
            }
            _ => None,
        }
    }

    /// The two letters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // The bytes are always two ASCII letters.
        core::str::from_utf8(&self.0).unwrap_or("??")
    }

    /// The country's number in the list of all countries, sorted by code, from 1. There are fewer than 256 countries,
    /// so a byte holds the number.
    #[must_use]
    pub fn number(self) -> u8 {
        NUMBERS[self.bit()]
    }

    /// The country with this number; `None` if no country has it.
    ///
    /// ```
    /// use bailiwick_rules::geo::{CountryCode, countries};
    /// assert!(countries().all(|country| CountryCode::numbered(country.number()) == Some(country)));
    /// assert_eq!((CountryCode::numbered(0), CountryCode::numbered(255)), (None, None));
    /// ```
    #[must_use]
    pub fn numbered(number: u8) -> Option<Self> {
        CENTROIDS.get(usize::from(number).checked_sub(1)?).and_then(|(code, ..)| Self::parse(code))
    }

    fn bit(self) -> usize {
        bit(self.0[0], self.0[1])
    }
}

/// The position of a code's bit in a set, from its two capital letters.
const fn bit(first: u8, second: u8) -> usize {
    (first - b'A') as usize * 26 + (second - b'A') as usize
}

/// All assigned codes as a bit set. Every request looks a code up, so this must be fast.
const ASSIGNED: [u64; 11] = {
    let mut bits = [0; 11];
    let mut row = 0;
    while row < CENTROIDS.len() {
        let code = CENTROIDS[row].0.as_bytes();
        let bit = bit(code[0], code[1]);
        bits[bit / 64] |= 1 << (bit % 64);
        row += 1;
    }
    bits
};

/// The number of each country, by the position of its bit.
#[allow(clippy::cast_possible_truncation)] // fewer than 256
static NUMBERS: [u8; 26 * 26] = {
    let mut numbers = [0; 26 * 26];
    let mut row = 0;
    while row < CENTROIDS.len() {
        let code = CENTROIDS[row].0.as_bytes();
        numbers[bit(code[0], code[1])] = row as u8 + 1;
        row += 1;
    }
    numbers
};

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

/// A set of countries. It may also stand for all countries, as for a region that may process anywhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CountrySet {
    /// One bit for each pair of letters, see [`bit`].
    bits: [u64; 11],
    /// Whether the set stands for all countries. Then `bits` don't matter.
    everywhere: bool,
}

impl CountrySet {
    /// All countries: the set of a region whose `countries` is `["*"]`. Such a region lies in no jurisdiction, because
    /// it may process in a country outside of it.
    pub const EVERYWHERE: Self = Self { bits: [0; 11], everywhere: true };

    /// Adds one country.
    pub fn insert(&mut self, country: CountryCode) {
        self.bits[country.bit() / 64] |= 1 << (country.bit() % 64);
    }

    /// Removes one country. [`CountrySet::EVERYWHERE`] stays as it is.
    pub fn remove(&mut self, country: CountryCode) {
        self.bits[country.bit() / 64] &= !(1 << (country.bit() % 64));
    }

    /// Adds every country of `other`.
    pub fn extend(&mut self, other: &Self) {
        for (bits, more) in self.bits.iter_mut().zip(other.bits) {
            *bits |= more;
        }
        self.everywhere |= other.everywhere;
    }

    /// Whether the set holds `country`.
    #[must_use]
    pub fn contains(&self, country: CountryCode) -> bool {
        self.everywhere || self.bits[country.bit() / 64] >> (country.bit() % 64) & 1 == 1
    }

    /// Whether every country of this set is in `other`. A region lies in a jurisdiction if this holds for their sets.
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
        countries().filter(|&country| !self.everywhere && self.contains(country))
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

/// The names of the built-in sets.
pub const BUILT_IN_SETS: [&str; 2] = ["EU", "EEA"];

/// The built-in set of this name, which a jurisdiction may `include`. `EU` and `EEA` hold the countries and territories
/// where the treaties apply. A set is built in only if public law defines it. [`territory`] says why a code belongs to
/// a set or doesn't.
///
/// ```
/// use bailiwick_rules::geo::{built_in_set, CountryCode};
/// let eu = built_in_set("EU").unwrap();
/// let holds = |code| eu.contains(CountryCode::parse(code).unwrap());
/// assert!(holds("FR") && holds("GF"), "French Guiana is an outermost region of the Union");
/// assert!(!holds("PF") && !holds("GB"), "French Polynesia is an overseas territory outside it");
/// ```
#[must_use]
pub fn built_in_set(name: &str) -> Option<CountrySet> {
    let mut set: CountrySet =
        [&EU_MEMBERS[..], &EU_TERRITORIES].concat().into_iter().filter_map(CountryCode::parse).collect();
    match name {
        "EU" => Some(set),
        "EEA" => {
            set.extend(&EEA_BEYOND_EU.into_iter().filter_map(CountryCode::parse).collect());
            Some(set)
        }
        _ => None,
    }
}

/// The members of the European Union, without the territories that have codes of their own.
#[must_use]
pub fn eu_members() -> CountrySet {
    EU_MEMBERS.into_iter().filter_map(CountryCode::parse).collect()
}

/// A point on Earth. It is stored in hundredths of a degree (about a kilometre), so that native code and Wasm get
/// exactly the same distances.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Coordinates {
    latitude: i16,
    longitude: i16,
}

impl Coordinates {
    /// Makes a point from degrees north and east. `None` outside ±90 and ±180, and for NaN.
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

/// All countries, by code.
pub fn countries() -> impl Iterator<Item = CountryCode> {
    CENTROIDS.iter().filter_map(|(code, ..)| CountryCode::parse(code))
}

/// The middle of a country. It is used as the location of a client or region if only the country is known.
#[must_use]
pub fn centroid(country: CountryCode) -> Option<Coordinates> {
    let index = CENTROIDS.binary_search_by(|(code, ..)| (*code).cmp(country.as_str())).ok()?;
    let &(_, latitude, longitude) = CENTROIDS.get(index)?;
    Coordinates::from_degrees(f64::from(latitude), f64::from(longitude))
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
    fn codes_of_no_country_are_refused() {
        for code in ["DE", "GB", "XK", "AX", "TW", "AQ"] {
            assert_eq!(country(code).as_str(), code);
        }
        for code in ["ZZ", "XX", "EU", "AP", "A1", "A2", "O1", "T1", "UK", "FX", "AN", "QQ", "de", "D", "DEU", "", "ÅX"]
        {
            assert_eq!(CountryCode::parse(code), None, "{code}");
        }
        let all = (b'A'..=b'Z').flat_map(|a| (b'A'..=b'Z').map(move |b| String::from_utf8(vec![a, b]).unwrap()));
        assert_eq!(all.filter(|code| CountryCode::parse(code).is_some()).count(), CENTROIDS.len());
    }

    #[test]
    fn built_in_sets_have_their_names() {
        for name in BUILT_IN_SETS {
            assert!(built_in_set(name).is_some(), "{name}");
        }
        let (eu, eea) = (built_in_set("EU").unwrap(), built_in_set("EEA").unwrap());
        assert!(eu.is_subset(&eea) && !eea.is_subset(&eu) && eu_members().is_subset(&eu));
        assert!(built_in_set("eu").is_none());
    }

    #[test]
    fn a_removed_country_is_not_in_the_set() {
        let mut eu = built_in_set("EU").unwrap();
        eu.remove(country("GF"));
        assert!(!eu.contains(country("GF")) && eu.contains(country("GP")));
    }

    #[test]
    fn everywhere_is_a_subset_of_itself_only() {
        let eu = built_in_set("EU").unwrap();
        assert!(!CountrySet::EVERYWHERE.is_subset(&eu));
        assert!(eu.is_subset(&CountrySet::EVERYWHERE));
        assert!(CountrySet::EVERYWHERE.contains(country("DE")));
    }

    #[test]
    fn distances_equal_known_distances() {
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
