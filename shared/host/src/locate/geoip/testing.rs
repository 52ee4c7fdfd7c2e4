//! Makes MMDB files for tests. Takes prefixes with fields, returns the bytes of a database by version 2.0 of the
//! format's specification.

use std::net::IpAddr;

use ipnet::IpNet;

/// A field's value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A text in UTF-8.
    Text(&'static str),
    /// A number.
    Double(f64),
    /// Fields with their names.
    Map(Vec<(&'static str, Value)>),
}

/// Builds a database. Where two prefixes overlap, the later one counts.
#[derive(Debug)]
pub struct DatabaseBuilder {
    nodes: Vec<[Slot; 2]>,
    data: Vec<u8>,
    ip_version: u16,
}

#[derive(Debug, Clone, Copy)]
enum Slot {
    Empty,
    Node(usize),
    Data(usize),
}

impl DatabaseBuilder {
    /// An empty database. `ip_version` 4 means that it holds IPv4 only, 6 that it holds both families.
    #[must_use]
    pub fn new(ip_version: u16) -> Self {
        Self { nodes: vec![[Slot::Empty; 2]], data: Vec::new(), ip_version }
    }

    /// Enters a record for a prefix.
    ///
    /// # Panics
    /// If the prefix is that of all addresses.
    #[must_use]
    pub fn add(mut self, prefix: IpNet, record: &Value) -> Self {
        let at = Slot::Data(self.data.len());
        encode(record, &mut self.data);
        let (bits, width) = match (prefix.network(), self.ip_version) {
            (IpAddr::V4(address), 4) => (u128::from(address.to_bits()) << 96, 0),
            (IpAddr::V4(address), _) => (u128::from(address.to_bits()), 96),
            (IpAddr::V6(address), _) => (address.to_bits(), 0),
        };
        let length = usize::from(prefix.prefix_len()) + width;
        assert!(length > 0, "a database has no record for everything");
        let mut node = 0;
        for depth in 0..length {
            let side = usize::from(bits >> (127 - depth) & 1 == 1);
            if depth + 1 == length {
                self.nodes[node][side] = at;
                break;
            }
            node = match self.nodes[node][side] {
                Slot::Node(next) => next,
                leaf => {
                    self.nodes.push([leaf; 2]);
                    let next = self.nodes.len() - 1;
                    self.nodes[node][side] = Slot::Node(next);
                    next
                }
            };
        }
        self
    }

    /// The file.
    ///
    /// # Panics
    /// If the database has more than 2^32 nodes.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let count = self.nodes.len();
        let mut bytes = Vec::new();
        for slot in self.nodes.iter().flatten() {
            let number = match *slot {
                Slot::Empty => count,
                Slot::Node(node) => node,
                Slot::Data(offset) => count + 16 + offset,
            };
            bytes.extend_from_slice(&u32::try_from(number).unwrap().to_be_bytes());
        }
        bytes.extend_from_slice(&[0; 16]);
        bytes.extend_from_slice(&self.data);
        bytes.extend_from_slice(b"\xab\xcd\xefMaxMind.com");
        bytes.push(7 << 5 | 9);
        let mut field = |name: &str, value: &[u8]| {
            text(name, &mut bytes);
            bytes.extend_from_slice(value);
        };
        field("binary_format_major_version", &[5 << 5 | 1, 2]);
        field("binary_format_minor_version", &[5 << 5]);
        field("build_epoch", &[4, 2, 1, 0, 0, 0]); // a number of 64 bits: type 9 = 7 + 2
        field("database_type", &[2 << 5 | 4, b'T', b'e', b's', b't']);
        field("description", &[7 << 5]);
        field("ip_version", &[5 << 5 | 1, u8::try_from(self.ip_version).unwrap()]);
        field("languages", &[0, 4]); // an empty array: type 11 = 7 + 4
        field("node_count", &[&[6 << 5 | 4][..], &u32::try_from(count).unwrap().to_be_bytes()].concat());
        field("record_size", &[5 << 5 | 1, 32]);
        bytes
    }
}

fn text(text: &str, into: &mut Vec<u8>) {
    assert!(text.len() < 29);
    into.push(2 << 5 | u8::try_from(text.len()).unwrap());
    into.extend_from_slice(text.as_bytes());
}

fn encode(value: &Value, into: &mut Vec<u8>) {
    match value {
        Value::Text(value) => text(value, into),
        Value::Double(value) => {
            into.push(3 << 5 | 8);
            into.extend_from_slice(&value.to_be_bytes());
        }
        Value::Map(fields) => {
            into.push(7 << 5 | u8::try_from(fields.len()).unwrap());
            for (name, value) in fields {
                text(name, into);
                encode(value, into);
            }
        }
    }
}

/// A record of the flat layout.
#[must_use]
pub fn flat(country: &'static str, location: Option<(f64, f64)>) -> Value {
    let mut fields = vec![("country_code", Value::Text(country))];
    if let Some((latitude, longitude)) = location {
        fields.extend([("latitude", Value::Double(latitude)), ("longitude", Value::Double(longitude))]);
    }
    Value::Map(fields)
}

/// A record of the GeoIP2 layout.
#[must_use]
pub fn geoip2(country: &'static str, location: Option<(f64, f64)>) -> Value {
    let mut fields = vec![("country", Value::Map(vec![("iso_code", Value::Text(country))]))];
    if let Some((latitude, longitude)) = location {
        let location = vec![("latitude", Value::Double(latitude)), ("longitude", Value::Double(longitude))];
        fields.push(("location", Value::Map(location)));
    }
    Value::Map(fields)
}

/// The path of the real country database among the repository's npm packages. `None`, with a message on standard error,
/// if it isn't installed.
#[must_use]
pub fn real_database() -> Option<std::path::PathBuf> {
    let package = "node_modules/@ip-location-db/geo-whois-asn-country-mmdb/geo-whois-asn-country.mmdb";
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(package);
    if path.exists() {
        return Some(path);
    }
    eprintln!("SKIPPED: {} is not there; run scripts/setup (or npm ci) to test with the real database", path.display());
    None
}
