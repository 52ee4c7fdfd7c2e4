//! Record data from text: the tokens after the type enter, wire bytes leave; `file` calls it for each record.
//!
//! The `domain` crate's scanner reads the data; RFC 3597's `\#` form is read here, and checked when the type is known.

use bytes::Bytes;
use domain::base::rdata::ComposeRecordData;
use domain::zonefile::inplace::{Entry, Zonefile};

use super::lexer::Token;
use crate::name::Name;
use crate::rdata::{holds_names, is_well_formed, rtype};

/// Reads the data of one record. The error says what is wrong and what the type wants.
pub(super) fn read(rtype: u16, mnemonic: &str, tokens: &[Token<'_>], origin: &Name) -> Result<Box<[u8]>, String> {
    if tokens.first().is_some_and(|token| token.text == b"\\#") {
        return generic(rtype, mnemonic, &tokens[1..]);
    }
    let line = line(rtype, mnemonic, tokens, origin);
    let mut scanner = Zonefile::from(&*line);
    if let Ok(origin) = domain::base::Name::from_octets(Bytes::copy_from_slice(origin.as_wire())) {
        scanner.set_origin(origin);
    }
    match scanner.next_entry() {
        Ok(Some(Entry::Record(record))) => {
            let mut rdata = Vec::new();
            // A `Vec` takes any amount.
            let Ok(()) = record.data().compose_rdata(&mut rdata);
            // What the scanner let through must still fit a packet and the places where this server looks for names.
            if is_well_formed(rtype, &rdata) {
                Ok(rdata.into())
            } else {
                Err(format!("the data is not what {mnemonic} wants: {}", form(rtype)))
            }
        }
        Ok(_) => Err(format!("the data of {mnemonic} is missing; it wants {}", form(rtype))),
        Err(error) => Err(format!("{}; {mnemonic} wants {}", reason(&error.to_string()), form(rtype))),
    }
}

/// The record as one plain line with the root as owner. `@` is the origin wherever a name may stand, which the scanner doesn't know.
fn line(rtype: u16, mnemonic: &str, tokens: &[Token<'_>], origin: &Name) -> Vec<u8> {
    let mut line = format!(". 0 IN {mnemonic}").into_bytes();
    for token in tokens {
        if !token.glued {
            line.push(b' ');
        }
        if token.text == b"@" && holds_names(rtype) {
            line.extend_from_slice(origin.to_string().as_bytes());
        } else {
            line.extend_from_slice(token.text);
        }
    }
    line.push(b'\n');
    line
}

/// The scanner's reason without its place, which counts from the start of the entry.
fn reason(error: &str) -> &str {
    error.splitn(3, ':').nth(2).map_or(error, str::trim)
}

/// Reads a length and hexadecimal digits in any number of groups (RFC 3597 §5).
fn generic(rtype: u16, mnemonic: &str, tokens: &[Token<'_>]) -> Result<Box<[u8]>, String> {
    let length = tokens.first().and_then(|token| std::str::from_utf8(token.text).ok()?.parse::<u16>().ok());
    let Some(length) = length else {
        return Err("after `\\#` comes the length of the data in octets, up to 65535".into());
    };
    let digits: Vec<u8> = tokens[1..].iter().flat_map(|token| token.text).copied().collect();
    let nibble = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let (pairs, rest) = digits.as_chunks::<2>();
    let octets: Option<Vec<u8>> = pairs.iter().map(|&[high, low]| Some(nibble(high)? << 4 | nibble(low)?)).collect();
    let Some(octets) = octets.filter(|_| rest.is_empty()) else {
        return Err("after `\\#` and the length come pairs of hexadecimal digits".into());
    };
    if octets.len() != usize::from(length) {
        return Err(format!(
            "`\\#` announces {length} octets and {} follow; mend the length or the digits",
            octets.len()
        ));
    }
    if !is_well_formed(rtype, &octets) {
        return Err(format!("these octets are not the data of {mnemonic}, which wants {}", form(rtype)));
    }
    Ok(octets.into())
}

/// What the data of a type looks like.
fn form(rtype: u16) -> &'static str {
    match rtype {
        rtype::A => "an IPv4 address such as 192.0.2.1",
        rtype::AAAA => "an IPv6 address such as 2001:db8::1",
        rtype::NS | rtype::CNAME | rtype::DNAME | 12 => "one host name",
        rtype::SOA => {
            "primary server, mailbox, serial, refresh, retry, expire and minimum, the last five as numbers of seconds"
        }
        rtype::MX => "a preference and a host name, such as 10 mail.example.com.",
        rtype::TXT => "strings of at most 255 octets each, in quotes if they hold spaces",
        rtype::SRV => "priority, weight, port and a host name",
        rtype::SVCB | rtype::HTTPS => "a priority, a host name and key=value parameters (RFC 9460 §2.1)",
        rtype::DS | 59 => "key tag, algorithm, digest type and the digest in hexadecimal",
        257 => "flags, a property such as issue, and a value in quotes",
        52 => "usage, selector, matching type and hexadecimal data",
        44 => "algorithm, fingerprint type and the fingerprint in hexadecimal",
        35 => "order, preference, flags, service, expression and a host name",
        _ => "the text form of its RFC, or the form `\\# length hex` (RFC 3597 §5)",
    }
}
