//! Patterns of responses that are alike for many names of a zone. A pattern is the part of a response after the answer
//! section. To answer a query for another name, this module writes the name's own records, appends the pattern, and
//! adjusts the compression pointers of the pattern. Called by [`super::Memo`], which keeps the patterns. Because names
//! share patterns, neither a flood of names that don't exist nor a zone of very many names fills the memory.
//!
//! There are two kinds: name errors, which have no answers, and answers of static records, which are followed by the
//! zone's servers and their addresses.

use smallvec::SmallVec;

use super::query::Query;
use crate::protocol::name::{MAX_NAME, Name, NameRef, case};
use crate::protocol::rdata::rtype;
use crate::response::answer::Rcode;
use crate::response::wire::{Class, HEADER};
use crate::zone::{LookupResult, NodeId, RrSet};
use crate::zones::{Seek, ServedZone};

/// How many places for patterns there are. A place is a hash of zone, EDNS, DO and response code; patterns with the
/// same place replace each other.
const PLACES: usize = 1024;
/// The most labels of an apex, and of a name below it. With more, the encoder might have no room to remember the names
/// that pointers point at.
const MAX_LABELS: usize = 16;
/// The most labels in a pattern that are written out and not replaced by a pointer.
const MAX_NEW_LABELS: usize = 32;
/// How many octets a record has between its owner and its data.
const FIXED: usize = 10;
/// A pointer to the name of the question, which follows the header.
const TO_QUESTION: [u8; 2] = [0xc0, 12];
const _: () = assert!(HEADER == 12);
/// How many positions of pointers are stored without an allocation.
const USUAL: usize = 8;

/// The position of a name in its zone, as far as it matters for patterns.
#[derive(Debug, Clone, Copy)]
pub(super) enum NamePosition {
    /// The name doesn't exist.
    Nowhere,
    /// The name exists.
    At(NodeId),
    /// The name is below a wildcard, a delegation or a DNAME.
    Elsewhere,
}

impl From<LookupResult> for NamePosition {
    fn from(found: LookupResult) -> Self {
        match found {
            LookupResult::Missing => Self::Nowhere,
            LookupResult::Exact(node) => Self::At(node),
            LookupResult::Wildcard(_) | LookupResult::Cut { .. } | LookupResult::Dname { .. } => Self::Elsewhere,
        }
    }
}

/// The answer section that precedes a pattern.
#[derive(Debug, Clone, Copy)]
pub(super) enum Answers<'s> {
    /// The name doesn't exist.
    Missing,
    /// These records of the zone's master file.
    Static(&'s RrSet),
}

impl<'s> Answers<'s> {
    /// The answers to a query for a name at this position, if there may be a pattern for them.
    pub(super) fn of(query: &Query<'_>, zone: &'s ServedZone, position: NamePosition) -> Option<Self> {
        if query.is_dnssec_ok() && zone.signed().is_some() {
            return None; // each name has signatures of its own
        }
        match position {
            NamePosition::Nowhere => Some(Self::Missing),
            // The data of these types holds no names. So no pointer leads into it, and no addresses are added for it.
            NamePosition::At(node) if matches!(query.qtype, rtype::A | rtype::AAAA | rtype::TXT | rtype::CAA) => {
                // If the rules answer a type, the zone file doesn't have that type.
                zone.set(node, query.qtype).filter(|set| !set.rdatas.as_ref().is_empty()).map(Self::Static)
            }
            NamePosition::At(_) | NamePosition::Elsewhere => None,
        }
    }

    pub(super) fn rcode(self) -> Rcode {
        match self {
            Self::Missing => Rcode::NXDOMAIN,
            Self::Static(_) => Rcode::NOERROR,
        }
    }

    pub(super) fn class(self) -> Class {
        match self {
            Self::Missing => Class::Negative,
            Self::Static(_) => Class::Positive,
        }
    }

    /// Writes the records after the question and returns how many there are. Their owner is the name of the question.
    pub(super) fn write(self, out: &mut Vec<u8>) -> u16 {
        let Self::Static(set) = self else { return 0 };
        let ([type_high, type_low], [a, b, c, d]) = (set.rtype.to_be_bytes(), set.ttl.to_be_bytes());
        let mut count = 0;
        for rdata in set.rdatas.as_ref().iter() {
            // No rdata is longer than 65,535 octets.
            let [length_high, length_low] = u16::try_from(rdata.len()).unwrap_or(u16::MAX).to_be_bytes();
            let [to, question] = TO_QUESTION;
            out.extend_from_slice(&[to, question, type_high, type_low, 0, 1, a, b, c, d, length_high, length_low]);
            out.extend_from_slice(rdata);
            count += 1;
        }
        count
    }
}

/// The part of a response after the answers, for one kind of answers of one zone.
#[derive(Debug)]
pub(super) struct Pattern {
    zone: usize,
    form: u8,
    rcode: Rcode,
    /// The third and the fourth octet of the header.
    flags: [u8; 2],
    /// The last four octets of the header: how many records the authority and additional sections have.
    counts: [u8; 4],
    /// The octets, as they were in the response from which the pattern was made. There the answers ended at `start`
    /// and the question at `question_end`.
    tail: Box<[u8]>,
    start: usize,
    question_end: usize,
    /// The positions in `tail` of pointers into the question.
    backwards: SmallVec<[u16; USUAL]>,
    /// The positions in `tail` of pointers into `tail`.
    inwards: SmallVec<[u16; USUAL]>,
    /// For each name in the pattern, its label directly below the apex. A query for a name below one of these labels
    /// can't use the pattern, because names in it could be compressed by pointers to the question.
    avoided: Box<[Box<[u8]>]>,
}

/// All patterns that are kept.
#[derive(Debug)]
pub(super) struct Patterns(Box<[Option<Pattern>]>);

impl Patterns {
    pub(super) fn new() -> Self {
        Self((0..PLACES).map(|_| None).collect())
    }

    pub(super) fn clear(&mut self) {
        self.0.fill_with(|| None);
    }

    /// The pattern for these answers to a query.
    pub(super) fn find(&self, query: &Query<'_>, seek: &Seek<'_>, answers: Answers<'_>) -> Option<&Pattern> {
        let pattern = self.of_kind(query, seek, answers)?;
        pattern.is_apart(top_label(seek.labels(query.name))?).then_some(pattern)
    }

    /// Whether there is a pattern for such answers, even if it can't be used for this name.
    pub(super) fn have(&self, query: &Query<'_>, seek: &Seek<'_>, answers: Answers<'_>) -> bool {
        self.of_kind(query, seek, answers).is_some()
    }

    fn of_kind(&self, query: &Query<'_>, seek: &Seek<'_>, answers: Answers<'_>) -> Option<&Pattern> {
        let (zone, form, rcode) = (address(seek.zone()), query.form, answers.rcode());
        let pattern = self.0[place_of(zone, form, rcode)].as_ref();
        pattern.filter(|pattern| pattern.zone == zone && pattern.form == form && pattern.rcode == rcode)
    }

    /// Keeps a pattern.
    pub(super) fn put(&mut self, pattern: Pattern) {
        let at = place_of(pattern.zone, pattern.form, pattern.rcode);
        self.0[at] = Some(pattern);
    }

    #[cfg(test)]
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Pattern> {
        self.0.iter_mut().flatten()
    }
}

impl Pattern {
    /// Makes a pattern from a response that [`super::patch::bare`] returned. `None` if the response holds anything that
    /// this module doesn't understand.
    pub(super) fn new(query: &Query<'_>, seek: &Seek<'_>, answers: Answers<'_>, response: &[u8]) -> Option<Self> {
        let (zone, question_end) = (seek.zone(), query.question_end());
        if zone.origin().labels().count() > MAX_LABELS {
            return None;
        }
        let mut octets = Vec::new();
        let count = answers.write(&mut octets);
        let (head, rest) = (response.get(..HEADER)?, response.get(question_end..)?);
        let counts = *head.last_chunk::<4>()?;
        let tail = rest.strip_prefix(&octets[..]).filter(|_| head[6..8] == count.to_be_bytes())?;
        let start = response.len() - tail.len();
        // The question's type and class, 4 octets, follow its name.
        let apex_start = question_end - 4 - zone.origin().as_wire().len();
        let mut reader = Reader { response, at: start, pointers: Vec::new(), names: Vec::new() };
        let [authorities_high, authorities_low, additionals_high, additionals_low] = counts;
        let [authorities, additionals] = [[authorities_high, authorities_low], [additionals_high, additionals_low]];
        let records = u32::from(u16::from_be_bytes(authorities)) + u32::from(u16::from_be_bytes(additionals));
        // All but the OPT record, which comes last and holds no names.
        for _ in u32::from(query.has_edns())..records {
            reader.record()?;
        }
        let Reader { at: opt, pointers, names, .. } = reader;
        if response.len() - opt != query.opt_length()
            || names.iter().map(|name| name.new_labels).sum::<usize>() > MAX_NEW_LABELS
        {
            return None;
        }
        let (mut backwards, mut inwards) = (SmallVec::new(), SmallVec::new());
        for at in pointers {
            let target = usize::from(u16::from_be_bytes([response[at] & 0x3f, response[at + 1]]));
            let kind = match target {
                _ if (apex_start..question_end).contains(&target) => &mut backwards,
                _ if target >= start => &mut inwards,
                _ => return None,
            };
            kind.push(u16::try_from(at - start).ok()?);
        }
        let inside = names.iter().filter_map(|name| {
            name.name.as_ref().strip_suffix(zone.origin()).filter(|labels| !labels.is_empty()).map(top_label)
        });
        let avoided = inside.map(|label| label.map(Box::from)).collect::<Option<Box<[_]>>>()?;
        let pattern = Self {
            zone: address(zone),
            form: query.form,
            rcode: answers.rcode(),
            flags: [head[2], head[3]],
            counts,
            tail: response[start..].into(),
            start,
            question_end,
            backwards,
            inwards,
            avoided,
        };
        pattern.is_apart(top_label(seek.labels(query.name))?).then_some(pattern)
    }

    pub(super) fn flags(&self) -> [u8; 2] {
        self.flags
    }

    pub(super) fn counts(&self) -> [u8; 4] {
        self.counts
    }

    /// Whether no name in the pattern could be compressed by a pointer to a question for a name below this label.
    fn is_apart(&self, label: &[u8]) -> bool {
        !self.avoided.iter().any(|avoided| case::same(avoided, label))
    }

    /// Writes the part after the answers.
    pub(super) fn write(&self, question_end: usize, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.tail);
        // Question and answers may be longer or shorter than those of the original response.
        move_pointers(&mut out[start..], &self.backwards, question_end.wrapping_sub(self.question_end));
        move_pointers(&mut out[start..], &self.inwards, start.wrapping_sub(self.start));
    }

    #[cfg(test)]
    pub(super) fn spoil(&mut self) {
        self.tail[FIXED] ^= 1;
    }
}

/// Adds `by` to the targets of the pointers at these positions.
fn move_pointers(tail: &mut [u8], places: &[u16], by: usize) {
    if by == 0 {
        return;
    }
    for at in places {
        if let Some(octets) = tail.get_mut(usize::from(*at)..).and_then(<[u8]>::first_chunk_mut::<2>) {
            // A response that is too long for its pointers is also too long for a datagram, and will be truncated.
            #[allow(clippy::cast_possible_truncation)]
            let target = u16::from_be_bytes(*octets).wrapping_add(by as u16);
            *octets = target.to_be_bytes();
        }
    }
}

/// A name in a response.
struct WrittenName {
    name: Name,
    /// How many labels are written before a pointer.
    new_labels: usize,
}

/// Reads the records after the answers, and collects their names and pointers.
struct Reader<'r> {
    response: &'r [u8],
    at: usize,
    /// The positions of pointers.
    pointers: Vec<usize>,
    names: Vec<WrittenName>,
}

impl Reader<'_> {
    /// Reads one record of a type whose data is understood.
    fn record(&mut self) -> Option<()> {
        self.name()?;
        let fixed = self.response.get(self.at..)?.first_chunk::<FIXED>()?;
        let [type_high, type_low, .., length_high, length_low] = *fixed;
        self.at += FIXED;
        let end = self.at + usize::from(u16::from_be_bytes([length_high, length_low]));
        match u16::from_be_bytes([type_high, type_low]) {
            rtype::A | rtype::AAAA => self.at = end,
            rtype::NS => self.name()?,
            rtype::SOA => {
                self.name()?;
                self.name()?;
                self.at += 20;
            }
            _ => return None,
        }
        (self.at == end).then_some(())
    }

    /// Reads a name, which may be compressed, and notes where its pointers are.
    fn name(&mut self) -> Option<()> {
        let (mut at, mut wire, mut new_labels, mut end) = (self.at, Vec::new(), 0, None);
        while wire.len() <= MAX_NAME {
            match *self.response.get(at)? {
                0 => {
                    wire.push(0);
                    self.at = end.unwrap_or(at + 1);
                    self.names.push(WrittenName { name: NameRef::from_wire(&wire).ok()?.to_name(), new_labels });
                    return Some(());
                }
                length @ 1..=63 => {
                    wire.extend_from_slice(self.response.get(at..=at + usize::from(length))?);
                    new_labels += usize::from(end.is_none());
                    at += usize::from(length) + 1;
                }
                high @ 0xc0.. => {
                    if end.is_none() {
                        self.pointers.push(at);
                        end = Some(at + 2);
                    }
                    let target = usize::from(u16::from_be_bytes([high & 0x3f, *self.response.get(at + 1)?]));
                    // A pointer leads back and each label makes `wire` longer, so the loop ends.
                    at = (target < at).then_some(target)?;
                }
                _ => return None,
            }
        }
        None
    }
}

/// The label directly below the apex; `None` if there are no labels or very many.
fn top_label(labels: &[u8]) -> Option<&[u8]> {
    let mut rest = labels;
    for _ in 0..MAX_LABELS {
        let (length, tail) = rest.split_first()?;
        let (label, tail) = tail.split_at_checked(usize::from(*length))?;
        if tail.is_empty() {
            return Some(label);
        }
        rest = tail;
    }
    None
}

/// The memory address of a zone, which identifies it. Zones don't move while their snapshot lives, and all patterns are
/// forgotten when zones change.
fn address(zone: &ServedZone) -> usize {
    std::ptr::from_ref(zone).addr()
}

fn place_of(zone: usize, form: u8, rcode: Rcode) -> usize {
    (zone / align_of::<ServedZone>() / 2 * 8 + usize::from(form) * 2 + usize::from(rcode != Rcode::NOERROR)) % PLACES
}
