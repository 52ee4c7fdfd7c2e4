use super::*;
use proptest::prelude::*;

fn records(text: &str) -> Result<Vec<Record>, Vec<String>> {
    let origin = "example.com".parse().expect("name");
    let files = &mut |path: &Path| match path.to_str() {
        Some("dir/sub.zone") => Ok(b"www A 192.0.2.1\n$ORIGIN deep\nx A 192.0.2.2\n".to_vec()),
        Some("dir/loop.zone") => Ok(b"$INCLUDE loop.zone\n".to_vec()),
        Some("dir/bad.zone") => Ok(b"\nwww A 1.2.3\n".to_vec()),
        _ => Err("not found".into()),
    };
    parse(text.as_bytes(), "dir/test.zone", &origin, files)
        .map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

fn shown(text: &str) -> Vec<String> {
    let show = |record: &Record| {
        let hex: String = record.rdata.iter().map(|octet| format!("{octet:02x}")).collect();
        format!("{} {} {} {hex}", record.owner, record.ttl, record.rtype)
    };
    records(text).expect(text).iter().map(show).collect()
}

#[test]
fn rfc1035_5_1_owners_origins_and_classes() {
    let text = "$TTL 60\n@ IN A 192.0.2.1\n   300 IN A 192.0.2.2\nwww IN 5 A 192.0.2.3\n$ORIGIN sub\nwww.abs. A 192.0.2.4\nb A 192.0.2.5\n";
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
fn rfc1035_5_1_a_free_at_sign_is_the_origin_in_data_too() {
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
fn types_of_today_are_read() {
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
fn every_error_is_told_with_its_line() {
    let text = "$TTL 60\n@ SOA a. b. 1 2 3 4 5\n@ NS a.\nx A 1.2.3\ny FOO 1\nz CH A 1.2.3.4\n$BAR\nw..v A 1.2.3.4\n  A nonsense\nu (\nt MX mail\ns CNAME a.\ns CNAME b.\nother.test. A 1.2.3.4\n";
    let errors = records(text).expect_err("bad");
    let lines: Vec<&str> = errors.iter().map(|error| error.split(": ").next().expect("place")).collect();
    let expected: Vec<String> =
        [4, 5, 6, 7, 8, 9, 10, 11, 13, 14].iter().map(|line| format!("dir/test.zone:{line}")).collect();
    assert_eq!(lines, expected, "{errors:#?}");
}

#[test]
fn includes_are_relative_and_keep_their_origin_to_themselves() {
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
        "(A|NS|MX|TXT|SOA|SVCB|HTTPS|CAA|NAPTR|TYPE7|DS|NSEC|RRSIG|TLSA|IN|60|\\$TTL|alpn=|key5=|mandatory=|ipv4hint=|ech=|1|h2,h3)",
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
    let kinds = "(A|NS|MX|TXT|SOA|SVCB|HTTPS|CAA|NAPTR|DS|NSEC|NSEC3|RRSIG|TLSA|SSHFP|HINFO|SRV|CDS|CDNSKEY|DNSKEY|OPENPGPKEY|ZONEMD|IPSECKEY|RP|NSEC3PARAM|MINFO)";
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
