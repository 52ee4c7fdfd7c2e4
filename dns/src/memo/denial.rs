//! Name errors: one response per zone and form enters as a pattern, from which that for any other missing name is made by moving its
//! compression pointers; [`super::Memo`] keeps the patterns. So a flood of names that don't exist costs little and fills no memory.

use crate::name::NameRef;
use crate::rdata::rtype;
use crate::wire::HEADER;
use crate::zone::Zone;

use super::table::Entry;

/// How many patterns there are room for. Zones whose places coincide take turns.
const PLACES: usize = 256;
/// An apex of more labels, or a name of so many below it, might leave the encoder no room to remember places to point at.
const MOST_LABELS: usize = 16;
/// The pointers that a record of type SOA may have: its owner and two names.
const POINTERS: usize = 3;

/// A zone's response to a name that doesn't exist.
#[derive(Debug)]
pub(super) struct Denial {
    pub(super) entry: Entry,
    /// Where the question of the pattern ends.
    pub(super) question_end: usize,
    /// Where pointers stand, counted from there; `u16::MAX` for none.
    pointers: [u16; POINTERS],
    zone: usize,
    form: u8,
    /// The labels directly below the apex in the names that the SOA names: a name through one of them might be pointed at.
    avoided: [Option<Box<[u8]>>; 2],
}

/// The patterns.
#[derive(Debug)]
pub(super) struct Denials(Box<[Option<Denial>]>);

impl Denials {
    pub(super) fn new() -> Self {
        Self((0..PLACES).map(|_| None).collect())
    }

    pub(super) fn clear(&mut self) {
        self.0.fill_with(|| None);
    }

    /// The pattern for a name in lower case that is missing from `zone`.
    pub(super) fn find(&self, zone: &Zone, form: u8, name: NameRef<'_>) -> Option<&Denial> {
        let denial = self.0[place_of(address(zone), form)].as_ref()?;
        let holds = denial.zone == address(zone) && denial.form == form;
        (holds && denial.is_apart(below_apex(name, zone.origin())?)).then_some(denial)
    }

    /// Keeps a pattern.
    pub(super) fn put(&mut self, denial: Denial) {
        let at = place_of(denial.zone, denial.form);
        self.0[at] = Some(denial);
    }
}

impl Denial {
    /// The pattern that the response to a name in lower case makes, which is missing from `zone`; `None` unless it is of the one form that is
    /// understood: no answer, one SOA of the apex, and perhaps an OPT of `opt` octets behind it.
    pub(super) fn new(zone: &Zone, form: u8, name: NameRef<'_>, opt: usize, entry: Entry) -> Option<Self> {
        if zone.origin().labels().count() > MOST_LABELS {
            return None;
        }
        let wire = entry.wire.bytes();
        let question_end = HEADER + name.as_wire().len() + 4;
        let pointers = pointers(wire.get(question_end..wire.len().checked_sub(opt)?)?)?;
        let label = below_apex(name, zone.origin())?;
        let (primary, mailbox) = two_names(zone.set(zone.apex(), rtype::SOA)?.rdatas.as_ref().first()?)?;
        let avoided = [primary, mailbox].map(|name| {
            let inside = name.is_within(zone.origin()).then(|| below_apex(name, zone.origin())).flatten();
            inside.map(|label| label.to_ascii_lowercase().into())
        });
        let denial = Self { question_end, pointers, zone: address(zone), form, avoided, entry };
        let counts = [0, 0, 0, 1, 0, u8::from(opt != 0)];
        (denial.entry.wire.bytes()[6..HEADER] == counts && denial.is_apart(label)).then_some(denial)
    }

    /// Whether a name through this label below the apex is pointed at by nothing in the SOA.
    fn is_apart(&self, label: &[u8]) -> bool {
        self.avoided.iter().all(|avoided| avoided.as_deref() != Some(label))
    }

    /// Moves the pointers of a response whose question ends at `question_end` and which is the pattern's behind that.
    pub(super) fn shift(&self, out: &mut [u8], question_end: usize) {
        for pointer in self.pointers.iter().take_while(|pointer| **pointer != u16::MAX) {
            let at = question_end + usize::from(*pointer);
            if let Some(octets) = out.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<2>) {
                // Both ends of every pointer lie behind the part of the question that differs.
                let target = usize::from(u16::from_be_bytes(*octets)) + question_end - self.question_end;
                #[allow(clippy::cast_possible_truncation)]
                // a name moves it by at most 255, and it was near the beginning
                let target = target as u16;
                *octets = target.to_be_bytes();
            }
        }
    }
}

/// Where the pointers of a lone SOA record stand, if that is what this is.
fn pointers(soa: &[u8]) -> Option<[u16; POINTERS]> {
    let mut pointers = [u16::MAX; POINTERS];
    let mut free = pointers.iter_mut();
    let mut name = |mut at: usize| loop {
        match *soa.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += usize::from(length) + 1,
            0xc0.. => {
                *free.next()? = u16::try_from(at).ok()?;
                return Some(at + 2);
            }
            _ => return None,
        }
    };
    let head = name(0)?;
    if soa.get(head..head + 2)? != rtype::SOA.to_be_bytes() {
        return None;
    }
    let mailbox = name(head + 10)?;
    let rest = name(mailbox)?;
    (rest + 20 == soa.len()).then_some(pointers)
}

/// The two names that the data of an SOA record begin with.
fn two_names(rdata: &[u8]) -> Option<(NameRef<'_>, NameRef<'_>)> {
    let primary = NameRef::from_wire(rdata).ok()?;
    let mailbox = NameRef::from_wire(&rdata[primary.as_wire().len()..]).ok()?;
    Some((primary, mailbox))
}

/// The label of `name` directly below the apex; `None` for the apex itself and for a name of very many labels.
fn below_apex<'n>(name: NameRef<'n>, apex: NameRef<'_>) -> Option<&'n [u8]> {
    let cut = name.as_wire().len().checked_sub(apex.as_wire().len())?;
    let (mut at, mut label) = (0, None);
    for _ in 0..MOST_LABELS {
        if at >= cut {
            return label;
        }
        let length = usize::from(name.as_wire()[at]);
        label = name.as_wire().get(at + 1..at + 1 + length);
        at += length + 1;
    }
    None
}

/// Zones don't move while the snapshot they are of lives, and a change of zones forgets all patterns.
fn address(zone: &Zone) -> usize {
    std::ptr::from_ref(zone).addr()
}

fn place_of(zone: usize, form: u8) -> usize {
    (zone / align_of::<Zone>() / 2 * 4 + usize::from(form)) % PLACES
}
