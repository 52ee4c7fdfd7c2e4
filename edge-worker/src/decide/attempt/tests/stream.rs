//! Tests of streams: when they commit, how they end, and what happens if they break off.

use super::*;

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
            Action::SetTimer { attempt: 1, after_ms: 60_000 }
        ]
    );
    assert_eq!(driver.chunk(CONTENT), [Action::Emit { bytes: CONTENT.into() }]);
    let last = driver.chunk(&format!("{DONE}ignored"));
    assert_eq!(last, [Action::Emit { bytes: DONE.into() }, Action::CancelTimer { attempt: 1 }, Action::Finish]);
    assert_eq!(driver.run.record().end, Some(End::Whole));
    assert_eq!(
        driver.run.served_by().map(|target| target.id().as_str()),
        Some(driver.run.record().attempts[0].endpoint.as_str())
    );
    assert!(driver.run.is_done() && driver.eof().is_empty());
}

#[test]
fn a_silent_stream_fails_over() {
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
    assert!(retried(&actions) && aborted(&actions), "headers alone don't extend the deadline");
    assert_eq!(silent.outcomes(), [Outcome::Timeout]);
}

#[test]
fn an_endpoint_that_sends_heartbeats_is_not_late() {
    let created = "event: response.created\ndata: {\"type\":\"response.created\"}\n\n";
    let empty = "data: {\"choices\":[]}\n\n";
    for sign in [ROLE, ": ping\n", ":\n\n", ": pi", created, empty, "data: ping\n\n", "event: ping\ndata: 4 s\n\n"] {
        let mut driver = stream();
        // A heartbeat arrives every ten seconds. So the limit on headers, 15 s, no longer applies.
        for _ in 0..12 {
            driver.now += 10_000;
            assert_eq!(driver.chunk(sign), [], "{sign}");
        }
        let actions = driver.timer(9_999);
        assert_eq!(actions, [Action::SetTimer { attempt: 1, after_ms: 1 }], "{sign}");
        let actions = driver.timer(1);
        assert!(retried(&actions) && aborted(&actions), "two minutes after the first heartbeat: {sign}");
        assert_eq!(driver.outcomes(), [Outcome::Timeout], "{sign}");
    }
    let mut driver = stream();
    driver.chunk(": ping\n");
    driver.now += 100_000;
    assert!(matches!(driver.chunk(CONTENT)[..], [Action::Commit { .. }, Action::SetTimer { after_ms: 60_000, .. }]));
}

#[test]
fn how_long_an_endpoint_may_be_silent_after_a_heartbeat() {
    // The limits (headers_streamed, first_token, idle, total) and the silence after which the endpoint is late, all in
    // milliseconds. The silence begins with a heartbeat at 100 ms.
    for (headers, first_token, idle, total, late) in [
        (1_000, 60_000, 5_000, 90_000, 5_000),
        (1_000, 3_000, 5_000, 90_000, 3_000),
        (9_000, 60_000, 500, 90_000, 8_900), // headers_streamed is longer than idle, so it applies
        (9_000, 300, 5_000, 90_000, 300),    // earlier than the timer that runs
        (1_000, 60_000, 60_000, 20_000, 19_900),
    ] {
        let [headers_streamed, first_token, idle, total] = [headers, first_token, idle, total].map(Millis);
        let limits = Limits { headers_streamed, first_token, idle, total, ..Limits::default() };
        let mut driver = Driver::with(Expect::Stream, false, limits);
        driver.headers(200, "text/event-stream");
        driver.now += 100;
        let actions = driver.chunk(": ping\n");
        let early = late < headers - 100;
        assert_eq!(actions.len(), usize::from(early), "{limits:?}: {actions:?}");
        assert!(!driver.run.is_overdue(driver.now + i64::try_from(late).unwrap() - 1), "{limits:?}");
        driver.timer(i64::try_from(late).unwrap());
        assert_eq!(driver.outcomes(), [Outcome::Timeout], "{limits:?}");
    }
    let mut unasked = Driver::new(Expect::Any);
    unasked.headers(200, "text/event-stream");
    unasked.chunk(": ping\n");
    assert!(!unasked.run.is_overdue(unasked.now + 299_999), "the client didn't ask for a stream");
}

#[test]
fn a_heartbeat_that_is_not_json_never_reaches_the_client() {
    let mut driver = stream();
    let text = format!("data: ping\n\n{ROLE}event: heartbeat\ndata: now\n\n{CONTENT}data: ping\n\n{CONTENT}");
    let actions = driver.chunk(&text);
    let body = format!("{ROLE}{CONTENT}{CONTENT}").into_bytes();
    assert_eq!(actions[0], Action::Commit { attempt: 1, status: 200, body, as_events: false });
    assert_eq!(driver.chunk("data: ping\n\n"), []);
    let bytes = CONTENT.into();
    assert_eq!(driver.chunk(&format!("data: ping\n\n{CONTENT}")), [Action::Emit { bytes }]);
    assert_eq!(driver.chunk("data: ping\n"), []);
    assert!(matches!(driver.eof()[..], [Action::CancelTimer { .. }, Action::CoolDown { .. }, Action::EmitTail { .. }]));
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
    assert_eq!(clean.chunk("data: {\"cho"), [], "an incomplete event is held");
    let text = tail(&clean.eof());
    assert!(text.contains("upstream_interrupted") && !text.contains("[DONE]") && !text.contains("cho\""));
    assert_eq!(clean.run.record().end, Some(End::Interrupted));

    let mut idle = committed();
    assert_eq!(idle.timer(10_000), [Action::SetTimer { attempt: 1, after_ms: 50_000 }], "the timer fired too early");
    idle.chunk(CONTENT);
    assert_eq!(idle.timer(50_000), [Action::SetTimer { attempt: 1, after_ms: 10_000 }], "progress moves the deadline");
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

/// A stream whose rest the runtime passes on, and the bytes that the runtime got first.
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
fn a_pipe_gets_the_beginning_of_an_event_and_has_no_time_limit() {
    let (mut driver, rest) = piped(&format!("{CONTENT}data: {{\"cho"));
    assert_eq!(rest, b"data: {\"cho");
    assert_eq!(driver.timer(10_000_000), []);
    assert_eq!(driver.eof(), [Action::Finish]);
    assert_eq!((driver.run.record().end, driver.run.is_done()), (Some(End::Piped), true));
}

#[test]
fn a_pipe_that_breaks_ends_with_an_empty_line_and_an_error_event() {
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
    assert_eq!(driver.eof(), [Action::Emit { bytes }, Action::CancelTimer { attempt: 1 }, Action::Finish]);
}

#[test]
fn a_transcript_may_end_cleanly_after_its_final_event() {
    let mut driver = stream();
    driver.chunk("data: {\"type\":\"transcript.text.done\",\"text\":\"hi\"}\n\n");
    assert_eq!(driver.eof(), [Action::CancelTimer { attempt: 1 }, Action::Finish]);
}

#[test]
fn a_stream_that_breaks_off_inside_an_event_that_was_passed_on_is_cut() {
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
    assert!(matches!(driver.chunk(&comments)[..], [Action::Commit { .. }, Action::SetTimer { .. }]));
}

#[test]
fn a_responses_stream_may_begin_and_end_in_one_event() {
    let mut driver = stream();
    let text = "event: response.created\ndata: {}\n\nevent: response.completed\ndata: {\"response\":{}}\n\n";
    let body = text.as_bytes().to_vec();
    let commit = Action::Commit { attempt: 1, status: 200, body, as_events: false };
    assert_eq!(driver.chunk(text), [commit, Action::CancelTimer { attempt: 1 }, Action::Finish]);
}

const USAGE: &str = "data: {\"choices\":[],\"usage\":{\"total_tokens\":2}}\n\n";

/// The last bytes that a client gets of a stream that ends cleanly after `text`; `None` if the stream was incomplete.
fn ended(choices: usize, text: &str) -> Option<String> {
    let mut driver = Driver::of(choices, Expect::Stream, false, Limits::default());
    driver.headers(200, "text/event-stream");
    driver.chunk(CONTENT);
    driver.chunk(text);
    let last = match driver.eof().as_slice() {
        [Action::Emit { bytes }, Action::CancelTimer { .. }, Action::Finish] => {
            String::from_utf8(bytes.clone()).unwrap()
        }
        [Action::CancelTimer { .. }, Action::Finish] => String::new(),
        [Action::CancelTimer { .. }, Action::CoolDown { .. }, Action::EmitTail { bytes }] => {
            assert!(bytes.starts_with(b"data: {\"error\":"));
            return None;
        }
        other => panic!("{other:?}"),
    };
    Some(last)
}

#[test]
fn a_stream_whose_choices_have_finished_is_complete_and_gets_done() {
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
    assert_eq!(ended(1, &[&more, STOP].concat()), None, "the second choice is incomplete");
    assert_eq!(ended(2, STOP), None, "the second choice is missing");
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
    assert_eq!(ended(1, &STOP[..STOP.len() - 5]), None, "the last event is incomplete");
    assert_eq!(ended(1, &[STOP, "data: {\"choices\":["].concat()), None);
    let mut driver = stream();
    driver.chunk(STOP.trim_end());
    let body = [STOP, DONE].concat().into_bytes();
    let commit = Action::Commit { attempt: 1, status: 200, body, as_events: false };
    assert_eq!(
        driver.eof(),
        [commit, Action::CancelTimer { attempt: 1 }, Action::Finish],
        "the whole answer is one event"
    );
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
