//! Reads the items of record data. Takes an item and the tokens, appends wire format. Called by `data`. Also holds the
//! readers of types that a list of plain items can't describe; `forms` names them.

use std::net::{Ipv4Addr, Ipv6Addr};

use bailiwick_rules::time::Timestamp;

use super::fields::{Fields, hex, not};
use super::item::Item;

/// DNSSEC algorithms by name (RFC 4034 appendix A.1 and the registry).
const ALGORITHMS: [(&str, u16); 16] = [
    ("RSAMD5", 1),
    ("DH", 2),
    ("DSA", 3),
    ("RSASHA1", 5),
    ("NSEC3DSA", 6),
    ("NSEC3RSASHA1", 7),
    ("RSASHA256", 8),
    ("RSASHA512", 10),
    ("ECCGOST", 12),
    ("ECDSAP256SHA256", 13),
    ("ECDSAP384SHA384", 14),
    ("ED25519", 15),
    ("ED448", 16),
    ("INDIRECT", 252),
    ("PRIVATEDNS", 253),
    ("PRIVATEOID", 254),
];
const DIGESTS: [(&str, u16); 7] =
    [("SHA-1", 1), ("SHA1", 1), ("SHA-256", 2), ("SHA256", 2), ("GOST", 3), ("SHA-384", 4), ("SHA384", 4)];
/// Certificate types (RFC 4398 §2.1).
const CERTIFICATES: [(&str, u16); 10] = [
    ("PKIX", 1),
    ("SPKI", 2),
    ("PGP", 3),
    ("IPKIX", 4),
    ("ISPKI", 5),
    ("IPGP", 6),
    ("ACPKIX", 7),
    ("IACPKIX", 8),
    ("URI", 253),
    ("OID", 254),
];

/// Reads one item.
pub(super) fn read(item: Item, fields: &mut Fields<'_>) -> Result<(), String> {
    match item {
        Item::U8 => fields.u8().map(drop),
        Item::U16 => fields.u16(),
        Item::U32 => fields.u32(),
        Item::Time => fields.time(),
        Item::Name => fields.name(),
        Item::Ipv4 => fields.ipv4(),
        Item::Ipv6 => fields.ipv6(),
        Item::MaybeText | Item::MaybeBase64 if fields.at_end() => Ok(()),
        Item::Text | Item::MaybeText => fields.text(),
        Item::Texts => fields.texts(),
        Item::LongText => fields.long_text(),
        Item::Hex => fields.hex(),
        Item::Base64 | Item::MaybeBase64 => fields.base64(),
        Item::Types => fields.types(),
        Item::Type => {
            let rtype = fields.record_type()?;
            fields.out.extend(rtype.to_be_bytes());
            Ok(())
        }
        Item::Algorithm => fields.named_u8(&ALGORITHMS, "an algorithm's number or name"),
        Item::Digest => fields.named_u8(&DIGESTS, "a digest type's number"),
        Item::Certificate => {
            let kind = fields.named(&CERTIFICATES, "a certificate type such as PKIX, or its number")?;
            fields.out.extend(kind.to_be_bytes());
            Ok(())
        }
        Item::Scheme => fields.named_u8(&[("NOTIFY", 1)], "NOTIFY or a scheme's number"),
        Item::Date => date(fields),
        Item::Salt => salt(fields),
        Item::Hash => hash(fields),
        Item::Node => node(fields),
        Item::Eui(octets) => eui(fields, octets),
        Item::Tag => tag(fields),
        Item::Odd(read) => read(fields),
    }
}

/// A time of a signature (RFC 4034 §3.2).
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // the lower 32 bits are meant (RFC 4034 §3.1.5)
fn date(fields: &mut Fields<'_>) -> Result<(), String> {
    let what = "a time such as 20261128083000";
    let word = fields.word(what)?;
    let digits = word.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = match word.len() {
        14 if digits => {
            let part = |range: std::ops::Range<usize>| &word[range];
            let text = format!(
                "{}-{}-{}T{}:{}:{}Z",
                part(0..4),
                part(4..6),
                part(6..8),
                part(8..10),
                part(10..12),
                part(12..14)
            );
            Timestamp::parse(&text).map(|time| time.0.div_euclid(1000) as u32)
        }
        1..=10 if digits => word.parse().ok(),
        _ => None,
    };
    fields.out.extend(seconds.ok_or_else(|| not(word.as_bytes(), what))?.to_be_bytes());
    Ok(())
}

/// The salt of NSEC3 and NSEC3PARAM (RFC 5155 §3.3).
fn salt(fields: &mut Fields<'_>) -> Result<(), String> {
    let what = "a salt in hexadecimal digits, or -";
    let word = fields.word(what)?;
    let salt = if word == "-" { Some(Vec::new()) } else { hex(word.as_bytes()) };
    fields.short(&salt.ok_or_else(|| not(word.as_bytes(), what))?)
}

/// The hash of a next owner in base32 with the extended hex alphabet, without padding (RFC 5155 §3.3).
fn hash(fields: &mut Fields<'_>) -> Result<(), String> {
    let what = "a hash in base32";
    let word = fields.word(what)?;
    let (mut octets, mut bits, mut buffer) = (Vec::new(), 0_u32, 0_u32);
    for letter in word.chars() {
        let value = letter.to_digit(32).ok_or_else(|| not(word.as_bytes(), what))?;
        buffer = buffer << 5 | value;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            octets.push((buffer >> bits).to_le_bytes()[0]);
            buffer &= (1 << bits) - 1;
        }
    }
    if buffer != 0 || octets.is_empty() {
        return Err(not(word.as_bytes(), what));
    }
    fields.short(&octets)
}

/// A locator or identifier of 64 bits (RFC 6742 §2.1.2).
fn node(fields: &mut Fields<'_>) -> Result<(), String> {
    let what = "four groups of hexadecimal digits, such as 14:4fff:ff20:ee64";
    let word = fields.word(what)?;
    let group = |text: &str| (1..=4).contains(&text.len()).then(|| u16::from_str_radix(text, 16).ok()).flatten();
    let groups: Option<Vec<u16>> = word.split(':').map(group).collect();
    let groups = groups.filter(|groups| groups.len() == 4).ok_or_else(|| not(word.as_bytes(), what))?;
    fields.out.extend(groups.into_iter().flat_map(u16::to_be_bytes));
    Ok(())
}

/// An extended unique identifier (RFC 7043 §3.2, §4.2).
fn eui(fields: &mut Fields<'_>, octets: usize) -> Result<(), String> {
    let what = format!("{octets} pairs of hexadecimal digits with hyphens between");
    let word = fields.word(&what)?;
    let pairs: Option<Vec<Vec<u8>>> =
        word.split('-').map(|pair| hex(pair.as_bytes()).filter(|octets| octets.len() == 1)).collect();
    let pairs = pairs.filter(|pairs| pairs.len() == octets).ok_or_else(|| not(word.as_bytes(), &what))?;
    fields.out.extend(pairs.concat());
    Ok(())
}

/// The tag of a CAA record (RFC 8659 §4.1).
fn tag(fields: &mut Fields<'_>) -> Result<(), String> {
    let what = "a property such as issue";
    let word = fields.word(what)?;
    if word.is_empty() || !word.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(not(word.as_bytes(), what));
    }
    fields.short(word.as_bytes())
}

/// WKS: address, protocol and a bit map of ports (RFC 1035 §3.4.2).
pub(super) fn wks(fields: &mut Fields<'_>) -> Result<(), String> {
    fields.ipv4()?;
    fields.named_u8(&[("ICMP", 1), ("TCP", 6), ("UDP", 17)], "a protocol: TCP, UDP or a number")?;
    let mut ports = Vec::new();
    while !fields.at_end() {
        let port: u16 = fields.number("a port's number")?;
        let at = usize::from(port / 8);
        ports.resize(ports.len().max(at + 1), 0);
        ports[at] |= 0x80 >> (port % 8);
    }
    fields.out.extend(ports);
    Ok(())
}

/// NSAP: an OSI address (RFC 1706 §6).
pub(super) fn nsap(fields: &mut Fields<'_>) -> Result<(), String> {
    let what = "0x and hexadecimal digits, perhaps with dots between";
    let word = fields.word(what)?;
    let digits = word.strip_prefix("0x").or_else(|| word.strip_prefix("0X")).map(|digits| digits.replace('.', ""));
    let octets = digits.and_then(|digits| hex(digits.as_bytes())).filter(|octets| !octets.is_empty());
    fields.out.extend(octets.ok_or_else(|| not(word.as_bytes(), what))?);
    Ok(())
}

/// APL: address prefixes (RFC 3123 §4, §5).
pub(super) fn apl(fields: &mut Fields<'_>) -> Result<(), String> {
    let what = "a prefix such as 1:192.0.2.0/24 or !2:2001:db8::/32";
    while !fields.at_end() {
        let word = fields.word(what)?;
        let prefix = || {
            let (negated, text) = word.strip_prefix('!').map_or((0, word), |text| (0x80, text));
            let (family, text) = text.split_once(':')?;
            let (address, length) = text.rsplit_once('/')?;
            let length: u8 = length.parse().ok()?;
            let (family, most, mut octets): (u16, u8, Vec<u8>) = match family {
                "1" => (1, 32, address.parse::<Ipv4Addr>().ok()?.octets().to_vec()),
                "2" => (2, 128, address.parse::<Ipv6Addr>().ok()?.octets().to_vec()),
                _ => return None,
            };
            // Zeros at the end aren't written (§4).
            octets.truncate(octets.iter().rposition(|octet| *octet != 0).map_or(0, |last| last + 1));
            let part = negated | u8::try_from(octets.len()).ok()?;
            (length <= most).then(|| [&family.to_be_bytes()[..], &[length, part], &octets].concat())
        };
        fields.out.extend(prefix().ok_or_else(|| not(word.as_bytes(), what))?);
    }
    Ok(())
}

/// IPSECKEY: precedence, gateway and key (RFC 4025 §3).
pub(super) fn ipseckey(fields: &mut Fields<'_>) -> Result<(), String> {
    fields.u8()?;
    let kind = fields.u8()?;
    let algorithm = fields.u8()?;
    gateway(fields, kind)?;
    if algorithm == 0 && fields.at_end() { Ok(()) } else { fields.base64() }
}

/// AMTRELAY: precedence, whether discovery is optional, and a relay (RFC 8777 §4).
pub(super) fn amtrelay(fields: &mut Fields<'_>) -> Result<(), String> {
    fields.u8()?;
    let optional = fields.word("0 or 1")?;
    let optional = match optional {
        "0" => 0,
        "1" => 0x80,
        other => return Err(not(other.as_bytes(), "0 or 1")),
    };
    let kind: u8 = fields.number("a relay type from 0 to 3")?;
    fields.out.push(optional | kind & 0x7f);
    gateway(fields, kind)
}

/// A gateway or relay of this type: nothing, an address or a name.
fn gateway(fields: &mut Fields<'_>, kind: u8) -> Result<(), String> {
    match kind {
        0 => match fields.word("a dot for no gateway")? {
            "." => Ok(()),
            other => Err(not(other.as_bytes(), "a dot, as the type 0 means no gateway")),
        },
        1 => fields.ipv4(),
        2 => fields.ipv6(),
        3 => fields.name(),
        _ => Err(format!("{kind} is no type of gateway; write 0 for none, 1 for IPv4, 2 for IPv6 or 3 for a name")),
    }
}

/// HIP: identity, key and rendezvous servers (RFC 8005 §5, §6).
pub(super) fn hip(fields: &mut Fields<'_>) -> Result<(), String> {
    let algorithm: u8 = fields.number("an algorithm's number")?;
    let (tag, key) = (fields.hex_word()?, fields.base64_word()?);
    let lengths = u8::try_from(tag.len()).ok().zip(u16::try_from(key.len()).ok());
    let (tag_length, key_length) = lengths.ok_or("the tag or the key is too long")?;
    fields.out.extend([tag_length, algorithm]);
    fields.out.extend(key_length.to_be_bytes());
    fields.out.extend([tag, key].concat());
    while !fields.at_end() {
        fields.name()?;
    }
    Ok(())
}

/// DOA: a digital object (draft-durand-doa-over-dns).
pub(super) fn doa(fields: &mut Fields<'_>) -> Result<(), String> {
    fields.u32()?;
    fields.u32()?;
    fields.u8()?;
    fields.text()?;
    if fields.takes(b"-") { Ok(()) } else { fields.base64() }
}

/// IPN: a number of 64 bits.
pub(super) fn ipn(fields: &mut Fields<'_>) -> Result<(), String> {
    let number: u64 = fields.number("a number of 64 bits")?;
    fields.out.extend(number.to_be_bytes());
    Ok(())
}

/// LOC: a geographic position (RFC 1876 §2, §3).
pub(super) fn loc(fields: &mut Fields<'_>) -> Result<(), String> {
    let latitude = angle(fields, 90, ["N", "S"])?;
    let longitude = angle(fields, 180, ["E", "W"])?;
    let altitude = metres(fields, "an altitude such as -2.00m", -10_000_000, 4_284_967_295)?;
    // The defaults: a size of 1 m, a horizontal precision of 10 km, a vertical precision of 10 m.
    let mut sizes = [0x12, 0x16, 0x13];
    for size in &mut sizes {
        if !fields.at_end() {
            *size = precision(metres(fields, "a size such as 10m", 0, 9_000_000_000)?);
        }
    }
    fields.out.push(0);
    fields.out.extend(sizes);
    for angle in [latitude, longitude] {
        fields.out.extend(angle.to_be_bytes());
    }
    let altitude = u32::try_from(altitude + 10_000_000).map_err(|_| "the altitude is out of range".to_owned())?;
    fields.out.extend(altitude.to_be_bytes());
    Ok(())
}

/// Reads degrees, perhaps minutes and seconds, and the hemisphere. Returns thousandths of an arc second, where 2^31
/// means the equator or the prime meridian.
fn angle(fields: &mut Fields<'_>, most: u32, hemispheres: [&str; 2]) -> Result<u32, String> {
    let what =
        format!("degrees, minutes and seconds up to {most} degrees, and {} or {}", hemispheres[0], hemispheres[1]);
    let mut parts = [0_u32; 3];
    for count in 0..=3 {
        let word = fields.word(&what)?;
        if let Some(place) =
            hemispheres.iter().position(|hemisphere| word.eq_ignore_ascii_case(hemisphere)).filter(|_| count > 0)
        {
            let [degrees, minutes, thousandths] = parts;
            let total = degrees * 3_600_000 + minutes * 60_000 + thousandths;
            if total > most * 3_600_000 {
                return Err(format!("more than {most} degrees; mend the position"));
            }
            return Ok(if place == 0 { (1 << 31) + total } else { (1 << 31) - total });
        }
        let part = match count {
            0 => word.parse().ok().filter(|degrees| *degrees <= most),
            1 => word.parse().ok().filter(|minutes| *minutes < 60),
            2 => decimal(word, 3).and_then(|value| u32::try_from(value).ok()).filter(|value| *value < 60_000),
            _ => None,
        };
        *parts.get_mut(count).ok_or_else(|| not(word.as_bytes(), &what))? =
            part.ok_or_else(|| not(word.as_bytes(), &what))?;
    }
    Err(format!("the position lacks {what}"))
}

/// Reads metres, returns centimetres.
fn metres(fields: &mut Fields<'_>, what: &str, least: i64, most: i64) -> Result<i64, String> {
    let word = fields.word(what)?;
    let digits = word.strip_suffix(['m', 'M']).unwrap_or(word);
    let (sign, digits) = digits.strip_prefix('-').map_or((1, digits), |digits| (-1, digits));
    let centimetres = decimal(digits, 2).map(|value| sign * value).filter(|value| (least..=most).contains(value));
    centimetres.ok_or_else(|| not(word.as_bytes(), what))
}

/// Reads a number with at most `places` digits after the point. Returns it as a whole number of the smallest unit.
fn decimal(text: &str, places: usize) -> Option<i64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || part.len() > places || whole.len() > 12 || !digits(whole) || !digits(part) {
        return None;
    }
    format!("{whole}{part:0<places$}").parse().ok()
}

/// Centimetres as one digit and a power of ten (RFC 1876 §2).
fn precision(centimetres: i64) -> u8 {
    let (mut digit, mut power) = (centimetres, 0_u8);
    while digit > 9 {
        digit /= 10;
        power += 1;
    }
    u8::try_from(digit).unwrap_or(9) << 4 | power
}
