//! The validity of a certificate. Takes the certificate in DER, returns `notBefore` and `notAfter` (RFC 5280 §4.1.2.5).
//! Called by [`super::Certificate`], because rustls doesn't return these times.

use bailiwick_rules::time::Timestamp;

const SEQUENCE: u8 = 0x30;
/// `version` of a certificate: explicitly tagged 0.
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// When the certificate expires; `None` if the bytes can't be read as a certificate.
pub(super) fn of(der: &[u8]) -> Option<Timestamp> {
    Some(validity(der)?.1)
}

/// The times from which and until which the certificate is valid.
pub(super) fn validity(der: &[u8]) -> Option<(Timestamp, Timestamp)> {
    let certificate = &mut inside(&mut &*der, SEQUENCE)?;
    let fields = &mut inside(certificate, SEQUENCE)?;
    if fields.first() == Some(&VERSION) {
        next(fields)?;
    }
    // serialNumber, signature, issuer
    for _ in 0..3 {
        next(fields)?;
    }
    let validity = &mut inside(fields, SEQUENCE)?;
    let ((tag, from), (last_tag, until)) = (next(validity)?, next(validity)?);
    Some((moment(tag, from)?, moment(last_tag, until)?))
}

/// Reads a time of a certificate.
fn moment(tag: u8, time: &[u8]) -> Option<Timestamp> {
    let time = str::from_utf8(time).ok()?;
    let (century, rest) = match tag {
        // RFC 5280 §4.1.2.5.1: a year from 50 to 99 means 1950 to 1999.
        UTC_TIME => (if *time.as_bytes().first()? >= b'5' { "19" } else { "20" }, time),
        GENERALIZED_TIME => (time.get(..2)?, time.get(2..)?),
        _ => return None,
    };
    let two = |at: usize| rest.get(2 * at..2 * at + 2);
    let (year, month, day) = (two(0)?, two(1)?, two(2)?);
    Timestamp::parse(&format!("{century}{year}-{month}-{day}T{}:{}:{}Z", two(3)?, two(4)?, two(5)?))
}

/// The content of the next element, which must have this tag.
fn inside<'d>(der: &mut &'d [u8], tag: u8) -> Option<&'d [u8]> {
    next(der).filter(|(first_tag, _)| *first_tag == tag).map(|(_, content)| content)
}

/// The tag and the content of the next element (X.690 §8.1). `der` then begins after that element.
fn next<'d>(der: &mut &'d [u8]) -> Option<(u8, &'d [u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let mut length = usize::from(first);
    if first & 0x80 != 0 {
        let octets;
        (octets, rest) = rest.split_at_checked(usize::from(first & 0x7f)).filter(|(octets, _)| octets.len() <= 4)?;
        length = octets.iter().fold(0, |length, octet| length << 8 | usize::from(*octet));
    }
    let (content, rest) = rest.split_at_checked(length)?;
    *der = rest;
    Some((tag, content))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(year: i32) -> Vec<u8> {
        let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 2, 3);
        let key = rcgen::KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn both_ways_to_write_a_time_are_read() {
        assert_eq!(of(&made(2031)), Timestamp::parse("2031-02-03T00:00:00Z"));
        assert_eq!(of(&made(2061)), Timestamp::parse("2061-02-03T00:00:00Z"), "GeneralizedTime from 2050 on");
    }

    #[test]
    fn a_damaged_certificate_has_no_time_and_never_panics() {
        let whole = made(2031);
        for length in 0..150 {
            assert_eq!(of(&whole[..length]), None);
        }
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0xff;
            let _ = of(&damaged);
        }
    }
}
