//! Stored files and batches. Takes the endpoint of a request; returns what that endpoint says about a stored file, and
//! refuses a batch whose file has another purpose. Called by `proxy`.

use std::collections::VecDeque;

use futures_util::future::LocalBoxFuture;

use super::{Driver, Output, announced_length};
use crate::decide::envelope::Failure;
use crate::decide::headers::Headers;
use crate::decide::plan::Target;
use crate::decide::rewrite::disposition::with_sealed_ids;
use crate::decide::rewrite::{self, Content};
use crate::decide::route::Route;
use crate::decide::route::query::Query;

/// What `input_file_id` of a batch must be, for the error message.
const BATCH_FILE: &str = "the id of one file that was uploaded with the purpose batch";

/// The properties of a stored file, as its endpoint reports them.
pub(super) struct StoredFile {
    /// The length of the file in bytes, if the endpoint names it.
    pub(super) bytes: Option<u32>,
    /// The purpose with which the file was uploaded or made, such as `batch`; empty if the endpoint names none.
    purpose: String,
}

impl StoredFile {
    /// Reads `{"bytes": …, "purpose": …}`.
    fn read(object: &[u8]) -> Option<Self> {
        let object: serde_json::Value = serde_json::from_slice(object).ok()?;
        let bytes = object.get("bytes").and_then(serde_json::Value::as_u64).and_then(|bytes| u32::try_from(bytes).ok());
        let purpose = object.get("purpose").and_then(serde_json::Value::as_str).unwrap_or_default();
        Some(Self { bytes, purpose: purpose.to_owned() })
    }

    /// Whether the file is the input or the output of a batch.
    pub(super) fn is_batch(&self) -> bool {
        self.purpose.starts_with("batch")
    }
}

impl Driver {
    /// Replaces an endpoint's id by a sealed one in the name of a downloaded file.
    #[inline(never)]
    pub(super) fn rename_file(&self, headers: &mut Headers) {
        let (Some(target), Some((keys, owner))) = (self.run.served_by(), self.job.ids.as_ref()) else { return };
        let seal = |id: &str| keys.seal(owner, target.region_id().as_str(), target.id().as_str(), id);
        let id_in_path = self.job.route.ids().next().unwrap_or_default();
        if let Some(value) = headers.get("content-disposition").map(|value| with_sealed_ids(value, id_in_path, seal)) {
            headers.set("content-disposition", &value);
        }
    }

    /// Whether the purpose of a stored file has to be looked up, because names in the lines of a batch may have to
    /// change.
    pub(super) fn wants_purpose(&self, status: u16) -> bool {
        let last = || self.run.record().attempts.last().and_then(|attempt| self.run.target(attempt.target));
        is_content(&self.job.route) && status == 200 && last().is_some_and(|target| target.renamed().is_some())
    }

    /// Whether the answer is a stored file of unknown length, so that the length has to be looked up.
    pub(super) fn wants_length(&self, outputs: &VecDeque<Output>) -> bool {
        is_content(&self.job.route)
            && self.file.is_none()
            && self.splice.is_none()
            && !outputs.iter().any(|out| matches!(out, Output::Finish))
            && self.upstream_headers.as_ref().is_some_and(|headers| announced_length(headers).is_none())
    }

    /// Asks the current endpoint for the properties of the file whose content it sends. The content isn't read
    /// meanwhile.
    #[inline(never)]
    pub(super) fn fetch_stored_file(&mut self) -> LocalBoxFuture<'_, Option<StoredFile>> {
        Box::pin(async move {
            let target = self.run.record().attempts.last().and_then(|attempt| self.run.target(attempt.target))?;
            StoredFile::read(&self.fetch_file_object(target, self.job.route.ids().next()?).await?)
        })
    }

    /// Fetches a stored file's object from an endpoint. Empty if the endpoint has no such file; `None` if the fetch
    /// failed.
    async fn fetch_file_object(&self, target: &Target, id: &str) -> Option<Vec<u8>> {
        let secret = target.secret().and_then(|name| self.job.env.text(name));
        let route = Route::parse("GET", &format!("/v1/files/{id}")).ok()?;
        let out = rewrite::outgoing(target, &route, &Query::default(), &Headers::default(), None, secret.as_deref());
        let out = out.ok()?;
        self.exchange.fetch_document(out.url.as_str(), &out.headers).await
    }

    /// Refuses a batch whose file wasn't uploaded with the purpose `batch`. The lines of such a file were never checked
    /// by the edge, and not every endpoint checks the purpose.
    #[inline(never)]
    pub(super) fn check_batch(&mut self) -> LocalBoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move {
            let ids = self.job.body.as_deref().and_then(Content::json).map(|body| body.ids().collect::<Vec<_>>());
            let wrong = Failure::BadField { field: "input_file_id", expected: BATCH_FILE };
            let (target, id) = match (self.run.target(0), ids.as_deref()) {
                (Some(target), Some([id])) => (target, *id),
                (Some(_), Some([_, _, ..])) => return Err(wrong),
                _ => return Ok(()),
            };
            let object = self.fetch_file_object(target, id).await;
            let object = object.ok_or(Failure::EndpointsFailed { retry_after: None, needs_operator: false })?;
            // If the endpoint has no such file, its answer to the batch will say so. If it names no purpose, it knows
            // no purposes.
            let purpose = StoredFile::read(&object).map(|file| file.purpose).unwrap_or_default();
            if purpose.is_empty() || purpose == "batch" { Ok(()) } else { Err(wrong) }
        })
    }
}

/// Whether the path is that of a stored file's content.
pub(super) fn is_content(route: &Route) -> bool {
    matches!(route.segments(), [files, _, content] if files == "files" && content == "content")
}
