//! The records of a zone's files as they were read. `file` adds them one by one, `compile` reads them.
//!
//! A zone is compiled again whenever the rules change, so its records are kept as long as the zone is served. All
//! records are in one piece of memory. A record takes some 20 octets more than its name and its data. With allocations
//! of its own for each record, it would take about a hundred more.

use std::fmt;
use std::sync::Arc;

use super::Location;
use crate::protocol::name::NameRef;

/// The records of one zone, in the order they were written.
///
/// ```
/// use bailiwick_dns::{protocol::name::Name, zone::file};
/// let origin: Name = "example.com".parse().unwrap();
/// let text = b"$TTL 1h\n@ SOA ns hostmaster 1 3600 600 86400 60\n  NS ns\nns A 192.0.2.53\n";
/// let records = file::parse(text, "example.zone", &origin, &mut |_| Err("no files here".into())).unwrap();
/// let last = records.iter().last().unwrap();
/// assert_eq!((records.len(), last.owner.to_string().as_str()), (3, "ns.example.com."));
/// assert_eq!(last.rdata, [192, 0, 2, 53]);
/// assert_eq!(last.place().to_string(), "example.zone:4");
/// ```
///
/// A copy shares the memory.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Records(Arc<Packed>);

#[derive(Clone, Default, PartialEq, Eq)]
struct Packed {
    /// Each record: TTL, line, index in `files`, length of the data (four octets each), type (two octets), owner, data.
    octets: Vec<u8>,
    /// The files in which the records were written.
    files: Vec<Arc<str>>,
    count: usize,
}

/// The position of a record in [`Records`], for [`Records::get`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct At(usize);

/// One record of a zone.
#[derive(Clone, Copy)]
pub struct Record<'r> {
    /// The owner.
    pub owner: NameRef<'r>,
    /// The record type.
    pub rtype: u16,
    /// Time to live in seconds.
    pub ttl: u32,
    /// The data in wire format, names uncompressed.
    pub rdata: &'r [u8],
    /// The file's name as it was given.
    pub file: &'r Arc<str>,
    /// The line, counted from 1.
    pub line: u32,
}

impl Record<'_> {
    /// Where the record was written.
    #[must_use]
    pub fn place(&self) -> Location {
        Location { file: Arc::clone(self.file), line: self.line }
    }
}

impl fmt::Debug for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { owner, rtype, ttl, rdata, .. } = self;
        write!(f, "{owner} {ttl} TYPE{rtype} {rdata:02x?} ({})", self.place())
    }
}

impl Records {
    /// How many records there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.count
    }

    /// Whether there are no records.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.count == 0
    }

    /// All records, in order.
    pub fn iter(&self) -> impl Iterator<Item = Record<'_>> {
        self.placed().map(|(_, record)| record)
    }

    /// All records with their positions.
    pub(super) fn placed(&self) -> impl Iterator<Item = (At, Record<'_>)> {
        let mut next = 0;
        std::iter::from_fn(move || {
            (next < self.0.octets.len()).then(|| {
                let at = At(next);
                let (record, end) = self.0.read(next);
                next = end;
                (at, record)
            })
        })
    }

    /// The record at a position.
    pub(super) fn get(&self, at: At) -> Record<'_> {
        self.0.read(at.0).0
    }

    /// Adds a record.
    pub(super) fn push(&mut self, owner: NameRef<'_>, rtype: u16, ttl: u32, rdata: &[u8], place: &Location) {
        let packed = Arc::make_mut(&mut self.0);
        let numbers = [ttl, place.line, packed.file(&place.file), four(rdata.len())];
        numbers.iter().for_each(|number| packed.octets.extend_from_slice(&number.to_ne_bytes()));
        packed.octets.extend_from_slice(&rtype.to_ne_bytes());
        packed.octets.extend_from_slice(owner.as_wire());
        packed.octets.extend_from_slice(rdata);
        packed.count += 1;
    }

    /// Frees unused capacity, after the last record was added.
    pub(super) fn settle(&mut self) {
        Arc::make_mut(&mut self.0).octets.shrink_to_fit();
    }
}

impl Packed {
    /// The index of a file. Searches from the end, because the records of one file usually follow each other.
    fn file(&mut self, name: &Arc<str>) -> u32 {
        let there = self.files.iter().rposition(|file| file == name).unwrap_or_else(|| {
            self.files.push(Arc::clone(name));
            self.files.len() - 1
        });
        four(there)
    }

    /// The record at `at`, and the position of the next one.
    fn read(&self, at: usize) -> (Record<'_>, usize) {
        const HEAD: usize = 18;
        let octets = &self.octets[at..];
        let number = |index: usize| {
            let bytes = octets[index * 4..].first_chunk().expect("a record begins with its numbers");
            u32::from_ne_bytes(*bytes)
        };
        let rtype = u16::from_ne_bytes(*octets[16..].first_chunk().expect("and its type"));
        let owner = NameRef::from_wire(&octets[HEAD..]).expect("owners are names");
        let data = HEAD + owner.as_wire().len();
        let end = data + number(3) as usize;
        let file = &self.files[number(2) as usize];
        let record = Record { owner, rtype, ttl: number(0), rdata: &octets[data..end], file, line: number(1) };
        (record, at + end)
    }
}

/// A number in four octets.
fn four(number: usize) -> u32 {
    u32::try_from(number).expect("fewer than 2^32 files, and octets of data")
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::name::Name;
    use bailiwick_rules::testing::Random;

    #[test]
    fn records_keep_their_order_and_are_found_again() {
        const CASES: u64 = 500;
        for seed in 0..CASES {
            let mut random = Random::new(seed);
            let files: Vec<Arc<str>> = (0..3).map(|number| Arc::from(format!("{number}.zone"))).collect();
            let mut records = Records::default();
            let mut pushed = Vec::new();
            for line in 0..random.below(20) {
                let owner: Name = ["a.example", ".", "x.y.z.example", "*.b"][random.below(4)].parse().unwrap();
                let rdata: Vec<u8> =
                    (0..[0, 1, 4, 300, 70_000][random.below(5)]).map(|_| random.bits().to_le_bytes()[0]).collect();
                let ttl = u32::from_le_bytes(*random.bits().to_le_bytes().first_chunk().unwrap());
                let place = Location { file: Arc::clone(&files[random.below(3)]), line: u32::try_from(line).unwrap() };
                let rtype = u16::try_from(random.below(65_536)).unwrap();
                records.push(owner.as_ref(), rtype, ttl, &rdata, &place);
                pushed.push((owner, rtype, ttl, rdata, place));
            }
            records.settle();
            let plain = |record: Record<'_>| {
                (record.owner.to_name(), record.rtype, record.ttl, record.rdata.to_vec(), record.place())
            };
            assert_eq!(records.iter().map(plain).collect::<Vec<_>>(), pushed, "seed {seed}");
            assert_eq!((records.len(), records.is_empty()), (pushed.len(), pushed.is_empty()));
            for (at, record) in records.placed() {
                assert_eq!(plain(records.get(at)), plain(record));
            }
        }
        println!("packed records: {CASES} random lists");
    }
}
