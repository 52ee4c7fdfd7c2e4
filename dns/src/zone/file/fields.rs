//! Readers for single items of record data (RFC 1035 §5.1). Each takes the next token or tokens, and appends the octets
//! in wire format. Called by `data` and `odd`. `forms` says which items a type has.

use std::net::{Ipv4Addr, Ipv6Addr};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::lexer::Token;
use super::{domain_name, record_type, ttl, unquoted};
use crate::protocol::name::Name;
use crate::protocol::type_bitmap;

/// The longest character-string (RFC 1035 §3.3).
const LONGEST: usize = 255;

/// The tokens of one record's data that weren't read yet, and the octets of the tokens that were.
pub(super) struct Fields<'t> {
    tokens: &'t [Token<'t>],
    origin: &'t Name,
    pub(super) out: Vec<u8>,
}

impl<'t> Fields<'t> {
    pub(super) fn new(tokens: &'t [Token<'t>], origin: &'t Name) -> Self {
        Self { tokens, origin, out: Vec::new() }
    }

    /// Whether all tokens were read.
    pub(super) fn at_end(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Takes the next item if it is `text`. Returns whether it was.
    pub(super) fn takes(&mut self, text: &[u8]) -> bool {
        let rest = self.tokens.split_first().filter(|(token, _)| token.text == text).map(|(_, rest)| rest);
        self.tokens = rest.unwrap_or(self.tokens);
        rest.is_some()
    }

    /// Checks that all tokens were read.
    pub(super) fn end(&self) -> Result<(), String> {
        match self.tokens.first() {
            None => Ok(()),
            Some(token) => Err(format!("{} is one item too many", shown(token.text))),
        }
    }

    /// The next item as it is written. `what` describes the item for the error message.
    pub(super) fn raw(&mut self, what: &str) -> Result<&'t [u8], String> {
        let (token, rest) = self.tokens.split_first().ok_or_else(|| format!("{what} is missing"))?;
        self.tokens = rest;
        Ok(token.text)
    }

    /// The next item, which must be ASCII without quotes.
    pub(super) fn word(&mut self, what: &str) -> Result<&'t str, String> {
        let text = self.raw(what)?;
        std::str::from_utf8(text)
            .ok()
            .filter(|word| word.is_ascii() && !word.starts_with('"'))
            .ok_or_else(|| not(text, what))
    }

    pub(super) fn number<T: std::str::FromStr>(&mut self, what: &str) -> Result<T, String> {
        let word = self.word(what)?;
        let digits = Some(word).filter(|word| word.bytes().all(|byte| byte.is_ascii_digit()));
        digits.and_then(|word| word.parse().ok()).ok_or_else(|| not(word.as_bytes(), what))
    }

    pub(super) fn u8(&mut self) -> Result<u8, String> {
        let number = self.number("a number from 0 to 255")?;
        self.out.push(number);
        Ok(number)
    }

    pub(super) fn u16(&mut self) -> Result<(), String> {
        let number: u16 = self.number("a number from 0 to 65535")?;
        self.out.extend(number.to_be_bytes());
        Ok(())
    }

    pub(super) fn u32(&mut self) -> Result<(), String> {
        let number: u32 = self.number("a number from 0 to 4294967295")?;
        self.out.extend(number.to_be_bytes());
        Ok(())
    }

    /// A time in seconds, or with units.
    pub(super) fn time(&mut self) -> Result<(), String> {
        let what = "a time such as 3600 or 1h";
        let word = self.word(what)?;
        let time = ttl(word.as_bytes())?.ok_or_else(|| not(word.as_bytes(), what))?;
        self.out.extend(time.to_be_bytes());
        Ok(())
    }

    /// A number, or one of `names` for a number.
    pub(super) fn named(&mut self, names: &[(&str, u16)], what: &str) -> Result<u16, String> {
        let word = self.word(what)?;
        let named = names.iter().find(|(name, _)| word.eq_ignore_ascii_case(name)).map(|(_, number)| *number);
        named.or_else(|| word.parse().ok()).ok_or_else(|| not(word.as_bytes(), what))
    }

    /// Like [`Fields::named`], for a number of one octet. Appends the octet.
    pub(super) fn named_u8(&mut self, names: &[(&str, u16)], what: &str) -> Result<(), String> {
        let number = self.named(names, what)?;
        self.out.push(u8::try_from(number).map_err(|_| format!("{number} is not {what}"))?);
        Ok(())
    }

    /// Reads a domain name.
    pub(super) fn name(&mut self) -> Result<(), String> {
        let text = self.raw("a host name")?;
        if text.starts_with(b"\"") {
            return Err(format!("{} is in quotes; a name has none", shown(text)));
        }
        self.out.extend_from_slice(domain_name(text, self.origin)?.as_wire());
        Ok(())
    }

    /// The next item, parsed as a `T`.
    fn parsed<T: std::str::FromStr>(&mut self, what: &str) -> Result<T, String> {
        let word = self.word(what)?;
        word.parse().map_err(|_| not(word.as_bytes(), what))
    }

    pub(super) fn ipv4(&mut self) -> Result<(), String> {
        let address: Ipv4Addr = self.parsed("an IPv4 address such as 192.0.2.1")?;
        self.out.extend(address.octets());
        Ok(())
    }

    pub(super) fn ipv6(&mut self) -> Result<(), String> {
        let address: Ipv6Addr = self.parsed("an IPv6 address such as 2001:db8::1")?;
        self.out.extend(address.octets());
        Ok(())
    }

    /// A character-string: any octets, in quotes if they hold spaces.
    pub(super) fn text(&mut self) -> Result<(), String> {
        let octets = unquoted(self.raw("a string")?)?;
        let Ok(length) = u8::try_from(octets.len()) else {
            return Err(format!("a string has {} octets; split it into several of at most {LONGEST}", octets.len()));
        };
        self.out.push(length);
        self.out.extend(octets);
        Ok(())
    }

    /// One or more character-strings.
    pub(super) fn texts(&mut self) -> Result<(), String> {
        self.text()?;
        while !self.at_end() {
            self.text()?;
        }
        Ok(())
    }

    /// The octets of one string that is the rest of the record, without a length octet.
    pub(super) fn long_text(&mut self) -> Result<(), String> {
        let octets = unquoted(self.raw("a string")?)?;
        self.out.extend(octets);
        Ok(())
    }

    /// All remaining items, joined.
    fn rest(&mut self, what: &str) -> Result<Vec<u8>, String> {
        let mut joined = Vec::new();
        loop {
            joined.extend_from_slice(self.word(what)?.as_bytes());
            if self.at_end() {
                return Ok(joined);
            }
        }
    }

    /// Hexadecimal digits up to the end, in any number of groups.
    pub(super) fn hex(&mut self) -> Result<(), String> {
        let what = "hexadecimal digits in pairs";
        let digits = self.rest(what)?;
        self.out.extend(hex(&digits).ok_or_else(|| not(&digits, what))?);
        Ok(())
    }

    /// Base64 up to the end, in any number of groups.
    pub(super) fn base64(&mut self) -> Result<(), String> {
        let what = "base64";
        let text = self.rest(what)?;
        self.out.extend(STANDARD.decode(&text).map_err(|_| not(&text, what))?);
        Ok(())
    }

    /// One item of base64.
    pub(super) fn base64_word(&mut self) -> Result<Vec<u8>, String> {
        let what = "base64";
        let word = self.word(what)?;
        STANDARD.decode(word).map_err(|_| not(word.as_bytes(), what))
    }

    /// One item of hexadecimal digits.
    pub(super) fn hex_word(&mut self) -> Result<Vec<u8>, String> {
        let what = "hexadecimal digits in pairs";
        let word = self.word(what)?;
        hex(word.as_bytes()).ok_or_else(|| not(word.as_bytes(), what))
    }

    /// Record types up to the end, as a bit map (RFC 4034 §4.1.2).
    pub(super) fn types(&mut self) -> Result<(), String> {
        let mut types = Vec::new();
        while !self.at_end() {
            types.push(self.record_type()?);
        }
        type_bitmap::append(&mut self.out, types);
        Ok(())
    }

    pub(super) fn record_type(&mut self) -> Result<u16, String> {
        let word = self.word("a record type")?;
        record_type(word).ok_or_else(|| not(word.as_bytes(), "a record type"))
    }

    /// Appends `octets` after an octet with their length.
    pub(super) fn short(&mut self, octets: &[u8]) -> Result<(), String> {
        self.out.push(u8::try_from(octets.len()).map_err(|_| "an item has more than 255 octets".to_owned())?);
        self.out.extend_from_slice(octets);
        Ok(())
    }
}

/// The octets that pairs of hexadecimal digits stand for.
pub(super) fn hex(digits: &[u8]) -> Option<Vec<u8>> {
    let nibble = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let (pairs, rest) = digits.as_chunks::<2>();
    let octets: Option<Vec<u8>> = pairs.iter().map(|&[high, low]| Some(nibble(high)? << 4 | nibble(low)?)).collect();
    octets.filter(|_| rest.is_empty())
}

/// The error message for an item that isn't `what` the type has there.
pub(super) fn not(text: &[u8], what: &str) -> String {
    format!("{} is not {what}", shown(text))
}

/// An item as an error message shows it. Long items are cut.
pub(super) fn shown(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    match text.char_indices().nth(40) {
        Some((at, _)) => format!("`{}…`", &text[..at]),
        None => format!("`{text}`"),
    }
}
