//! Names from text and from octets: limits, order, escapes.

use super::*;
use proptest::prelude::*;

fn name(text: &str) -> Name {
    text.parse().expect(text)
}

#[test]
fn rfc1035_limits_are_63_and_255_octets() {
    let label = "a".repeat(63);
    assert!(label.parse::<Name>().is_ok());
    assert_eq!("a".repeat(64).parse::<Name>(), Err(NameError::LabelTooLong));
    let longest = format!("{label}.{label}.{label}.{}", "b".repeat(61));
    assert_eq!(name(&longest).as_wire().len(), 255);
    let longer = format!("{label}.{label}.{label}.{}", "b".repeat(62));
    assert_eq!(longer.parse::<Name>(), Err(NameError::NameTooLong));
}

#[test]
fn rfc1035_5_1_text_form() {
    assert_eq!(name("a\\.b.c").as_wire(), b"\x03a.b\x01c\x00");
    assert_eq!(name("\\097b").as_wire(), b"\x02ab\x00");
    assert_eq!(name(".").as_wire(), b"\x00");
    for (text, error) in [
        ("a..b", NameError::EmptyLabel),
        (".a", NameError::EmptyLabel),
        ("", NameError::EmptyLabel),
        ("a\\", NameError::BadEscape),
        ("\\256", NameError::BadEscape),
        ("\\1x", NameError::BadEscape),
    ] {
        assert_eq!(text.parse::<Name>(), Err(error), "{text}");
    }
    let origin = name("example.com");
    assert_eq!(Name::parse(b"www", Some(origin.as_ref())), Ok(name("www.example.com.")));
    assert_eq!(Name::parse(b"@", Some(origin.as_ref())), Ok(origin));
    assert_eq!(Name::parse(b"www", None), Err(NameError::NoOrigin));
}

#[test]
fn rfc4034_6_1_canonical_order() {
    let order = [
        "example",
        "a.example",
        "yljkjljk.a.example",
        "Z.a.example",
        "zABC.a.EXAMPLE",
        "z.example",
        "\\001.z.example",
        "*.z.example",
        "\\200.z.example",
    ];
    let names: Vec<Name> = order.iter().map(|text| name(text)).collect();
    let mut sorted = names.clone();
    sorted.reverse();
    sorted.sort();
    assert_eq!(sorted, names);
}

#[test]
fn rfc4343_case_is_kept_and_ignored() {
    let mixed = name("ExAmple.Com");
    assert_eq!(mixed, name("example.com"));
    assert_eq!(mixed.to_string(), "ExAmple.Com.");
}

#[test]
fn suffixes_are_found_at_label_borders_only() {
    let apex = name("example.com");
    assert_eq!(name("a.b.Example.com").as_ref().strip_suffix(apex.as_ref()), Some(&b"\x01a\x01b"[..]));
    assert_eq!(name("notexample.com").as_ref().strip_suffix(apex.as_ref()), None);
    assert!(apex.as_ref().is_within(apex.as_ref()));
    assert!(apex.as_ref().is_within(NameRef::ROOT));
    assert!(!name("com").as_ref().is_within(apex.as_ref()));
}

/// Any name as wire bytes.
pub(crate) fn any_name() -> impl Strategy<Value = Name> {
    prop::collection::vec(prop::collection::vec(any::<u8>(), 1..12), 0..8).prop_map(|labels| {
        let mut wire = Vec::new();
        for label in labels {
            wire.push(u8::try_from(label.len()).expect("short"));
            wire.extend(label);
        }
        wire.push(0);
        NameRef::from_wire(&wire).expect("valid").to_name()
    })
}

#[test]
fn text_form_round_trips() {
    let cases = 2_000;
    proptest!(ProptestConfig::with_cases(cases), |(name in any_name())| {
        let text = name.to_string();
        let again: Name = text.parse().expect("its own text");
        prop_assert_eq!(again.as_wire(), name.as_wire());
    });
    println!("name text round trip: {cases} cases");
}

#[test]
fn any_bytes_are_a_name_or_an_error() {
    let cases = 2_000;
    proptest!(ProptestConfig::with_cases(cases), |(bytes in prop::collection::vec(any::<u8>(), 0..300))| {
        if let Ok(name) = NameRef::from_wire(&bytes) {
            prop_assert!(name.as_wire().len() <= MAX_NAME);
            prop_assert_eq!(name.labels().map(|label| label.len() + 1).sum::<usize>() + 1, name.as_wire().len());
        }
        drop(Name::parse(&bytes, Some(NameRef::ROOT)));
    });
    println!("name from bytes: {cases} cases");
}
