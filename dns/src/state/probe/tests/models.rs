//! Tests of model probes over real sockets: answers that prove a token, and answers that must not count as proof.

use bailiwick_rules::probe::Finding;

use super::*;

/// A monitor that asks the server's model, with more JSON fields.
fn model(server: &Server, more: &str) -> Monitor {
    let json = format!(
        r#"{{ "version": 1, "revision": 1, "regions": {{ "r": {{ "countries": ["DE"], "endpoints": {{ "e": {{
            "url": "http://{}/v1",
            "monitor": {{ "type": "openai", "model": "m"{more} }} }} }} }} }} }}"#,
        server.address
    );
    let table = Table::compile(json.as_bytes()).unwrap_or_else(|violations| panic!("{violations:?}"));
    table.regions()[0].endpoints[0].1.monitor.clone().unwrap()
}

/// The outcome of a probe with this timeout.
async fn probed(server: &Server, limit: &str) -> Result<ProbeSuccess, ProbeFailure> {
    let (results, mut recorded) = mpsc::channel(8);
    let probing = Probing::new(prober(), results, mpsc::channel(1).0, mpsc::channel(1).0, mpsc::channel(1).0, alone());
    let monitor = model(server, &format!(r#", "first_token": "{limit}", "interval": "50s""#));
    let _running = probing.start(MonitorId(1), monitor, Targets::Any, &Places::default(), false);
    match recorded.recv().await.unwrap().outcome {
        Outcome::Passed(passed) => Ok(passed),
        Outcome::Failed(failure) => Err(failure),
        other => panic!("{other:?}"),
    }
}

const EVENTS: &str = "content-type: text/event-stream\r\n";
const JSON: &str = "content-type: application/json\r\n";
const TOKEN: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

#[tokio::test]
async fn a_probe_passes_as_soon_as_a_token_arrives() {
    let server = Server::start(answer("200 OK", EVENTS, TOKEN), false).await;
    assert_eq!(probed(&server, "5s").await, Ok(ProbeSuccess::default()));
    let request = server.requests.lock().unwrap()[0].clone();
    assert!(request.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("accept-encoding: identity\r\n") && request.contains("\"max_tokens\":1"), "{request}");
    // The probe doesn't wait for the end of a stream.
    let endless = format!("{CHUNKED}{:x}\r\n{TOKEN}\r\n", TOKEN.len());
    let server = Server::start(endless, true).await;
    assert_eq!(probed(&server, "40s").await, Ok(ProbeSuccess::default()));
    let whole = r#"{"choices":[{"message":{"content":"a"}}]}"#;
    let server = Server::start(answer("200 OK", JSON, whole), false).await;
    assert_eq!(probed(&server, "5s").await, Ok(ProbeSuccess::default()), "an answer that isn't streamed counts too");
}

#[tokio::test]
async fn invalid_answers_fail_the_probe() {
    let huge = format!(": {}\n\n{TOKEN}", "x".repeat(50 << 20));
    let alive = ": alive\n\n".repeat(6 << 20);
    let half = TOKEN.trim_end();
    let nan = "data: {\"usage\":{\"completion_tokens\":NaN}}\n\n";
    let (down, misconfigured) = (Finding::Down, Finding::Misconfigured);
    let cases: Vec<(Vec<u8>, Finding, &str)> = vec![
        (answer("200 OK", "", TOKEN).into(), down, "the answer is neither a stream of events nor JSON"),
        (answer("200 OK", "content-type: text/html\r\n", TOKEN).into(), down, "the answer is neither a stream"),
        (
            answer("200 OK", &format!("{EVENTS}content-encoding: gzip\r\n"), TOKEN).into(),
            down,
            "the answer is compressed",
        ),
        (
            answer("302 Found", "location: http://127.0.0.1:1/\r\n", TOKEN).into(),
            down,
            "answered 302, expected a token",
        ),
        (answer("200 OK", EVENTS, half).into(), down, "the answer ended without a token"),
        (answer("200 OK", EVENTS, nan).into(), down, "the answer ended without a token"),
        (answer("200 OK", EVENTS, "data: [DONE]\n\n").into(), down, "the answer ended without a token"),
        (answer("200 OK", EVENTS, &huge).into(), down, "the answer has an event of more than 64 KiB"),
        (answer("200 OK", EVENTS, &alive).into(), down, "no token in the first 256 KiB of the answer"),
        (answer("200 OK", JSON, &" ".repeat(50 << 20)).into(), down, "no token in the first 256 KiB of the answer"),
        (answer("200 OK", JSON, "{\"choices\"").into(), down, "the answer says that it is JSON, and isn't"),
        (
            answer("200 OK", EVENTS, "event: error\ndata: {\"code\":429}\n\n").into(),
            Finding::Throttled,
            "the answer tells",
        ),
        (answer("204 No Content", EVENTS, "").into(), down, "the answer ended without a token"),
        (answer("400 Bad Request", JSON, "{}").into(), misconfigured, "answered 400, expected a token"),
        (answer("500 Oops", JSON, TOKEN).into(), down, "answered 500, expected a token"),
        (format!("HTTP/1.1 200 OK\r\n{EVENTS}content-length: 99\r\n\r\ndata: ").into(), down, "error decoding"),
        (b"SSH-2.0-OpenSSH_9.6\r\n".to_vec(), down, "error sending request"),
    ];
    for (answer, finding, expected) in cases {
        let beginning = String::from_utf8_lossy(&answer[..answer.len().min(160)]).into_owned();
        let server = Server::start(answer, false).await;
        let failure = probed(&server, "40s").await.unwrap_err();
        assert_eq!(failure.finding, finding, "{beginning}: {failure:?}");
        assert!(failure.message.starts_with(expected), "{beginning}: {failure:?}");
    }
}

#[tokio::test]
async fn an_answer_that_drips_or_stays_silent_is_late_after_the_timeout() {
    let drip = format!("{CHUNKED}8\r\n: ping\n\n\r\n4\r\ndata");
    for answer in [drip.as_str(), CHUNKED, "", "HTTP/1.1 200 OK\r\ncontent-le"] {
        let server = Server::start(answer, true).await;
        let late = ProbeFailure { finding: Finding::Late, message: "no token within 200ms".to_owned() };
        assert_eq!(probed(&server, "200ms").await, Err(late), "{answer}");
    }
}

#[tokio::test]
async fn a_model_that_refuses_every_limit_is_not_asked_for_ever() {
    let words = r#"{"error":{"message":"use max_completion_tokens, max_tokens is too small","code":null}}"#;
    let server = Server::start(answer("400 Bad Request", &format!("{JSON}connection: close\r\n"), words), false).await;
    let failure = probed(&server, "20s").await.unwrap_err();
    assert_eq!((failure.finding, failure.message.as_str()), (Finding::Misconfigured, "answered 400, expected a token"));
    let requests = server.requests.lock().unwrap();
    assert!(requests.len() == 2 && requests[1].contains("\"max_completion_tokens\":16"), "{requests:?}");
}

#[tokio::test]
async fn a_credential_that_no_header_can_carry_is_never_sent() {
    let server = Server::start(answer("200 OK", EVENTS, TOKEN), false).await;
    let secrets = Secrets::new(BTreeMap::from([("BAD".to_owned(), "s3cret\nx: y".to_owned())]));
    let prober = NetworkProber::new(secrets, Path::new("")).unwrap();
    let failure = prober.probe(&model(&server, r#", "secret": "BAD""#), Targets::Any).await.unwrap_err();
    assert_eq!(failure.finding, Finding::Misconfigured);
    assert!(!failure.message.contains("s3cret") && server.requests.lock().unwrap().is_empty(), "{failure:?}");
}

#[tokio::test(start_paused = true)]
async fn nodes_probe_at_different_times_of_the_interval() {
    let mut phases = Vec::new();
    for node in ["ns1", "ns2", "ns3", "ns4"] {
        let (instants, mut probed) = mpsc::unbounded_channel();
        let (results, mut recorded) = mpsc::channel(64);
        let node_context = NodeContext { node: node.into(), ..alone() };
        let begun = Instant::now();
        let start = node_context.clock.now();
        let probing = Probing::new(
            Instants(instants),
            results,
            mpsc::channel(1).0,
            mpsc::channel(1).0,
            mpsc::channel(1).0,
            node_context,
        );
        let json = r#"{ "version": 1, "revision": 1, "regions": { "r": { "countries": ["DE"], "monitor": {
            "type": "openai", "model": "m", "url": "https://a.example/v1", "interval": "30s" } } } }"#;
        let monitor = Table::compile(json.as_bytes()).unwrap().regions()[0].monitor.clone().unwrap();
        let _running = probing.start(MonitorId(0), monitor, Targets::Any, &Places::default(), false);
        let mut at = Vec::new();
        for _ in 0..4 {
            at.push(i64::try_from(probed.recv().await.unwrap().duration_since(begun).as_millis()).unwrap());
            recorded.recv().await.unwrap();
        }
        assert_eq!(at[0], 0, "the first probe is sent at once");
        let phase: Vec<i64> = at[1..].iter().map(|at| (start.0 + at).rem_euclid(30_000)).collect();
        let spread =
            phase.iter().map(|phase_of_round| (phase_of_round - phase[0] + 15_000).rem_euclid(30_000) - 15_000);
        assert!(spread.clone().all(|deviation| deviation.abs() <= 3_001), "{at:?}");
        phases.push(phase[0] / 3_000);
    }
    phases.sort_unstable();
    phases.dedup();
    assert!(phases.len() > 1, "{phases:?}");
}
