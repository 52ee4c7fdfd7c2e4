//! One event of the access log: its sentence, and its record of OTLP. Takes what a request changed; called by the API,
//! which logs the sentence, and by the task, which posts the record.

use std::net::IpAddr;

use bailiwick_rules::aggregate::{self, Rejected, nanos};
use bailiwick_rules::time::Timestamp;
use serde_json::{Value, json};

/// Who changed what by the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Access {
    /// When.
    pub at: Timestamp,
    /// What was done.
    pub action: &'static str,
    /// The region, endpoint, bundle, drill or revision.
    pub of: Option<String>,
    /// The response's status. Without one, the sender hung up before the response.
    pub status: Option<u16>,
    /// The file of the token. Without one, nobody knows the token.
    pub by: Option<String>,
    /// The sender's address.
    pub from: Option<IpAddr>,
}

impl Access {
    /// The sender's address, an IPv4 address as such.
    pub(crate) fn from(&self) -> Option<String> {
        self.from.map(|from| from.to_canonical().to_string())
    }

    /// The event in words.
    pub(crate) fn sentence(&self) -> String {
        let of = self.of.as_ref().map(|of| format!("of {of} ")).unwrap_or_default();
        let by = self.by.as_deref().unwrap_or("nobody that this node knows");
        match self.status {
            Some(status) => format!("{} {of}by {by}: {status}", self.action),
            None => format!("{} {of}by {by}: the sender hung up before the answer", self.action),
        }
    }
}

/// The body of a request that tells these events: an `ExportLogsServiceRequest` in the JSON of OTLP.
pub(super) fn request(node: &str, events: &[Access], version: &str) -> Value {
    let text = |key: &str, value: &str| json!({ "key": key, "value": { "stringValue": value } });
    let record = |event: &Access| {
        let at = nanos(event.at);
        let (severity, word) = if event.by.is_some() { (9, "INFO") } else { (13, "WARN") };
        let status = event
            .status
            .map(|status| json!({ "key": "http.response.status_code", "value": { "intValue": status.to_string() } }));
        let texts = [
            ("bailiwick.api.action", Some(event.action.to_owned())),
            ("bailiwick.api.of", event.of.clone()),
            ("bailiwick.api.token_file", event.by.clone()),
            ("client.address", event.from()),
        ];
        let texts = texts.iter().filter_map(|(key, value)| Some(text(key, value.as_deref()?)));
        json!({
            "timeUnixNano": at, "observedTimeUnixNano": at, "severityNumber": severity, "severityText": word,
            "eventName": "bailiwick.api.access", "body": { "stringValue": event.sentence() },
            "attributes": texts.chain(status).collect::<Value>(),
        })
    };
    let resource = [("service.name", "bailiwick"), ("service.version", version), ("service.instance.id", node)];
    json!({ "resourceLogs": [{
        "resource": { "attributes": resource.map(|(key, value)| text(key, value)) },
        "scopeLogs": [{
            "scope": { "name": "bailiwick.api", "version": version },
            "logRecords": events.iter().map(record).collect::<Value>(),
        }],
    }] })
}

/// How many events a receiver rejected of those that it took, by its answer.
pub(super) fn rejected(answer: &[u8]) -> u64 {
    aggregate::rejected(answer, "rejectedLogRecords").map_or(0, |Rejected(count)| count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access() -> Access {
        Access {
            at: Timestamp(1_790_000_000_123),
            action: "set_override",
            of: Some("eu-frankfurt".to_owned()),
            status: Some(200),
            by: Some("/etc/bailiwick/api.token".to_owned()),
            from: Some("::ffff:192.0.2.1".parse().expect("an address")),
        }
    }

    #[test]
    fn a_sentence_says_who_did_what_and_what_became_of_it() {
        let known = access();
        assert_eq!(known.sentence(), "set_override of eu-frankfurt by /etc/bailiwick/api.token: 200");
        let gone = Access { of: None, status: None, ..access() };
        assert_eq!(gone.sentence(), "set_override by /etc/bailiwick/api.token: the sender hung up before the answer");
        let unknown = Access { of: None, by: None, status: Some(401), ..access() };
        assert_eq!(unknown.sentence(), "set_override by nobody that this node knows: 401");
    }

    #[test]
    fn a_record_has_what_the_event_has_and_leaves_out_the_rest() {
        let bare = Access { of: None, status: None, by: None, from: None, ..access() };
        let request = request("ns1", &[access(), bare], "1.2.3");
        let records = &request["resourceLogs"][0]["scopeLogs"][0]["logRecords"];
        let words = |record: &Value| -> Vec<String> {
            let attributes = record["attributes"].as_array().expect("a list").iter();
            attributes.map(|one| format!("{}={}", one["key"].as_str().unwrap(), one["value"])).collect()
        };
        assert_eq!(
            words(&records[0]),
            [
                r#"bailiwick.api.action={"stringValue":"set_override"}"#,
                r#"bailiwick.api.of={"stringValue":"eu-frankfurt"}"#,
                r#"bailiwick.api.token_file={"stringValue":"/etc/bailiwick/api.token"}"#,
                r#"client.address={"stringValue":"192.0.2.1"}"#,
                r#"http.response.status_code={"intValue":"200"}"#,
            ]
        );
        assert_eq!(words(&records[1]), [r#"bailiwick.api.action={"stringValue":"set_override"}"#]);
        assert_eq!(records[0]["timeUnixNano"], "1790000000123000000");
        assert_eq!((&records[0]["severityText"], &records[1]["severityText"]), (&json!("INFO"), &json!("WARN")));
    }

    #[test]
    fn an_answer_says_how_many_events_were_rejected() {
        for (answer, expected) in [
            ("", 0),
            ("{}", 0),
            (r#"{"partialSuccess":{"rejectedLogRecords":"3"}}"#, 3),
            (r#"{"partialSuccess":{"rejectedLogRecords":2}}"#, 2),
            (r#"{"partialSuccess":{"rejectedLogRecords":-2}}"#, 0),
            ("<html>", 0),
        ] {
            assert_eq!(rejected(answer.as_bytes()), expected, "{answer}");
        }
    }
}
