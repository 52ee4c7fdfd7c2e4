//! What a head may say, which of its bytes are signed, and that no bytes make its reader panic.

use proptest::prelude::*;

use super::*;
use crate::fleet::follow::testing::{key, sign, stand_in};

fn head() -> Head {
    Head {
        revision: 8,
        sha256: sha256_hex(b"{}"),
        based_on: Some(7),
        author: "ann".into(),
        reason: "more room in Paris".into(),
        created_at: Timestamp(1_796_104_800_000),
        stage: Stage::Canary,
        approvals: Vec::new(),
        impact: None,
        signature: None,
    }
}

#[test]
fn what_is_signed_is_fixed_to_the_byte() {
    let bytes = String::from_utf8(head().signed_bytes()).unwrap();
    let sha256 = sha256_hex(b"{}");
    let content = format!(
        "revision 1 8\nsha256 64 {sha256}\nbased_on 1 7\nauthor 3 ann\nreason 18 more room in Paris\n\
         created_at 20 2026-12-01T06:00:00Z\nimpact 0 \n"
    );
    assert_eq!(bytes, format!("bailiwick head 1\n{content}stage 6 canary\n"));
    assert_eq!(head().approved_bytes(), format!("bailiwick approval 1\n{content}").into_bytes());
}

#[test]
fn a_head_is_believed_by_its_publishers_key_alone() {
    let signed = sign(head(), 1);
    let read = Head::parse(&signed.to_bytes()).unwrap();
    assert_eq!(read, signed, "a head is read as it was written");
    assert_eq!(read.verify(&[key(9), key(1)], stand_in), Ok(()));
    assert_eq!(read.verify(&[key(2)], stand_in), Err(HeadError::UnknownKey(key(1).thumbprint())));
    assert_eq!(head().verify(&[key(1)], stand_in), Err(HeadError::Unsigned));
    let changed = Head { revision: 9, ..signed.clone() };
    assert_eq!(changed.verify(&[key(1)], stand_in), Err(HeadError::Forged(key(1).thumbprint())));
    let promoted = Head { stage: Stage::Rest, ..signed };
    assert_eq!(
        promoted.verify(&[key(1)], stand_in),
        Err(HeadError::Forged(key(1).thumbprint())),
        "the stage is signed too"
    );
}

#[test]
fn approvals_count_once_each_and_never_the_publishers_own() {
    let approve = |seed: u8, of: &Head| Approval {
        author: "bob".into(),
        signature: Signature::new(&key(seed), &crate::fleet::follow::testing::mac(&key(seed), &of.approved_bytes())),
    };
    let of = head();
    let other = Head { reason: "another".into(), ..head() };
    let approvals = vec![approve(1, &of), approve(2, &of), approve(2, &of), approve(3, &other), approve(5, &of)];
    let signed = sign(Head { approvals, ..of }, 1);
    let publishers = [key(1), key(2), key(3)];
    assert_eq!(signed.approved_by(&publishers, stand_in), [key(2).thumbprint()]);
    assert_eq!(signed.verify(&publishers, stand_in), Ok(()));
    let fewer = Head { approvals: Vec::new(), ..signed };
    assert!(fewer.verify(&publishers, stand_in).is_err(), "approvals are signed too");
}

#[test]
fn what_no_head_may_say_is_refused() {
    let changed = |name: &str, value: serde_json::Value| {
        let mut json = serde_json::to_value(head()).unwrap();
        json[name] = value;
        Head::parse(json.to_string().as_bytes())
    };
    let long = "x".repeat(LONGEST_TEXT + 1);
    let wrong = [
        ("revision", 0.into()),
        ("revision", (1_u64 << 54).into()),
        ("revision", "8".into()),
        ("based_on", 8.into()),
        ("sha256", "AB".into()),
        ("sha256", sha256_hex(b"").to_uppercase().into()),
        ("author", "a\nb".into()),
        ("reason", long.clone().into()),
        ("impact", long.into()),
        ("stage", "none".into()),
        ("colour", "red".into()),
        ("created_at", "yesterday".into()),
    ];
    for (name, value) in wrong {
        assert!(matches!(changed(name, value), Err(HeadError::Form(_))), "{name}");
    }
    assert!(changed("reason", "x".repeat(LONGEST_TEXT).into()).is_ok());
    let twice = serde_json::to_string(&head()).unwrap().replace("\"author\"", "\"revision\":9,\"author\"");
    assert!(Head::parse(twice.as_bytes()).is_err(), "a field that stands twice");
    let padded = [head().to_bytes(), vec![b' '; LONGEST_HEAD]].concat();
    assert!(Head::parse(&padded).is_err(), "too long");
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(Head::parse(&bytes).is_err());
    }

    #[test]
    fn no_byte_of_a_signed_head_can_be_changed(position in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let signed = sign(head(), 1);
        let mut bytes = signed.to_bytes();
        let position = position.index(bytes.len());
        bytes[position] = byte;
        if let Ok(read) = Head::parse(&bytes) {
            prop_assert!(read == signed || read.verify(&[key(1)], stand_in).is_err());
        }
    }
}
