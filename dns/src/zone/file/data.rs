//! Reads record data. Takes the tokens of a record after its type, returns the data as wire bytes. Called by `file` for
//! each record.
//!
//! Most types are lists of plain items ([`forms`]). [`binding`] reads service bindings. This file reads RFC 3597's `\#`
//! form for any type, and checks the octets if the type is known.

use super::fields::{Fields, hex};
use super::lexer::Token;
use super::{binding, forms, item::Item, odd};
use crate::protocol::name::Name;
use crate::protocol::rdata::{is_well_formed, rtype};

/// Reads the data of one record. The error says what is wrong and which items the type has.
pub(super) fn read(rtype: u16, mnemonic: &str, tokens: &[Token<'_>], origin: &Name) -> Result<Box<[u8]>, String> {
    if tokens.first().is_some_and(|token| token.text == b"\\#") {
        return generic(rtype, mnemonic, &tokens[1..]);
    }
    let wants = || format!("{mnemonic} wants {}", form(rtype));
    let read = match (forms::items(rtype), rtype) {
        (Some(items), _) => in_order(items, tokens, origin),
        (None, rtype::SVCB | rtype::HTTPS) => binding::read(mnemonic, tokens, origin),
        (None, _) => Err("there is no other text form for this type here".to_owned()),
    };
    let rdata = read.map_err(|error| format!("{error}; {}", wants()))?;
    // The data must fit into a packet, and must have the layout in which this server looks for names.
    if is_well_formed(rtype, &rdata) { Ok(rdata.into()) } else { Err(format!("the data doesn't fit; {}", wants())) }
}

/// Reads data whose fields stand in a fixed order.
fn in_order(items: &[Item], tokens: &[Token<'_>], origin: &Name) -> Result<Vec<u8>, String> {
    let mut fields = Fields::new(tokens, origin);
    for item in items {
        odd::read(*item, &mut fields)?;
    }
    fields.end()?;
    Ok(fields.out)
}

/// Reads a length and hexadecimal digits in any number of groups (RFC 3597 §5).
fn generic(rtype: u16, mnemonic: &str, tokens: &[Token<'_>]) -> Result<Box<[u8]>, String> {
    let length = tokens.first().and_then(|token| std::str::from_utf8(token.text).ok()?.parse::<u16>().ok());
    let Some(length) = length else {
        return Err("after `\\#` comes the length of the data in octets, up to 65535".into());
    };
    let digits: Vec<u8> = tokens[1..].iter().flat_map(|token| token.text).copied().collect();
    let Some(octets) = hex(&digits) else {
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

/// A description of the text form of a type's data, for error messages.
fn form(rtype: u16) -> String {
    let known = match rtype {
        rtype::NS | rtype::CNAME | rtype::DNAME | 12 => "one host name",
        rtype::SOA => {
            "primary server, mailbox, serial, refresh, retry, expire and minimum, the last five as numbers of seconds"
        }
        rtype::MX => "a preference and a host name, such as 10 mail.example.com.",
        rtype::SRV => "priority, weight, port and a host name",
        rtype::SVCB | rtype::HTTPS => "a priority, a host name and key=value parameters (RFC 9460 §2.1)",
        rtype::DS | 59 => "key tag, algorithm, digest type and the digest in hexadecimal",
        257 => "flags, a property such as issue, and a value in quotes",
        52 | 53 => "usage, selector, matching type and hexadecimal data",
        44 => "algorithm, fingerprint type and the fingerprint in hexadecimal",
        35 => "order, preference, flags, service, expression and a host name",
        37 => "type, key tag, algorithm and the certificate in base64",
        256 => "priority, weight and a URI in quotes",
        _ => match forms::wanted(rtype) {
            Some(wanted) => wanted,
            None => return listed(rtype),
        },
    };
    known.to_owned()
}

/// The items of a type as a list, for error messages.
fn listed(rtype: u16) -> String {
    match forms::items(rtype) {
        Some(items) => items.iter().map(|item| item.expected()).collect::<Vec<_>>().join(", "),
        None => "the form `\\# length hex` (RFC 3597 §5)".to_owned(),
    }
}
