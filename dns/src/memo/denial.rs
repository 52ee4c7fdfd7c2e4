//! Name errors: one response per zone and form enters as a pattern, from which that for any other missing name is made by moving its
//! compression pointers; [`super::Memo`] keeps the patterns. So a flood of names that don't exist costs little and fills no memory.

use crate::name::NameRef;
use crate::rdata::rtype;
use crate::zone::Zone;

use super::query::HEADER;
use super::table::Entry;

/// How many patterns there are room for. Zones whose places coincide take turns.
const PLACES: usize = 256;
/// A name of more labels might leave the encoder no room to remember places to point at.
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
        let denial = self.0[place(zone, form)].as_ref()?;
        let holds = denial.zone == address(zone) && denial.form == form;
        let label = below_apex(name, zone.origin())?;
        let apart = |avoided: &Option<Box<[u8]>>| avoided.as_deref() != Some(label);
        (holds && denial.avoided.iter().all(apart)).then_some(denial)
    }

    /// Keeps the response to a name in lower case that is missing from `zone`, unless it isn't of the one form that is understood: no answer,
    /// one SOA of the apex, and perhaps an OPT behind it.
    pub(super) fn put(&mut self, zone: &Zone, form: u8, name: NameRef<'_>, opt: usize, entry: Entry) {
        let question_end = HEADER + name.as_wire().len() + 4;
        let Some(soa) =
            entry.wire.bytes().len().checked_sub(opt).and_then(|end| entry.wire.bytes().get(question_end..end))
        else {
            return;
        };
        let counts = [0, 0, 0, 1, 0, u8::from(opt != 0)];
        let Some(label) = below_apex(name, zone.origin()) else { return };
        let Some(pointers) = pointers(soa) else { return };
        let mut avoided = [None, None];
        let names = zone.set(zone.apex(), rtype::SOA).and_then(|set| set.rdatas.as_ref().first());
        let Some((primary, mailbox)) = names.and_then(two_names) else { return };
        for (place, name) in avoided.iter_mut().zip([primary, mailbox]) {
            if name.is_within(zone.origin()) {
                *place = below_apex(name, zone.origin()).map(|label| label.to_ascii_lowercase().into());
            }
        }
        if entry.wire.bytes()[6..HEADER] == counts && avoided.iter().all(|avoided| avoided.as_deref() != Some(label)) {
            self.0[place(zone, form)] =
                Some(Denial { entry, question_end, pointers, zone: address(zone), form, avoided });
        }
    }
}

impl Denial {
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

fn place(zone: &Zone, form: u8) -> usize {
    (address(zone) / align_of::<Zone>() / 2 * 4 + usize::from(form)) % PLACES
}
