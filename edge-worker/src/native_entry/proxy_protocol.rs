//! The PROXY protocol, versions 1 and 2, by which a proxy that passes bytes on says whom it serves. Takes the first
//! bytes of a connection, returns the client's address. Pure; called by `connection`.
//!
//! Source: *The PROXY protocol*, versions 1 and 2, by HAProxy.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How a header of version 2 begins.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// How a header of version 1 begins.
const WORD: &[u8] = b"PROXY ";
/// The longest header of version 1, with its line end.
const LONGEST_LINE: usize = 107;
/// The longest header that is accepted. One of version 2 may have extensions, which aren't read.
pub(super) const LONGEST: usize = 4_096;

/// What the first bytes of a connection are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Header {
    /// A header of so many bytes. The client is unknown if the proxy speaks for itself, such as in a health check.
    Whole {
        /// The client's address.
        client: Option<IpAddr>,
        /// The number of bytes before those of the client.
        length: usize,
    },
    /// The beginning of a header.
    Begun,
    /// Something else.
    Broken,
}

/// Reads the header at the beginning of a connection.
#[must_use]
pub(super) fn read(bytes: &[u8]) -> Header {
    let begins = |with: &[u8]| bytes.iter().zip(with).all(|(byte, expected)| byte == expected);
    if begins(&SIGNATURE) && (bytes.len() >= SIGNATURE.len() || !begins(WORD)) {
        binary(bytes)
    } else if begins(WORD) {
        line(bytes)
    } else {
        Header::Broken
    }
}

/// Reads version 1: `PROXY TCP4 SOURCE DESTINATION PORT PORT`.
fn line(bytes: &[u8]) -> Header {
    let Some(end) = bytes.windows(2).take(LONGEST_LINE - 1).position(|two| two == b"\r\n") else {
        return if bytes.len() < LONGEST_LINE { Header::Begun } else { Header::Broken };
    };
    let client = core::str::from_utf8(&bytes[..end]).ok().and_then(client_of_line);
    client.map_or(Header::Broken, |client| Header::Whole { client, length: end + 2 })
}

/// The client that a line names; none if the proxy doesn't know it. `None` if the line is broken.
fn client_of_line(line: &str) -> Option<Option<IpAddr>> {
    let mut words = line.split(' ').skip(1);
    let family = words.next()?;
    if family == "UNKNOWN" {
        return Some(None);
    }
    let mut address = || match family {
        "TCP4" => words.next()?.parse().ok().map(IpAddr::V4),
        "TCP6" => words.next()?.parse().ok().map(IpAddr::V6),
        _ => None,
    };
    let (source, _) = (address()?, address()?);
    let is_port = |word: Option<&str>| word.is_some_and(|word| word.parse::<u16>().is_ok());
    (is_port(words.next()) && is_port(words.next()) && words.next().is_none()).then_some(Some(source))
}

/// Reads version 2: the signature, version and command, family, length, addresses, extensions.
fn binary(bytes: &[u8]) -> Header {
    let Some(([command, family, high, low], rest)) = bytes.get(SIGNATURE.len()..).and_then(<[u8]>::split_first_chunk)
    else {
        return Header::Begun;
    };
    let announced = usize::from(u16::from_be_bytes([*high, *low]));
    let length = SIGNATURE.len() + 4 + announced;
    let is_local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Header::Broken,
    };
    if length > LONGEST {
        return Header::Broken;
    }
    let Some(said) = rest.get(..announced) else { return Header::Begun };
    let client = match family {
        _ if is_local => None,
        0x11 if announced >= 12 => said.first_chunk().map(|octets: &[u8; 4]| IpAddr::V4(Ipv4Addr::from(*octets))),
        0x21 if announced >= 36 => said.first_chunk().map(|octets: &[u8; 16]| IpAddr::V6(Ipv6Addr::from(*octets))),
        // Too short for its family.
        0x11 | 0x21 => return Header::Broken,
        // A Unix socket, UDP or something unknown: the protocol says to use the connection's own address.
        _ => None,
    };
    Header::Whole { client, length }
}

#[cfg(test)]
mod tests {
    use core::cell::Cell;

    use proptest::prelude::*;
    use proptest::test_runner::{Config, TestRunner};

    use super::*;

    fn v2(command: u8, family: u8, said: &[u8]) -> Vec<u8> {
        let length = u16::try_from(said.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, said].concat()
    }

    fn whole(client: Option<&str>, length: usize) -> Header {
        Header::Whole { client: client.map(|text| text.parse().unwrap()), length }
    }

    #[test]
    fn both_versions_name_the_client() {
        let four = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\nGET / HTTP/1.1\r\n";
        assert_eq!(read(four), whole(Some("192.0.2.7"), 45));
        let six = b"PROXY TCP6 2001:db8::7 2001:db8::1 56324 443\r\n";
        assert_eq!(read(six), whole(Some("2001:db8::7"), six.len()));
        assert_eq!(read(b"PROXY UNKNOWN\r\n"), whole(None, 15));
        assert_eq!(read(b"PROXY UNKNOWN ff:: ff:: 1 2\r\nGET"), whole(None, 29));
        let four = v2(0x21, 0x11, &[192, 0, 2, 7, 198, 51, 100, 1, 0xdc, 4, 1, 0xbb]);
        assert_eq!(read(&[&four[..], b"GET"].concat()), whole(Some("192.0.2.7"), 28));
        let mut six = [0; 36 + 5];
        six[..16].copy_from_slice(&"2001:db8::7".parse::<Ipv6Addr>().unwrap().octets());
        assert_eq!(read(&v2(0x21, 0x21, &six)), whole(Some("2001:db8::7"), 16 + 41), "with an extension");
        assert_eq!(read(&v2(0x20, 0, &[])), whole(None, 16), "a health check of the proxy itself");
        assert_eq!(read(&v2(0x21, 0x31, &[0; 216])), whole(None, 232), "a Unix socket");
    }

    #[test]
    fn what_is_no_header_is_broken() {
        let long = [b"PROXY TCP4 ".to_vec(), vec![b'1'; 200]].concat();
        let broken: [&[u8]; 14] = [
            b"GET / HTTP/1.1\r\n",
            b"PROXYTCP4",
            b"proxy TCP4 192.0.2.7 198.51.100.1 1 2\r\n",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 1\r\n",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 1 65536\r\n",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 1 2 3\r\n",
            b"PROXY TCP4  192.0.2.7 198.51.100.1 1 2\r\n",
            b"PROXY TCP4 2001:db8::7 2001:db8::1 1 2\r\n",
            b"PROXY UDP4 192.0.2.7 198.51.100.1 1 2\r\n",
            b"PROXY TCP4 192.0.2.\xff 198.51.100.1 1 2\r\n",
            &long,
            &v2(0x11, 0x11, &[0; 12]),
            &v2(0x22, 0x11, &[0; 12]),
            &v2(0x21, 0x11, &[0; 11]),
        ];
        for bytes in broken {
            assert_eq!(read(bytes), Header::Broken, "{}", bytes.escape_ascii());
        }
        assert_eq!(read(&v2(0x21, 0x11, &[0; LONGEST])), Header::Broken, "too long");
    }

    #[test]
    fn a_header_that_comes_byte_by_byte_is_awaited() {
        for header in [
            b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n".to_vec(),
            v2(0x21, 0x11, &[192, 0, 2, 7, 198, 51, 100, 1, 0xdc, 4, 1, 0xbb]),
        ] {
            for length in 0..header.len() {
                assert_eq!(read(&header[..length]), Header::Begun, "{}", header[..length].escape_ascii());
            }
            assert_eq!(read(&header), whole(Some("192.0.2.7"), header.len()));
        }
    }

    /// Cases of the property below.
    const CASES: u32 = 100_000;

    /// Bytes that resemble a header: pieces of good ones, in any order, with other bytes between.
    fn resembling() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            Just(WORD.to_vec()),
            Just(SIGNATURE.to_vec()),
            Just(b"TCP4 192.0.2.7 198.51.100.1 1 2\r\n".to_vec()),
            Just(b"TCP6 2001:db8::7 2001:db8::1 1 2\r\n".to_vec()),
            Just(b"UNKNOWN\r\n".to_vec()),
            Just(vec![0x21, 0x11, 0, 12, 192, 0, 2, 7, 198, 51, 100, 1, 0, 1, 0, 2]),
            Just(vec![0x21, 0x21, 0, 36]),
            Just(vec![0x20, 0, 0, 0]),
            Just(vec![0x21, 0x11, 0xff, 0xff]),
            Just(b"\r\n".to_vec()),
            prop::collection::vec(any::<u8>(), 0..120),
        ];
        prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
    }

    #[test]
    fn any_bytes_are_read_alike_however_they_come() {
        let (whole, begun, broken) = (Cell::new(0_u32), Cell::new(0_u32), Cell::new(0_u32));
        let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
        let outcome = TestRunner::new(config).run(&(resembling(), any::<prop::sample::Index>()), |(bytes, cut)| {
            let all = read(&bytes);
            let early = read(&bytes[..cut.index(bytes.len() + 1)]);
            let count = match all {
                Header::Whole { length, client } => {
                    prop_assert!(length <= bytes.len() && length <= LONGEST);
                    prop_assert_eq!(read(&bytes[..length]), all, "what follows doesn't matter");
                    prop_assert!(matches!(early, Header::Begun) || early == all);
                    if let (true, Some(client)) = (bytes.starts_with(WORD), client) {
                        let line = core::str::from_utf8(&bytes[..length]).unwrap();
                        prop_assert_eq!(line.split(' ').nth(2).and_then(|word| word.parse().ok()), Some(client));
                    }
                    &whole
                }
                Header::Begun => {
                    prop_assert_eq!(early, Header::Begun);
                    prop_assert!(bytes.len() < LONGEST, "it ends");
                    &begun
                }
                Header::Broken => {
                    let is_whole = matches!(early, Header::Whole { .. });
                    prop_assert!(!is_whole);
                    &broken
                }
            };
            count.set(count.get() + 1);
            Ok(())
        });
        println!("{} headers, {} beginnings, {} of something else", whole.get(), begun.get(), broken.get());
        outcome.unwrap();
        assert!([whole, begun, broken].iter().all(|count| count.get() > CASES / 200));
    }
}
