//! Tests of the error bodies that clients get.

use super::*;

fn parsed(failure: &Failure) -> serde_json::Value {
    serde_json::from_str(&failure.body()).unwrap()
}

#[test]
fn the_envelope_has_its_four_fields() {
    let error = parsed(&Failure::ModelNotFound { model: "gpt-\u{7}9".into() });
    let error = error["error"].as_object().unwrap();
    assert_eq!(error.keys().collect::<Vec<_>>(), ["code", "message", "param", "type"]);
    assert_eq!(error["code"], "model_not_found");
    assert_eq!(error["param"], "model");
    assert!(error["message"].as_str().unwrap().contains("\"gpt-\u{fffd}9\""));
    assert!(parsed(&Failure::UnknownPath)["error"]["param"].is_null());
}

#[test]
fn failures_that_no_retry_can_mend_tell_clients_not_to_retry() {
    let failed = |retry_after, needs_operator| Failure::EndpointsFailed { retry_after, needs_operator };
    for failure in [Failure::ResidencyDenied, Failure::RegionUnavailable, Failure::OutOfQuota, failed(None, true)] {
        assert_eq!(failure.headers(), [("x-should-retry", "false".to_owned())]);
    }
    assert_eq!([failed(None, false).headers(), Failure::UpstreamTimeout.headers()], [[], []]);
    assert_eq!(failed(Some(2), false).headers(), [("retry-after", "2".to_owned())]);
    assert_eq!(
        (failed(None, false).status(), failed(None, false).code().to_owned()),
        (503, "region_unavailable".into())
    );
    let limited = Failure::RateLimited { retry_after: Some(7) };
    assert_eq!((limited.status(), limited.headers()), (429, vec![("retry-after", "7".to_owned())]));
}

#[test]
fn long_words_are_shortened() {
    let message = Failure::ModelNotFound { model: "x".repeat(10_000) }.message();
    assert!(message.len() < 250 && message.contains("x…\""), "{message}");
}

#[test]
fn an_event_is_one_data_line() {
    for (code, again) in [("context_length_exceeded", false), ("server_error", true)] {
        let failure = Failure::Interrupted { kind: None, code: Some(code.into()), param: None };
        assert_eq!(failure.message().contains("Send the request again"), again, "{code}");
    }
    let event = Failure::Interrupted { kind: None, code: None, param: None }.event();
    let text = String::from_utf8(event).unwrap();
    assert!(text.starts_with("data: {") && text.ends_with("}\n\n") && text.matches('\n').count() == 2);
    assert!(text.contains("upstream_interrupted") && text.contains("server_error"));
}
