//! Reads HTTPS and SVCB records (RFC 9460 §2.1). Takes the tokens after the type, returns wire bytes. Called by `data`.
//!
//! The scanner of the `domain` crate reads most parameters, but not two forms. The first is a known parameter that is
//! written by its number: its value is the octets themselves (`key1=\002h2`). The second is a comma or a backslash in
//! an identifier of `alpn` (RFC 9460 Appendix A.1). For these two forms, this file gives the scanner a stand-in text,
//! and afterwards replaces the stand-in's value by the real octets.

use std::borrow::Cow;

use bytes::Bytes;
use domain::base::rdata::ComposeRecordData;
use domain::zonefile::inplace::{Entry, Zonefile};

use super::lexer::Token;
use super::{domain_name, unquoted};
use crate::protocol::name::{Name, NameRef};

/// The stand-in text for each parameter from 0 to 9 that the scanner knows by name (RFC 9460 §14.3.2). `mandatory`
/// names other parameters, so its text is made from its octets.
const STAND_INS: [&str; 10] = [
    "mandatory=",
    "alpn=h2",
    "no-default-alpn",
    "port=1",
    "ipv4hint=192.0.2.1",
    "ech=AA==",
    "ipv6hint=2001:db8::1",
    "dohpath=/{?dns}",
    "ohttp",
    "tls-supported-groups=29",
];
const MANDATORY: usize = 0;
const ALPN: usize = 1;

/// A piece of the line for the scanner, and whether it follows the previous piece without a space.
type Piece<'t> = (Cow<'t, [u8]>, bool);

/// A parameter whose value isn't read by the scanner.
struct RawParameter {
    /// The number of the parameter.
    key: usize,
    /// The octets of the value.
    value: Vec<u8>,
}

/// Reads priority, target and parameters.
pub(super) fn read(mnemonic: &str, tokens: &[Token<'_>], origin: &Name) -> Result<Vec<u8>, String> {
    if let Some(target) = tokens.get(1) {
        domain_name(target.text, origin)?;
    }
    let (pieces, raw) = pieces(tokens)?;
    let line = line(mnemonic, &pieces, origin);
    let mut scanner = Zonefile::from(&*line);
    if let Ok(origin) = domain::base::Name::from_octets(Bytes::copy_from_slice(origin.as_wire())) {
        scanner.set_origin(origin);
    }
    let mut rdata = Vec::new();
    match scanner.next_entry() {
        Ok(Some(Entry::Record(record))) => {
            // Writing to a `Vec` never fails.
            let Ok(()) = record.data().compose_rdata(&mut rdata);
        }
        Ok(_) => return Err("the data is missing".to_owned()),
        Err(error) => return Err(reason(&error.to_string()).to_owned()),
    }
    if raw.is_empty() { Ok(rdata) } else { replaced(&rdata, &raw).ok_or("the parameters don't fit".into()) }
}

/// The pieces of the line for the scanner, and the parameters that replace stand-ins in the result.
fn pieces<'t>(tokens: &[Token<'t>]) -> Result<(Vec<Piece<'t>>, Vec<RawParameter>), String> {
    let (mut pieces, mut raw) = (Vec::with_capacity(tokens.len()), Vec::new());
    let mut rest = tokens;
    while let Some((first, tail)) = rest.split_first() {
        let glued = tail.iter().take_while(|token| token.glued).count();
        let (more, after) = tail.split_at(glued);
        // Priority and target come first.
        match if pieces.len() < 2 { None } else { by_octets(first, more)? } {
            Some(RawParameter { key: MANDATORY, value }) => pieces.push((mandatory(&value).into(), false)),
            Some(parameter) => {
                pieces.push((STAND_INS[parameter.key].as_bytes().into(), false));
                raw.push(parameter);
            }
            None => pieces.extend(rest[..=glued].iter().map(|token| (token.text.into(), token.glued))),
        }
        rest = after;
    }
    Ok((pieces, raw))
}

/// Reads a parameter that the scanner can't read; `None` if the scanner can.
fn by_octets(first: &Token<'_>, more: &[Token<'_>]) -> Result<Option<RawParameter>, String> {
    // `"key=value"` may stand in quotes as a whole.
    let text = first.text.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\"")).unwrap_or(first.text);
    let equals = text.iter().position(|&byte| byte == b'=');
    let (name, inline) = equals.map_or((text, &b""[..]), |at| (&text[..at], &text[at + 1..]));
    let written = match more {
        [] => inline,
        [value] if inline.is_empty() && equals.is_some() => value.text,
        _ => return Ok(None),
    };
    if name == b"alpn" {
        let octets = unquoted(written)?;
        let value = if octets.contains(&b'\\') { identifiers(&octets)? } else { return Ok(None) };
        return Ok(Some(RawParameter { key: ALPN, value }));
    }
    let number = name.strip_prefix(b"key").and_then(|digits| match digits {
        [digit @ b'0'..=b'9'] => Some(usize::from(digit - b'0')),
        _ => None,
    });
    let Some(key) = number else { return Ok(None) };
    let value = unquoted(written)?;
    if !is_value(key, &value) {
        let like = STAND_INS[key].split('=').next().unwrap_or_default();
        return Err(format!("key{key} takes the octets of {like} as they are on the wire, and these are none"));
    }
    Ok(Some(RawParameter { key, value }))
}

/// The value of `alpn`. Commas separate identifiers. After a backslash, a comma or a backslash belongs to the
/// identifier.
fn identifiers(octets: &[u8]) -> Result<Vec<u8>, String> {
    let (mut list, mut identifier) = (Vec::new(), Vec::new());
    let mut rest = octets.iter();
    loop {
        match rest.next() {
            Some(b'\\') => match rest.next() {
                Some(&byte @ (b',' | b'\\')) => identifier.push(byte),
                _ => {
                    return Err("in alpn a backslash stands before a comma or a backslash, and is doubled once more \
                     as every backslash of a string (RFC 9460 Appendix A.1)"
                        .into());
                }
            },
            Some(&byte) if byte != b',' => identifier.push(byte),
            end => {
                let length = u8::try_from(identifier.len()).ok().filter(|&length| length > 0);
                list.push(length.ok_or("an identifier of alpn has 1 to 255 octets")?);
                list.append(&mut identifier);
                if end.is_none() {
                    return Ok(list);
                }
            }
        }
    }
}

/// Whether octets are a valid value of a parameter (RFC 9460 §7, RFC 9461 §5, RFC 9540 §4).
fn is_value(key: usize, value: &[u8]) -> bool {
    match key {
        MANDATORY => {
            let keys: Vec<&[u8]> = value.chunks(2).collect();
            value.len().is_multiple_of(2)
                && keys.first().is_some_and(|&first| first > &[0, 0][..])
                && keys.is_sorted_by(|a, b| a < b)
        }
        ALPN => {
            let mut rest = value;
            while let Some((&length, tail)) = rest.split_first() {
                match tail.split_at_checked(usize::from(length)) {
                    Some((_, tail)) if length > 0 => rest = tail,
                    _ => return false,
                }
            }
            !value.is_empty()
        }
        2 | 8 => value.is_empty(),
        3 => value.len() == 2,
        9 => !value.is_empty() && value.len().is_multiple_of(2),
        4 => !value.is_empty() && value.len().is_multiple_of(4),
        6 => !value.is_empty() && value.len().is_multiple_of(16),
        7 => std::str::from_utf8(value).is_ok_and(|template| template.starts_with('/') && template.contains("{?dns")),
        _ => !value.is_empty(),
    }
}

/// The text of `mandatory`. The scanner reads it and checks that all these parameters exist.
fn mandatory(value: &[u8]) -> Vec<u8> {
    let keys: Vec<String> = value.as_chunks().0.iter().map(|&key| format!("key{}", u16::from_be_bytes(key))).collect();
    format!("mandatory={}", keys.join(",")).into()
}

/// The data with the raw parameters in place of the stand-ins; `None` if the result doesn't fit.
fn replaced(rdata: &[u8], raw: &[RawParameter]) -> Option<Vec<u8>> {
    let target = NameRef::from_wire(rdata.get(2..)?).ok()?;
    let (head, mut rest) = rdata.split_at_checked(2 + target.as_wire().len())?;
    let mut out = head.to_vec();
    while let Some((&[key_high, key_low, high, low], tail)) = rest.split_first_chunk() {
        let (value, tail) = tail.split_at_checked(usize::from(u16::from_be_bytes([high, low])))?;
        let key = u16::from_be_bytes([key_high, key_low]);
        let value = raw.iter().find(|raw| raw.key == usize::from(key)).map_or(value, |raw| &raw.value);
        out.extend_from_slice(&key.to_be_bytes());
        out.extend_from_slice(&u16::try_from(value.len()).ok()?.to_be_bytes());
        out.extend_from_slice(value);
        rest = tail;
    }
    Some(out)
}

/// The record as one plain line for the scanner, with the root as owner. The scanner doesn't know `@`, so the origin is
/// written out. Octets that the scanner doesn't accept in a string are escaped (RFC 1035 §5.1).
fn line(mnemonic: &str, pieces: &[Piece<'_>], origin: &Name) -> Vec<u8> {
    let mut line = format!(". 0 IN {mnemonic}").into_bytes();
    for (text, glued) in pieces {
        if !glued {
            line.push(b' ');
        }
        if **text == *b"@" {
            line.extend_from_slice(origin.to_string().as_bytes());
            continue;
        }
        for &octet in text.iter() {
            match octet {
                b' '..=b'~' => line.push(octet),
                other => line.extend_from_slice(format!("\\{other:03}").as_bytes()),
            }
        }
    }
    line.push(b'\n');
    line
}

/// The scanner's error message without its position, which counts in the line that was made here, not in the file.
fn reason(error: &str) -> &str {
    error.splitn(3, ':').nth(2).map_or(error, str::trim)
}
