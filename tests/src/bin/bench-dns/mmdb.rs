//! Converts the country database. Takes the flat file that `scripts/setup` installs, returns a file in GeoIP2's layout,
//! which gdnsd and Knot can read. All servers of the benchmark use that one. It is written after version 2.0 of the
//! MaxMind DB format's specification. Called by `main`.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;

use maxminddb::{PathElement, Reader, WithinOptions};

use crate::world::Country;

/// The database being converted.
pub(crate) type Flat = Reader<Vec<u8>>;

/// Opens the flat database.
///
/// # Errors
/// When it isn't there or is none.
pub(crate) fn open(path: &Path) -> Result<Flat, String> {
    Reader::open_readfile(path).map_err(|error| format!("{}: {error}; run scripts/setup npm", path.display()))
}

/// Writes every network of a known country in GeoIP2's layout; returns how many there are.
///
/// # Errors
/// When the flat database is damaged.
pub(crate) fn convert(flat: &Flat, countries: &[Country]) -> Result<(Vec<u8>, usize), String> {
    let fault = |error: maxminddb::MaxMindDbError| format!("the country database can't be read: {error}");
    let mut tree = Tree::new();
    let mut records: HashMap<String, usize> = HashMap::new();
    let mut networks = 0;
    for found in flat.networks(WithinOptions::default()).map_err(fault)? {
        let found = found.map_err(fault)?;
        let Some(code) = found.decode_path::<String>(&[PathElement::Key("country_code")]).map_err(fault)? else {
            continue;
        };
        let Some(country) = countries.iter().find(|country| country.code.as_str() == code) else { continue };
        let record = *records.entry(code).or_insert_with(|| tree.record(country));
        let network = found.network().map_err(fault)?;
        let (first, length) = match network.ip() {
            IpAddr::V4(first) => (u128::from(first.to_bits()), network.prefix() + 96),
            IpAddr::V6(first) => (first.to_bits(), network.prefix()),
        };
        tree.enter(first, length, record);
        networks += 1;
    }
    Ok((tree.bytes()?, networks))
}

/// A binary trie of IPv6 addresses, with IPv4 at `::/96`, and the records its leaves point at.
struct Tree {
    nodes: Vec<[Slot; 2]>,
    data: Vec<u8>,
}

#[derive(Clone, Copy)]
enum Slot {
    Empty,
    Node(usize),
    /// Where the record begins in the data.
    Record(usize),
}

impl Tree {
    fn new() -> Self {
        Self { nodes: vec![[Slot::Empty; 2]], data: Vec::new() }
    }

    /// Adds what is said of a country.
    fn record(&mut self, country: &Country) -> usize {
        let start = self.data.len();
        let data = &mut self.data;
        map(data, 2);
        text(data, "continent");
        map(data, 1);
        text(data, "code");
        text(data, country.continent);
        text(data, "country");
        map(data, 1);
        text(data, "iso_code");
        text(data, country.code.as_str());
        start
    }

    /// Says of a prefix, which isn't within another, that it has a record.
    fn enter(&mut self, first: u128, length: u8, record: usize) {
        let mut node = 0;
        for depth in 0..length {
            let side = usize::from(first >> (127 - depth) & 1 == 1);
            if depth + 1 == length {
                self.nodes[node][side] = Slot::Record(record);
            } else if let Slot::Node(next) = self.nodes[node][side] {
                node = next;
            } else {
                self.nodes.push([Slot::Empty; 2]);
                let next = self.nodes.len() - 1;
                self.nodes[node][side] = Slot::Node(next);
                node = next;
            }
        }
    }

    /// The file: the tree by numbers of 32 bits, the data, and the metadata behind its marker.
    fn bytes(&self) -> Result<Vec<u8>, String> {
        let number = |number: usize| {
            u32::try_from(number).map(u32::to_be_bytes).map_err(|_| "the country database is too large".to_owned())
        };
        let count = self.nodes.len();
        let mut bytes = Vec::with_capacity(8 * count + self.data.len() + 512);
        for slot in self.nodes.iter().flatten() {
            bytes.extend(number(match *slot {
                Slot::Empty => count,
                Slot::Node(node) => node,
                Slot::Record(offset) => count + 16 + offset,
            })?);
        }
        bytes.extend([0; 16]);
        bytes.extend(&self.data);
        bytes.extend(b"\xab\xcd\xefMaxMind.com");
        let into = &mut bytes;
        map(into, 9);
        for (name, value) in [("binary_format_major_version", 2), ("binary_format_minor_version", 0)] {
            text(into, name);
            into.extend([5 << 5 | 2, 0, value]);
        }
        text(into, "build_epoch");
        into.extend([1, 2, 1]); // of 64 bits: an extended type, 7 + 2, here of one octet
        text(into, "database_type");
        text(into, "Bench-Country");
        text(into, "description");
        map(into, 1);
        text(into, "en");
        text(into, "Countries for a benchmark");
        text(into, "ip_version");
        into.extend([5 << 5 | 2, 0, 6]);
        text(into, "languages");
        into.extend([0, 4]); // an empty array: 7 + 4
        text(into, "node_count");
        into.push(6 << 5 | 4);
        into.extend(number(count)?);
        text(into, "record_size");
        into.extend([5 << 5 | 2, 0, 32]);
        Ok(bytes)
    }
}

fn map(into: &mut Vec<u8>, fields: u8) {
    into.push(7 << 5 | fields);
}

/// Text of at most 28 octets: what is longer would need another form of length.
fn text(into: &mut Vec<u8>, text: &str) {
    let length = u8::try_from(text.len()).unwrap_or(u8::MAX);
    debug_assert!(length < 29, "{text}");
    into.push(2 << 5 | length);
    into.extend(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::countries;

    #[test]
    fn what_is_written_can_be_read_again() {
        let countries = countries();
        let of = |code: &str| *countries.iter().find(|country| country.code.as_str() == code).unwrap();
        let mut tree = Tree::new();
        let (germany, japan) = (tree.record(&of("DE")), tree.record(&of("JP")));
        tree.enter(u128::from(0x5b00_0000_u32), 8 + 96, germany);
        tree.enter(0x2001_0db8 << 96, 32, japan);
        let reader = Reader::from_source(tree.bytes().unwrap()).unwrap();
        reader.verify().unwrap();
        let code = |address: &str, path: [&str; 2]| {
            let path = path.map(PathElement::Key);
            reader.lookup(address.parse().unwrap()).unwrap().decode_path::<String>(&path).unwrap()
        };
        assert_eq!(code("91.1.2.3", ["country", "iso_code"]).as_deref(), Some("DE"));
        assert_eq!(code("91.1.2.3", ["continent", "code"]).as_deref(), Some("EU"));
        assert_eq!(code("2001:db8::1", ["country", "iso_code"]).as_deref(), Some("JP"));
        assert_eq!(code("192.0.2.1", ["country", "iso_code"]), None);
    }
}
