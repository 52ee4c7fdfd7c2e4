//! Domain names. Takes text or the bytes of a packet, returns names in wire format, stored as one run of octets. Used
//! by all code that handles names.
//!
//! [`Name`] owns its bytes, [`NameRef`] borrows them from a packet, a zone or a `Name`. Both keep upper and lower case,
//! but ignore case when they are compared, hashed and sorted (RFC 4343; the order is that of RFC 4034 §6.1).

pub(crate) mod case;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

/// The longest name in wire format, root label included (RFC 1035 §2.3.4).
pub const MAX_NAME: usize = 255;
/// The longest label (RFC 1035 §2.3.4).
pub const MAX_LABEL: usize = 63;
/// The most labels that a name of 255 octets can have, without the root label.
pub const MAX_LABELS: usize = 127;

/// Why a name could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// A label longer than 63 octets.
    #[error("a label is longer than 63 octets; shorten it")]
    LabelTooLong,
    /// A name longer than 255 octets.
    #[error("the name is longer than 255 octets; shorten it")]
    NameTooLong,
    /// Two dots in a row, a leading dot, or no text at all.
    #[error("the name has an empty label; remove the extra dot")]
    EmptyLabel,
    /// A backslash that is followed neither by three digits up to 255 nor by a printable character.
    #[error("a backslash must be followed by one character or by three digits up to 255")]
    BadEscape,
    /// A relative name where no origin is known.
    #[error("the name is relative and no origin is known; end it with a dot or set $ORIGIN")]
    NoOrigin,
    /// The bytes end before the name does, or a label is of another type than a plain label.
    #[error("the bytes are not a domain name")]
    Malformed,
}

/// An owned, absolute domain name: uncompressed wire format with its case kept.
#[derive(Clone)]
pub struct Name(Box<[u8]>);

/// A borrowed, absolute domain name: uncompressed wire format with its case kept.
#[derive(Clone, Copy)]
pub struct NameRef<'a>(&'a [u8]);

impl Name {
    /// The root name.
    pub fn root() -> Self {
        Self(Box::new([0]))
    }

    /// Borrows the name.
    pub fn as_ref(&self) -> NameRef<'_> {
        NameRef(&self.0)
    }

    /// The wire format, root label included.
    pub fn as_wire(&self) -> &[u8] {
        &self.0
    }

    /// Reads text in master-file form (RFC 1035 §5.1). A name without a final dot is relative to `origin`; `@` is the
    /// origin itself.
    pub fn parse(text: &[u8], origin: Option<NameRef<'_>>) -> Result<Self, NameError> {
        if text == b"@" {
            return origin.map(NameRef::to_name).ok_or(NameError::NoOrigin);
        }
        if text == b"." {
            return Ok(Self::root());
        }
        let mut wire = Vec::with_capacity(text.len() + 2);
        wire.push(0);
        let mut label = 0; // the offset of the current label's length octet
        let mut rest = text.iter().copied();
        let mut absolute = false;
        while let Some(byte) = rest.next() {
            absolute = false;
            match byte {
                b'.' => {
                    close_label(&mut wire, label)?;
                    label = wire.len();
                    wire.push(0);
                    absolute = true;
                }
                b'\\' => wire.push(unescape(&mut rest)?),
                plain => wire.push(plain),
            }
        }
        if absolute {
            // The last label is empty, which makes it the root label.
        } else {
            close_label(&mut wire, label)?;
            wire.extend_from_slice(origin.ok_or(NameError::NoOrigin)?.0);
        }
        if wire.len() > MAX_NAME {
            return Err(NameError::NameTooLong);
        }
        Ok(Self(wire.into()))
    }

    /// The name made of `labels` in wire format without a root label, followed by `suffix`; `None` when it would exceed
    /// 255 octets.
    pub(crate) fn join(labels: &[u8], suffix: NameRef<'_>) -> Option<Self> {
        (labels.len() + suffix.0.len() <= MAX_NAME).then(|| Self([labels, suffix.0].concat().into()))
    }
}

/// Writes the length of the label that started at `label`.
fn close_label(wire: &mut [u8], label: usize) -> Result<(), NameError> {
    let length = wire.len() - label - 1;
    match u8::try_from(length) {
        Ok(0) => Err(NameError::EmptyLabel),
        Ok(octet) if length <= MAX_LABEL => {
            wire[label] = octet;
            Ok(())
        }
        _ => Err(NameError::LabelTooLong),
    }
}

/// Reads the text after a backslash: `DDD` or a single character (RFC 1035 §5.1).
pub(crate) fn unescape(rest: &mut impl Iterator<Item = u8>) -> Result<u8, NameError> {
    let first = rest.next().ok_or(NameError::BadEscape)?;
    if !first.is_ascii_digit() {
        return Ok(first);
    }
    let mut value = u32::from(first - b'0');
    for _ in 0..2 {
        let digit = rest.next().filter(u8::is_ascii_digit).ok_or(NameError::BadEscape)?;
        value = value * 10 + u32::from(digit - b'0');
    }
    u8::try_from(value).map_err(|_| NameError::BadEscape)
}

impl<'a> NameRef<'a> {
    /// The root name.
    pub const ROOT: NameRef<'static> = NameRef(&[0]);

    /// Reads an uncompressed name at the start of `bytes`; bytes after the name are ignored.
    pub fn from_wire(bytes: &'a [u8]) -> Result<Self, NameError> {
        let mut at = 0;
        loop {
            let length = usize::from(*bytes.get(at).ok_or(NameError::Malformed)?);
            if length > MAX_LABEL {
                return Err(NameError::Malformed);
            }
            at += length + 1;
            if at > MAX_NAME {
                return Err(NameError::NameTooLong);
            }
            if length == 0 {
                return Ok(Self(&bytes[..at]));
            }
        }
    }

    /// The wire format, root label included.
    pub fn as_wire(self) -> &'a [u8] {
        self.0
    }

    /// An owned copy.
    pub fn to_name(self) -> Name {
        Name(self.0.into())
    }

    /// Whether this is the root.
    pub fn is_root(self) -> bool {
        self.0.len() == 1
    }

    /// The name without its first label; `None` for the root.
    pub fn parent(self) -> Option<Self> {
        (!self.is_root()).then(|| Self(&self.0[usize::from(self.0[0]) + 1..]))
    }

    /// The labels from left to right, without the root.
    pub fn labels(self) -> impl Iterator<Item = &'a [u8]> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let length = usize::from(rest[0]);
            if length == 0 {
                return None;
            }
            let (label, tail) = rest[1..].split_at(length);
            rest = tail;
            Some(label)
        })
    }

    /// Whether the first label is a lone `*` (RFC 4592 §2.1.1).
    pub fn is_wildcard(self) -> bool {
        self.0.starts_with(b"\x01*")
    }

    /// The part of the name before `suffix`, as wire-format labels without a root label; `None` when the name is
    /// neither `suffix` nor below it.
    pub fn strip_suffix(self, suffix: NameRef<'_>) -> Option<&'a [u8]> {
        let cut = self.0.len().checked_sub(suffix.0.len())?;
        let mut at = 0;
        while at < cut {
            at += usize::from(self.0[at]) + 1;
        }
        (at == cut && case::same(&self.0[cut..], suffix.0)).then(|| &self.0[..cut])
    }

    /// Whether the name is `ancestor` or lies below it.
    pub fn is_within(self, ancestor: NameRef<'_>) -> bool {
        self.strip_suffix(ancestor).is_some()
    }
}

// Length octets are at most 63, so they are never taken for letters. So whole names can be compared octet by octet
// without regard to ASCII case.
impl PartialEq for NameRef<'_> {
    fn eq(&self, other: &Self) -> bool {
        case::same(self.0, other.0)
    }
}

impl Eq for NameRef<'_> {}

impl Hash for NameRef<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for byte in self.0 {
            state.write_u8(byte.to_ascii_lowercase());
        }
    }
}

impl Ord for NameRef<'_> {
    /// The canonical order of RFC 4034 §6.1: label by label from the right, each label as lower-case octets.
    fn cmp(&self, other: &Self) -> Ordering {
        let (mine, my_count) = label_starts(*self);
        let (theirs, their_count) = label_starts(*other);
        let mut mine = mine[..my_count].iter().rev();
        let mut theirs = theirs[..their_count].iter().rev();
        loop {
            match (mine.next(), theirs.next()) {
                (None, None) => return Ordering::Equal,
                (None, Some(_)) => return Ordering::Less,
                (Some(_), None) => return Ordering::Greater,
                (Some(&a), Some(&b)) => {
                    let a = label_at(self.0, a).iter().map(u8::to_ascii_lowercase);
                    let b = label_at(other.0, b).iter().map(u8::to_ascii_lowercase);
                    match a.cmp(b) {
                        Ordering::Equal => {}
                        unequal => return unequal,
                    }
                }
            }
        }
    }
}

impl PartialOrd for NameRef<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The offset of each label's length octet, from left to right, and the number of labels; the root isn't counted.
pub(crate) fn label_starts(name: NameRef<'_>) -> ([u8; MAX_LABELS], usize) {
    let mut starts = [0; MAX_LABELS];
    let (mut at, mut count) = (0_u8, 0);
    while name.0[usize::from(at)] != 0 {
        starts[count] = at;
        count += 1;
        at += name.0[usize::from(at)] + 1;
    }
    (starts, count)
}

/// The label whose length octet stands at `at`.
pub(crate) fn label_at(wire: &[u8], at: u8) -> &[u8] {
    let at = usize::from(at);
    &wire[at + 1..=at + usize::from(wire[at])]
}

impl fmt::Display for NameRef<'_> {
    /// Master-file form with a final dot; special characters are escaped (RFC 1035 §5.1, RFC 4343 §2.1).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_root() {
            return f.write_str(".");
        }
        for label in self.labels() {
            for &byte in label {
                match byte {
                    b'.' | b'\\' | b'"' | b'(' | b')' | b';' | b'@' | b'$' => write!(f, "\\{}", char::from(byte))?,
                    0x21..=0x7e => write!(f, "{}", char::from(byte))?,
                    other => write!(f, "\\{other:03}")?,
                }
            }
            f.write_str(".")?;
        }
        Ok(())
    }
}

impl fmt::Debug for NameRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Name {
    type Err = NameError;

    /// Reads a name in text form, as in the configuration and the rules: it is absolute even without a final dot.
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse(text.as_bytes(), Some(NameRef::ROOT))
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.as_ref() == other.as_ref()
    }
}

impl Eq for Name {}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_ref().hash(state);
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_ref().cmp(&other.as_ref())
    }
}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_ref().fmt(f)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
