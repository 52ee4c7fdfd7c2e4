//! Tests of master files: forms of the RFCs, mistakes with their lines, and random text.

use super::*;
use proptest::prelude::*;

fn records(text: &str) -> Result<Records, Vec<String>> {
    let origin = "example.com".parse().expect("name");
    let files = &mut |path: &Path| match path.to_str() {
        Some("dir/sub.zone") => Ok(b"www A 192.0.2.1\n$ORIGIN deep\nx A 192.0.2.2\n".to_vec()),
        Some("dir/ttl.zone") => Ok(b"$TTL 9\n".to_vec()),
        Some("dir/loop.zone") => Ok(b"$INCLUDE loop.zone\n".to_vec()),
        Some("dir/bad.zone") => Ok(b"\nwww A 1.2.3\n".to_vec()),
        _ => Err("not found".into()),
    };
    parse(text.as_bytes(), "dir/test.zone", &origin, files)
        .map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

fn shown(text: &str) -> Vec<String> {
    let show = |record: crate::zone::Record<'_>| {
        let hex: String = record.rdata.iter().map(|octet| format!("{octet:02x}")).collect();
        format!("{} {} {} {hex}", record.owner, record.ttl, record.rtype)
    };
    records(text).expect(text).iter().map(show).collect()
}

#[test]
fn rfc1035_5_1_owners_origins_and_classes() {
    let text = "$TTL 60\n@ IN A 192.0.2.1\n   300 IN A 192.0.2.2\nwww IN 5 A 192.0.2.3\n$ORIGIN sub\n\
                www.abs. A 192.0.2.4\nb A 192.0.2.5\n";
    assert_eq!(
        shown(text),
        [
            "example.com. 60 1 c0000201",
            "example.com. 300 1 c0000202",
            "www.example.com. 5 1 c0000203",
            "www.abs. 60 1 c0000204",
            "b.sub.example.com. 60 1 c0000205",
        ]
    );
}

#[test]
fn rfc1035_5_1_an_at_sign_alone_is_the_origin_in_data_too() {
    assert_eq!(shown("a 1 MX 10 @\n"), ["a.example.com. 1 15 000a076578616d706c6503636f6d00"]);
    assert_eq!(shown("a 1 TXT @\n"), ["a.example.com. 1 16 0140"]);
}

#[test]
fn rfc2308_4_ttls_come_from_the_record_then_the_directive_then_the_record_before() {
    assert_eq!(shown("a 7 A 1.1.1.1\nb A 1.1.1.1\n$TTL 1h30m\nc A 1.1.1.1\n").join(" ").matches(" 7 1 ").count(), 2);
    assert!(shown("$TTL 1h30m\nc A 1.1.1.1\n")[0].contains(" 5400 "));
    assert!(shown("@ SOA a. b. 1 2 3 4 55\n")[0].contains(" 55 6 "));
    assert!(records("c A 1.1.1.1\n").expect_err("no TTL")[0].contains("$TTL"));
    assert!(records("c 2147483648 A 1.1.1.1\n").expect_err("too long")[0].contains("RFC 2181"));
}

#[test]
fn rfc3597_5_generic_data() {
    assert_eq!(shown("a 1 TYPE65280 \\# 4 (0a00\n 0001)\n"), ["a.example.com. 1 65280 0a000001"]);
    assert_eq!(shown("a 1 A \\# 4 0A000001\n"), ["a.example.com. 1 1 0a000001"]);
    assert_eq!(shown("a 1 TYPE1 192.0.2.1\n"), ["a.example.com. 1 1 c0000201"]);
    assert_eq!(shown("a 1 TYPE65280 \\# 0\n"), ["a.example.com. 1 65280 "]);
    for bad in
        ["A \\# 3 0a0000", "TYPE999 \\# 4 0a00", "TYPE999 \\# 1 0g", "TYPE999 \\#", "TYPE999 text", "CNAME \\# 2 c00c"]
    {
        assert_eq!(records(&format!("a 1 {bad}\n")).expect_err(bad).len(), 1, "{bad}");
    }
}

#[test]
fn rfc9460_parameters_by_number_and_with_escapes() {
    let escaped = "000100000100 0c08665c6f6f2c626172026832";
    for (text, hex) in [
        ("SVCB 1 . key1=\\002h2", "000100 00010003026832"),
        ("HTTPS 1 . key3=\"\\001\\187\" mandatory=port", "000100 000000020003 0003000201bb"),
        ("HTTPS 1 . key0=\\000\\003 port=443", "000100 000000020003 0003000201bb"),
        ("HTTPS 1 . key9=\\000\\029 key8", "000100 00080000 00090002001d"),
        ("HTTPS 1 . key2 alpn=h2", "000100 00010003026832 00020000"),
        ("HTTPS 1 . alpn=h2 key4=\\192\\000\\002\\001 key667=a", "000100 00010003026832 00040004c0000201 029b000161"),
        ("SVCB 1 . alpn=\"f\\\\\\\\oo\\\\,bar,h2\"", escaped),
        ("SVCB 1 . alpn=f\\\\\\092oo\\092,bar,h2", escaped),
    ] {
        let shown = shown(&format!("a 1 {text}\n"));
        assert!(shown[0].ends_with(&format!(" {}", hex.replace(' ', ""))), "{text}: {shown:?}");
    }
    for bad in [
        "key1=h2",
        "key1=\\000",
        "key1=\\002h2 alpn=h2",
        "key2=x alpn=h2",
        "key3=443",
        "key3",
        "key4=",
        "key6=\\001",
        "key8=x",
        "key9=\\001",
        "key0=",
        "key0=\\000",
        "key0=\\000\\000",
        "key0=\\000\\003",
        "key0=\\000\\003\\000\\001 alpn=h2 port=1",
        "alpn=\"a\\\\b\"",
        "alpn=\"a\\\\,b,,c\"",
    ] {
        assert_eq!(records(&format!("a 1 HTTPS 1 . {bad}\n")).expect_err(bad).len(), 1, "{bad}");
    }
}

#[test]
fn without_another_ttl_the_minimum_of_the_soa_is_the_default() {
    let times = |text: &str| -> Vec<u32> { records(text).expect(text).iter().map(|record| record.ttl).collect() };
    let soa = "SOA a. b. 1 2 3 4 55\n";
    assert_eq!(times(&format!("@ {soa}@ NS a.\nb 7 A 1.1.1.1\nc A 1.1.1.1\n")), [55, 55, 7, 55]);
    assert_eq!(times(&format!("@ {soa}$TTL 9\nb A 1.1.1.1\n")), [55, 9]);
    assert_eq!(times(&format!("@ 8 {soa}b A 1.1.1.1\n")), [8, 8]);
    assert!(records(&format!("b A 1.1.1.1\n@ {soa}")).expect_err("too early")[0].contains("$TTL"));
}

#[test]
fn common_types_are_read() {
    for (text, hex) in [
        ("DNAME b", "0162076578616d706c6503636f6d00"),
        ("CDS 0 0 0 00", "0000000000"),
        ("DS 1 13 2 AABB", "00010d02aabb"),
        ("CAA 0 issue \"ca.test\"", "0005697373756563612e74657374"),
        ("TLSA 3 1 1 AABB", "030101aabb"),
        ("SSHFP 4 2 AABB", "0402aabb"),
        ("NAPTR 1 2 \"u\" \"sip\" \"\" .", "000100020175037369700000"),
        ("SRV 1 2 3 b.", "000100020003016200"),
        ("HTTPS 1 . alpn=\"h2\" port=8443", "0001000001000302683200030002"),
        ("SVCB 0 b.", "0000016200"),
        ("TXT \"a b\" c\\\"", "036120620263"),
    ] {
        let shown = shown(&format!("a 1 {text}\n"));
        assert!(shown[0].contains(hex), "{text}: {shown:?}");
    }
}

#[test]
fn every_error_is_reported_with_its_line() {
    let text = "$TTL 60\n@ SOA a. b. 1 2 3 4 5\n@ NS a.\nx A 1.2.3\ny FOO 1\nz CH A 1.2.3.4\n$BAR\n\
                w..v A 1.2.3.4\n  A nonsense\nu (\nt MX mail\ns CNAME a.\ns CNAME b.\nother.test. A 1.2.3.4\n";
    let errors = records(text).expect_err("bad");
    let lines: Vec<&str> = errors.iter().map(|error| error.split(": ").next().expect("place")).collect();
    let expected: Vec<String> =
        [4, 5, 6, 7, 8, 9, 10, 11, 13, 14].iter().map(|line| format!("dir/test.zone:{line}")).collect();
    assert_eq!(lines, expected, "{errors:#?}");
}

#[test]
fn includes_are_relative_and_their_origin_ends_with_them() {
    assert_eq!(
        shown("$TTL 1\n$INCLUDE sub.zone inner\nb A 192.0.2.3\n"),
        [
            "www.inner.example.com. 1 1 c0000201",
            "x.deep.inner.example.com. 1 1 c0000202",
            "b.example.com. 1 1 c0000203"
        ]
    );
    assert!(
        records("$INCLUDE none.zone\n").expect_err("missing")[0]
            .starts_with("dir/test.zone:1: dir/none.zone can't be read")
    );
    assert!(records("$INCLUDE loop.zone\n").expect_err("loop")[0].contains("includes itself"));
    assert!(records("$TTL 1\n$INCLUDE bad.zone\n").expect_err("bad")[0].starts_with("dir/bad.zone:2: "));
}

#[test]
fn any_text_is_records_or_errors() {
    let cases = 2_000;
    let token = prop_oneof![
        "[ -~]{0,6}", // printable
        Just("\n".to_string()),
        Just(" ".to_string()),
        Just("(".to_string()),
        Just(")".to_string()),
        Just("\"".to_string()),
        Just("\\".to_string()),
        Just("\\#".to_string()),
        Just("@".to_string()),
        Just(".".to_string()),
        Just("\\000".to_string()),
        "(A|NS|MX|TXT|SOA|SVCB|HTTPS|CAA|NAPTR|TYPE7|DS|NSEC|RRSIG|TLSA|IN|60|\\$TTL|alpn=|key5=|mandatory=|\
         ipv4hint=|ech=|1|h2,h3)",
        "\u{e9}",
    ];
    let text = prop::collection::vec(token, 0..40).prop_map(|tokens| tokens.join(" "));
    proptest!(ProptestConfig::with_cases(cases), |(text in text, raw in prop::collection::vec(any::<u8>(), 0..60))| {
        let origin = "example.com".parse().expect("name");
        let mut whole = b"$TTL 1\n".to_vec();
        whole.extend_from_slice(text.as_bytes());
        whole.extend_from_slice(&raw);
        for text in [&whole[..], &whole[7..]] {
            if let Err(errors) = parse(text, "any.zone", &origin, &mut |_| Err("no files".into())) {
                prop_assert!(errors.iter().all(|error| !error.message.is_empty()));
            }
        }
    });
    println!("master files from any text: {cases} cases");
}

#[test]
fn data_of_any_tokens_never_panics() {
    let cases = 4_000;
    let kinds = "(A|NS|MX|TXT|SOA|SVCB|HTTPS|CAA|NAPTR|DS|NSEC|NSEC3|RRSIG|TLSA|SSHFP|HINFO|SRV|CDS|CDNSKEY|\
     DNSKEY|OPENPGPKEY|ZONEMD|IPSECKEY|RP|NSEC3PARAM|MINFO|LOC|APL|HIP|WKS|NSAP|AMTRELAY|DOA|CERT|EUI48|NID|\
     CSYNC|URI|X25|GPOS|IPN)";
    let token = prop_oneof![
        "[ -~]{1,8}",
        "[0-9]{1,5}",
        "[a-z]{1,4}\\.",
        "\"[a-z=, ]{0,6}\"",
        "[a-z]{2,8}=[a-z0-9,\"\\\\]{0,8}"
    ];
    proptest!(ProptestConfig::with_cases(cases), |(kind in kinds, tokens in prop::collection::vec(token, 0..10))| {
        let origin = "example.com".parse().expect("name");
        let text = format!("a 1 {kind} {}\n", tokens.join(" "));
        drop(parse(text.as_bytes(), "any.zone", &origin, &mut |_| Err("no files".into())));
    });
    println!("record data from any tokens: {cases} cases");
}

/// The text of each record is an example of the type's RFC. The octets come from BIND.
#[test]
fn every_type_is_read_in_the_text_form_of_its_rfc() {
    for (text, hex) in [
        ("URI 10 1 \"https://example.com/\"", "000a000168747470733a2f2f6578616d706c652e636f6d2f"),
        ("SMIMEA 3 1 1 abab cdcd", "030101ababcdcd"),
        ("LOC 52 22 23.000 N 4 53 32.000 E -2.00m", "001216138b3cf018810cbce0009895b8"),
        ("LOC 42 21 54 N 71 06 18 W -24m 30m", "0033161389172dd070be15f000988d20"),
        ("CERT PGP 0 0 AAAA", "0003000000000000"),
        ("CSYNC 66 3 A NS AAAA", "000000420003000460000008"),
        ("SPF \"v=spf1 -all\"", "0b763d73706631202d616c6c"),
        ("DHCID AAAA", "000000"),
        ("AFSDB 1 afs.", "00010361667300"),
        ("EUI48 00-00-5e-00-53-2a", "00005e00532a"),
        ("EUI64 00-00-5e-ef-10-00-00-2a", "00005eef1000002a"),
        ("NID 10 0014:4fff:ff20:ee64", "000a00144fffff20ee64"),
        ("L64 10 1:2:3:4", "000a0001000200030004"),
        ("L32 10 10.1.2.0", "000a0a010200"),
        ("LP 10 l.", "000a016c00"),
        ("KX 10 kx.", "000a026b7800"),
        ("APL 1:192.168.32.0/21 !1:192.168.38.0/28", "00011503c0a82000011c83c0a826"),
        ("PX 1 a. b.", "0001016100016200"),
        ("NSAP 0x47.00.05", "470005"),
        ("GPOS -32.6882 116.8652 10.0", "082d33322e36383832083131362e383635320431302e30"),
        ("WKS 192.0.2.1 TCP 0 9", "c0000201068040"),
        ("AMTRELAY 10 1 1 203.0.113.15", "0a81cb00710f"),
        ("HIP 2 2001 AAAA a.", "020200032001000000016100"),
        ("DSYNC CDS NOTIFY 5359 a.", "003b0114ef016100"),
        ("IPSECKEY 10 0 0 .", "0a0000"),
        ("NSEC3 1 0 5 - 00000000 A", "0100000500050000000000000140"),
        ("RRSIG A 13 2 60 20261128083000 1 7 a. AAAA", "00010d020000003c6b0a9108000000010007016100000000"),
    ] {
        let shown = shown(&format!("a 1 {text}\n"));
        assert_eq!(shown[0].rsplit(' ').next(), Some(hex), "{text}");
    }
}

#[test]
fn strings_hold_any_octet_with_and_without_quotes() {
    for (text, hex) in [
        ("TXT \"caf\u{e9}\"", "05636166c3a9"),
        ("TXT caf\u{e9}", "05636166c3a9"),
        ("TXT \"tab\there\"", "08746162 0968657265"),
        ("TXT \"a;b\" \\195\\169 \"\"", "03613b6202c3a900"),
        ("CAA 0 iodef \"mailto:\u{e9}@x\"", "0005696f6465666d61696c746f3ac3a94078"),
        ("HINFO \"caf\u{e9}\" x", "05636166c3a90178"),
        ("NAPTR 1 1 \"u\" \"\u{e9}\" \"\" .", "00010001017502c3a90000"),
        ("HTTPS 1 . key7777=\u{e9}", "0001001e610002c3a9"),
    ] {
        let shown = shown(&format!("a 1 {text}\n"));
        assert!(shown[0].ends_with(&format!(" {}", hex.replace(' ', ""))), "{text}: {shown:?}");
    }
}

#[test]
fn errors_name_the_item_and_the_expected_form() {
    for (text, error) in [
        (
            "MX ten mail",
            "`ten` is not a number from 0 to 65535; MX wants a preference and a host name, such as 10 \
             mail.example.com.",
        ),
        ("MX 10", "a host name is missing; MX wants"),
        ("MX 10 a b", "`b` is one item too many; MX wants"),
        (
            "MX 10 b\u{fc}cher",
            "the name `b\u{fc}cher` has letters outside ASCII; write it in Punycode (xn--…); MX wants",
        ),
        (
            "HTTPS 1 b\u{fc}cher",
            "the name `b\u{fc}cher` has letters outside ASCII; write it in Punycode (xn--…); HTTPS wants",
        ),
        ("MX 10 \"mail\"", "`\"mail\"` is in quotes; a name has none; MX wants"),
        ("TLSA 3 1 1 ABC", "`ABC` is not hexadecimal digits in pairs; TLSA wants"),
        ("EUI48 00-00", "`00-00` is not 6 pairs of hexadecimal digits with hyphens between; EUI48 wants pairs"),
        (
            "LOC 91 N 0 E 0m",
            "`91` is not degrees, minutes and seconds up to 90 degrees, and N or S; LOC wants a position",
        ),
        ("LOC 90 0 1 N 0 E 0m", "more than 90 degrees; mend the position; LOC wants"),
        ("A6 0 ::1", "there is no other text form for this type here; A6 wants the form `\\# length hex`"),
        ("CERT PKIK 0 0 AAAA", "`PKIK` is not a certificate type such as PKIX, or its number; CERT wants"),
    ] {
        let errors = records(&format!("a 1 {text}\n")).expect_err(text);
        assert!(errors[0].starts_with(&format!("dir/test.zone:1: {error}")), "{errors:?}");
    }
    let long = records(&format!("a 1 TXT {}\n", "x".repeat(256))).expect_err("long");
    assert!(long[0].contains("a string has 256 octets; split it into several of at most 255"), "{long:?}");
}

#[test]
fn the_ttl_directive_of_an_included_file_stays_in_force() {
    assert_eq!(shown("$TTL 1\n$INCLUDE ttl.zone\nb A 192.0.2.3\n"), ["b.example.com. 9 1 c0000203"]);
}
