//! The text forms of record types. Takes a type, returns the items (such as a number or a name) of its data, in order.
//! Called by `data`.

use super::item::Item;
use super::odd;

/// The items of a type. `None` for service bindings, and for types that are only read in the form `\# length hex`.
pub(super) fn items(rtype: u16) -> Option<&'static [Item]> {
    use Item::{
        Algorithm, Base64, Certificate, Date, Digest, Eui, Hash, Hex, Ipv4, Ipv6, LongText, MaybeBase64, MaybeText,
        Name, Node, Odd, Salt, Scheme, Tag, Text, Texts, Time, Type, Types, U8, U16, U32,
    };
    Some(match rtype {
        1 => &[Ipv4],
        2..=5 | 7..=9 | 12 | 23 | 39 => &[Name], // NS, MD, MF, CNAME, MB, MG, MR, PTR, NSAP-PTR, DNAME
        6 => &[Name, Name, U32, Time, Time, Time, Time], // SOA
        11 => &[Odd(odd::wks)],
        13 => &[Text, Text],                        // HINFO
        14 | 17 | 58 => &[Name, Name],              // MINFO, RP, TALINK
        15 | 18 | 21 | 36 | 107 => &[U16, Name],    // MX, AFSDB, RT, KX, LP
        16 | 56 | 99 | 258 | 261..=263 => &[Texts], // TXT, NINFO, SPF, AVC, RESINFO, WALLET, CLA
        19 => &[Text],                              // X25
        20 => &[Text, MaybeText],                   // ISDN
        22 => &[Odd(odd::nsap)],
        24 | 46 => &[Type, Algorithm, U8, U32, Date, Date, U16, Name, Base64], // SIG, RRSIG
        25 => &[U16, U8, Algorithm, MaybeBase64],                              // KEY
        26 => &[U16, Name, Name],                                              // PX
        27 => &[Text, Text, Text],                                             // GPOS
        28 => &[Ipv6],
        29 => &[Odd(odd::loc)],
        31 | 32 => &[Hex],                            // EID, NIMLOC
        33 => &[U16, U16, U16, Name],                 // SRV
        35 => &[U16, U16, Text, Text, Text, Name],    // NAPTR
        37 => &[Certificate, U16, Algorithm, Base64], // CERT
        40 => &[U8, U8, U8, Base64],                  // SINK
        42 => &[Odd(odd::apl)],
        43 | 59 | 32768 | 32769 => &[U16, Algorithm, Digest, Hex], // DS, CDS, TA, DLV
        44 => &[U8, U8, Hex],                                      // SSHFP
        45 => &[Odd(odd::ipseckey)],
        47 => &[Name, Types],                          // NSEC
        48 | 57 | 60 => &[U16, U8, Algorithm, Base64], // DNSKEY, RKEY, CDNSKEY
        49 | 61 | 67 | 68 => &[Base64],                // DHCID, OPENPGPKEY, HHIT, BRID
        50 => &[U8, U8, U16, Salt, Hash, Types],       // NSEC3
        51 => &[U8, U8, U16, Salt],                    // NSEC3PARAM
        52 | 53 => &[U8, U8, U8, Hex],                 // TLSA, SMIMEA
        55 => &[Odd(odd::hip)],
        62 => &[U32, U16, Types],         // CSYNC
        63 => &[U32, U8, U8, Hex],        // ZONEMD
        66 => &[Type, Scheme, U16, Name], // DSYNC
        104 | 106 => &[U16, Node],        // NID, L64
        105 => &[U16, Ipv4],              // L32
        108 => &[Eui(6)],
        109 => &[Eui(8)],
        256 => &[U16, U16, LongText], // URI
        257 => &[U8, Tag, LongText],  // CAA
        259 => &[Odd(odd::doa)],
        260 => &[Odd(odd::amtrelay)],
        264 => &[Odd(odd::ipn)],
        _ => return None,
    })
}

/// A description of the text form for error messages, for types whose list of items wouldn't explain it.
pub(super) fn wanted(rtype: u16) -> Option<&'static str> {
    Some(match rtype {
        11 => "an IPv4 address, a protocol and port numbers",
        22 => "0x and hexadecimal digits",
        29 => "a position such as 52 22 23.000 N 4 53 32.000 E -2.00m, perhaps with size and precisions (RFC 1876 §3)",
        42 => "prefixes such as 1:192.0.2.0/24 or !2:2001:db8::/32 (RFC 3123 §5)",
        45 => "precedence, gateway type, algorithm, gateway and key (RFC 4025 §3.1)",
        55 => "algorithm, identity tag in hexadecimal, key in base64 and perhaps host names (RFC 8005 §6)",
        259 => "enterprise, type, location, media type and base64 or -",
        260 => "precedence, 0 or 1, relay type and relay (RFC 8777 §4.3)",
        264 => "a number",
        _ => return None,
    })
}
