//! Tests of unary answers: held until they are complete, passed on if they are long, and tried elsewhere if they break
//! off.

use super::*;

#[test]
fn a_unary_answer_is_held_until_it_is_complete_json() {
    let mut driver = unary();
    assert_eq!(driver.chunk("{\"a\":"), []);
    driver.chunk("1e400}");
    let body = b"{\"a\":1e400}".to_vec();
    assert_eq!(
        driver.eof(),
        [
            Action::Commit { attempt: 1, status: 200, body, as_events: false },
            Action::CancelTimer { attempt: 1 },
            Action::Finish
        ]
    );
    for text in ["", "{\"a\":", "<html>", "{\"error\":{\"message\":\"x\"}}", "null", "\"Internal Server Error\"", "[]"]
    {
        let mut driver = unary();
        driver.chunk(text);
        assert!(retried(&driver.eof()), "{text}");
    }
}

#[test]
fn a_unary_answer_that_breaks_off_within_8_mib_is_tried_elsewhere() {
    let long = format!("{{\"a\":\"{}", "x".repeat(7 << 20));
    let mut driver = unary();
    assert_eq!(driver.chunk(&long), []);
    assert!(retried(&driver.eof()), "a clean end doesn't prove that the answer is complete");
    let mut broken = unary();
    broken.chunk(&long);
    assert!(retried(&broken.step(Event::BodyError { attempt: 1 })));
    let mut idle = unary();
    idle.chunk(&long);
    let actions = idle.timer(60_000);
    assert!(aborted(&actions) && retried(&actions));
    let mut text = Driver::new(Expect::Any);
    text.headers(200, "text/plain; charset=utf-8");
    assert_eq!(text.chunk(&long), []);
    assert!(retried(&text.step(Event::BodyError { attempt: 1 })), "a transcript is held like JSON");
    let mut whole = unary();
    whole.chunk(&long);
    whole.chunk("\"}");
    assert!(matches!(whole.eof()[..], [Action::Commit { .. }, Action::CancelTimer { .. }, Action::Finish]));
}

#[test]
fn an_answer_is_held_only_while_memory_and_time_allow_it() {
    let long = format!("{{\"a\":\"{}", "x".repeat(70_000));
    let mut crowded = unary();
    assert!(crowded.run.needs_room(long.len()) && !crowded.run.needs_room(60_000));
    crowded.run.note_memory_short();
    assert!(matches!(crowded.chunk(&long)[..], [Action::Commit { .. }, Action::SetTimer { .. }]));
    assert!(!crowded.run.needs_room(100_000), "bytes that are passed on aren't held");
    let mut short = unary();
    short.run.note_memory_short();
    assert_eq!(short.chunk("{}"), [], "64 KiB are held even if memory is short");

    let mut slow = unary();
    slow.chunk(&long);
    for _ in 0..5 {
        slow.now += 59_000;
        assert_eq!(slow.chunk("x"), []);
    }
    assert!(matches!(slow.timer(4_000)[..], [Action::SetTimer { after_ms: 1_000, .. }]));
    assert!(matches!(slow.timer(1_000)[..], [Action::Commit { .. }, Action::SetTimer { after_ms: 60_000, .. }]));
}

#[test]
fn a_stored_file_with_a_length_is_not_held() {
    let file = |has_length: bool| {
        let mut driver = Driver::with(Expect::File, true, Limits::default());
        driver.run.note_length(has_length);
        driver.headers(200, "application/jsonl");
        driver.chunk(&"x".repeat(70_000))
    };
    assert!(matches!(file(true)[..], [Action::Commit { .. }, Action::SetTimer { .. }]));
    assert_eq!(file(false), [], "without a length, the client wouldn't notice that the file broke off");
}

#[test]
fn audio_is_passed_on_as_it_arrives() {
    for kind in ["audio/mpeg", "Audio/PCM; rate=24000", "application/octet-stream", "video/mp4"] {
        let mut driver = Driver::new(Expect::Any);
        driver.headers(200, kind);
        let commit = Action::Commit { attempt: 1, status: 200, body: b"x".to_vec(), as_events: false };
        assert_eq!(driver.chunk("x"), [commit, Action::SetTimer { attempt: 1, after_ms: 60_000 }], "{kind}");
        assert!(cut(&driver.step(Event::BodyError { attempt: 1 })), "{kind}");
    }
    // Whether the first bytes of an answer without a Content-Type are passed on at once.
    let passes_at_once = |first: &[u8]| {
        let mut driver = Driver::new(Expect::Any);
        driver.step(Event::Headers {
            attempt: 1,
            status: 200,
            content_type: None,
            packed: false,
            retry_after_ms: None,
        });
        !driver.step(Event::Chunk { attempt: 1, bytes: first.to_vec() }).is_empty()
    };
    for sound in [&b"\xff\xf3\x84"[..], b"OggS\0\x02", b"RIFF\x24\0", b"\0\0"] {
        assert!(passes_at_once(sound), "{sound:?}");
    }
    for text in ["{\"text\":\"é\"}", "1\n00:00:00,000 --> 00:00:01,000\r\n"] {
        assert!(!passes_at_once(text.as_bytes()) && !passes_at_once(&text.as_bytes()[..10]), "{text}");
    }
    assert!(!passes_at_once("é".as_bytes().split_last().unwrap().1), "half a character isn't binary");
}

#[test]
fn a_long_unary_answer_commits_and_is_cut_if_it_breaks_off() {
    let mut driver = unary();
    let long = format!("{{\"a\":\"{}", "x".repeat(8 << 20));
    assert!(matches!(driver.chunk(&long)[..], [Action::Commit { .. }, Action::SetTimer { .. }]));
    assert_eq!(driver.chunk("y"), [Action::Emit { bytes: b"y".to_vec() }]);
    assert!(cut(&driver.eof()), "a clean end doesn't prove that the answer is complete");

    let mut whole = unary();
    whole.chunk(&long);
    whole.chunk("\"}");
    assert_eq!(whole.eof(), [Action::CancelTimer { attempt: 1 }, Action::Finish]);

    let mut idle = unary();
    idle.chunk(&long);
    let actions = idle.timer(60_000);
    assert!(aborted(&actions) && matches!(actions[..], [_, Action::CoolDown { fault: true, .. }, Action::CutStream]));
}

#[test]
fn a_long_answer_that_is_not_json_is_not_passed_on() {
    for text in ["\u{1}{\"a\":\"", "<html>", "{\"a\":1}{\"b\":\""] {
        let mut driver = unary();
        let actions = driver.chunk(&format!("{text}{}", "x".repeat(70_000)));
        assert!(aborted(&actions) && retried(&actions), "{text}");
        assert_eq!(driver.outcomes(), [Outcome::WrongType]);
    }
}

#[test]
fn a_compressed_answer_has_the_wrong_type() {
    for expect in [Expect::Json, Expect::Stream, Expect::Any, Expect::File] {
        let packed = |status| {
            let kind = if expect == Expect::Stream { "text/event-stream" } else { "application/json" };
            let content_type = Some(kind.to_owned());
            Event::Headers { attempt: 1, status, content_type, packed: true, retry_after_ms: None }
        };
        let mut driver = Driver::new(expect);
        let actions = driver.step(packed(200));
        assert!(aborted(&actions) && retried(&actions), "{expect:?}");
        assert_eq!(driver.outcomes(), [Outcome::WrongType]);
        // A refusal counts as a refusal even if its body is compressed.
        let mut refused = Driver::new(expect);
        refused.step(packed(400));
        assert!(reply(&refused.eof()).is_some(), "{expect:?}");
    }
}

#[test]
fn an_answer_that_trickles_in_times_out() {
    let mut slow = unary();
    for _ in 0..5 {
        slow.now += 59_000;
        assert_eq!(slow.chunk(" "), []);
    }
    assert!(
        matches!(slow.timer(4_000)[..], [Action::SetTimer { after_ms: 1_000, .. }]),
        "no longer than headers may take"
    );
    assert!(retried(&slow.timer(1_000)));

    let mut endless = stream();
    endless.chunk(CONTENT);
    endless.now += 50_000;
    assert_eq!(endless.chunk("data: x"), []);
    assert!(matches!(endless.timer(10_000)[..], [.., Action::EmitTail { .. }]), "the stream brought no complete event");
}

#[test]
fn only_requests_about_state_may_have_an_empty_success() {
    let mut inference = Driver::new(Expect::Json);
    inference.headers(204, "application/json");
    assert!(retried(&inference.eof()));
    let mut deletion = Driver::with(Expect::Json, true, Limits::default());
    deletion.headers(204, "application/json");
    assert!(matches!(
        deletion.eof()[..],
        [Action::Commit { status: 204, .. }, Action::CancelTimer { .. }, Action::Finish]
    ));
}

#[test]
fn json_in_place_of_events_becomes_events() {
    let asked = || {
        let mut driver = Driver::new(Expect::Stream);
        assert_eq!(driver.headers(200, "application/json"), [Action::SetTimer { attempt: 1, after_ms: 60_000 }]);
        driver
    };
    let mut driver = asked();
    driver.chunk("{\"choices\":[{\"index\":0,\"message\":{\"content\":\"x\"}");
    driver.chunk(",\"finish_reason\":\"stop\"}]}");
    let chunk = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"},\"finish_reason\":\"stop\"}]}\n\n";
    let commit = Action::Commit { attempt: 1, status: 200, body: [chunk, DONE].concat().into(), as_events: true };
    assert_eq!(driver.eof(), [commit, Action::CancelTimer { attempt: 1 }, Action::Finish]);
    for other in ["{\"error\":{\"message\":\"x\"}}", "{}", "{\"choices\":[", "[]"] {
        let mut driver = asked();
        driver.chunk(other);
        assert!(retried(&driver.eof()), "{other}");
    }
    let mut endless = asked();
    assert!(
        retried(&endless.chunk(&format!("{{\"a\":\"{}", "x".repeat(8 << 20)))),
        "no events are made from half an answer"
    );
}
