//! Publishes rules on the node that is the writer of its fleet, through its API. Takes a document with its head (who
//! publishes it and why), returns the outcome; also reads the history and the reports of all nodes. Called by
//! [`super`].

use bailiwick_rules::fleet::head::Head;
use bailiwick_rules::fleet::impact::Queries;
use bailiwick_rules::fleet::traffic::TrafficReport;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::header::{CONTENT_TYPE, ETAG, HeaderMap, HeaderName, IF_MATCH};
use reqwest::{Method, StatusCode};

use super::{Base, Document, Mark, Nodes, Put};
use crate::program::api::publish::{Entry, History};
use crate::program::cli::node::Node;
use crate::program::fleet_report::{Limits, NodesReport};
use crate::state::fleet::HEAD;

/// A node's API.
pub(in crate::program::cli) struct Writer(Node);

impl Writer {
    /// Publishes by the API of this node.
    pub(in crate::program::cli::rules) fn new(node: Node) -> Self {
        Self(node)
    }

    /// What is in service.
    ///
    /// # Errors
    /// When it can't be read.
    pub(in crate::program::cli::rules) fn base(&self) -> Result<Base, Vec<String>> {
        let answer = self.0.exchange(Method::GET, "/v1/rules", &[], Vec::new())?.success()?;
        let mark = answer.headers.get(ETAG).and_then(|tag| tag.to_str().ok()).unwrap_or_default().to_owned();
        let revision = mark.trim_matches('"').split('-').next().and_then(|number| number.parse().ok());
        let revision = revision.ok_or_else(|| vec!["the node tells no revision of its rules".to_owned()])?;
        let head = head_in(&answer.headers);
        Ok(Base { revision, mark: Mark::Tag(mark), document: Document { bytes: answer.body, head } })
    }

    /// Publishes a document in place of the one with this mark.
    ///
    /// # Errors
    /// Why it isn't published.
    pub(in crate::program::cli::rules) fn put(
        &self,
        mark: &str,
        head: &Head,
        bytes: Vec<u8>,
    ) -> Result<Put, Vec<String>> {
        let headers: [(HeaderName, String); 3] = [
            (IF_MATCH, mark.to_owned()),
            (HEAD, URL_SAFE_NO_PAD.encode(head.to_bytes())),
            (CONTENT_TYPE, "application/json".to_owned()),
        ];
        match self.0.exchange(Method::PUT, "/v1/rules", &headers, bytes) {
            Ok(answer) if answer.status == StatusCode::PRECONDITION_FAILED => Ok(Put::Stale(self.base()?.revision)),
            Ok(answer) => {
                let body: serde_json::Value = serde_json::from_slice(&answer.success()?.body).unwrap_or_default();
                Ok(if body["in_service"].as_bool() == Some(true) { Put::Served } else { Put::Awaited })
            }
            Err(errors) => Ok(Put::Unknown(errors)),
        }
    }

    /// Publishes a head that brings the document in service to more nodes. An answer that is lost is looked up.
    ///
    /// # Errors
    /// Why it isn't published, or that it isn't known whether it is.
    pub(in crate::program::cli::rules) fn put_head(&self, head: &Head) -> Result<(), Vec<String>> {
        match self.0.exchange(Method::PUT, "/v1/rules/head", &[], head.to_bytes()) {
            Ok(answer) => answer.success().map(drop),
            // The request may have arrived all the same.
            Err(errors) => match self.base() {
                Ok(base) if base.document.head.as_ref() == Some(head) => Ok(()),
                Ok(_) | Err(_) => Err(errors),
            },
        }
    }

    /// What a change has to keep to. A node of an earlier version has no limits.
    ///
    /// # Errors
    /// When they can't be read.
    pub(in crate::program::cli::rules) fn limits(&self) -> Result<Limits, Vec<String>> {
        let mut fleet = self.0.ask(Method::GET, "/v1/fleet", None)?;
        let limits: Option<Limits> = serde_json::from_value(fleet["limits"].take()).map_err(|error| {
            vec![format!("what the node says of its fleet can't be understood ({error}); is it of another version?")]
        })?;
        Ok(limits.unwrap_or_default())
    }

    /// What every node says of itself.
    ///
    /// # Errors
    /// If the node can't be asked.
    pub(super) fn nodes(&self) -> Result<Nodes, Vec<String>> {
        let report: NodesReport = serde_json::from_str(&self.0.read("/v1/fleet/nodes")?).map_err(|error| {
            vec![format!("what the nodes say can't be understood ({error}); are they of one version?")]
        })?;
        // The node that is asked has no URL that its peers are known by.
        let answered = [(String::new(), report.asked)].into_iter().chain(report.peers).collect();
        Ok(Nodes { answered, missing: report.missing.into_iter().map(|missing| missing.peer).collect() })
    }

    /// The queries of the last week. None if none were counted.
    ///
    /// # Errors
    /// When they can't be read.
    pub(in crate::program::cli::rules) fn queries(&self) -> Result<Option<Queries>, Vec<String>> {
        let report: TrafficReport = serde_json::from_str(&self.0.read("/v1/traffic?fleet=true")?)
            .map_err(|error| vec![format!("/v1/traffic: is no answer of this version: {error}")])?;
        Ok(Some(report.queries()).filter(|queries| !queries.is_empty()))
    }

    /// What was in service, the newest first.
    ///
    /// # Errors
    /// When it can't be read.
    pub(in crate::program::cli::rules) fn history(&self) -> Result<Vec<Entry>, Vec<String>> {
        let answer = self.0.exchange(Method::GET, "/v1/rules/history", &[], Vec::new())?.success()?;
        let history = serde_json::from_slice::<History>(&answer.body);
        history.map(|history| history.revisions).map_err(|error| {
            vec![format!("the history can't be understood ({error}); is the node of another version?")]
        })
    }

    /// A document of the history.
    ///
    /// # Errors
    /// When it isn't there or can't be read.
    pub(in crate::program::cli::rules) fn document(&self, revision: u64) -> Result<Document, Vec<String>> {
        let path = format!("/v1/rules/history/{revision}");
        let answer = self.0.exchange(Method::GET, &path, &[], Vec::new())?.success()?;
        let head = head_in(&answer.headers);
        Ok(Document { bytes: answer.body, head })
    }
}

/// The head that came with a document.
fn head_in(headers: &HeaderMap) -> Option<Head> {
    let bytes = URL_SAFE_NO_PAD.decode(headers.get(HEAD)?).ok()?;
    Head::parse(&bytes).ok()
}
