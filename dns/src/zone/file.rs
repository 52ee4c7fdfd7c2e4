//! Reads master files, the text form of zones (RFC 1035 §5, RFC 2308 §4, RFC 3597 §5). Takes text, returns records or
//! every error with its line. Callers pass the records to [`Zone::compile`](super::Zone::compile).

mod binding;
mod data;
mod fields;
mod forms;
mod item;
mod lexer;
mod odd;

use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use domain::base::iana::Rtype;

use super::{Location, Records, Zone, ZoneError};
use crate::protocol::name::Name;
use crate::protocol::rdata::rtype;
use lexer::{Entry, Lexer, Token};

/// How many levels deep files may include each other.
const MAX_INCLUDES: usize = 8;
/// The longest time to live (RFC 2181 §8).
const MAX_TTL: u32 = (1 << 31) - 1;

/// Reads the text of a master file. `open` returns the text of an included file; its path is relative to the including
/// file.
///
/// # Errors
/// Every line that can't be parsed, and every error of the zone that the other lines form.
///
/// ```
/// use bailiwick_dns::{protocol::name::Name, zone::file};
/// let origin: Name = "example.com".parse().unwrap();
/// let text = b"$TTL 1h\n@ SOA ns hostmaster 1 3600 600 86400 60\n  NS ns\nns A 192.0.2.53\nbad A 192.0.2\n";
/// let errors = file::parse(text, "example.zone", &origin, &mut |_| Err("no files here".into())).unwrap_err();
/// assert!(errors[0].to_string().starts_with("example.zone:5: "));
/// ```
pub fn parse(
    text: &[u8],
    file: &str,
    origin: &Name,
    open: &mut dyn FnMut(&Path) -> Result<Vec<u8>, String>,
) -> Result<Records, Vec<ZoneError>> {
    let mut findings = Findings::default();
    let scope = Scope {
        file: file.into(),
        origin: origin.clone(),
        owner: Owner::None,
        default_ttl: None,
        last_ttl: None,
        depth: 0,
    };
    let _ = scope.read(text, open, &mut findings);
    if findings.errors.is_empty() {
        findings.records.settle();
        return Ok(findings.records);
    }
    // The lines that could be parsed are checked as a zone, so that all errors are reported at once. Errors without a
    // line are left out: missing records may be in the lines that couldn't be parsed.
    if let Err(errors) = Zone::compile(origin, &findings.records, &[]) {
        findings.errors.extend(errors.into_iter().filter(|error| error.place.line > 0));
    }
    findings.errors.sort();
    Err(findings.errors)
}

/// The records and errors found so far.
#[derive(Default)]
struct Findings {
    records: Records,
    errors: Vec<ZoneError>,
}

/// The owner of the last entry, which an indented entry inherits.
enum Owner {
    /// There is no earlier entry.
    None,
    /// The owner of the last entry.
    Known(Name),
    /// The owner of the last entry couldn't be parsed. This error was reported already.
    Bad,
}

/// The values that an entry of a file inherits from earlier entries.
struct Scope {
    file: Arc<str>,
    origin: Name,
    owner: Owner,
    /// `$TTL` (RFC 2308 §4).
    default_ttl: Option<u32>,
    /// The TTL of the last record that has one (RFC 1035 §5.1).
    last_ttl: Option<u32>,
    depth: usize,
}

/// A way to open included files.
type Open<'o> = &'o mut dyn FnMut(&Path) -> Result<Vec<u8>, String>;

impl Scope {
    /// Reads the whole text. Returns the scope after its last entry.
    fn read(mut self, text: &[u8], open: Open<'_>, findings: &mut Findings) -> Self {
        for entry in Lexer::new(text) {
            let (line, result) = match entry {
                Err((line, message)) => (line, Err(message)),
                Ok(entry) => (entry.line, self.entry(&entry, open, findings)),
            };
            if let Err(message) = result {
                findings.errors.push(ZoneError { place: self.place(line), message });
            }
        }
        self
    }

    /// The location of a line of this file.
    fn place(&self, line: u32) -> Location {
        Location { file: Arc::clone(&self.file), line }
    }

    /// Reads an entry: a directive or a record.
    fn entry(&mut self, entry: &Entry<'_>, open: Open<'_>, findings: &mut Findings) -> Result<(), String> {
        match entry.tokens[0].text {
            [b'$', directive @ ..] if !entry.indented => self.directive(directive, &entry.tokens[1..], open, findings),
            _ => self.record(entry, findings),
        }
    }

    /// Carries out `$ORIGIN`, `$TTL` or `$INCLUDE`.
    fn directive(
        &mut self,
        directive: &[u8],
        arguments: &[Token<'_>],
        open: Open<'_>,
        findings: &mut Findings,
    ) -> Result<(), String> {
        let shown = String::from_utf8_lossy(directive).to_ascii_uppercase();
        match (shown.as_str(), arguments) {
            ("ORIGIN", [name]) => {
                self.origin = self.name(name)?;
                Ok(())
            }
            ("TTL", [value]) => {
                self.default_ttl = Some(ttl(value.text)?.ok_or("$TTL wants a time such as 3600 or 1h")?);
                Ok(())
            }
            ("INCLUDE", [path]) => self.include(path, self.origin.clone(), open, findings),
            ("INCLUDE", [path, origin]) => {
                let origin = self.name(origin)?;
                self.include(path, origin, open, findings)
            }
            ("ORIGIN", _) => Err("$ORIGIN wants exactly one name".into()),
            ("TTL", _) => Err("$TTL wants exactly one time".into()),
            ("INCLUDE", _) => Err("$INCLUDE wants a file and perhaps an origin".into()),
            ("GENERATE", _) => Err("$GENERATE is not supported; write the records out".into()),
            _ => Err(format!("${shown} is unknown; known are $ORIGIN, $TTL and $INCLUDE")),
        }
    }

    /// Reads an included file. Its origin ends with the file (RFC 1035 §5.1). Its `$TTL` stays in force after the file,
    /// as in BIND and NSD.
    fn include(
        &mut self,
        path: &Token<'_>,
        origin: Name,
        open: Open<'_>,
        findings: &mut Findings,
    ) -> Result<(), String> {
        if self.depth == MAX_INCLUDES {
            return Err(format!(
                "files include files more than {MAX_INCLUDES} deep; where one includes itself, remove that line"
            ));
        }
        let written = String::from_utf8(unquoted(path.text)?).map_err(|_| "the path is not UTF-8; rename the file")?;
        let path = Path::new(&*self.file).parent().unwrap_or(Path::new("")).join(&written);
        let text = open(&path).map_err(|error| format!("{} can't be read ({error}); mend the path", path.display()))?;
        let file = path.display().to_string().into();
        let scope = Scope {
            file,
            origin,
            owner: Owner::None,
            default_ttl: self.default_ttl,
            last_ttl: self.last_ttl,
            depth: self.depth + 1,
        };
        let read = scope.read(&text, open, findings);
        (self.default_ttl, self.last_ttl) = (read.default_ttl, read.last_ttl);
        Ok(())
    }

    /// Reads a record and adds it to the findings.
    fn record(&mut self, entry: &Entry<'_>, findings: &mut Findings) -> Result<(), String> {
        let (owner, rest) = if entry.indented {
            match &self.owner {
                Owner::None => {
                    return Err("the first record has no owner; start its line with a name or `@`".into());
                }
                Owner::Known(name) => (Ok(name.clone()), &entry.tokens[..]),
                Owner::Bad => (Err(None), &entry.tokens[..]),
            }
        } else {
            let owner = self.name(&entry.tokens[0]);
            self.owner = owner.clone().map_or(Owner::Bad, Owner::Known);
            (owner.map_err(Some), &entry.tokens[1..])
        };
        let place = self.place(entry.line);
        let rest = self.typed(rest);
        // The owner and the rest of an entry may both be wrong. Then both errors are reported.
        match (owner, rest) {
            (Ok(owner), Ok((ttl, rtype, rdata))) => {
                findings.records.push(owner.as_ref(), rtype, ttl, &rdata, &place);
                Ok(())
            }
            (Err(None), Ok(_)) => Ok(()),
            (Err(Some(message)), Err(other)) => {
                findings.errors.push(ZoneError { place, message });
                Err(other)
            }
            (_, Err(message)) | (Err(Some(message)), Ok(_)) => Err(message),
        }
    }

    /// Reads `[TTL] [class] type data`, with TTL and class in either order (RFC 1035 §5.1).
    fn typed(&mut self, tokens: &[Token<'_>]) -> Result<(u32, u16, Box<[u8]>), String> {
        let (mut written_ttl, mut class_seen, mut rest) = (None, false, tokens);
        let mnemonic = loop {
            let Some((token, tail)) = rest.split_first() else {
                return Err("the record has no type; write owner, TTL, class, type and data in this order".into());
            };
            rest = tail;
            let text = String::from_utf8_lossy(token.text);
            if !class_seen && is_class(&text)? {
                class_seen = true;
            } else if written_ttl.is_none()
                && let Some(ttl) = ttl(token.text)?
            {
                written_ttl = Some(ttl);
            } else {
                break text.into_owned();
            }
        };
        let Some(rtype) = record_type(&mnemonic) else {
            return Err(format!("`{mnemonic}` is no record type; write a type, or TYPE and its number (RFC 3597)"));
        };
        // Types that aren't data (RFC 6895 §3.1): 0, OPT and 128 to 255.
        if matches!(rtype, 0 | rtype::OPT | 128..=255) {
            return Err(format!("{mnemonic} can't stand in a zone; remove it"));
        }
        let rdata = data::read(rtype, &mnemonic, rest, &self.origin)?;
        if written_ttl.is_some() {
            self.last_ttl = written_ttl;
        }
        // If neither `$TTL` nor the SOA nor an earlier record has a TTL, the SOA's minimum field is the default for all
        // records (RFC 1035 §3.3.13), as in BIND.
        if rtype == rtype::SOA && written_ttl.or(self.default_ttl).or(self.last_ttl).is_none() {
            self.default_ttl = rdata.last_chunk().map(|minimum| u32::from_be_bytes(*minimum).min(MAX_TTL));
        }
        let Some(ttl) = written_ttl.or(self.default_ttl).or(self.last_ttl) else {
            return Err("the record has no TTL and none was given before; write $TTL at the top of the file".into());
        };
        Ok((ttl, rtype, rdata))
    }

    fn name(&self, token: &Token<'_>) -> Result<Name, String> {
        domain_name(token.text, &self.origin)
    }
}

/// Reads a name of an entry. If the name is relative, the origin is appended.
fn domain_name(text: &[u8], origin: &Name) -> Result<Name, String> {
    let shown = String::from_utf8_lossy(text);
    if !text.is_ascii() {
        return Err(format!("the name `{shown}` has letters outside ASCII; write it in Punycode (xn--…)"));
    }
    Name::parse(text, Some(origin.as_ref())).map_err(|error| format!("`{shown}`: {error}"))
}

/// The number of a type, from its mnemonic or from TYPE and the number (RFC 3597 §5).
fn record_type(mnemonic: &str) -> Option<u16> {
    if mnemonic.eq_ignore_ascii_case("NSAP-PTR") {
        return Some(23);
    }
    Rtype::from_str(mnemonic).ok().map(Rtype::to_int)
}

/// Whether the token is the class IN. Other classes are errors.
fn is_class(text: &str) -> Result<bool, String> {
    let upper = text.to_ascii_uppercase();
    match upper.as_str() {
        "IN" | "CLASS1" => Ok(true),
        "CH" | "CHAOS" | "HS" | "HESIOD" | "CS" => Err(format!("class {upper} is not served here; write IN")),
        other if other.strip_prefix("CLASS").is_some_and(|number| number.parse::<u16>().is_ok()) => {
            Err(format!("class {upper} is not served here; write IN"))
        }
        _ => Ok(false),
    }
}

/// Reads a time in seconds, or with the units w, d, h, m and s. `None` if the token isn't a time.
fn ttl(text: &[u8]) -> Result<Option<u32>, String> {
    if !text.first().is_some_and(u8::is_ascii_digit) {
        return Ok(None);
    }
    let too_long =
        || format!("the time `{}` is longer than {MAX_TTL} seconds (RFC 2181 §8)", String::from_utf8_lossy(text));
    let (mut total, mut number, mut open) = (0_u64, 0_u64, false);
    for &byte in text {
        let unit = match byte.to_ascii_lowercase() {
            digit @ b'0'..=b'9' => {
                number = number.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
                open = true;
                continue;
            }
            b'w' => 604_800,
            b'd' => 86_400,
            b'h' => 3_600,
            b'm' => 60,
            b's' => 1,
            _ => return Ok(None),
        };
        if !open {
            return Ok(None);
        }
        total = total.saturating_add(number.saturating_mul(unit));
        (number, open) = (0, false);
    }
    let total = total.saturating_add(number);
    u32::try_from(total).ok().filter(|&total| total <= MAX_TTL).map(Some).ok_or_else(too_long)
}

/// A token's octets without quotes and escapes.
fn unquoted(text: &[u8]) -> Result<Vec<u8>, String> {
    let inner = text.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\"")).unwrap_or(text);
    let mut octets = Vec::with_capacity(inner.len());
    let mut rest = inner.iter().copied();
    while let Some(byte) = rest.next() {
        octets.push(if byte == b'\\' {
            crate::protocol::name::unescape(&mut rest).map_err(|error| error.to_string())?
        } else {
            byte
        });
    }
    Ok(octets)
}

#[cfg(test)]
mod tests;
