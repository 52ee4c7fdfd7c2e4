//! The kinds of items in the text form of record data. [`super::forms`] lists the items of each type, `odd` reads them.

use super::fields::Fields;

/// An item of record data.
#[derive(Debug, Clone, Copy)]
pub(super) enum Item {
    /// A number of one octet.
    U8,
    /// A number of two octets.
    U16,
    /// A number of four octets.
    U32,
    /// Seconds, or a time with units.
    Time,
    /// A domain name.
    Name,
    Ipv4,
    Ipv6,
    /// One character-string.
    Text,
    /// One character-string, or nothing.
    MaybeText,
    /// One or more character-strings.
    Texts,
    /// One string up to the end, which has no length octet in wire format.
    LongText,
    /// Hexadecimal digits up to the end.
    Hex,
    /// Base64 up to the end.
    Base64,
    /// Base64 up to the end, or nothing.
    MaybeBase64,
    /// A bit map of types, up to the end.
    Types,
    /// The mnemonic of a record type, as two octets.
    Type,
    /// A DNSSEC algorithm, by name or number.
    Algorithm,
    /// A digest type, by name or number.
    Digest,
    /// A certificate type, by name or number.
    Certificate,
    /// A DSYNC scheme, by name or number.
    Scheme,
    /// A time of a signature, as `YYYYMMDDHHmmSS` or in seconds.
    Date,
    /// An NSEC3 salt.
    Salt,
    /// An NSEC3 hash in base32.
    Hash,
    /// A locator of 64 bits in four groups.
    Node,
    /// This number of octets as pairs of hexadecimal digits with hyphens.
    Eui(usize),
    /// The tag of a CAA.
    Tag,
    /// All data of a type, read by a function of `odd`.
    Odd(fn(&mut Fields<'_>) -> Result<(), String>),
}

impl Item {
    /// The description of the item for error messages.
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
