//! What is asked. Takes what is served, returns queries in wire format and what their answers have to be. Called by
//! `load`, which writes millions of them, and by `check`, which asks a few and looks closely.

use std::net::{IpAddr, Ipv4Addr};

use maxminddb::PathElement;

use crate::mmdb::Flat;
use crate::world::{Country, ORIGIN, STATIC_LETTERS, STEERED, label, static_address};

/// How many letters the first label of a name that isn't there has: not as many as one that is.
const MISSING_LETTERS: usize = 12;
/// How many prefixes the steered name is asked for.
const PREFIXES: u32 = 65_536;
/// The length of a DNS header in octets.
const HEADER: usize = 12;

/// A kind of question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum)]
pub(crate) enum Kind {
    /// Static names, each with an address of its own.
    Static,
    /// One steered name, asked on behalf of clients all over the world (EDNS Client Subnet).
    Steered,
    /// Names that don't exist, none twice.
    Missing,
}

impl Kind {
    /// As it is written.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Static => "static",
            Self::Steered => "steered",
            Self::Missing => "missing",
        }
    }
}

/// Queries of one kind, all of the same length.
#[derive(Debug)]
pub(crate) struct Workload {
    /// Its kind.
    pub(crate) kind: Kind,
    template: Vec<u8>,
    /// Where in it is what differs.
    at: usize,
    varying: Varying,
    /// The response code of a right answer.
    pub(crate) rcode: u8,
    /// How many records its answer section has.
    pub(crate) records: u16,
}

#[derive(Debug)]
enum Varying {
    /// A name by its number, of so many.
    Name(u32),
    /// A /24 with the address its clients are to be told.
    Prefix(Vec<(u32, Ipv4Addr)>),
    /// A name that was never asked before.
    Fresh,
}

/// What queries are drawn by.
#[derive(Debug)]
pub(crate) struct Draw {
    state: u64,
    /// How many missing names were made of it, over all runs.
    fresh: u64,
}

impl Draw {
    /// A beginning.
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed | 1, fresh: 0 }
    }

    /// A random number of 32 bits: xorshift64*.
    pub(crate) fn next(&mut self) -> u32 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        (self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }

    /// A random number below `count`.
    fn below(&mut self, count: u32) -> u32 {
        ((u64::from(self.next()) * u64::from(count)) >> 32) as u32
    }
}

impl Workload {
    /// Static names, so many.
    pub(crate) fn of_static(names: u32) -> Self {
        let template = query(&"x".repeat(STATIC_LETTERS), &[]);
        Self { kind: Kind::Static, template, at: HEADER + 1, varying: Varying::Name(names), rcode: 0, records: 1 }
    }

    /// Names that aren't there.
    pub(crate) fn of_missing() -> Self {
        let template = query(&"x".repeat(MISSING_LETTERS), &[]);
        Self { kind: Kind::Missing, template, at: HEADER + 1, varying: Varying::Fresh, rcode: 3, records: 0 }
    }

    /// The steered name, for random /24 of the database that each lie within one country: there is one right answer.
    ///
    /// # Errors
    /// When the database is damaged, or has no countries.
    pub(crate) fn of_steered(flat: &Flat, countries: &[Country]) -> Result<Self, String> {
        let fault = |error: maxminddb::MaxMindDbError| format!("the country database can't be read: {error}");
        let mut draw = Draw::new(24);
        let mut prefixes = Vec::with_capacity(PREFIXES as usize);
        for _ in 0..PREFIXES * 20 {
            if prefixes.len() == PREFIXES as usize {
                break;
            }
            let first = draw.next() & 0xffff_ff00;
            let found = flat.lookup(IpAddr::V4(first.into())).map_err(fault)?;
            let Some(code) = found.decode_path::<String>(&[PathElement::Key("country_code")]).map_err(fault)? else {
                continue;
            };
            let whole = found.network().map_err(fault)?.prefix() <= 24;
            if let (true, Some(country)) = (whole, countries.iter().find(|country| country.code.as_str() == code)) {
                prefixes.push((first, country.site.address));
            }
        }
        if prefixes.len() < PREFIXES as usize {
            return Err("the country database knows hardly any IPv4 network; run scripts/setup npm".to_owned());
        }
        // EDNS Client Subnet (RFC 7871 §6): IPv4, a source of 24 bits, no scope, three octets of address.
        let template = query(STEERED, &[0, 8, 0, 7, 0, 1, 24, 0, 0, 0, 0]);
        let at = template.len() - 3;
        Ok(Self { kind: Kind::Steered, template, at, varying: Varying::Prefix(prefixes), rcode: 0, records: 1 })
    }

    /// The length of each query in octets.
    pub(crate) fn length(&self) -> usize {
        self.template.len()
    }

    /// How many different questions there are; `None`: no end of them.
    pub(crate) fn questions(&self) -> Option<usize> {
        match &self.varying {
            Varying::Name(names) => Some(*names as usize),
            Varying::Prefix(prefixes) => Some(prefixes.len()),
            Varying::Fresh => None,
        }
    }

    /// A query, whole but for its id, as room for others.
    pub(crate) fn template(&self) -> &[u8] {
        &self.template
    }

    /// Makes a new query of an old one in `packet` and returns the address that is to be answered, if one is.
    #[inline]
    pub(crate) fn write(&self, id: u16, draw: &mut Draw, packet: &mut [u8]) -> Option<Ipv4Addr> {
        packet[..2].copy_from_slice(&id.to_be_bytes());
        let varying = &mut packet[self.at..];
        match &self.varying {
            Varying::Name(names) => {
                let number = draw.below(*names);
                label(number.into(), STATIC_LETTERS, varying);
                Some(static_address(number))
            }
            Varying::Prefix(prefixes) => {
                let (first, address) = prefixes[draw.below(PREFIXES) as usize];
                varying[..3].copy_from_slice(&first.to_be_bytes()[..3]);
                Some(address)
            }
            Varying::Fresh => {
                draw.fresh += 1;
                label(draw.fresh, MISSING_LETTERS, varying);
                None
            }
        }
    }
}

/// A query for the A record of a name of the zone, with EDNS (a payload of 1,232 octets) and its options.
#[allow(clippy::cast_possible_truncation)] // labels and options are constants, far shorter than an octet counts
fn query(first: &str, options: &[u8]) -> Vec<u8> {
    let mut packet = vec![0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    for part in [first].into_iter().chain(ORIGIN.split('.')) {
        packet.push(part.len() as u8);
        packet.extend(part.as_bytes());
    }
    packet.extend([0, 0, 1, 0, 1]);
    packet.extend([0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, options.len() as u8]);
    packet.extend(options);
    packet
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use hickory_proto::op::Message;

    use super::*;
    use crate::world::static_label;

    fn written(workload: &Workload, draw: &mut Draw) -> (Message, Option<Ipv4Addr>) {
        let mut packet = workload.template().to_vec();
        let address = workload.write(4711, draw, &mut packet);
        assert_eq!(packet.len(), workload.length());
        (Message::from_vec(&packet).unwrap(), address)
    }

    #[test]
    fn static_queries_ask_for_names_of_the_zone() {
        let (workload, mut draw) = (Workload::of_static(3), Draw::new(1));
        let mut asked = HashSet::new();
        for _ in 0..100 {
            let (message, address) = written(&workload, &mut draw);
            let name = message.queries[0].name().to_string();
            let number = (0..3).find(|&number| name == format!("{}.{ORIGIN}.", static_label(number))).unwrap();
            assert_eq!(address, Some(static_address(number)));
            assert_eq!((message.metadata.id, message.edns.unwrap().max_payload()), (4711, 1232));
            asked.insert(number);
        }
        assert_eq!(asked.len(), 3, "every name is asked");
    }

    #[test]
    fn missing_names_never_repeat() {
        let (workload, mut draw) = (Workload::of_missing(), Draw::new(1));
        let names: HashSet<String> =
            (0..10_000).map(|_| written(&workload, &mut draw).0.queries[0].name().to_string()).collect();
        assert_eq!(names.len(), 10_000);
        assert!(names.iter().all(|name| name.len() == MISSING_LETTERS + 1 + ORIGIN.len() + 1));
    }
}
