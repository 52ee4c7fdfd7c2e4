use proptest::prelude::*;

use super::super::Timestamp;

/// As a library of dates reads a text.
fn read_by_jiff(text: &str) -> Option<Timestamp> {
    text.parse::<jiff::Timestamp>().ok().map(|instant| Timestamp(instant.as_millisecond()))
}

fn pieces() -> impl Strategy<Value = String> {
    let year = prop_oneof!["[0-9]{4}", "[+-]00[0-9]{4}", "20[0-9]{2}", "[+-]?[0-9]{3,7}"];
    let two = || prop_oneof![4 => "[0-2][0-9]", 1 => "[0-9]{1,3}", 1 => "[3-9][0-9]"];
    let month = prop_oneof![6 => "0[1-9]", 2 => "1[0-2]", 1 => "[0-9]{1,3}"];
    let time = prop_oneof![
        4 => (two(), two(), two()).prop_map(|(h, m, s)| format!("{h}:{m}:{s}")),
        1 => (two(), two()).prop_map(|(h, m)| format!("{h}:{m}")),
        1 => (two(), two(), two()).prop_map(|(h, m, s)| format!("{h}{m}{s}")),
        1 => (two(), two(), two()).prop_map(|(h, m, s)| format!("{h}:{m}{s}")),
        1 => two(),
        1 => Just("23:59:60".to_owned()),
    ];
    let fraction = prop_oneof![3 => Just(String::new()), 2 => "[.,][0-9]{1,9}", 1 => "[.,][0-9]{0,11}"];
    let offset = prop_oneof![
        4 => Just("Z".to_owned()), 1 => Just("z".to_owned()), 2 => "[+-][012][0-9]:[0-5][0-9]",
        1 => "[+-][0-9]{2}(:?[0-9]{2}){0,3}", 1 => "[+-][0-9]{1,5}", 1 => Just(String::new()),
        1 => "[+-][0-9]{2}:[0-9]{2}:[0-9]{2}[.][0-9]{1,9}",
    ];
    let separator = prop_oneof![6 => Just("T"), 1 => Just("t"), 1 => Just(" "), 1 => Just(""), 1 => Just("x")];
    let dash = || prop_oneof![8 => Just("-"), 1 => Just(""), 1 => Just("/")];
    let end = prop_oneof![8 => Just(""), 1 => Just("[Europe/Berlin]"), 1 => Just(" "), 1 => Just("[]")];
    (year, dash(), month, dash(), two(), (separator, time, fraction, offset, end)).prop_map(
        |(year, first, month, second, day, (separator, time, fraction, offset, end))| {
            [&year, first, &month, second, &day, separator, &time, &fraction, &offset, end].concat()
        },
    )
}

#[test]
fn a_second_reader_reads_the_same_instants() {
    let (cases, read) = (core::cell::Cell::new(0), core::cell::Cell::new(0));
    proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(20_000))
        .run(&pieces(), |text| {
            let theirs = read_by_jiff(&text);
            cases.set(cases.get() + 1);
            read.set(read.get() + u32::from(theirs.is_some()));
            prop_assert_eq!(Timestamp::parse(&text), theirs, "{}", text);
            Ok(())
        })
        .unwrap();
    println!("texts tried: {}, instants among them: {}", cases.get(), read.get());
    assert!(read.get() > 500);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn a_second_writer_writes_the_same_texts(ms in prop_oneof![
        -400_000_000_000_000_i64..300_000_000_000_000, any::<i64>(), 0_i64..4_000_000_000_000,
        (-400_000_000_000_i64..300_000_000_000).prop_map(|seconds| seconds * 1_000),
    ]) {
        let theirs = jiff::Timestamp::from_millisecond(ms).map(|instant| instant.to_string());
        prop_assert_eq!(Timestamp(ms).to_string(), theirs.unwrap_or_else(|_| format!("{ms} ms")));
        let text = Timestamp(ms).to_string();
        prop_assert!(text.ends_with("ms") || Timestamp::parse(&text) == Some(Timestamp(ms)), "{}", text);
    }

    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,40}") {
        prop_assert_eq!(Timestamp::parse(&text), read_by_jiff(&text));
    }
}
