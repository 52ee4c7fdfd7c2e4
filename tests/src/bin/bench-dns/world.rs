//! What all servers serve. Takes a number of names, returns the zone, the sites to which countries are steered, and
//! their addresses. `peers` writes them as each server's configuration, and `workload` expects them in answers.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use bailiwick_rules::geo::{Coordinates, CountryCode, centroid};
use serde_json::{Value, json};

/// The zone.
pub(crate) const ORIGIN: &str = "bench.test";
/// The steered name's first label.
pub(crate) const STEERED: &str = "geo";
/// Its TTL in seconds.
pub(crate) const STEERED_TTL: u32 = 30;
/// How many letters a static name's first label has.
pub(crate) const STATIC_LETTERS: usize = 8;
/// What clients of no country get.
pub(crate) const ELSEWHERE: Site =
    Site { name: "elsewhere", latitude: 0.0, longitude: 0.0, address: Ipv4Addr::new(198, 51, 100, 99) };

/// A place with an address that clients are steered to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Site {
    /// Its name: letters only, as every server takes those.
    pub(crate) name: &'static str,
    latitude: f64,
    longitude: f64,
    /// Its address.
    pub(crate) address: Ipv4Addr,
}

const fn site(name: &'static str, latitude: f64, longitude: f64, last: u8) -> Site {
    Site { name, latitude, longitude, address: Ipv4Addr::new(198, 51, 100, last) }
}

/// The sites.
pub(crate) const SITES: [Site; 12] = [
    site("frankfurt", 50.1, 8.7, 1),
    site("london", 51.5, -0.1, 2),
    site("stockholm", 59.3, 18.1, 3),
    site("virginia", 38.9, -77.4, 4),
    site("oregon", 45.8, -119.7, 5),
    site("saopaulo", -23.6, -46.6, 6),
    site("capetown", -33.9, 18.4, 7),
    site("lagos", 6.5, 3.4, 8),
    site("mumbai", 19.1, 72.9, 9),
    site("singapore", 1.4, 103.8, 10),
    site("tokyo", 35.7, 139.7, 11),
    site("sydney", -33.9, 151.2, 12),
];

/// A country with where it is steered to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Country {
    /// ISO 3166-1 alpha-2.
    pub(crate) code: CountryCode,
    /// A continent's code by GeoIP2, as gdnsd finds countries within continents. It goes by the middle of the country's
    /// land and is coarse.
    pub(crate) continent: &'static str,
    /// The nearest site.
    pub(crate) site: Site,
}

/// Every country there is, by code.
pub(crate) fn countries() -> Vec<Country> {
    let codes = (b'A'..=b'Z').flat_map(|first| (b'A'..=b'Z').map(move |second| [first, second]));
    codes
        .filter_map(|code| {
            let code = CountryCode::parse(str::from_utf8(&code).ok()?)?;
            let middle = centroid(code)?;
            Some(Country { code, continent: continent(middle), site: nearest(middle) })
        })
        .collect()
}

fn nearest(middle: Coordinates) -> Site {
    let away = |site: &Site| {
        Coordinates::from_degrees(site.latitude, site.longitude).map_or(u32::MAX, |place| middle.km_to(place))
    };
    SITES.into_iter().min_by_key(away).unwrap_or(ELSEWHERE)
}

fn continent(middle: Coordinates) -> &'static str {
    match (middle.latitude(), middle.longitude()) {
        (..-60.0, _) => "AN",
        (12.0.., ..-30.0) => "NA",
        (_, ..-30.0) => "SA",
        (36.0.., ..40.0) => "EU",
        (_, ..52.0) => "AF",
        (..-10.0, _) | (_, 140.0..) => "OC",
        _ => "AS",
    }
}

/// `length` letters that no other `number` below 32^`length` gets: as random as needed, and found without a table.
pub(crate) fn label(number: u64, length: usize, into: &mut [u8]) {
    let bits = 5 * length;
    let mask = u64::MAX >> (64 - bits.clamp(1, 64));
    // Each step can be undone, so that numbers stay distinct.
    let mut mixed = number & mask;
    for _ in 0..2 {
        mixed = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) & mask;
        mixed ^= mixed >> (bits / 2);
    }
    for letter in into.iter_mut().take(length) {
        *letter = b"abcdefghijklmnopqrstuvwxyz234567"[usize::from(mixed.to_le_bytes()[0] & 31)];
        mixed >>= 5;
    }
}

/// The first label of static name number `number`.
pub(crate) fn static_label(number: u32) -> String {
    let mut letters = [0; STATIC_LETTERS];
    label(number.into(), STATIC_LETTERS, &mut letters);
    letters.iter().map(|&letter| char::from(letter)).collect()
}

/// Its address.
pub(crate) fn static_address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0a00_0000 | number)
}

/// The master file, with `steered` as the steered name's record, if the server has it there at all.
pub(crate) fn zone(names: u32, steered: Option<&str>) -> String {
    let mut text = format!(
        "$ORIGIN {ORIGIN}.\n$TTL 3600\n@ IN SOA ns1.{ORIGIN}. hostmaster.{ORIGIN}. 1 7200 1800 1209600 300\n\
         @ IN NS ns1.{ORIGIN}.\n@ IN NS ns2.{ORIGIN}.\nns1 IN A 192.0.2.53\nns2 IN A 192.0.2.54\n"
    );
    if let Some(record) = steered {
        let _ = writeln!(text, "{STEERED} {STEERED_TTL} IN {record}");
    }
    for number in 0..names {
        let _ = writeln!(text, "{} IN A {}", static_label(number), static_address(number));
    }
    text
}

/// The map as rules: a jurisdiction of each site's countries, whose clients are processed there and nowhere else.
pub(crate) fn rules(countries: &[Country]) -> Value {
    let mut jurisdictions = serde_json::Map::new();
    let mut regions = serde_json::Map::new();
    let mut residency = Vec::new();
    for site in SITES {
        let codes: Vec<&str> =
            countries.iter().filter(|country| country.site == site).map(|country| country.code.as_str()).collect();
        let Some(first) = codes.first() else { continue };
        regions.insert(site.name.to_owned(), json!({ "countries": [first], "answers": { "A": [site.address] } }));
        jurisdictions.insert(site.name.to_owned(), json!({ "countries": codes }));
        residency.push(json!({ "clients": [site.name], "process_in": [site.name] }));
    }
    // A region has to be somewhere: this one is where nobody asks from.
    jurisdictions.insert(ELSEWHERE.name.to_owned(), json!({ "countries": ["BV"] }));
    regions.insert(ELSEWHERE.name.to_owned(), json!({ "countries": ["BV"], "answers": { "A": [ELSEWHERE.address] } }));
    for clients in ["*", "unknown"] {
        residency.push(json!({ "clients": [clients], "process_in": [ELSEWHERE.name] }));
    }
    let regions_named: Vec<&String> = regions.keys().collect();
    let service = json!({
        "hosts": [format!("{STEERED}.{ORIGIN}")], "pattern": "active-active", "regions": regions_named,
        "ttl": { "min": STEERED_TTL, "max": STEERED_TTL }, "residency": residency,
    });
    json!({ "version": 1, "revision": 1, "jurisdictions": jurisdictions, "regions": regions,
        "services": { "geo": service } })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn labels_never_repeat_and_have_their_length() {
        let labels: HashSet<String> = (0..100_000).map(static_label).collect();
        assert_eq!(labels.len(), 100_000);
        assert!(labels.iter().all(|label| label.len() == STATIC_LETTERS));
        let long: HashSet<[u8; 12]> = (0..100_000)
            .map(|number| {
                let mut letters = [0; 12];
                label(number, 12, &mut letters);
                letters
            })
            .collect();
        assert_eq!(long.len(), 100_000);
    }

    #[test]
    fn countries_have_the_nearest_site_and_the_continent_they_are_on() {
        let countries = countries();
        assert_eq!(countries.len(), 250);
        for (code, continent, site) in [
            ("DE", "EU", "frankfurt"),
            ("GB", "EU", "london"),
            ("JP", "AS", "tokyo"),
            ("NZ", "OC", "sydney"),
            ("BR", "SA", "saopaulo"),
            ("CA", "NA", "oregon"),
            ("NG", "AF", "lagos"),
            ("AQ", "AN", "capetown"),
        ] {
            let country = countries.iter().find(|country| country.code.as_str() == code).unwrap();
            assert_eq!((country.continent, country.site.name), (continent, site), "{code}");
        }
        assert!(SITES.iter().all(|site| countries.iter().any(|country| country.site == *site)), "each has clients");
    }

    #[test]
    fn the_zone_has_every_name_once() {
        let zone = zone(3, Some("A 198.51.100.99"));
        assert_eq!(zone.lines().count(), 7 + 1 + 3);
        assert!(zone.contains(&format!("{} IN A 10.0.0.2\n", static_label(2))));
    }
}
