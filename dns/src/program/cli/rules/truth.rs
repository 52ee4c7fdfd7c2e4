//! Where one publishes. Takes a document with its head and what it replaces, returns what became of it; and gives the
//! document in service and those that were. Called by every command that publishes or looks back.
//!
//! The API of the node that is the writer is the only place yet. Another kind has to do eight things: tell what is in
//! service, replace it if nobody else did meanwhile, bring it to more nodes, list the history, give a document of it,
//! tell what a change has to keep to, what every node says of itself, and how many queries were counted.

use bailiwick_rules::fleet::head::{Head, sha256_hex};
use bailiwick_rules::fleet::impact::Queries;
use bailiwick_rules::fleet::traffic::TrafficReport;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::header::{CONTENT_TYPE, ETAG, HeaderMap, HeaderName, IF_MATCH};
use reqwest::{Method, StatusCode};

use crate::program::api::publish::{Entry, History};
use crate::program::cli::node::{Node, NodeArgs, Power};
use crate::program::fleet_report::{Limits, NodesReport};
use crate::state::fleet::HEAD;

/// Where one publishes.
pub(super) enum Truth {
    /// On the node that is the writer, by its API.
    Writer(Node),
}

/// A document with its head, if it has one.
pub(super) struct Document {
    /// Its bytes.
    pub(super) bytes: Vec<u8>,
    /// Who published it, and why.
    pub(super) head: Option<Head>,
}

/// The document in service.
pub(super) struct Base {
    /// Its revision.
    pub(super) revision: u64,
    /// What tells it from every other: it is replaced only if this is still so.
    mark: String,
    /// The document.
    pub(super) document: Document,
}

/// What became of a document that was published.
pub(super) enum Put {
    /// It is published, and the writer serves it.
    Served,
    /// It is published; it waits for the first results of its monitors.
    Awaited,
    /// It is published, but the answer that says so was lost.
    Lost,
    /// Somebody else has published since. This is in service now.
    Stale(u64),
}

impl Truth {
    /// Finds it by the options.
    ///
    /// # Errors
    /// What is wrong with the configuration.
    pub(super) fn find(args: &NodeArgs, power: Power) -> Result<Self, Vec<String>> {
        Node::find(args, power).map(Self::Writer)
    }

    /// What is in service.
    ///
    /// # Errors
    /// When it can't be read.
    pub(super) fn base(&self) -> Result<Base, Vec<String>> {
        let Self::Writer(node) = self;
        let answer = node.exchange(Method::GET, "/v1/rules", &[], Vec::new())?.success()?;
        let mark = answer.headers.get(ETAG).and_then(|tag| tag.to_str().ok()).unwrap_or_default().to_owned();
        let revision = mark.trim_matches('"').split('-').next().and_then(|number| number.parse().ok());
        let revision = revision.ok_or_else(|| vec!["the node tells no revision of its rules".to_owned()])?;
        let head = head_in(&answer.headers);
        Ok(Base { revision, mark, document: Document { bytes: answer.body, head } })
    }

    /// Publishes a document in place of the one in service. An answer that is lost is looked up.
    ///
    /// # Errors
    /// Why it isn't published, or that nobody knows.
    pub(super) fn put(&self, base: &Base, head: &Head, bytes: Vec<u8>) -> Result<Put, Vec<String>> {
        let Self::Writer(node) = self;
        let headers: [(HeaderName, String); 3] = [
            (IF_MATCH, base.mark.clone()),
            (HEAD, URL_SAFE_NO_PAD.encode(head.to_bytes())),
            (CONTENT_TYPE, "application/json".to_owned()),
        ];
        match node.exchange(Method::PUT, "/v1/rules", &headers, bytes) {
            Ok(answer) if answer.status == StatusCode::PRECONDITION_FAILED => Ok(Put::Stale(self.base()?.revision)),
            Ok(answer) => {
                let body: serde_json::Value = serde_json::from_slice(&answer.success()?.body).unwrap_or_default();
                Ok(if body["in_service"].as_bool() == Some(true) { Put::Served } else { Put::Awaited })
            }
            // The request may have arrived all the same.
            Err(errors) => self.looked_up(head, errors),
        }
    }

    /// What became of a document whose answer was lost: what is in service tells.
    fn looked_up(&self, head: &Head, mut errors: Vec<String>) -> Result<Put, Vec<String>> {
        errors.push(match self.base() {
            Ok(base) if base.revision == head.revision && sha256_hex(&base.document.bytes) == head.sha256 => {
                return Ok(Put::Lost);
            }
            Ok(base) => format!("revision {} is in service; this document isn't", base.revision),
            Err(_) => "whether it was published isn't known; `bailiwick rules history` tells later".to_owned(),
        });
        Err(errors)
    }

    /// Publishes a head that brings the document in service to more nodes. An answer that is lost is looked up.
    ///
    /// # Errors
    /// Why it isn't published, or that nobody knows.
    pub(super) fn put_head(&self, head: &Head) -> Result<(), Vec<String>> {
        let Self::Writer(node) = self;
        match node.exchange(Method::PUT, "/v1/rules/head", &[], head.to_bytes()) {
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
    pub(super) fn limits(&self) -> Result<Limits, Vec<String>> {
        let Self::Writer(node) = self;
        let mut fleet = node.ask(Method::GET, "/v1/fleet", None)?;
        let limits: Option<Limits> = serde_json::from_value(fleet["limits"].take()).map_err(|error| {
            vec![format!("what the node says of its fleet can't be understood ({error}); is it of another version?")]
        })?;
        Ok(limits.unwrap_or_default())
    }

    /// What every node says of itself.
    ///
    /// # Errors
    /// When nobody can be asked.
    pub(super) fn nodes(&self) -> Result<NodesReport, Vec<String>> {
        let Self::Writer(node) = self;
        serde_json::from_str(&node.read("/v1/fleet/nodes")?).map_err(|error| {
            vec![format!("what the nodes say can't be understood ({error}); are they of one version?")]
        })
    }

    /// The queries of the last week. None if none were counted.
    ///
    /// # Errors
    /// When they can't be read.
    pub(super) fn queries(&self) -> Result<Option<Queries>, Vec<String>> {
        let Self::Writer(node) = self;
        let report: TrafficReport = serde_json::from_str(&node.read("/v1/traffic?fleet=true")?)
            .map_err(|error| vec![format!("/v1/traffic: is no answer of this version: {error}")])?;
        Ok(Some(report.queries()).filter(|queries| !queries.is_empty()))
    }

    /// What was in service, the newest first.
    ///
    /// # Errors
    /// When it can't be read.
    pub(super) fn history(&self) -> Result<Vec<Entry>, Vec<String>> {
        let Self::Writer(node) = self;
        let answer = node.exchange(Method::GET, "/v1/rules/history", &[], Vec::new())?.success()?;
        let history = serde_json::from_slice::<History>(&answer.body);
        history.map(|history| history.revisions).map_err(|error| {
            vec![format!("the history can't be understood ({error}); is the node of another version?")]
        })
    }

    /// A document of the history.
    ///
    /// # Errors
    /// When it isn't there or can't be read.
    pub(super) fn document(&self, revision: u64) -> Result<Document, Vec<String>> {
        let Self::Writer(node) = self;
        let path = format!("/v1/rules/history/{revision}");
        let answer = node.exchange(Method::GET, &path, &[], Vec::new())?.success()?;
        let head = head_in(&answer.headers);
        Ok(Document { bytes: answer.body, head })
    }
}

/// The head that came with a document.
fn head_in(headers: &HeaderMap) -> Option<Head> {
    let bytes = URL_SAFE_NO_PAD.decode(headers.get(HEAD)?).ok()?;
    Head::parse(&bytes).ok()
}
