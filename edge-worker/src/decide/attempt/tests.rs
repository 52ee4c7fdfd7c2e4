//! Tests of the attempt machine: each transition, and random runs.

mod quotas;
mod random;
mod stream;
mod unary;

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
const STOP: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
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
        assert!(matches!(started[..], [Action::Send { attempt: 1, target: 0 }, Action::SetTimer { attempt: 1, .. }]));
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
    assert_eq!(driver.headers(200, "application/json"), [Action::SetTimer { attempt: 1, after_ms: 60_000 }]);
    driver
}

/// Lets the current endpoint answer that it can't read the request's encrypted reasoning.
fn unreadable(driver: &mut Driver) -> Vec<Action> {
    driver.headers(400, "application/json");
    driver.chunk(UNREADABLE);
    driver.eof()
}

#[test]
fn reasoning_that_one_endpoint_cannot_decrypt_is_tried_at_the_others() {
    let mut driver = Driver::new(Expect::Json);
    let moved = unreadable(&mut driver);
    assert!(moved.iter().any(|action| matches!(action, Action::Send { attempt: 2, target: 1 })), "{moved:?}");
    assert!(!moved.iter().any(|action| matches!(action, Action::CoolDown { .. })), "no endpoint is at fault");
    driver.headers(200, "application/json");
    driver.chunk(r#"{"object":"response","output":[]}"#);
    driver.eof();
    assert_eq!(driver.outcomes(), [Outcome::Refused(400), Outcome::Committed]);
}

#[test]
fn if_no_endpoint_can_decrypt_the_reasoning_the_client_gets_the_code() {
    let mut driver = Driver::new(Expect::Json);
    unreadable(&mut driver);
    unreadable(&mut driver);
    let [.., Action::Reply { failure }] = &unreadable(&mut driver)[..] else { panic!("no answer") };
    assert_eq!((failure.status(), failure.code()), (400, "invalid_encrypted_content"));
    assert_eq!(driver.outcomes(), [Outcome::Refused(400); 3]);

    let mut driver = Driver::with(Expect::Json, true, Limits::default());
    let [.., Action::Reply { failure }] = &unreadable(&mut driver)[..] else { panic!("no answer") };
    assert_eq!(
        (failure.status(), failure.code()),
        (400, "invalid_encrypted_content"),
        "a stateful request can't go to another endpoint"
    );
}

#[test]
fn if_the_endpoint_that_can_decrypt_may_be_at_rest_the_client_may_retry() {
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
    assert_eq!(failure.status(), 503, "the endpoint that failed may be the one that can decrypt");
}

fn retried(actions: &[Action]) -> bool {
    let cools = actions.iter().any(|action| matches!(action, Action::CoolDown { .. }));
    cools && actions.iter().any(|action| matches!(action, Action::Send { attempt: 2, target: 1 }))
}

/// Whether the answer was broken off after the commit, which counts as a fault of the endpoint.
fn cut(actions: &[Action]) -> bool {
    matches!(actions, [Action::CancelTimer { .. }, Action::CoolDown { fault: true, .. }, Action::CutStream])
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
fn a_success_of_the_wrong_type_fails_over() {
    assert!(retried(&Driver::new(Expect::Stream).headers(200, "text/plain")));
    assert!(retried(&Driver::new(Expect::Json).headers(200, "text/html")));
    assert!(retried(&Driver::new(Expect::Json).headers(200, "text/event-stream")));
    let mut audio = Driver::new(Expect::Any);
    audio.headers(200, "audio/mpeg");
    assert!(retried(&Driver::new(Expect::Any).headers(200, "text/html")));
    assert!(retried(&audio.eof()), "an empty answer fails");
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
fn an_error_of_the_client_is_passed_on_without_its_text() {
    let mut driver = Driver::new(Expect::Json);
    assert_eq!(driver.headers(400, "application/json"), [Action::SetTimer { attempt: 1, after_ms: 2_000 }]);
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
    assert!(retried(&ours.eof()), "the endpoint refuses our credential");
}

#[test]
fn the_failure_says_why_all_endpoints_failed() {
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
    assert_eq!(ends(answered(401, "{}")).unwrap().0, failed(None, true), "our credential is refused");
    let denied = r#"{"error":{"message":"x","type":"key_model_access_denied","param":"model","code":"401"}}"#;
    assert_eq!(ends(answered(401, denied)).unwrap().0, Failure::ModelNotFound { model: "chat".into() });
    let missing = r#"{"error":{"message":"The model `chat` does not exist."}}"#;
    assert_eq!(ends(answered(404, missing)).unwrap().0, Failure::ModelNotFound { model: "chat".into() });
    assert_eq!(ends(answered(404, r#"{"detail":"Not Found"}"#)).unwrap().0, Failure::PathNotServed);
    assert_eq!(ends(answered(405, "")).unwrap().0, Failure::PathNotServed);
    let broke = r#"{"error":{"code":"insufficient_quota"}}"#;
    assert_eq!(ends(answered(429, broke)).unwrap().0, Failure::OutOfQuota);

    // An endpoint that lacks the path doesn't count if another endpoint failed for another reason. The client gets the
    // shortest wait among all failures.
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

/// A run with one endpoint, because all others are at rest.
fn alone(stateful: bool, reads_only: bool) -> Driver {
    let (plan, model, limits) = (german_plan(), Some("chat".into()), Limits::default());
    let (expect, answer_kind, choices) = (Expect::Json, None, 1);
    let mut driver = Driver::begin(Task { plan, model, expect, answer_kind, choices, stateful, reads_only, limits });
    driver.run.skip_resting(|_| true);
    driver
}

#[test]
fn the_only_endpoint_is_asked_once_more_if_it_sent_nothing() {
    let reset = |driver: &mut Driver| driver.step(Event::FetchError { attempt: driver.attempt() });
    let again = |actions: &[Action]| actions.iter().any(|action| matches!(action, Action::Send { target: 0, .. }));
    let mut driver = alone(false, false);
    assert!(again(&reset(&mut driver)));
    let actions = reset(&mut driver);
    assert_eq!(reply(&actions), Some(&Failure::EndpointsFailed { retry_after: None, needs_operator: false }), "once");
    assert_eq!(driver.run.record().header(), "fra-1;outcome=network;ms=0, fra-1;outcome=network;ms=0");

    assert!(again(&reset(&mut alone(true, true))), "a request that only reads may be repeated");
    assert!(!again(&reset(&mut alone(true, false))), "the endpoint may have done the work");
    assert!(!again(&alone(false, false).timer(300_000)));
    let mut broken = alone(false, false);
    broken.headers(200, "application/json");
    assert!(!again(&broken.step(Event::BodyError { attempt: 1 })), "the endpoint had begun to answer");
    let mut elsewhere = Driver::new(Expect::Json);
    assert!(retried(&reset(&mut elsewhere)), "another endpoint is asked first");
}

#[test]
fn an_error_event_about_the_request_is_passed_on_to_the_client() {
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
fn an_endpoint_that_began_to_rest_is_skipped() {
    let mut driver = Driver::new(Expect::Json);
    let second = driver.run.target(1).unwrap().id().clone();
    driver.run.skip_resting(|target| *target.id() == second);
    let actions = driver.headers(503, "");
    assert!(actions.contains(&Action::Send { attempt: 2, target: 2 }));
    assert_eq!(driver.run.record().skipped.last().map(|skipped| &skipped.endpoint), Some(&second));
}

#[test]
fn a_client_that_leaves_aborts_without_penalty() {
    let gone = |mut driver: Driver| driver.step(Event::ClientGone);
    let expected = [Action::CancelTimer { attempt: 1 }, Action::Abort { attempt: 1 }];
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

#[test]
fn the_only_endpoint_is_asked_again_after_the_short_wait_that_it_asked_for() {
    let again = |status, retry_after_ms| {
        let mut driver = alone(false, false);
        let headers = Event::Headers { attempt: 1, status, content_type: None, packed: false, retry_after_ms };
        let mut actions = driver.step(headers);
        if retry_after_ms.is_some_and(|ms| ms > 0) && !driver.run.is_done() {
            assert!(
                actions.iter().all(|action| !matches!(action, Action::Send { .. })),
                "the run waits before it asks again"
            );
            actions = driver.timer(1_000);
        }
        actions.iter().any(|action| matches!(action, Action::Send { attempt: 2, target: 0 }))
    };
    for status in [500, 502, 503, 520, 529] {
        assert!(again(status, None) && again(status, Some(0)) && again(status, Some(1_000)), "{status}");
        assert!(!again(status, Some(2_001)), "{status}: the client waits for longer pauses");
    }
    for status in [401, 403, 429, 504, 524, 307] {
        assert!(!again(status, None), "{status}");
    }
    let mut gone = alone(false, false);
    let event =
        Event::Headers { attempt: 1, status: 503, content_type: None, packed: false, retry_after_ms: Some(900) };
    gone.step(event);
    assert_eq!(gone.step(Event::ClientGone), [Action::CancelTimer { attempt: 1 }]);
    assert!(gone.run.is_done());
    let mut others = Driver::with(Expect::Json, false, Limits { total: Millis(10_000), ..Limits::default() });
    let event =
        Event::Headers { attempt: 1, status: 429, content_type: None, packed: false, retry_after_ms: Some(30_000) };
    others.step(event);
    assert!(retried(&others.eof()), "another endpoint is asked without a pause");
    let mut once = alone(false, false);
    once.headers(500, "text/plain");
    assert!(reply(&once.headers(500, "text/plain")).is_some(), "the endpoint is asked only once more");
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

#[test]
fn the_usage_of_a_stream_is_recorded() {
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
fn the_usage_of_other_answers_is_recorded() {
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
    // Some engines report the tokens so far with each event. These events differ only in the numbers.
    let event = |words: &str, tokens: u32| {
        let usage = format!("{{\"prompt_tokens\":9,\"completion_tokens\":{tokens}}}");
        format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{words}}}],\"usage\":{usage}}}\n\n")
    };
    let content = "{\"content\":\"x\"}";
    let end = event("{},\"finish_reason\":\"made up\"", 4);
    let counted = [event(content, 1), event(content, 2), event(content, 3), end, DONE.to_owned()].concat();
    assert_eq!(stream(&counted), of(Some(9), Some(4), Some("other")), "an unknown finish reason isn't used as a label");
    let choices = "[{\"finish_reason\":\"length\",\"message\":{}},7]";
    let chat =
        format!("{{\"choices\":{choices},\"usage\":{{\"prompt_tokens\":1,\"completion_tokens\":1e9,\"n\":null}}}}");
    assert_eq!(unary(&chat), of(Some(1), None, Some("length")));
    assert_eq!(unary("{\"data\":[],\"usage\":{\"prompt_tokens\":8,\"total_tokens\":8}}"), of(Some(8), None, None));
    for odd in ["{\"usage\":null}", "{\"usage\":[7]}", "{\"usage\":{\"prompt_tokens\":-1}}", "{\"choices\":[[]]}"] {
        assert_eq!(unary(odd), Usage::default(), "{odd}");
    }
}
