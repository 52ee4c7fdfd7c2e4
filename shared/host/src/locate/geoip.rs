//! Reads the GeoIP database. Takes the bytes of an MMDB file, returns the places of all address ranges. Called at
//! startup and by the watcher when the file has changed; `client` looks addresses up.
//!
//! The reader understands two layouts: GeoIP2 (`country.iso_code`, `location.latitude`, `location.longitude`) and flat
//! (`country_code`, `latitude`, `longitude`). Every network is read once at load, and the file's bytes aren't kept.

#[cfg(any(test, feature = "testing"))]
pub mod testing;

use std::collections::HashMap;
use std::net::IpAddr;

use bailiwick_rules::geo::{Coordinates, CountryCode};
use bailiwick_rules::time::Timestamp;
use maxminddb::PathElement::{self, Key};
use maxminddb::{LookupResult, MaxMindDbError, Reader, WithinOptions};

use crate::locate::ranges::{Bits, Builder, Ranges};

/// What a database knows about an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Place {
    /// The country.
    pub country: Option<CountryCode>,
    /// The coordinates.
    pub location: Option<Coordinates>,
}

/// The places of all addresses.
#[derive(Debug)]
pub struct Places {
    /// The index in `places` of each IPv4 address.
    v4: Ranges<u32>,
    /// The index in `places` of each IPv6 address.
    v6: Ranges<u128>,
    /// The different places. The first ([`NOWHERE`]) is the place of addresses that the database doesn't list.
    places: Vec<Place>,
    unknown_codes: Vec<UnknownCode>,
    /// When the database was built.
    built: Option<Timestamp>,
}

/// A code that stands in the country field of a database and names no country, such as `ZZ`. Clients in a network with
/// such a code have no country.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownCode {
    /// The code, shortened.
    pub code: String,
    /// How many networks have the code.
    pub networks: u64,
}

/// Whether a network whose country is unknown counts as being in the country where the network is registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Registered {
    /// The country of registration is ignored: an address is registered where its owner has an office, but may be used
    /// anywhere.
    #[default]
    Ignored,
    /// The country of registration counts, because the operator configured so.
    Counts,
}

/// Why a file can't be used as a GeoIP database.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GeoError {
    /// The file is no MMDB, or a damaged MMDB.
    #[error("is not a usable MMDB file ({0}); download it again and check that it was unpacked")]
    Broken(String),
    /// The file is an MMDB without countries, such as a database of AS numbers.
    #[error(
        "is an MMDB of type {0:?} in which no record has a country (neither country.iso_code nor country_code); use a \
         country or city database"
    )]
    Foreign(String),
}

/// The index in `Places::places` of addresses that the database doesn't list.
const NOWHERE: u32 = 0;
/// How many unknown codes are counted separately. A database has a handful.
const MAX_CODES: usize = 32;
/// How many characters of an unknown code are kept.
const LONGEST_CODE: usize = 12;

impl Places {
    /// The places without a database: nothing is known about any address.
    #[must_use]
    pub fn none() -> Self {
        Self {
            v4: Builder::new(NOWHERE).finish(),
            v6: Builder::new(NOWHERE).finish(),
            places: vec![Place::default()],
            unknown_codes: Vec::new(),
            built: None,
        }
    }

    /// Reads a database, and ignores where networks are registered.
    ///
    /// # Errors
    /// When the bytes are no MMDB, a damaged MMDB, or an MMDB without countries.
    #[cfg(any(test, feature = "testing"))]
    pub fn read(bytes: &[u8]) -> Result<Self, GeoError> {
        Self::read_with(bytes, Registered::Ignored)
    }

    /// Reads a database.
    ///
    /// # Errors
    /// When the bytes are no MMDB, a damaged MMDB, or an MMDB without countries.
    pub fn read_with(bytes: &[u8], registered: Registered) -> Result<Self, GeoError> {
        let broken = |error: MaxMindDbError| GeoError::Broken(error.to_string());
        let reader = Reader::from_source(bytes).map_err(broken)?;
        let (mut v4, mut v6) = (RangesInOrder::<u32>::new(), RangesInOrder::<u128>::new());
        let mut interned = Interned::default();
        for network in reader.networks(WithinOptions::default()).map_err(broken)? {
            let network = network.map_err(broken)?;
            let Entry { place, code } = match network.offset().and_then(|offset| interned.by_offset.get(&offset)) {
                Some(&entry) => entry,
                None => interned.enter(network.offset(), record_of(&network, registered).map_err(broken)?),
            };
            if let Some(unknown) = code.and_then(|code| interned.unknown_codes.get_mut(code)) {
                unknown.networks += 1;
            }
            let prefix = network.network().map_err(broken)?;
            match prefix.ip() {
                IpAddr::V4(first) => v4.add(first.to_bits(), prefix.prefix(), place),
                IpAddr::V6(first) => v6.add(first.to_bits(), prefix.prefix(), place),
            }
        }
        if interned.places.iter().all(|place| place.country.is_none()) {
            return Err(GeoError::Foreign(reader.metadata().database_type.clone()));
        }
        let mut unknown_codes = interned.unknown_codes;
        unknown_codes.sort_by(|a, b| b.networks.cmp(&a.networks).then_with(|| a.code.cmp(&b.code)));
        let built = i64::try_from(reader.metadata().build_epoch).ok().map(|at| Timestamp(at.saturating_mul(1000)));
        Ok(Self { v4: v4.builder.finish(), v6: v6.builder.finish(), places: interned.places, unknown_codes, built })
    }

    /// When the database was built, by its own metadata.
    #[must_use]
    pub fn built(&self) -> Option<Timestamp> {
        self.built
    }

    /// The codes that name no country, the most frequent first.
    #[must_use]
    pub fn unknown_codes(&self) -> &[UnknownCode] {
        &self.unknown_codes
    }

    /// What is known about an address. An IPv6 address that carries an IPv4 address is looked up as IPv6.
    #[inline]
    #[must_use]
    pub fn at(&self, address: IpAddr) -> Place {
        let index = match address {
            IpAddr::V4(address) => self.v4.value(address.to_bits()),
            IpAddr::V6(address) => self.v6.value(address.to_bits()),
        };
        self.places[index as usize]
    }

    /// All places; the first is the place of addresses that the database doesn't list.
    #[inline]
    #[must_use]
    pub fn all(&self) -> &[Place] {
        &self.places
    }

    /// The index of the place of each IPv4 address.
    #[inline]
    #[must_use]
    pub fn v4(&self) -> &Ranges<u32> {
        &self.v4
    }

    /// The index of the place of each IPv6 address.
    #[inline]
    #[must_use]
    pub fn v6(&self) -> &Ranges<u128> {
        &self.v6
    }
}

/// One record of the database, decoded.
struct Record {
    place: Place,
    /// The content of the record's country field, if it names no country.
    code: Option<String>,
}

/// A record as it is kept while the database is read.
#[derive(Clone, Copy)]
struct Entry {
    /// The index of the record's place in `places`.
    place: u32,
    /// The index of the record's code in `unknown_codes`, if its code names no country.
    code: Option<usize>,
}

/// The different places and unknown codes that were found so far, and the records that were decoded.
struct Interned {
    places: Vec<Place>,
    /// The index of each place in `places`.
    by_place: HashMap<Place, u32>,
    unknown_codes: Vec<UnknownCode>,
    /// The decoded records by their offset in the file. Many networks share a record, and decoding is the slow part.
    by_offset: HashMap<usize, Entry>,
}

impl Default for Interned {
    fn default() -> Self {
        let nowhere = Place::default();
        Self {
            places: vec![nowhere],
            by_place: HashMap::from([(nowhere, NOWHERE)]),
            unknown_codes: Vec::new(),
            by_offset: HashMap::new(),
        }
    }
}

impl Interned {
    /// Adds a record that was found at an offset of the file.
    fn enter(&mut self, offset: Option<usize>, record: Record) -> Entry {
        let Record { place, code } = record;
        let next = u32::try_from(self.places.len()).unwrap_or(NOWHERE);
        let index = *self.by_place.entry(place).or_insert_with(|| {
            self.places.push(place);
            next
        });
        let entry = Entry { place: index, code: code.map(|code| self.enter_code(code)) };
        if let Some(offset) = offset {
            self.by_offset.insert(offset, entry);
        }
        entry
    }

    /// The index of an unknown code. A new code is added; beyond [`MAX_CODES`], new codes count together as `others`.
    fn enter_code(&mut self, code: String) -> usize {
        let position = |codes: &[UnknownCode], code: &str| codes.iter().position(|known| known.code == code);
        if let Some(known) = position(&self.unknown_codes, &code) {
            return known;
        }
        let code = if self.unknown_codes.len() < MAX_CODES { code } else { "others".to_owned() };
        position(&self.unknown_codes, &code).unwrap_or_else(|| {
            self.unknown_codes.push(UnknownCode { code, networks: 0 });
            self.unknown_codes.len() - 1
        })
    }
}

/// Builds ranges from networks that come in ascending order. Addresses between two networks get [`NOWHERE`].
struct RangesInOrder<A> {
    builder: Builder<A>,
    /// The lowest address at which the next network may begin; `None` past the last address.
    next: Option<A>,
}

impl<A: Bits> RangesInOrder<A> {
    fn new() -> Self {
        Self { builder: Builder::new(NOWHERE), next: Some(A::ZERO) }
    }

    /// Adds the network that begins at an address and has a prefix of this length. A network that overlaps the one
    /// before it is left out; this happens only in a damaged file.
    fn add(&mut self, first: A, prefix_length: u8, place: u32) {
        if self.next.is_some_and(|next| first >= next) {
            self.builder.begin(first, place);
            self.next = first.last(prefix_length).after();
            if let Some(next) = self.next {
                self.builder.begin(next, NOWHERE);
            }
        }
    }
}

/// Decodes a record of either layout. A field of another type than expected counts as missing.
fn record_of(record: &LookupResult<'_, &[u8]>, registered: Registered) -> Result<Record, MaxMindDbError> {
    let country_field = match text(record, &[Key("country"), Key("iso_code")])? {
        Some(code) => Some(code),
        None => text(record, &[Key("country_code")])?,
    };
    let mut country = country_field.and_then(CountryCode::parse);
    if country.is_none() && registered == Registered::Counts {
        country = text(record, &[Key("registered_country"), Key("iso_code")])?.and_then(CountryCode::parse);
    }
    let degrees = |name| match number(record, &[Key("location"), Key(name)])? {
        Some(degrees) => Ok(Some(degrees)),
        None => number(record, &[Key(name)]),
    };
    let location = match (degrees("latitude")?, degrees("longitude")?) {
        (Some(latitude), Some(longitude)) => Coordinates::from_degrees(latitude, longitude),
        _ => None,
    };
    let code = country_field.filter(|code| country.is_none() && !code.is_empty());
    let code = code.map(|code| code.chars().take(LONGEST_CODE).collect());
    Ok(Record { place: Place { country, location }, code })
}

/// A text field of a record.
fn text<'a>(record: &LookupResult<'a, &'a [u8]>, path: &[PathElement<'_>]) -> Result<Option<&'a str>, MaxMindDbError> {
    without_wrong_type(record.decode_path(path))
}

/// A number field of a record.
fn number(record: &LookupResult<'_, &[u8]>, path: &[PathElement<'_>]) -> Result<Option<f64>, MaxMindDbError> {
    without_wrong_type(record.decode_path(path))
}

/// Makes a field of an unexpected type a missing field.
fn without_wrong_type<T>(field: Result<Option<T>, MaxMindDbError>) -> Result<Option<T>, MaxMindDbError> {
    match field {
        Err(MaxMindDbError::Decoding { .. }) => Ok(None),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::testing::{DatabaseBuilder, Value, flat, geoip2, real_database};
    use super::*;

    fn at(places: &Places, address: &str) -> (String, Option<(f64, f64)>) {
        let place = places.at(address.parse().unwrap());
        let country = place.country.map_or("-".to_owned(), |country| country.to_string());
        (country, place.location.map(|location| (location.latitude(), location.longitude())))
    }

    #[test]
    fn both_layouts_give_country_and_coordinates() {
        for record in [flat, geoip2] {
            let made = DatabaseBuilder::new(6)
                .add("192.0.2.0/24".parse().unwrap(), &record("DE", Some((50.11, 8.68))))
                .add("2001:db8::/32".parse().unwrap(), &record("GB", None));
            let places = Places::read(&made.bytes()).unwrap();
            assert_eq!(at(&places, "192.0.2.255"), ("DE".to_owned(), Some((50.11, 8.68))));
            assert_eq!(at(&places, "2001:db8:ffff::"), ("GB".to_owned(), None));
            for outside in ["192.0.1.255", "192.0.3.0", "2001:db7:ffff::", "2001:db9::", "::192.0.2.1"] {
                assert_eq!(at(&places, outside), ("-".to_owned(), None), "{outside}");
            }
        }
    }

    #[test]
    fn invalid_countries_and_coordinates_are_unknown() {
        let made = DatabaseBuilder::new(4)
            .add("0.0.0.0/1".parse().unwrap(), &flat("XX", Some((91.0, 0.0))))
            .add("128.0.0.0/2".parse().unwrap(), &flat("FR", Some((48.86, 2.35))))
            .add("224.0.0.0/3".parse().unwrap(), &Value::Map(vec![("country", Value::Text("IT"))]));
        let places = Places::read(&made.bytes()).unwrap();
        assert_eq!(at(&places, "1.2.3.4"), ("-".to_owned(), None));
        assert_eq!(at(&places, "128.2.3.4"), ("FR".to_owned(), Some((48.86, 2.35))));
        assert_eq!(at(&places, "255.255.255.255"), ("-".to_owned(), None), "a map where a text belongs is ignored");
        assert_eq!(at(&places, "::1"), ("-".to_owned(), None), "an IPv4 database has no places of IPv6 addresses");
    }

    #[test]
    fn codes_that_are_not_countries_are_unknown_and_counted() {
        let registered = Value::Map(vec![("registered_country", Value::Map(vec![("iso_code", Value::Text("DE"))]))]);
        let made = DatabaseBuilder::new(4)
            .add("10.0.0.0/24".parse().unwrap(), &geoip2("ZZ", None))
            .add("10.0.1.0/24".parse().unwrap(), &flat("EU", None))
            .add("10.0.2.0/24".parse().unwrap(), &flat("UK", None))
            .add("10.0.4.0/24".parse().unwrap(), &geoip2("ZZ", Some((1.0, 2.0))))
            .add("10.0.5.0/24".parse().unwrap(), &registered)
            .add("10.0.6.0/24".parse().unwrap(), &geoip2("XK", None));
        let places = Places::read(&made.bytes()).unwrap();
        for unknown in ["10.0.0.1", "10.0.1.1", "10.0.2.1", "10.0.4.1", "10.0.5.1"] {
            assert_eq!(at(&places, unknown).0, "-", "{unknown}");
        }
        assert_eq!(at(&places, "10.0.6.1").0, "XK");
        let reported: Vec<_> = places.unknown_codes().iter().map(|code| (code.code.as_str(), code.networks)).collect();
        assert_eq!(reported, [("ZZ", 2), ("EU", 1), ("UK", 1)]);
        let places = Places::read_with(&made.bytes(), Registered::Counts).unwrap();
        assert_eq!((at(&places, "10.0.5.1").0, at(&places, "10.0.0.1").0), ("DE".to_owned(), "-".to_owned()));
    }

    #[test]
    fn beyond_a_limit_codes_that_are_not_countries_are_counted_together() {
        let mut made = DatabaseBuilder::new(4).add("11.0.0.0/8".parse().unwrap(), &flat("DE", None));
        for number in 0..40_u8 {
            let code: &'static str = Box::leak(format!("Q{number}").into_boxed_str());
            made = made.add(format!("10.0.{}.0/24", number * 2).parse().unwrap(), &flat(code, None));
        }
        let made = made.add("10.1.0.0/24".parse().unwrap(), &geoip2("Q3", None));
        let places = Places::read(&made.bytes()).unwrap();
        let reported = places.unknown_codes();
        let networks = reported.iter().find(|unknown| unknown.code == "Q3").map(|unknown| unknown.networks);
        assert_eq!(networks, Some(2), "a code that was listed before the limit still has its own count");
        assert_eq!((reported.len(), &reported[0].code[..], reported[0].networks), (MAX_CODES + 1, "others", 8));
    }

    #[test]
    fn files_without_countries_and_damaged_files_give_different_errors() {
        let asn =
            DatabaseBuilder::new(4).add("1.0.0.0/8".parse().unwrap(), &Value::Map(vec![("asn", Value::Text("13335"))]));
        assert_eq!(Places::read(&asn.bytes()).unwrap_err(), GeoError::Foreign("Test".to_owned()));
        for broken in [&b""[..], b"country,network\nDE,192.0.2.0/24\n", &asn.bytes()[..100]] {
            let error = Places::read(broken).unwrap_err();
            assert!(error.to_string().starts_with("is not a usable MMDB file"), "{error}");
        }
    }

    proptest! {
        /// A damaged file gives an error or some places, never a panic.
        #[test]
        fn damage_never_panics(at in any::<proptest::sample::Index>(), byte in any::<u8>(),
            cut in any::<proptest::sample::Index>()) {
            let made = DatabaseBuilder::new(6)
                .add("192.0.2.0/24".parse().unwrap(), &geoip2("DE", Some((50.11, 8.68))))
                .add("2001:db8::/32".parse().unwrap(), &flat("GB", None));
            let mut bytes = made.bytes();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = Places::read(&bytes);
            let _ = Places::read(&bytes[..cut.index(bytes.len())]);
        }
    }

    #[test]
    fn countries_of_the_real_database_equal_those_the_maxminddb_crate_looks_up() {
        let Some(path) = real_database() else { return };
        let bytes = std::fs::read(path).unwrap();
        let begun = std::time::Instant::now();
        let places = Places::read(&bytes).unwrap();
        let took = begun.elapsed();
        let ranges = (places.v4.len(), places.v6.len());
        eprintln!(
            "{} places, {ranges:?} ranges, {} kB, read in {took:?}",
            places.places.len(),
            (ranges.0 * 8 + ranges.1 * 20) / 1024
        );

        let reader = Reader::from_source(&bytes[..]).unwrap();
        let mut numbers = (0_u32..).map(|n| n.wrapping_mul(2_654_435_769)); // evenly over the space
        for number in numbers.by_ref().take(100_000) {
            let v4 = IpAddr::from(number.to_be_bytes());
            let v6 = IpAddr::from((0x2_u128 << 124 | u128::from(number) << 92 | 1).to_be_bytes());
            for address in [v4, v6] {
                let read: Option<&str> = reader.lookup(address).unwrap().decode_path(&[Key("country_code")]).unwrap();
                // The crate's `Reader` looks an IPv6 address that carries an IPv4 address up as IPv4. Here
                // `client_at` does that, so such addresses aren't compared.
                if crate::locate::carrier::carried(address).is_none() {
                    assert_eq!(places.at(address).country, read.and_then(CountryCode::parse), "{address}");
                }
            }
        }
    }
}
