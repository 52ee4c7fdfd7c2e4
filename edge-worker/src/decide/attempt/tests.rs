//! Every row of the machine's table, and a model that watches random runs of it.

mod quotas;

use std::cell::Cell;

use bailiwick_rules::id::EndpointId;
use bailiwick_rules::rules::Limits;
use bailiwick_rules::time::Millis;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::{Action, AttemptNumber, Budget, End, Event, Expect, Outcome, Record, Run, Stop, Task, step};
use crate::decide::envelope::Failure;
use crate::decide::plan::Plan;
use crate::decide::plan::tests::german_plan;
use crate::decide::sse::single::AnswerKind;
use crate::decide::usage::Usage;

const CONTENT: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n";
const ROLE: &str = ": hi\n\ndata: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n";
const ERROR: &str = "data: {\"error\":{\"message\":\"CANARY\",\"code\":\"overloaded\"}}\n\n";
const DONE: &str = "data: [DONE]\n\n";
const UNREADABLE: &str = r#"{"error":{"message":"CANARY","code":"invalid_encrypted_content"}}"#;

/// A run with its budget and clock.
struct Driver {
    run: Run,
    budget: Budget,
    now: i64,
}

impl Driver {
    fn new(expect: Expect) -> Self {
        Self::with(expect, false, Limits::default())
    }

    fn with(expect: Expect, stateful: bool, limits: Limits) -> Self {
        Self::of(1, expect, stateful, limits)
    }

    fn of(choices: usize, expect: Expect, stateful: bool, limits: Limits) -> Self {
        let task = Task {
            plan: german_plan(),
            model: Some("chat".into()),
            expect,
            answer_kind: Some(AnswerKind::Chat),
            choices,
            stateful,
            reads_only: false,
            limits,
        };
        Self::begin(task)
    }

    fn begin(task: Task) -> Self {
        let mut driver = Self { run: Run::new(task), budget: Budget::new(0), now: 1_000 };
        let started = driver.step(Event::Start);
        assert!(matches!(started[..], [Action::Send { attempt: 1, target: 0 }, Action::Arm { attempt: 1, .. }]));
        driver
    }

    fn step(&mut self, event: Event) -> Vec<Action> {
        step(&mut self.run, &mut self.budget, self.now, event)
    }

    fn attempt(&self) -> u8 {
        u8::try_from(self.run.record().attempts.len()).unwrap()
    }

    fn headers(&mut self, status: u16, content_type: &str) -> Vec<Action> {
        let content_type = Some(content_type.to_owned());
        self.step(Event::Headers { attempt: self.attempt(), status, content_type, packed: false, retry_after_ms: None })
    }

    fn chunk(&mut self, text: &str) -> Vec<Action> {
        self.step(Event::Chunk { attempt: self.attempt(), bytes: text.as_bytes().to_vec() })
    }

    fn eof(&mut self) -> Vec<Action> {
        self.step(Event::Eof { attempt: self.attempt() })
    }

    fn timer(&mut self, after: i64) -> Vec<Action> {
        self.now += after;
        self.step(Event::Timer { attempt: self.attempt() })
    }

    fn outcomes(&self) -> Vec<Outcome> {
        self.run.record().attempts.iter().filter_map(|attempt| attempt.outcome).collect()
    }
}

fn stream() -> Driver {
    let mut driver = Driver::new(Expect::Stream);
    assert_eq!(driver.headers(200, "text/event-stream; charset=utf-8"), []);
    driver
}

fn unary() -> Driver {
    let mut driver = Driver::new(Expect::Json);
    assert_eq!(driver.headers(200, "application/json"), [Action::Arm { attempt: 1, after_ms: 60_000 }]);
    driver
}

/// The endpoint can't read the encrypted reasoning of the request.
fn unreadable(driver: &mut Driver) -> Vec<Action> {
    driver.headers(400, "application/json");
    driver.chunk(UNREADABLE);
    driver.eof()
}

#[test]
fn reasoning_that_one_endpoint_cannot_read_is_shown_to_the_others() {
    let mut driver = Driver::new(Expect::Json);
    let moved = unreadable(&mut driver);
    assert!(moved.iter().any(|action| matches!(action, Action::Send { attempt: 2, target: 1 })), "{moved:?}");
    assert!(!moved.iter().any(|action| matches!(action, Action::CoolDown { .. })), "nobody is at fault");
    driver.headers(200, "application/json");
    driver.chunk(r#"{"object":"response","output":[]}"#);
    driver.eof();
    assert_eq!(driver.outcomes(), [Outcome::Refused(400), Outcome::Committed]);
}

#[test]
fn reasoning_that_no_endpoint_can_read_is_told_by_its_code() {
    let mut driver = Driver::new(Expect::Json);
    unreadable(&mut driver);
    unreadable(&mut driver);
    let [.., Action::Reply { failure }] = &unreadable(&mut driver)[..] else { panic!("no answer") };
    assert_eq!((failure.status(), failure.code()), (400, "invalid_encrypted_content"));
    assert_eq!(driver.outcomes(), [Outcome::Refused(400); 3]);

    let mut driver = Driver::with(Expect::Json, true, Limits::default());
    let [.., Action::Reply { failure }] = &unreadable(&mut driver)[..] else { panic!("no answer") };
    assert_eq!((failure.status(), failure.code()), (400, "invalid_encrypted_content"), "what is pinned has no other");
}

#[test]
fn reasoning_whose_maker_may_rest_can_be_sent_again() {
    let mut driver = Driver::new(Expect::Json);
    let first = driver.run.target(0).unwrap().id().clone();
    driver.run.skip_resting(|target| *target.id() != first);
    let [.., Action::Reply { failure }] = &unreadable(&mut driver)[..] else { panic!("no answer") };
    assert_eq!((failure.status(), failure.code()), (503, "invalid_encrypted_content"));
    assert!(failure.headers().iter().any(|(name, value)| *name == "retry-after" && value == "1"));

    let mut driver = Driver::new(Expect::Json);
    unreadable(&mut driver);
    driver.headers(500, "application/json");
    let [.., Action::Reply { failure }] = &unreadable(&mut driver)[..] else { panic!("no answer") };
    assert_eq!(failure.status(), 503, "one of them failed, and may have been its maker");
}

fn retried(actions: &[Action]) -> bool {
    let cools = actions.iter().any(|action| matches!(action, Action::CoolDown { .. }));
    cools && actions.iter().any(|action| matches!(action, Action::Send { attempt: 2, target: 1 }))
}

/// Broken off after the commit, which counts against the endpoint.
fn cut(actions: &[Action]) -> bool {
    matches!(actions, [Action::Disarm { .. }, Action::CoolDown { fault: true, .. }, Action::CutStream])
}

fn aborted(actions: &[Action]) -> bool {
    actions.contains(&Action::Abort { attempt: 1 })
}

fn reply(actions: &[Action]) -> Option<&Failure> {
    actions.iter().find_map(|action| match action {
        Action::Reply { failure } => Some(failure),
        _ => None,
    })
}

#[test]
fn a_stream_commits_at_its_first_content_event_and_ends_at_its_terminal_event() {
    let mut driver = stream();
    assert_eq!(driver.chunk(ROLE), []);
    assert_eq!(driver.chunk(&CONTENT[..10]), []);
    let body = format!("{ROLE}{CONTENT}").into_bytes();
    assert_eq!(
        driver.chunk(&CONTENT[10..]),
        [
            Action::Commit { attempt: 1, status: 200, body, as_events: false },
            Action::Arm { attempt: 1, after_ms: 60_000 }
        ]
    );
    assert_eq!(driver.chunk(CONTENT), [Action::Emit { bytes: CONTENT.into() }]);
    let last = driver.chunk(&format!("{DONE}ignored"));
    assert_eq!(last, [Action::Emit { bytes: DONE.into() }, Action::Disarm { attempt: 1 }, Action::Finish]);
    assert_eq!(driver.run.record().end, Some(End::Whole));
    assert_eq!(
        driver.run.served_by().map(|target| target.id().as_str()),
        Some(driver.run.record().attempts[0].endpoint.as_str())
    );
    assert!(driver.run.is_done() && driver.eof().is_empty());
}

#[test]
fn a_stream_that_says_nothing_fails_over() {
    for text in [ERROR, "data: {\"type\":\"response.failed\"}\n\n", DONE, "data: not json\n\n"] {
        let mut driver = stream();
        driver.chunk(ROLE);
        let actions = driver.chunk(text);
        assert!(retried(&actions) && aborted(&actions), "{text}: {actions:?}");
    }
    let mut empty = stream();
    empty.chunk(ROLE);
    assert!(retried(&empty.eof()));
    let mut reset = stream();
    assert!(retried(&reset.step(Event::BodyError { attempt: 1 })));
    let mut silent = stream();
    silent.chunk("");
    let actions = silent.timer(15_000);
    assert!(retried(&actions) && aborted(&actions), "headers alone are no sign of life");
    assert_eq!(silent.outcomes(), [Outcome::Timeout]);
}

#[test]
fn an_endpoint_that_says_it_is_alive_is_not_late() {
    let created = "event: response.created\ndata: {\"type\":\"response.created\"}\n\n";
    let empty = "data: {\"choices\":[]}\n\n";
    for sign in [ROLE, ": ping\n", ":\n\n", ": pi", created, empty, "data: ping\n\n", "event: ping\ndata: 4 s\n\n"] {
        let mut driver = stream();
        // Each sign ten seconds after the last: the limit on headers, 15 s, ends nothing any more.
        for _ in 0..12 {
            driver.now += 10_000;
            assert_eq!(driver.chunk(sign), [], "{sign}");
        }
        let actions = driver.timer(9_999);
        assert_eq!(actions, [Action::Arm { attempt: 1, after_ms: 1 }], "{sign}");
        let actions = driver.timer(1);
        assert!(retried(&actions) && aborted(&actions), "two minutes from the first sign: {sign}");
        assert_eq!(driver.outcomes(), [Outcome::Timeout], "{sign}");
    }
    let mut driver = stream();
    driver.chunk(": ping\n");
    driver.now += 100_000;
    assert!(matches!(driver.chunk(CONTENT)[..], [Action::Commit { .. }, Action::Arm { after_ms: 60_000, .. }]));
}

#[test]
fn how_long_signs_of_life_are_waited_for() {
    // (headers_streamed, first_token, idle, total), then: after which silence behind a first sign at 100 ms it is late.
    for (headers, first_token, idle, total, late) in [
        (1_000, 60_000, 5_000, 90_000, 5_000),
        (1_000, 3_000, 5_000, 90_000, 3_000),
        (9_000, 60_000, 500, 90_000, 8_900), // silence is never shorter than that before headers
        (9_000, 300, 5_000, 90_000, 300),    // earlier than the timer in hand
        (1_000, 60_000, 60_000, 20_000, 19_900),
    ] {
        let [headers_streamed, first_token, idle, total] = [headers, first_token, idle, total].map(Millis);
        let limits = Limits { headers_streamed, first_token, idle, total, ..Limits::default() };
        let mut driver = Driver::with(Expect::Stream, false, limits);
        driver.headers(200, "text/event-stream");
        driver.now += 100;
        let armed = driver.chunk(": ping\n");
        let early = late < headers - 100;
        assert_eq!(armed.len(), usize::from(early), "{limits:?}: {armed:?}");
        assert!(!driver.run.is_overdue(driver.now + i64::try_from(late).unwrap() - 1), "{limits:?}");
        driver.timer(i64::try_from(late).unwrap());
        assert_eq!(driver.outcomes(), [Outcome::Timeout], "{limits:?}");
    }
    let mut unasked = Driver::new(Expect::Any);
    unasked.headers(200, "text/event-stream");
    unasked.chunk(": ping\n");
    assert!(!unasked.run.is_overdue(unasked.now + 299_999), "an answer that wasn't asked for as a stream");
}

#[test]
fn a_heartbeat_that_is_no_json_never_reaches_the_client() {
    let mut driver = stream();
    let text = format!("data: ping\n\n{ROLE}event: heartbeat\ndata: now\n\n{CONTENT}data: ping\n\n{CONTENT}");
    let actions = driver.chunk(&text);
    let body = format!("{ROLE}{CONTENT}{CONTENT}").into_bytes();
    assert_eq!(actions[0], Action::Commit { attempt: 1, status: 200, body, as_events: false });
    assert_eq!(driver.chunk("data: ping\n\n"), []);
    let bytes = CONTENT.into();
    assert_eq!(driver.chunk(&format!("data: ping\n\n{CONTENT}")), [Action::Emit { bytes }]);
    assert_eq!(driver.chunk("data: ping\n"), []);
    assert!(matches!(driver.eof()[..], [Action::Disarm { .. }, Action::CoolDown { .. }, Action::EmitTail { .. }]));
}

#[test]
fn a_stream_that_dies_after_commit_ends_with_one_error_event_and_no_done() {
    let tail = |actions: &[Action]| {
        let [.., Action::EmitTail { bytes }] = actions else { panic!("{actions:?}") };
        String::from_utf8(bytes.clone()).unwrap()
    };
    let committed = || {
        let mut driver = stream();
        driver.chunk(CONTENT);
        driver
    };
    let mut clean = committed();
    assert_eq!(clean.chunk("data: {\"cho"), [], "what isn't whole is held");
    let text = tail(&clean.eof());
    assert!(text.contains("upstream_interrupted") && !text.contains("[DONE]") && !text.contains("cho\""));
    assert_eq!(clean.run.record().end, Some(End::Interrupted));

    let mut idle = committed();
    assert_eq!(idle.timer(10_000), [Action::Arm { attempt: 1, after_ms: 50_000 }], "too early");
    idle.chunk(CONTENT);
    assert_eq!(idle.timer(50_000), [Action::Arm { attempt: 1, after_ms: 10_000 }], "progress moves the deadline");
    let actions = idle.timer(10_000);
    assert!(aborted(&actions) && !tail(&actions).is_empty());
    assert_eq!(idle.run.record().end, Some(End::Idle));

    let mut error = committed();
    let actions = error.chunk(&format!("{CONTENT}{ERROR}{DONE}"));
    assert_eq!(actions[0], Action::Emit { bytes: CONTENT.into() });
    let text = tail(&actions);
    assert!(text.contains("overloaded") && !text.contains("CANARY"), "{text}");
    assert!(aborted(&actions));
}

/// A stream whose rest the runtime passes, and the bytes that it was given first.
fn piped(begun: &str) -> (Driver, Vec<u8>) {
    let mut driver = stream();
    assert!(!driver.run.is_streaming() && driver.run.pipe().is_none(), "nothing is committed yet");
    driver.chunk(begun);
    assert!(driver.run.is_streaming());
    let rest = driver.run.pipe().unwrap();
    assert!(!driver.run.is_streaming() && driver.run.pipe().is_none(), "once");
    (driver, rest)
}

#[test]
fn a_pipe_gets_the_beginning_of_an_event_and_has_no_limit() {
    let (mut driver, rest) = piped(&format!("{CONTENT}data: {{\"cho"));
    assert_eq!(rest, b"data: {\"cho");
    assert_eq!(driver.timer(10_000_000), []);
    assert_eq!(driver.eof(), [Action::Finish]);
    assert_eq!((driver.run.record().end, driver.run.is_done()), (Some(End::Piped), true));
}

#[test]
fn a_pipe_that_breaks_ends_with_an_error_event_behind_an_empty_line() {
    for event in [Event::BodyError { attempt: 1 }, Event::FetchError { attempt: 1 }] {
        let (mut driver, _) = piped(CONTENT);
        let actions = driver.step(event);
        let [Action::CoolDown { fault: true, .. }, Action::EmitTail { bytes }] = &actions[..] else {
            panic!("{actions:?}")
        };
        assert!(bytes.starts_with(b"\n\ndata: {\"error\":"), "{actions:?}");
        assert_eq!(driver.run.record().end, Some(End::Interrupted));
    }
}

#[test]
fn a_client_that_leaves_a_pipe_aborts_without_penalty() {
    let (mut driver, _) = piped(CONTENT);
    assert_eq!(driver.step(Event::ClientGone), [Action::Abort { attempt: 1 }]);
    assert_eq!(driver.run.record().end, Some(End::ClientGone));
}

#[test]
fn a_last_event_without_its_empty_line_ends_the_stream() {
    let mut driver = stream();
    driver.chunk(CONTENT);
    assert_eq!(driver.chunk("data: [DONE]\n"), []);
    let bytes = DONE.into();
    assert_eq!(driver.eof(), [Action::Emit { bytes }, Action::Disarm { attempt: 1 }, Action::Finish]);
}

#[test]
fn a_transcript_may_end_cleanly_after_its_final_event() {
    let mut driver = stream();
    driver.chunk("data: {\"type\":\"transcript.text.done\",\"text\":\"hi\"}\n\n");
    assert_eq!(driver.eof(), [Action::Disarm { attempt: 1 }, Action::Finish]);
}

#[test]
fn a_stream_cut_inside_a_passed_event_is_cut() {
    let mut driver = stream();
    driver.chunk(CONTENT);
    let huge = "x".repeat(1_100_000);
    assert!(matches!(driver.chunk(&huge)[..], [Action::Emit { .. }]));
    assert!(cut(&driver.eof()));
}

#[test]
fn comments_beyond_the_limit_commit() {
    let mut driver = stream();
    let comments = ": keep-alive\n\n".repeat(5_000);
    assert!(matches!(driver.chunk(&comments)[..], [Action::Commit { .. }, Action::Arm { .. }]));
}

#[test]
fn a_responses_stream_may_begin_and_end_in_one_event() {
    let mut driver = stream();
    let text = "event: response.created\ndata: {}\n\nevent: response.completed\ndata: {\"response\":{}}\n\n";
    let body = text.as_bytes().to_vec();
    let commit = Action::Commit { attempt: 1, status: 200, body, as_events: false };
    assert_eq!(driver.chunk(text), [commit, Action::Disarm { attempt: 1 }, Action::Finish]);
}

#[test]
fn a_unary_answer_is_held_until_it_is_whole_json() {
    let mut driver = unary();
    assert_eq!(driver.chunk("{\"a\":"), []);
    driver.chunk("1e400}");
    let body = b"{\"a\":1e400}".to_vec();
    assert_eq!(
        driver.eof(),
        [
            Action::Commit { attempt: 1, status: 200, body, as_events: false },
            Action::Disarm { attempt: 1 },
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
    assert!(retried(&driver.eof()), "a clean end is never proof");
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
    assert!(retried(&text.step(Event::BodyError { attempt: 1 })), "a transcript");
    let mut whole = unary();
    whole.chunk(&long);
    whole.chunk("\"}");
    assert!(matches!(whole.eof()[..], [Action::Commit { .. }, Action::Disarm { .. }, Action::Finish]));
}

#[test]
fn an_answer_is_held_only_where_there_is_room_and_not_for_ever() {
    let long = format!("{{\"a\":\"{}", "x".repeat(70_000));
    let mut crowded = unary();
    assert!(crowded.run.needs_room(long.len()) && !crowded.run.needs_room(60_000));
    crowded.run.note_memory_short();
    assert!(matches!(crowded.chunk(&long)[..], [Action::Commit { .. }, Action::Arm { .. }]));
    assert!(!crowded.run.needs_room(100_000), "what is passed on isn't held");
    let mut short = unary();
    short.run.note_memory_short();
    assert_eq!(short.chunk("{}"), [], "a little is held whatever others hold");

    let mut slow = unary();
    slow.chunk(&long);
    for _ in 0..5 {
        slow.now += 59_000;
        assert_eq!(slow.chunk("x"), []);
    }
    assert!(matches!(slow.timer(4_000)[..], [Action::Arm { after_ms: 1_000, .. }]));
    assert!(matches!(slow.timer(1_000)[..], [Action::Commit { .. }, Action::Arm { after_ms: 60_000, .. }]));
}

#[test]
fn a_stored_file_with_a_length_is_not_held() {
    let file = |has_length: bool| {
        let mut driver = Driver::with(Expect::File, true, Limits::default());
        driver.run.note_length(has_length);
        driver.headers(200, "application/jsonl");
        driver.chunk(&"x".repeat(70_000))
    };
    assert!(matches!(file(true)[..], [Action::Commit { .. }, Action::Arm { .. }]));
    assert_eq!(file(false), [], "nobody would see it break off");
}

#[test]
fn sound_passes_when_it_comes() {
    for kind in ["audio/mpeg", "Audio/PCM; rate=24000", "application/octet-stream", "video/mp4"] {
        let mut driver = Driver::new(Expect::Any);
        driver.headers(200, kind);
        let commit = Action::Commit { attempt: 1, status: 200, body: b"x".to_vec(), as_events: false };
        assert_eq!(driver.chunk("x"), [commit, Action::Arm { attempt: 1, after_ms: 60_000 }], "{kind}");
        assert!(cut(&driver.step(Event::BodyError { attempt: 1 })), "{kind}");
    }
    let unexplained = |first: &[u8]| {
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
        assert!(unexplained(sound), "{sound:?}");
    }
    for text in ["{\"text\":\"é\"}", "1\n00:00:00,000 --> 00:00:01,000\r\n"] {
        assert!(!unexplained(text.as_bytes()) && !unexplained(&text.as_bytes()[..10]), "{text}");
    }
    assert!(!unexplained("é".as_bytes().split_last().unwrap().1), "half a letter");
}

#[test]
fn a_long_unary_answer_commits_and_is_cut_if_it_breaks_off() {
    let mut driver = unary();
    let long = format!("{{\"a\":\"{}", "x".repeat(8 << 20));
    assert!(matches!(driver.chunk(&long)[..], [Action::Commit { .. }, Action::Arm { .. }]));
    assert_eq!(driver.chunk("y"), [Action::Emit { bytes: b"y".to_vec() }]);
    assert!(cut(&driver.eof()), "a clean end is never proof");

    let mut whole = unary();
    whole.chunk(&long);
    whole.chunk("\"}");
    assert_eq!(whole.eof(), [Action::Disarm { attempt: 1 }, Action::Finish]);

    let mut idle = unary();
    idle.chunk(&long);
    let actions = idle.timer(60_000);
    assert!(aborted(&actions) && matches!(actions[..], [_, Action::CoolDown { fault: true, .. }, Action::CutStream]));
}

#[test]
fn what_is_no_json_is_not_passed_for_being_long() {
    for text in ["\u{1}{\"a\":\"", "<html>", "{\"a\":1}{\"b\":\""] {
        let mut driver = unary();
        let actions = driver.chunk(&format!("{text}{}", "x".repeat(70_000)));
        assert!(aborted(&actions) && retried(&actions), "{text}");
        assert_eq!(driver.outcomes(), [Outcome::WrongType]);
    }
}

#[test]
fn what_nobody_unpacks_is_of_no_type_that_was_asked_for() {
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
        // A refusal is one, whatever its text.
        let mut refused = Driver::new(expect);
        refused.step(packed(400));
        assert!(reply(&refused.eof()).is_some(), "{expect:?}");
    }
}

#[test]
fn what_comes_in_drips_is_not_waited_for() {
    let mut drips = unary();
    for _ in 0..5 {
        drips.now += 59_000;
        assert_eq!(drips.chunk(" "), []);
    }
    assert!(matches!(drips.timer(4_000)[..], [Action::Arm { after_ms: 1_000, .. }]), "as long as headers may take");
    assert!(retried(&drips.timer(1_000)));

    let mut endless = stream();
    endless.chunk(CONTENT);
    endless.now += 50_000;
    assert_eq!(endless.chunk("data: x"), []);
    assert!(matches!(endless.timer(10_000)[..], [.., Action::EmitTail { .. }]), "no event in all that time");
}

#[test]
fn only_what_changes_state_may_succeed_without_a_word() {
    let mut inference = Driver::new(Expect::Json);
    inference.headers(204, "application/json");
    assert!(retried(&inference.eof()));
    let mut deletion = Driver::with(Expect::Json, true, Limits::default());
    deletion.headers(204, "application/json");
    assert!(matches!(deletion.eof()[..], [Action::Commit { status: 204, .. }, Action::Disarm { .. }, Action::Finish]));
}

#[test]
fn json_in_place_of_events_is_told_by_events() {
    let asked = || {
        let mut driver = Driver::new(Expect::Stream);
        assert_eq!(driver.headers(200, "application/json"), [Action::Arm { attempt: 1, after_ms: 60_000 }]);
        driver
    };
    let mut driver = asked();
    driver.chunk("{\"choices\":[{\"index\":0,\"message\":{\"content\":\"x\"}");
    driver.chunk(",\"finish_reason\":\"stop\"}]}");
    let chunk = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"},\"finish_reason\":\"stop\"}]}\n\n";
    let commit = Action::Commit { attempt: 1, status: 200, body: [chunk, DONE].concat().into(), as_events: true };
    assert_eq!(driver.eof(), [commit, Action::Disarm { attempt: 1 }, Action::Finish]);
    for other in ["{\"error\":{\"message\":\"x\"}}", "{}", "{\"choices\":[", "[]"] {
        let mut driver = asked();
        driver.chunk(other);
        assert!(retried(&driver.eof()), "{other}");
    }
    let mut endless = asked();
    assert!(
        retried(&endless.chunk(&format!("{{\"a\":\"{}", "x".repeat(8 << 20)))),
        "no events are made of half an answer"
    );
}

const STOP: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
const USAGE: &str = "data: {\"choices\":[],\"usage\":{\"total_tokens\":2}}\n\n";

/// What a client gets of a stream that ends cleanly after this: its last bytes, if it was whole.
fn ended(choices: usize, text: &str) -> Option<String> {
    let mut driver = Driver::of(choices, Expect::Stream, false, Limits::default());
    driver.headers(200, "text/event-stream");
    driver.chunk(CONTENT);
    driver.chunk(text);
    let last = match driver.eof().as_slice() {
        [Action::Emit { bytes }, Action::Disarm { .. }, Action::Finish] => String::from_utf8(bytes.clone()).unwrap(),
        [Action::Disarm { .. }, Action::Finish] => String::new(),
        [Action::Disarm { .. }, Action::CoolDown { .. }, Action::EmitTail { bytes }] => {
            assert!(bytes.starts_with(b"data: {\"error\":"));
            return None;
        }
        other => panic!("{other:?}"),
    };
    Some(last)
}

#[test]
fn a_stream_whose_choices_have_finished_is_whole_and_done_is_added() {
    let text = "data: {\"choices\":[{\"index\":0,\"text\":\"x\",\"finish_reason\":\"length\"}]}\n\n";
    let annotated = "data: {\"choices\":[{\"index\":0,\"finish_reason\":null,\"content_filter_offsets\":{}}]}\n\n";
    for whole in [
        STOP.to_owned(),
        [STOP, USAGE].concat(),
        [STOP, ": ping\n\n"].concat(),
        [STOP, annotated].concat(),
        [CONTENT, text].concat(),
        [CONTENT, CONTENT, STOP].concat().replace('\n', "\r\n"),
        STOP.replace("\"index\":0,", ""),
    ] {
        assert_eq!(ended(1, &whole).as_deref(), Some(DONE), "{whole}");
    }
    let null = STOP.replace("\"stop\"", "null");
    let empty = STOP.replace("\"stop\"", "\"\"");
    for broken in ["", CONTENT, USAGE, &null, &empty, &STOP.replace("\"index\":0", "\"index\":1")] {
        assert_eq!(ended(1, broken), None, "{broken}");
    }
}

#[test]
fn every_choice_that_was_asked_for_has_to_finish() {
    let second = STOP.replace("\"index\":0", "\"index\":1");
    let more = CONTENT.replace("{\"delta\"", "{\"index\":1,\"delta\"");
    assert_eq!(ended(2, &[&more, STOP, &second].concat()).as_deref(), Some(DONE));
    assert_eq!(ended(1, &[&more, STOP].concat()), None, "the second one was cut");
    assert_eq!(ended(2, STOP), None, "the second one never began");
    assert_eq!(ended(0, &[&more, &more, STOP, &more, &second].concat()).as_deref(), Some(DONE));
}

#[test]
fn a_last_event_without_its_empty_line_is_ended() {
    for (end, missing) in [("", "\n\n"), ("\n", "\n"), ("\r\n", "\n"), ("\r", "\r")] {
        let cut = |event: &str| [event.trim_end(), end].concat();
        assert_eq!(ended(1, &cut(STOP)), Some([&cut(STOP), missing, DONE].concat()), "{end:?}");
        assert_eq!(ended(1, &[STOP, &cut(USAGE)].concat()), Some([&cut(USAGE), missing, DONE].concat()), "{end:?}");
        assert_eq!(ended(1, &cut(DONE)), Some([&cut(DONE), missing].concat()), "{end:?}");
    }
    assert_eq!(ended(1, &STOP[..STOP.len() - 5]), None, "it broke off in the middle");
    assert_eq!(ended(1, &[STOP, "data: {\"choices\":["].concat()), None);
    let mut driver = stream();
    driver.chunk(STOP.trim_end());
    let body = [STOP, DONE].concat().into_bytes();
    let commit = Action::Commit { attempt: 1, status: 200, body, as_events: false };
    assert_eq!(driver.eof(), [commit, Action::Disarm { attempt: 1 }, Action::Finish], "all of it in one event");
    let mut unfinished = stream();
    unfinished.chunk(CONTENT.trim_end());
    assert!(retried(&unfinished.eof()));
}

#[test]
fn a_responses_stream_is_whole_by_its_last_event_alone() {
    let delta = "data: {\"type\":\"response.output_text.delta\",\"delta\":\"x\"}\n\n";
    let last = "data: {\"type\":\"response.completed\",\"response\":{}}";
    assert_eq!(ended(1, &[delta, last].concat()), Some([last, "\n\n"].concat()));
    assert_eq!(ended(1, delta), None);
}

#[test]
fn a_success_of_the_wrong_type_fails_over() {
    assert!(retried(&Driver::new(Expect::Stream).headers(200, "text/plain")));
    assert!(retried(&Driver::new(Expect::Json).headers(200, "text/html")));
    assert!(retried(&Driver::new(Expect::Json).headers(200, "text/event-stream")));
    let mut audio = Driver::new(Expect::Any);
    audio.headers(200, "audio/mpeg");
    assert!(retried(&Driver::new(Expect::Any).headers(200, "text/html")));
    assert!(retried(&audio.eof()), "no sound at all");
}

#[test]
fn retryable_statuses_fail_over_at_once() {
    for status in [301, 307, 408, 500, 502, 503, 504, 522, 529] {
        let actions = Driver::new(Expect::Stream).headers(status, "application/json");
        assert!(retried(&actions) && aborted(&actions), "{status}");
    }
    assert!(retried(&Driver::new(Expect::Stream).step(Event::FetchError { attempt: 1 })));
    assert!(retried(&Driver::new(Expect::Stream).timer(15_000)));
    assert!(retried(&Driver::new(Expect::Json).timer(300_000)));
}

#[test]
fn a_clients_fault_is_relayed_in_words_without_text() {
    let mut driver = Driver::new(Expect::Json);
    assert_eq!(driver.headers(400, "application/json"), [Action::Arm { attempt: 1, after_ms: 2_000 }]);
    driver.chunk(
        r#"{"error":{"message":"CANARY","type":"invalid_request_error","code":"content_filter","param":"messages"}}"#,
    );
    let actions = driver.eof();
    let Some(failure @ Failure::Refused { status: 400, .. }) = reply(&actions) else { panic!("{actions:?}") };
    assert_eq!((failure.code(), failure.param()), ("content_filter", Some("messages")));
    assert!(!failure.body().contains("CANARY"));
    assert!(!actions.iter().any(|action| matches!(action, Action::CoolDown { .. })));
    assert_eq!(driver.outcomes(), [Outcome::Refused(400)]);
}

#[test]
fn an_errors_body_is_read_for_two_seconds_and_64_kib() {
    let mut slow = Driver::new(Expect::Json);
    slow.headers(422, "application/json");
    let actions = slow.timer(2_000);
    assert!(aborted(&actions) && reply(&actions).is_some());
    let mut long = Driver::new(Expect::Json);
    long.headers(422, "text/plain");
    let actions = long.chunk(&"x".repeat(100_000));
    assert!(aborted(&actions) && reply(&actions).is_some());
    let mut ours = Driver::new(Expect::Json);
    ours.headers(403, "text/html");
    assert!(retried(&ours.eof()), "our credential");
}

#[test]
fn what_exhaustion_says() {
    fn ends(fail: impl Fn(&mut Driver) -> Vec<Action>) -> Option<(Failure, Driver)> {
        let mut driver = Driver::new(Expect::Stream);
        (0..3).find_map(|_| reply(&fail(&mut driver)).cloned()).map(|failure| (failure, driver))
    }
    let (failure, driver) = ends(|driver| driver.timer(15_000)).unwrap();
    assert_eq!(failure, Failure::UpstreamTimeout);
    assert_eq!(driver.run.record().stopped, Some(Stop::Sends));
    let names: Vec<String> = driver
        .run
        .record()
        .attempts
        .iter()
        .map(|attempt| format!("{};outcome=timeout;ms=15000", attempt.endpoint))
        .collect();
    assert_eq!(driver.run.record().header(), names.join(", "));

    let limited = |driver: &mut Driver| {
        let attempt = driver.attempt();
        let retry_after_ms = Some(9_500 - 1_000 * u64::from(attempt));
        driver.step(Event::Headers { attempt, status: 429, content_type: None, packed: false, retry_after_ms });
        driver.eof()
    };
    assert_eq!(ends(limited).unwrap().0, Failure::RateLimited { retry_after: Some(7) });
    let failed = |retry_after, needs_operator| Failure::EndpointsFailed { retry_after, needs_operator };
    assert_eq!(ends(|driver| driver.headers(500, "")).unwrap().0, failed(None, false));
    let answered = |status: u16, body: &'static str| {
        move |driver: &mut Driver| {
            let actions = driver.headers(status, "application/json");
            if reply(&actions).is_some() || actions.iter().any(|action| matches!(action, Action::Send { .. })) {
                return actions;
            }
            driver.chunk(body);
            driver.eof()
        }
    };
    assert_eq!(ends(answered(401, "{}")).unwrap().0, failed(None, true), "our credential");
    let denied = r#"{"error":{"message":"x","type":"key_model_access_denied","param":"model","code":"401"}}"#;
    assert_eq!(ends(answered(401, denied)).unwrap().0, Failure::ModelNotFound { model: "chat".into() });
    let missing = r#"{"error":{"message":"The model `chat` does not exist."}}"#;
    assert_eq!(ends(answered(404, missing)).unwrap().0, Failure::ModelNotFound { model: "chat".into() });
    assert_eq!(ends(answered(404, r#"{"detail":"Not Found"}"#)).unwrap().0, Failure::PathNotServed);
    assert_eq!(ends(answered(405, "")).unwrap().0, Failure::PathNotServed);
    let broke = r#"{"error":{"code":"insufficient_quota"}}"#;
    assert_eq!(ends(answered(429, broke)).unwrap().0, Failure::OutOfQuota);

    // What one endpoint hasn't got says nothing where another was asked, and what is to be waited for is told in any
    // mixture.
    let mixed = |driver: &mut Driver| match driver.attempt() {
        1 => answered(404, r#"{"detail":"Not Found"}"#)(driver),
        2 => limited(driver),
        _ => driver.headers(500, ""),
    };
    assert_eq!(ends(mixed).unwrap().0, failed(Some(8), false));
    let limits =
        |driver: &mut Driver| if driver.attempt() == 1 { answered(404, missing)(driver) } else { limited(driver) };
    assert_eq!(ends(limits).unwrap().0, Failure::RateLimited { retry_after: Some(7) });
}

/// A run with one endpoint: all others rest.
fn alone(stateful: bool, reads_only: bool) -> Driver {
    let (plan, model, limits) = (german_plan(), Some("chat".into()), Limits::default());
    let (expect, answer_kind, choices) = (Expect::Json, None, 1);
    let mut driver = Driver::begin(Task { plan, model, expect, answer_kind, choices, stateful, reads_only, limits });
    driver.run.skip_resting(|_| true);
    driver
}

#[test]
fn the_only_endpoint_is_asked_once_more_if_nothing_came() {
    let reset = |driver: &mut Driver| driver.step(Event::FetchError { attempt: driver.attempt() });
    let again = |actions: &[Action]| actions.iter().any(|action| matches!(action, Action::Send { target: 0, .. }));
    let mut driver = alone(false, false);
    assert!(again(&reset(&mut driver)));
    let actions = reset(&mut driver);
    assert_eq!(reply(&actions), Some(&Failure::EndpointsFailed { retry_after: None, needs_operator: false }), "once");
    assert_eq!(driver.run.record().header(), "fra-1;outcome=network;ms=0, fra-1;outcome=network;ms=0");

    assert!(again(&reset(&mut alone(true, true))), "what only reads is harmless");
    assert!(!again(&reset(&mut alone(true, false))), "nobody knows whether it was done");
    assert!(!again(&alone(false, false).timer(300_000)));
    let mut broken = alone(false, false);
    broken.headers(200, "application/json");
    assert!(!again(&broken.step(Event::BodyError { attempt: 1 })), "it had begun to answer");
    let mut elsewhere = Driver::new(Expect::Json);
    assert!(retried(&reset(&mut elsewhere)), "others go first");
}

#[test]
fn an_error_event_about_the_request_is_the_clients() {
    let too_long = r#"{"error":{"message":"This model's maximum context length is 8192 tokens. CANARY","code":400}}"#;
    let mut events = stream();
    events.chunk(ROLE);
    let actions = events.chunk(&format!("data: {too_long}\n\n"));
    let mut whole = unary();
    whole.chunk(too_long);
    for actions in [actions, whole.eof()] {
        let Some(failure) = reply(&actions) else { panic!("{actions:?}") };
        assert_eq!((failure.status(), failure.code()), (400, "context_length_exceeded"));
        assert!(failure.message().contains("8192 tokens") && !failure.body().contains("CANARY"));
        assert!(!actions.iter().any(|action| matches!(action, Action::CoolDown { .. })));
    }
}

#[test]
fn what_forbids_another_attempt() {
    let stop = |mut driver: Driver| {
        let actions = driver.headers(503, "");
        assert!(reply(&actions).is_some(), "{actions:?}");
        driver.run.record().stopped
    };
    assert_eq!(stop(Driver::with(Expect::Json, true, Limits::default())), Some(Stop::Stateful));
    assert_eq!(stop(Driver::with(Expect::Json, false, Limits { sends: 1, ..Limits::default() })), Some(Stop::Sends));
    let mut late = Driver::new(Expect::Json);
    late.now += 599_001;
    assert_eq!(stop(late), Some(Stop::Time));
    let mut poor = Driver::new(Expect::Json);
    while poor.budget.take(poor.now) {}
    assert_eq!(stop(poor), Some(Stop::Budget));
    let mut resting = Driver::new(Expect::Json);
    resting.run.skip_resting(|_| true);
    resting.headers(504, "");
    assert_eq!(resting.run.record().stopped, Some(Stop::Targets));
}

#[test]
fn an_endpoint_that_began_to_rest_is_passed_over() {
    let mut driver = Driver::new(Expect::Json);
    let second = driver.run.target(1).unwrap().id().clone();
    driver.run.skip_resting(|target| *target.id() == second);
    let actions = driver.headers(503, "");
    assert!(actions.contains(&Action::Send { attempt: 2, target: 2 }));
    assert_eq!(driver.run.record().skipped.last().map(|skipped| &skipped.endpoint), Some(&second));
}

#[test]
fn a_client_that_goes_aborts_without_penalty() {
    let gone = |mut driver: Driver| driver.step(Event::ClientGone);
    let expected = [Action::Disarm { attempt: 1 }, Action::Abort { attempt: 1 }];
    assert_eq!(gone(Driver::new(Expect::Json)), expected);
    assert_eq!(gone(stream()), expected);
    let mut committed = stream();
    committed.chunk(CONTENT);
    assert_eq!(gone(committed), expected);
}

#[test]
fn stale_events_are_ignored() {
    let mut driver = Driver::new(Expect::Stream);
    driver.headers(503, "");
    for event in [
        Event::Headers { attempt: 1, status: 200, content_type: None, packed: false, retry_after_ms: None },
        Event::Chunk { attempt: 1, bytes: CONTENT.into() },
        Event::Eof { attempt: 1 },
        Event::Timer { attempt: 1 },
        Event::FetchError { attempt: 3 },
        Event::Start,
    ] {
        assert_eq!(driver.step(event.clone()), [], "{event:?}");
    }
}

/// One random happening, with how long it took.
#[derive(Clone, Debug)]
enum Happening {
    Headers(u16, Option<&'static str>, Option<u64>),
    Chunk(Vec<u8>),
    Eof,
    BodyError,
    FetchError,
    Timer,
    ClientGone,
    Resting(u8),
}

fn happening() -> impl Strategy<Value = (Happening, i64, i8)> {
    let status = prop_oneof![9 => Just(200u16), 1 => Just(204), 4 => 300..600u16, 1 => any::<u16>()];
    let kind = prop_oneof![
        6 => Just(Some("text/event-stream")),
        6 => Just(Some("application/json")),
        1 => Just(Some("text/html")),
        1 => Just(None),
    ];
    let text = prop_oneof![
        Just(ROLE.as_bytes().to_vec()),
        Just(CONTENT.as_bytes().to_vec()),
        Just(CONTENT.as_bytes().to_vec()),
        Just(CONTENT.as_bytes().to_vec()),
        Just(ERROR.as_bytes().to_vec()),
        Just(DONE.as_bytes().to_vec()),
        Just(b"{\"id\":1}".to_vec()),
        Just(b"data: {".to_vec()),
        Just(b": ping\n".to_vec()),
        Just(b"data: ping\n\n".to_vec()),
        Just(vec![b'x'; 70_000]),
        Just([b"{\"a\":\"", &[b'x'; 70_000][..]].concat()),
        proptest::collection::vec(any::<u8>(), 0..20),
    ];
    let what = prop_oneof![
        12 => (status, kind, proptest::option::of(any::<u64>())).prop_map(|(s, k, r)| Happening::Headers(s, k, r)),
        16 => text.prop_map(Happening::Chunk),
        3 => Just(Happening::Eof),
        1 => Just(Happening::BodyError),
        1 => Just(Happening::FetchError),
        2 => Just(Happening::Timer),
        1 => Just(Happening::ClientGone),
        1 => any::<u8>().prop_map(Happening::Resting),
    ];
    // Mostly of the attempt in hand, sometimes stale or from the future.
    let skew = prop_oneof![8 => Just(0i8), 1 => -2..3i8];
    (what, prop_oneof![20 => 0..100i64, 1 => 0..400_000i64], skew)
}

#[test]
fn the_only_endpoint_is_asked_again_after_a_hiccup_and_the_moment_it_asked_for() {
    let again = |status, retry_after_ms| {
        let mut driver = alone(false, false);
        let headers = Event::Headers { attempt: 1, status, content_type: None, packed: false, retry_after_ms };
        let mut actions = driver.step(headers);
        if retry_after_ms.is_some_and(|ms| ms > 0) && !driver.run.is_done() {
            assert!(actions.iter().all(|action| !matches!(action, Action::Send { .. })), "it waits");
            actions = driver.timer(1_000);
        }
        actions.iter().any(|action| matches!(action, Action::Send { attempt: 2, target: 0 }))
    };
    for status in [500, 502, 503, 520, 529] {
        assert!(again(status, None) && again(status, Some(0)) && again(status, Some(1_000)), "{status}");
        assert!(!again(status, Some(2_001)), "{status}: its client waits");
    }
    for status in [401, 403, 429, 504, 524, 307] {
        assert!(!again(status, None), "{status}");
    }
    let mut gone = alone(false, false);
    let event =
        Event::Headers { attempt: 1, status: 503, content_type: None, packed: false, retry_after_ms: Some(900) };
    gone.step(event);
    assert_eq!(gone.step(Event::ClientGone), [Action::Disarm { attempt: 1 }]);
    assert!(gone.run.is_done());
    let mut others = Driver::with(Expect::Json, false, Limits { total: Millis(10_000), ..Limits::default() });
    let event =
        Event::Headers { attempt: 1, status: 429, content_type: None, packed: false, retry_after_ms: Some(30_000) };
    others.step(event);
    assert!(retried(&others.eof()), "others aren't asked to wait for it");
    let mut once = alone(false, false);
    once.headers(500, "text/plain");
    assert!(reply(&once.headers(500, "text/plain")).is_some(), "once more, and no more");
}

#[test]
fn whatever_happens_the_machine_keeps_its_promises() {
    let expect = prop_oneof![Just(Expect::Stream), Just(Expect::Json), Just(Expect::Any)];
    let limits = (1..=3u8, 50..200_000u64, 50..300_000u64, 500..700_000u64, 50..100_000u64);
    let strategy = (
        expect,
        (proptest::bool::weighted(0.2), any::<bool>(), 0..12u8),
        limits,
        proptest::collection::vec(happening(), 0..40),
    );
    let plan = german_plan();
    let (cases, sends, commits) = (Cell::new(0u32), Cell::new(0usize), Cell::new(0u32));
    TestRunner::new(ProptestConfig::with_cases(10_000))
        .run(
            &strategy,
            |(expect, (stateful, reads_only, drained), (most, headers, first_token, total, idle), happenings)| {
                cases.set(cases.get() + 1);
                let limits = limits_of(most, headers, first_token, total, idle);
                let fence: Vec<_> = plan.targets().iter().map(|target| target.id().clone()).collect();
                let task = chat_task(plan.clone(), expect, limits);
                let mut run = Run::new(Task { stateful, reads_only, ..task });
                let (mut budget, mut now) = (Budget::new(0), 0);
                for _ in 0..drained {
                    let _ = budget.take(now);
                }
                let mut watch = Watch::default();
                watch.see(&step(&mut run, &mut budget, now, Event::Start))?;
                for (happening, after, skew) in happenings {
                    now += after;
                    let attempt = u8::try_from(watch.sent.len()).unwrap().saturating_add_signed(skew);
                    if let Happening::Resting(mask) = happening {
                        run.skip_resting(|target| mask >> (target.id().as_str().as_bytes()[4] % 8) & 1 == 1);
                    }
                    let Some(event) = event_of(happening, attempt, after % 7 == 3) else { continue };
                    if matches!(event, Event::Timer { .. }) && skew == 0 {
                        // A driver has no timer but those that `Arm` started.
                        if !watch.armed {
                            continue;
                        }
                        watch.armed = false;
                    }
                    watch.see(&step(&mut run, &mut budget, now, event))?;
                    prop_assert_eq!(run.is_done(), watch.ended, "done without telling, or told without being done");
                    prop_assert!(run.is_done() || watch.armed, "a run that waits has a timer");
                }
                // Everything ends: with the client's leave at the latest.
                watch.see(&step(&mut run, &mut budget, now, Event::ClientGone))?;
                prop_assert!(run.is_done() && !watch.armed);
                let most = if stateful { 1 } else { usize::from(most) };
                let again = usize::from(stateful && reads_only);
                prop_assert!(watch.sent.len() <= (most + again).min(3));
                check_record(run.record(), &watch, &fence)?;
                sends.set(sends.get() + watch.sent.len());
                commits.set(commits.get() + u32::from(watch.committed));
                Ok(())
            },
        )
        .unwrap();
    println!("runs: {}, sends: {}, commits: {}", cases.get(), sends.get(), commits.get());
    assert!(commits.get() > 500);
}

/// A request for a chat completion that can go to any endpoint of the plan.
fn chat_task(plan: Plan, expect: Expect, limits: Limits) -> Task {
    Task {
        plan,
        model: Some("chat".into()),
        expect,
        answer_kind: Some(AnswerKind::Chat),
        choices: 1,
        stateful: false,
        reads_only: false,
        limits,
    }
}

fn limits_of(sends: u8, headers: u64, first_token: u64, total: u64, idle: u64) -> Limits {
    Limits {
        headers_streamed: Millis(headers),
        first_token: Millis(first_token),
        headers_unary: Millis(headers),
        idle: Millis(idle),
        total: Millis(total),
        body_bytes: 1,
        sends,
    }
}

/// The event of an attempt; `None` for what isn't one.
fn event_of(happening: Happening, attempt: AttemptNumber, packed: bool) -> Option<Event> {
    Some(match happening {
        Happening::Headers(status, kind, retry_after_ms) => {
            Event::Headers { attempt, status, content_type: kind.map(str::to_owned), packed, retry_after_ms }
        }
        Happening::Chunk(bytes) => Event::Chunk { attempt, bytes },
        Happening::Eof => Event::Eof { attempt },
        Happening::BodyError => Event::BodyError { attempt },
        Happening::FetchError => Event::FetchError { attempt },
        Happening::Timer => Event::Timer { attempt },
        Happening::ClientGone => Event::ClientGone,
        Happening::Resting(_) => return None,
    })
}

/// Compares a run's record with what its driver saw.
fn check_record(record: &Record, watch: &Watch, fence: &[EndpointId]) -> Result<(), TestCaseError> {
    for (attempt, target) in record.attempts.iter().zip(&watch.sent) {
        prop_assert_eq!(attempt.target, *target);
        prop_assert_eq!(&attempt.endpoint, &fence[*target], "sent outside the fence");
        prop_assert!(attempt.outcome.is_some(), "the record knows how each attempt went");
    }
    prop_assert_eq!(record.committed().is_some(), watch.committed);
    let blameless = |outcome| matches!(outcome, Outcome::Committed | Outcome::Refused(_) | Outcome::ClientGone);
    let failed = record.attempts.iter().filter_map(|attempt| attempt.outcome);
    let failed = failed.filter(|outcome| !blameless(*outcome)).count();
    let broke = matches!(record.end, Some(End::Interrupted | End::ErrorEvent | End::Idle));
    prop_assert_eq!(watch.rests, failed + usize::from(broke), "every failure is remembered, and nothing else");
    Ok(())
}

/// What a driver would see, checked action by action.
#[derive(Default)]
struct Watch {
    sent: Vec<usize>,
    /// Whether an endpoint was sent the request twice.
    repeated: bool,
    committed: bool,
    ended: bool,
    armed: bool,
    rests: usize,
}

impl Watch {
    fn see(&mut self, actions: &[Action]) -> Result<(), TestCaseError> {
        for action in actions {
            prop_assert!(!self.ended, "{action:?} after the end");
            match action {
                Action::Send { attempt, target } => {
                    prop_assert!(!self.committed, "a send after the commit");
                    let is_again = self.sent.contains(target);
                    prop_assert!(!is_again || self.sent.last() == Some(target) && !self.repeated, "an endpoint twice");
                    self.repeated |= is_again;
                    prop_assert!(!self.armed, "a send while a timer runs");
                    self.sent.push(*target);
                    prop_assert_eq!(usize::from(*attempt), self.sent.len());
                }
                Action::Arm { .. } => self.armed = true,
                Action::Disarm { .. } => {
                    prop_assert!(self.armed, "a timer disarmed that doesn't run");
                    self.armed = false;
                }
                Action::Abort { attempt } => {
                    prop_assert_eq!(usize::from(*attempt), self.sent.len());
                    self.ended = self.sent.is_empty();
                }
                Action::Commit { status, .. } => {
                    prop_assert!(!self.committed, "two commits");
                    prop_assert!((200..=299).contains(status));
                    self.committed = true;
                }
                Action::Emit { .. } => prop_assert!(self.committed, "bytes before the commit"),
                Action::EmitTail { .. } | Action::CutStream | Action::Finish => {
                    prop_assert!(self.committed && !self.armed);
                    self.ended = true;
                }
                Action::Reply { .. } => {
                    prop_assert!(!self.committed && !self.armed);
                    self.ended = true;
                }
                Action::CoolDown { .. } => {
                    self.rests += 1;
                    prop_assert!(self.rests <= self.sent.len(), "an endpoint rests twice for one attempt");
                }
            }
        }
        // A client that goes is the one end without a word to it.
        if let [.., Action::Abort { .. }] = actions {
            self.ended = true;
        }
        Ok(())
    }
}

#[test]
fn what_a_stream_says_of_itself_is_noted() {
    let mut driver = Driver::new(Expect::Stream);
    driver.headers(200, "text/event-stream");
    driver.now += 30;
    driver.chunk(ROLE);
    driver.now += 50;
    driver.chunk(&CONTENT.repeat(2));
    driver.now += 40;
    driver.chunk(CONTENT);
    driver.now += 40;
    driver.chunk(STOP);
    let usage =
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":4,\"details\":{\"x\":[1]}}}\n\n";
    driver.chunk(usage);
    driver.chunk(DONE);
    let record = driver.run.record();
    assert_eq!(record.committed().unwrap().ms, 80, "the time to the first content");
    assert_eq!((record.contents.count, record.contents.between_us()), (4, Some(26_666)));
    let expected = Usage { tokens_in: Some(7), tokens_out: Some(4), finish: Some("stop") };
    assert_eq!(record.usage, expected);
}

#[test]
fn what_other_answers_say_of_themselves_is_noted() {
    let stream = |text: &str| {
        let mut driver = Driver::new(Expect::Stream);
        driver.headers(200, "text/event-stream");
        driver.chunk(text);
        driver.eof();
        driver.run.record().usage
    };
    let unary = |text: &str| {
        let mut driver = Driver::new(Expect::Json);
        driver.headers(200, "application/json");
        driver.chunk(text);
        driver.eof();
        driver.run.record().usage
    };
    let of = |tokens_in, tokens_out, finish| Usage { tokens_in, tokens_out, finish };
    let completed = |status: &str| {
        let usage = "{\"input_tokens\":3,\"output_tokens\":5}";
        let response = format!("{{\"id\":\"x\",\"status\":\"{status}\",\"output\":[],\"usage\":{usage}}}");
        (format!("data: {{\"type\":\"response.{status}\",\"response\":{response}}}\n\n"), response)
    };
    for status in ["completed", "incomplete"] {
        let (event, whole) = completed(status);
        assert_eq!(stream(&event), of(Some(3), Some(5), Some(status)));
        assert_eq!(unary(&whole), of(Some(3), Some(5), Some(status)));
    }
    // Some engines tell the tokens so far with each event, and all but the last look alike.
    let event = |words: &str, tokens: u32| {
        let usage = format!("{{\"prompt_tokens\":9,\"completion_tokens\":{tokens}}}");
        format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{words}}}],\"usage\":{usage}}}\n\n")
    };
    let content = "{\"content\":\"x\"}";
    let end = event("{},\"finish_reason\":\"made up\"", 4);
    let counted = [event(content, 1), event(content, 2), event(content, 3), end, DONE.to_owned()].concat();
    assert_eq!(stream(&counted), of(Some(9), Some(4), Some("other")), "a word of the endpoint makes no label");
    let choices = "[{\"finish_reason\":\"length\",\"message\":{}},7]";
    let chat =
        format!("{{\"choices\":{choices},\"usage\":{{\"prompt_tokens\":1,\"completion_tokens\":1e9,\"n\":null}}}}");
    assert_eq!(unary(&chat), of(Some(1), None, Some("length")));
    assert_eq!(unary("{\"data\":[],\"usage\":{\"prompt_tokens\":8,\"total_tokens\":8}}"), of(Some(8), None, None));
    for odd in ["{\"usage\":null}", "{\"usage\":[7]}", "{\"usage\":{\"prompt_tokens\":-1}}", "{\"choices\":[[]]}"] {
        assert_eq!(unary(odd), Usage::default(), "{odd}");
    }
}
