//! Tests of bodies in chunks of any size, and of bodies that two programs could read differently.

use std::cell::Cell;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::*;
use crate::decide::testing::cut;

pub(crate) const TYPE: &str = "multipart/form-data; boundary=XX";

/// A form of fields (`name`) and files (`name:filename`).
pub(crate) fn body(parts: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (position, (name, data)) in parts.iter().enumerate() {
        let (name, filename) = name.split_once(':').map_or((*name, None), |(name, file)| (name, Some(file.to_owned())));
        write_head(&mut out, "XX", &Head { name: name.into(), filename, content_type: None }, position == 0);
        out.extend_from_slice(data);
    }
    write_end(&mut out, "XX");
    out
}

/// Splits a whole body, whose `Content-Type` is [`TYPE`].
fn split(text: &[u8]) -> Result<Vec<Piece>, Failure> {
    let mut splitter = Splitter::new(TYPE)?;
    let pieces = splitter.push(text)?;
    splitter.end()?;
    Ok(pieces)
}

#[test]
fn parts_are_cut_at_their_boundaries() {
    // The second part names its file first, escapes a quotation mark, and holds the beginning of a boundary.
    let text = b"--XX\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\nassistants\r\n--XX\r\n\
        Content-Disposition: form-data; filename=\"a\\\"b/c.txt\"; name=file\r\n\
        Content-Type: text/plain; charset=utf-8\r\nX-Y: z\r\n\r\n\
        \r\n--X\r\n--XX--\r\n";
    let head = |name: &str, filename: Option<&str>, kind: Option<&str>| {
        Piece::Begin(Head { name: name.into(), filename: filename.map(Into::into), content_type: kind.map(Into::into) })
    };
    assert_eq!(
        split(text).unwrap(),
        [
            head("purpose", None, None),
            Piece::Data(b"assistants".to_vec()),
            Piece::End,
            // A quotation mark and a slash are replaced in the names of files.
            head("file", Some("a_b_c.txt"), Some("text/plain; charset=utf-8")),
            Piece::Data(b"\r\n--X".to_vec()),
            Piece::End,
        ]
    );
    assert_eq!(split(b"--XX--").unwrap(), []);
    assert!(Splitter::new("multipart/form-data;charset=utf-8; boundary=\"a:b\"").is_ok());
}

#[test]
fn a_header_that_readers_could_read_differently_is_refused_by_name() {
    let disposition = "Content-Disposition: form-data; name=\"a\"";
    for (header, reason) in [
        ("X-Y: z\r\n folded", "over several lines"),
        ("X-Y: z\r\n\tfolded: with a colon", "over several lines"),
        ("X-Y: z\nX-Z: z", "over several lines"),
        ("X-Y: z\0", "NUL byte"),
        ("X\0", "NUL byte"),
        ("X-Y", "without a colon"),
    ] {
        let text = format!("--XX\r\n{disposition}\r\n{header}\r\n\r\ndata\r\n--XX--\r\n");
        let refused = format!("{:?}", split(text.as_bytes()).unwrap_err());
        assert!(refused.contains(reason), "{header:?}: {refused}");
    }
}

#[test]
fn a_form_is_what_says_so_and_nothing_else() {
    for form in ["multipart/form-data; boundary=a", "Multipart/Form-Data", " multipart/form-data ;x"] {
        assert!(is_form(form), "{form}");
    }
    for other in
        ["", "application/json", "application/json, multipart/form-data; boundary=a", "multipart/mixed; boundary=a"]
    {
        assert!(!is_form(other), "{other}");
    }
}

#[test]
fn a_content_type_without_one_plain_boundary_is_refused() {
    for kind in [
        "",
        "application/json",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=a;boundary=b",
        // RFC 2046 §5.1.1 allows spaces, and clients don't send them.
        "multipart/form-data; boundary=\"a b\"",
        "multipart/mixed; boundary=a",
    ] {
        assert!(Splitter::new(kind).is_err(), "{kind}");
    }
}

/// Every body but those that end too early is complete, so nothing but its own fault can be the reason.
#[test]
fn what_two_readers_could_read_differently_is_refused_by_name() {
    let part = |head: &str| format!("--XX\r\n{head}\r\n\r\nx\r\n--XX--\r\n");
    let good = part("Content-Disposition: form-data; name=a");
    assert!(split(good.as_bytes()).is_ok(), "the form that is changed below is good");
    let after_boundary = |odd: &str| good.replacen("--XX\r\n", &format!("--XX{odd}\r\n"), 1);
    let disposition = |value: &str| part(&format!("Content-Disposition: {value}"));
    let (early, boundary) = ("ends before its last boundary", "a boundary is followed by something else");
    let (unreadable, nameless) = ("Content-Disposition can't be read", "a part has no name, or one that no field");
    for (text, reason) in [
        (String::new(), early),
        ("--XX".into(), early),
        (good.trim_end_matches("\r\n--XX--\r\n").into(), early),
        (format!("preamble\r\n{good}"), "doesn't begin with the boundary"),
        (format!("{good}epilogue"), "something follows the last boundary"),
        (after_boundary("Y"), boundary),
        (after_boundary(" "), boundary),
        (disposition("form-data; name=\"a\"; name=\"b\""), "says something twice"),
        (disposition("form-data; name=a\r\nContent-Disposition: form-data; name=b"), "two Content-Disposition headers"),
        (disposition("form-data; name=\"a"), unreadable),
        (disposition("form-data; name=\"a\" x"), unreadable),
        (disposition("form-data; name=\"a b\""), nameless),
        (disposition("form-data"), nameless),
        (disposition("attachment; name=a"), "isn't form-data"),
        (disposition("form-data;\r\n name=a"), "over several lines"),
        (disposition("form-data; name=a\n\nx"), "over several lines"),
        (disposition("form-data; name=a\r\nContent-Transfer-Encoding: base64"), "a part is encoded"),
        (part("Content-Type: text/plain"), "a part has no Content-Disposition"),
        (
            disposition(&format!("form-data; name=a\r\nX: {}", "y".repeat(LONGEST_HEAD))),
            "headers of a part are too long",
        ),
    ] {
        match split(text.as_bytes()) {
            Err(Failure::BadForm { what }) => assert!(what.contains(reason), "{text}: {what}"),
            other => panic!("{text}: {other:?}, not {reason}"),
        }
    }
}

#[test]
fn a_form_has_at_most_64_parts() {
    let of_parts = |count| split(&body(&vec![("a", &b"x"[..]); count]));
    assert!(of_parts(MAX_PARTS).is_ok());
    assert_eq!(of_parts(MAX_PARTS + 1), Err(Failure::BadForm { what: "there are more than 64 parts" }));
}

#[test]
fn any_chunking_gives_the_same_parts() {
    let data = || {
        prop_oneof![Just(b"\r\n--X".to_vec()), Just(b"\r\n-".to_vec()), proptest::collection::vec(any::<u8>(), 0..40)]
    };
    let strategy = (
        proptest::collection::vec(("[a-z]{1,4}(:[a-z]{1,4})?", data()), 1..5),
        proptest::collection::vec(1..9usize, 1..60),
    );
    // `scripts/test` shows the line that is printed at the end, so that nobody takes ten cases for thousands.
    let cases = Cell::new(0);
    TestRunner::new(ProptestConfig::with_cases(3_000))
        .run(&strategy, |(parts, sizes)| {
            cases.set(cases.get() + 1);
            let borrowed: Vec<(&str, &[u8])> =
                parts.iter().map(|(name, data)| (name.as_str(), data.as_slice())).collect();
            let text = body(&borrowed);
            let mut splitter = Splitter::new(TYPE).unwrap();
            let mut got: Vec<(String, Vec<u8>)> = Vec::new();
            for chunk in cut(&text, &sizes) {
                for piece in splitter.push(chunk).unwrap() {
                    match piece {
                        Piece::Begin(head) => got.push((
                            head.filename.map_or(head.name.clone(), |file| format!("{}:{file}", head.name)),
                            Vec::new(),
                        )),
                        Piece::Data(bytes) => got.last_mut().unwrap().1.extend(bytes),
                        Piece::End => {}
                    }
                }
            }
            splitter.end().unwrap();
            prop_assert_eq!(got, parts);
            Ok(())
        })
        .unwrap();
    println!("forms cut: {}", cases.get());
}

#[test]
fn arbitrary_bytes_never_panic() {
    let word = |word: &'static str| Just(word.as_bytes().to_vec());
    // Bytes alone would rarely get beyond the first boundary, so they are mixed with words of forms.
    let piece = prop_oneof![
        word("--XX"),
        word("\r\n"),
        word("Content-Disposition: form-data; name="),
        "[\"a;=\\-]{0,5}".prop_map(String::into_bytes),
        proptest::collection::vec(any::<u8>(), 0..20),
    ];
    let strategy = (proptest::collection::vec(piece, 0..20), proptest::collection::vec(1..9usize, 1..60));
    let cases = Cell::new(0);
    TestRunner::new(ProptestConfig::with_cases(3_000))
        .run(&strategy, |(pieces, sizes)| {
            cases.set(cases.get() + 1);
            let text = pieces.concat();
            let whole = split(&text);
            // Cut into chunks, the same bytes have the same end.
            let mut splitter = Splitter::new(TYPE).unwrap();
            let pushed = cut(&text, &sizes).into_iter().try_for_each(|chunk| splitter.push(chunk).map(drop));
            prop_assert_eq!(whole.map(drop), pushed.and_then(|()| splitter.end()));
            Ok(())
        })
        .unwrap();
    println!("forms of arbitrary bytes: {}", cases.get());
}
