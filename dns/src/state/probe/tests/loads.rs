//! Tests of metrics pages over real sockets: valid pages of each engine, and answers that must not count as readings.

use super::*;

/// A load source with the server's URL and more JSON fields, as the rules have it.
fn source(server: &Server, kind: &str, more: &str) -> LoadSource {
    let json = format!(
        r#"{{ "version": 1, "revision": 1, "regions": {{ "r": {{ "countries": ["DE"], "endpoints": {{ "e": {{
            "url": "https://e.example/v1",
            "load": {{ "type": "{kind}", "url": "http://{}/metrics"{more} }} }} }} }} }} }}"#,
        server.address
    );
    let table = Table::compile(json.as_bytes()).unwrap_or_else(|violations| panic!("{violations:?}"));
    *table.regions()[0].endpoints[0].1.load.clone().unwrap()
}

/// Reads the server's page.
async fn read(server: &Server, kind: &str) -> Result<EngineReading, String> {
    prober().read_load(&source(server, kind, "")).await
}

const PLAIN: &str = "content-type: text/plain; version=0.0.4; charset=utf-8\r\n";

#[tokio::test]
async fn pages_of_every_engine_are_read_over_http() {
    let pages = [
        ("vllm", include_str!("../../../../../shared/src/load/engine/pages/vllm.txt"), 5_000),
        ("sglang", include_str!("../../../../../shared/src/load/engine/pages/sglang.txt"), 4_000),
        ("tgi", include_str!("../../../../../shared/src/load/engine/pages/tgi.txt"), 4_000),
        ("trtllm", include_str!("../../../../../shared/src/load/engine/pages/trtllm.txt"), 1_000),
        ("dynamo", include_str!("../../../../../shared/src/load/engine/pages/dynamo.txt"), 3_000),
    ];
    for (kind, page, waiting) in pages {
        let server = Server::start(answer("200 OK", PLAIN, page), false).await;
        assert_eq!(read(&server, kind).await.unwrap().waiting, Some(waiting), "{kind}");
        let request = server.requests.lock().unwrap()[0].clone();
        assert!(
            request.starts_with("GET /metrics HTTP/1.1\r\n") && request.contains("text/plain;version=0.0.4"),
            "{request}"
        );
        let other = if kind == "tgi" { "vllm" } else { "tgi" };
        let error = read(&server, other).await.unwrap_err();
        assert!(error.starts_with(&format!("the page has no series of {other}; look at \"type\"")), "{error}");
    }
}

#[tokio::test]
async fn the_request_for_a_page_carries_the_secret_and_fails_if_the_secret_is_missing() {
    let server = Server::start(answer("200 OK", PLAIN, "tgi_queue_size 0\n"), false).await;
    let ask = |secret: &str| source(&server, "tgi", &format!(r#", "secret": "{secret}""#));
    assert!(prober().read_load(&ask("HEALTH_KEY")).await.is_ok());
    assert!(server.requests.lock().unwrap()[0].contains("authorization: Bearer s3cret\r\n"));
    let error = prober().read_load(&ask("BAILIWICK_NO_SUCH_KEY")).await.unwrap_err();
    assert_eq!(error, "the secret BAILIWICK_NO_SUCH_KEY has no value on this node");
}

#[tokio::test]
async fn invalid_answers_give_an_error_and_no_reading() {
    let page = "tgi_queue_size 0\n";
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let huge = format!("{page}{}", "x 1\n".repeat(13 << 20));
    assert!(huge.len() > 50 << 20);
    let open = "content-type: application/openmetrics-text; version=1.0.0\r\n";
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (answer("404 Not Found", "", page).into(), "answered 404, expected 200"),
        (answer("302 Found", "location: http://127.0.0.1:1/\r\n", page).into(), "answered 302, expected 200"),
        (answer("200 OK", "content-encoding: gzip\r\n", page).into(), "the page is compressed, which wasn't asked for"),
        (answer("200 OK", "content-type: text/html\r\n", "<html>\n</html>\n").into(), "the page has no series of tgi"),
        (answer("200 OK", "", "[{\"numQueuedRequests\": 0}]\n").into(), "the page has no series of tgi"),
        (answer("200 OK", PLAIN, "tgi_queue_size 0\ntgi_qu").into(), "the page ends in the middle"),
        (answer("200 OK", open, page).into(), "the page ends in the middle"),
        (answer("200 OK", PLAIN, "tgi_queue_size NaN\n").into(), "the page has no series of tgi"),
        (answer("200 OK", PLAIN, "tgi_queue_size -1\n").into(), "the page has no series of tgi"),
        (answer("200 OK", PLAIN, "tgi_queue_size{a=\"} 1\n").into(), "line 1 of the page is no sample"),
        (answer("200 OK", PLAIN, &huge).into(), "the page is longer than 4 MiB"),
        (answer("200 OK", PLAIN, &"x".repeat(70_000)).into(), "a line is longer than 64 KiB"),
        (format!("HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{page}").into(), "error decoding response body"),
        (format!("{chunked}11\r\n{page}\r\n").into(), "error decoding response body"),
        (b"SSH-2.0-OpenSSH_9.6\r\n".to_vec(), "error sending request"),
    ];
    for (answer, expected) in cases {
        let beginning = String::from_utf8_lossy(&answer[..answer.len().min(120)]).into_owned();
        let server = Server::start(answer, false).await;
        let error = read(&server, "tgi").await.unwrap_err();
        assert!(error.starts_with(expected), "{beginning}: {error}");
    }
}

#[tokio::test]
async fn an_endless_page_is_given_up_after_the_timeout() {
    let chunk = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n10\r\ntgi_queue_size 0\r\n";
    let server = Server::start(chunk, true).await;
    let (results, mut recorded) = mpsc::channel(8);
    let probing = Probing::new(prober(), mpsc::channel(1).0, results, mpsc::channel(1).0, mpsc::channel(1).0, alone());
    let _running = probing.start_reading(SourceId(3), source(&server, "tgi", r#", "timeout": "150ms""#));
    let result = recorded.recv().await.unwrap();
    assert_eq!((result.source, result.outcome), (SourceId(3), Err("no whole page within 150ms".to_owned())));
}
