//! The kinds of items that record data is made of in text. [`super::forms`] lists those of each type, `data` reads
//! them.

use super::fields::Fields;

/// An item of record data.
#[derive(Debug, Clone, Copy)]
pub(super) enum Item {
    /// A number of one, two or four octets.
    U8,
    U16,
    U32,
    /// Seconds, or a time with units.
    Time,
    /// A domain name.
    Name,
    Ipv4,
    Ipv6,
    /// One character-string, one that may be missing, or one and more.
    Text,
    MaybeText,
    Texts,
    /// One string without a length, up to the end.
    LongText,
    /// Digits, or base64, up to the end; or base64 that may be missing.
    Hex,
    Base64,
    MaybeBase64,
    /// A bit map of types, up to the end.
    Types,
    /// A type's mnemonic as two octets.
    Type,
    /// A DNSSEC algorithm, a digest type, a certificate type or a DSYNC scheme, by name or number.
    Algorithm,
    Digest,
    Certificate,
    Scheme,
    /// A time of a signature, `YYYYMMDDHHmmSS` or seconds.
    Date,
    /// An NSEC3 salt, and a hash in base32.
    Salt,
    Hash,
    /// A locator of 64 bits in four groups.
    Node,
    /// That many octets in pairs with hyphens.
    Eui(usize),
    /// The tag of a CAA.
    Tag,
    /// Whatever `odd` reads.
    Odd(fn(&mut Fields<'_>) -> Result<(), String>),
}

impl Item {
    /// What stands there, as an error says it.
    pub(super) fn expected(self) -> &'static str {
        match self {
            Item::U8 | Item::U16 | Item::U32 => "a number",
            Item::Time => "a time",
            Item::Name => "a host name",
            Item::Ipv4 => "an IPv4 address such as 192.0.2.1",
            Item::Ipv6 => "an IPv6 address such as 2001:db8::1",
            Item::Text => "a string",
            Item::MaybeText => "perhaps a string",
            Item::Texts => "strings of at most 255 octets each, in quotes if they hold spaces",
            Item::LongText => "a string in quotes",
            Item::Hex => "hexadecimal digits",
            Item::Base64 => "base64",
            Item::MaybeBase64 => "perhaps base64",
            Item::Types => "record types",
            Item::Type => "a record type",
            Item::Algorithm => "an algorithm",
            Item::Digest => "a digest type",
            Item::Certificate => "a certificate type",
            Item::Scheme => "a scheme",
            Item::Date => "a time as YYYYMMDDHHmmSS",
            Item::Salt => "a salt or -",
            Item::Hash => "a hash in base32",
            Item::Node => "four groups of hexadecimal digits with colons between",
            Item::Eui(_) => "pairs of hexadecimal digits with hyphens between",
            Item::Tag => "a property such as issue",
            Item::Odd(_) => "data",
        }
    }
}
