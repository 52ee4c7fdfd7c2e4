//! The GeoIP database. Takes the bytes of an MMDB file, returns the places of all address ranges. Called by the feed of
//! files; `classes` looks addresses up.
//!
//! Two layouts are understood: GeoIP2 (`country.iso_code`, `location.latitude`, `location.longitude`) and flat
//! (`country_code`, `latitude`, `longitude`). Every network is read once at load, and the file's bytes aren't kept.

#[cfg(test)]
pub(crate) mod testing;

use std::collections::HashMap;
use std::net::IpAddr;

use bailiwick_rules::geo::{Coordinates, CountryCode};
use bailiwick_rules::time::Timestamp;
use maxminddb::PathElement::{self, Key};
use maxminddb::{LookupResult, MaxMindDbError, Reader, WithinOptions};

use crate::locate::ranges::{Bits, Builder, Ranges};

/// What a database knows of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Place {
    /// The country.
    pub country: Option<CountryCode>,
    /// The coordinates.
    pub location: Option<Coordinates>,
}

/// The places of all addresses.
#[derive(Debug)]
pub(crate) struct Places {
    v4: Ranges<u32>,
    v6: Ranges<u128>,
    /// By the ranges' values; the first is nowhere.
    places: Vec<Place>,
    unknown_codes: Vec<UnknownCode>,
    /// When it was built.
    built: Option<Timestamp>,
}

/// A code that a database has instead of a country's, such as `ZZ`. Clients in its networks are unknown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UnknownCode {
    /// The code, shortened.
    pub code: String,
    /// How many networks have it.
    pub networks: u64,
}

/// Whether a network counts as being in the country where it is registered, if the database doesn't know its country.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Registered {
    /// It doesn't. An address is registered where its owner has an office, but may be used anywhere.
    #[default]
    Ignored,
    /// It does, because the operator says so.
    Counts,
}

/// Why a file is of no use as a GeoIP database.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GeoError {
    /// No MMDB at all, or a damaged one.
    #[error("is not a usable MMDB file ({0}); download it again and check that it was unpacked")]
    Broken(String),
    /// An MMDB about something else.
    #[error(
        "is an MMDB of type {0:?} in which no record has a country (neither country.iso_code nor country_code); use a \
         country or city database"
    )]
    Foreign(String),
}

/// The value of ranges of which nothing is known.
const NOWHERE: u32 = 0;
/// How many codes that aren't a country's are counted separately. A database has a handful.
const MAX_CODES: usize = 32;
/// How many characters of such a code are kept.
const LONGEST_CODE: usize = 12;

impl Places {
    /// No database: nothing is known of any address.
    #[must_use]
    pub(crate) fn none() -> Self {
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
    /// When the bytes are no MMDB, a damaged one, or one without countries.
    #[cfg(test)]
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, GeoError> {
        Self::read_with(bytes, Registered::Ignored)
    }

    /// Reads a database.
    ///
    /// # Errors
    /// When the bytes are no MMDB, a damaged one, or one without countries.
    pub(crate) fn read_with(bytes: &[u8], registered: Registered) -> Result<Self, GeoError> {
        let broken = |error: MaxMindDbError| GeoError::Broken(error.to_string());
        let reader = Reader::from_source(bytes).map_err(broken)?;
        let (mut v4, mut v6) = (Run::<u32>::new(), Run::<u128>::new());
        let mut interned = Interned::default();
        for network in reader.networks(WithinOptions::default()).map_err(broken)? {
            let network = network.map_err(broken)?;
            let Entry { place, code } = match network.offset().and_then(|offset| interned.by_offset.get(&offset)) {
                Some(&entry) => entry,
                None => interned.enter(network.offset(), record_of(&network, registered).map_err(broken)?),
            };
            if let Some(reported) = code.and_then(|code| interned.unknown_codes.get_mut(code)) {
                reported.networks += 1;
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
        Ok(Self { v4: v4.built.finish(), v6: v6.built.finish(), places: interned.places, unknown_codes, built })
    }

    /// When the database was built, as it says itself.
    #[must_use]
    pub(crate) fn built(&self) -> Option<Timestamp> {
        self.built
    }

    /// The codes that aren't a country's, the most frequent first.
    #[must_use]
    pub(crate) fn unknown_codes(&self) -> &[UnknownCode] {
        &self.unknown_codes
    }

    /// What is known of an address. An IPv4 address inside an IPv6 address isn't looked for.
    #[must_use]
    pub(crate) fn at(&self, address: IpAddr) -> Place {
        let number = match address {
            IpAddr::V4(address) => self.v4.value(address.to_bits()),
            IpAddr::V6(address) => self.v6.value(address.to_bits()),
        };
        self.places[number as usize]
    }

    /// All places by number; number 0 is nowhere.
    #[must_use]
    pub(crate) fn all(&self) -> &[Place] {
        &self.places
    }

    /// The numbers of places by IPv4 address.
    #[must_use]
    pub(crate) fn v4(&self) -> &Ranges<u32> {
        &self.v4
    }

    /// The numbers of places by IPv6 address.
    #[must_use]
    pub(crate) fn v6(&self) -> &Ranges<u128> {
        &self.v6
    }
}

/// What one record says.
struct Record {
    place: Place,
    /// What it has in the place of its country's code, if it isn't one.
    code: Option<String>,
}

/// What is kept of a record.
#[derive(Clone, Copy)]
struct Entry {
    /// The number of its place.
    place: u32,
    /// The position of its code among those that aren't a country's.
    code: Option<usize>,
}

/// The different places, by number, and the records that have been read.
struct Interned {
    places: Vec<Place>,
    by_place: HashMap<Place, u32>,
    unknown_codes: Vec<UnknownCode>,
    /// Many networks share a record, and decoding is the slow part.
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
    fn enter(&mut self, offset: Option<usize>, record: Record) -> Entry {
        let Record { place, code } = record;
        let next = u32::try_from(self.places.len()).unwrap_or(NOWHERE);
        let number = *self.by_place.entry(place).or_insert_with(|| {
            self.places.push(place);
            next
        });
        let entry = Entry { place: number, code: code.map(|code| self.enter_code(code)) };
        if let Some(offset) = offset {
            self.by_offset.insert(offset, entry);
        }
        entry
    }

    /// The position of a code that isn't a country's. A new one is added. When there are too many, the rest count
    /// as `others`.
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

/// Builds ranges from networks in ascending order with gaps between them.
struct Run<A> {
    built: Builder<A>,
    /// Where the next network may begin; `None` past the last address.
    next: Option<A>,
}

impl<A: Bits> Run<A> {
    fn new() -> Self {
        Self { built: Builder::new(NOWHERE), next: Some(A::ZERO) }
    }

    fn add(&mut self, network: A, length: u8, place: u32) {
        // Networks come in order. Only in a damaged file can one begin before the end of the last.
        if self.next.is_some_and(|next| network >= next) {
            self.built.begin(network, place);
            self.next = network.last(length).after();
            if let Some(next) = self.next {
                self.built.begin(next, NOWHERE);
            }
        }
    }
}

/// What a record says in either layout. A field of another type than expected counts as missing.
fn record_of(record: &LookupResult<'_, &[u8]>, registered: Registered) -> Result<Record, MaxMindDbError> {
    let said = match text(record, &[Key("country"), Key("iso_code")])? {
        Some(code) => Some(code),
        None => text(record, &[Key("country_code")])?,
    };
    let mut country = said.and_then(CountryCode::parse);
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
    let code = said.filter(|code| country.is_none() && !code.is_empty());
    let code = code.map(|code| code.chars().take(LONGEST_CODE).collect());
    Ok(Record { place: Place { country, location }, code })
}

fn text<'a>(record: &LookupResult<'a, &'a [u8]>, path: &[PathElement<'_>]) -> Result<Option<&'a str>, MaxMindDbError> {
    tolerant(record.decode_path(path))
}

fn number(record: &LookupResult<'_, &[u8]>, path: &[PathElement<'_>]) -> Result<Option<f64>, MaxMindDbError> {
    tolerant(record.decode_path(path))
}

fn tolerant<T>(field: Result<Option<T>, MaxMindDbError>) -> Result<Option<T>, MaxMindDbError> {
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
        assert_eq!(at(&places, "255.255.255.255"), ("-".to_owned(), None), "a field of another type is a missing one");
        assert_eq!(at(&places, "::1"), ("-".to_owned(), None), "an IPv4 database says nothing of IPv6");
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
        let reported: Vec<_> = places.unknown_codes().iter().map(|one| (one.code.as_str(), one.networks)).collect();
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
        let known = reported.iter().find(|one| one.code == "Q3").map(|one| one.networks);
        assert_eq!(known, Some(2), "a code that is listed already is still counted by itself");
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
    fn the_real_database_gives_what_the_maxminddb_crate_reads() {
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
                // Its reader follows the IPv4 aliases inside IPv6; this one leaves them to `locate`.
                if crate::locate::classes::carried(address).is_none() {
                    assert_eq!(places.at(address).country, read.and_then(CountryCode::parse), "{address}");
                }
            }
        }
    }
}
