//! Tests of what the scanner accepts and refuses, compared with `serde_json`.

use proptest::prelude::*;

use super::*;

#[test]
fn the_beginning_of_a_json_text_is_recognised() {
    let text = r#" {"a": [1.5e3, -0, -Infinity, NaN, false, null, "\u00e9\"é😀\n", {"b": {}}], "c": true} "#;
    for end in 0..=text.len() {
        assert!(may_begin_json(&text.as_bytes()[..end]), "{end}");
    }
    for bad in [
        &b"\x28\xb5\x2f\xfd{\"choices\":[]}"[..],
        b"{\"a\":\"\xff........\"}",
        b"<html><body></body>",
        b"{} {\"a\":12345678}",
        b"[1,2}..........",
    ] {
        assert!(!may_begin_json(bad), "{bad:?}");
    }
}

#[test]
fn keys_are_equal_if_a_server_that_ignores_case_takes_them_for_equal() {
    for key in ["tasks_id", "TASKS_ID", "ta\u{17f}k\u{17f}_id", "tas\u{212a}s_\u{131}d", "\u{17f}".repeat(8).as_str()] {
        assert_eq!(reads_as(key, "tasks_id"), key.chars().count() == 8 && key.starts_with(['t', 'T']), "{key}");
    }
    for key in ["", "tasks_i", "tasks_id ", "tasks_idé", "täsks_id"] {
        assert!(!reads_as(key, "tasks_id"), "{key}");
    }
}

#[test]
fn keys_end_in_words_however_these_are_joined() {
    for key in ["file_id", "fileId", "FILE-ID", "image_file_id", "imageFileID", "image-fileid", "f\u{131}le_\u{130}d"] {
        assert!(ends_in_words(key, "file_id"), "{key}");
    }
    for key in ["", "id", "profile_id", "profileid", "file_ids", "file_idx", "éfile_id", "file"] {
        assert!(!ends_in_words(key, "file_id"), "{key}");
    }
}

#[test]
fn accepts_exactly_what_rfc_8259_allows() {
    for good in [
        "{}",
        " [1, -0, 1e400, 1180591620717411303424, 1.5E-3]\n",
        r#"{"a": {"b": [true, false, null, "\u00e9\n\ud83d\ude00"]}}"#,
        "\"x\"",
        "0",
    ] {
        assert!(is_json(good), "{good}");
    }
    for bad in [
        "",
        "{",
        "[1,]",
        "{\"a\":1,}",
        "{a: 1}",
        "01",
        "1.",
        "+1",
        ".5",
        "1e",
        "NaN",
        "nul",
        "'x'",
        "\"\\x\"",
        "\"\\u12\"",
        "\"a\nb\"",
        "{} {}",
        "[1 2]",
        "\u{feff}{}",
        "/**/{}",
        "{\"a\" 1}",
    ] {
        assert!(!is_json(bad), "{bad}");
    }
}

#[test]
fn an_answer_may_have_pythons_numbers() {
    let read = |text: &str| {
        let mut scan = Scan::of_answer(text);
        scan.skip().and_then(|_| scan.end()).is_ok()
    };
    for good in ["NaN", "[NaN,-Infinity , Infinity]", "{\"a\":NaN,\"b\":[-1,1e400]}"] {
        assert!(read(good) && !is_json(good), "{good}");
    }
    for bad in ["Nan", "-NaN", "Inf", "+Infinity", "NaNs", "[NaN", "{NaN:1}", "Infinity1", "--Infinity"] {
        assert!(!read(bad), "{bad}");
    }
}

#[test]
fn pythons_numbers_become_null_outside_of_strings() {
    assert_eq!(
        with_nulls(r#"{"NaN":NaN,"a":[-Infinity,Infinity,-1,"NaN \" Infinity"],"é":"N"}"#),
        r#"{"NaN":null,"a":[null,null,-1,"NaN \" Infinity"],"é":"N"}"#
    );
    for same in ["", "{\"a\":-1}", "\"NaN\"", "{\"a\":\"-Infinity\",\"b\":1e400}"] {
        assert_eq!(with_nulls(same), same);
    }
}

#[test]
fn depth_is_bounded() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(is_json(&nested(128)));
    assert!(!is_json(&nested(129)));
    assert!(!is_json(&"[".repeat(1_000_000)));
}

#[test]
fn strings_are_unescaped() {
    let read = |text: &str| Scan::new(text).string().map(Cow::into_owned);
    assert_eq!(read(r#""\ud83d\ude00 \"\\\/\b\f\n\r\t é""#).unwrap(), "😀 \"\\/\u{8}\u{c}\n\r\t é");
    assert_eq!(read(r#""\ud800x""#).unwrap(), "\u{fffd}x");
    assert_eq!(read("1"), Err(InvalidJson { at: 0 }));
}

#[test]
fn a_run_of_plain_bytes_ends_before_the_first_that_is_special() {
    for before in 0..100 {
        for byte in 0..=u8::MAX {
            let text = [&vec![b'x'; before][..], &[byte], &[b'y'; 50]].concat();
            let end = if special(byte) == 1 { before } else { text.len() };
            assert_eq!(plain(&text), end, "{byte:#x} after {before}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// The scanner and `serde_json` accept the same texts, except for numbers that `serde_json` can't hold.
    #[test]
    fn agrees_with_serde_json(text in r#"[\[\]{}:,"a\\u01e.+ntrfalsue -]{0,24}"#) {
        let theirs: Result<serde::de::IgnoredAny, _> = serde_json::from_str(&text);
        prop_assert_eq!(is_json(&text), theirs.is_ok(), "{}", text);
    }

    #[test]
    fn a_string_comes_back(text in any::<String>()) {
        let json = quoted(&text);
        prop_assert_eq!(Scan::new(&json).string().unwrap(), text);
    }
}
