//! Finds what has to be changed in a committed answer, that is, an answer that is being sent to the client. Takes the
//! endpoint that answered and the answer's headers; returns the [`Splice`], if the answer needs changes. A splice
//! replaces the endpoint's names of models by the client's, and ids of stored objects by sealed ids (ids that also name
//! the endpoint and prove the owner). Called by `proxy` at the commit.

use super::stored_file::{StoredFile, is_content};
use super::{Driver, FetchState};
use crate::decide::route::Class;
use crate::decide::splice::{BatchLines, Ids, NamePlaces, Names, Splice};

impl Driver {
    /// Finds what has to be changed in the committed answer. Only an answer that passes unchanged can be piped.
    #[inline(never)]
    pub(super) fn find_splice(&mut self) {
        self.splice = self.splice();
        if self.splice.is_some() {
            self.exchange.prepare_pipe(false);
        }
    }

    /// What has to be changed in the committed answer. Most answers need no change.
    #[inline(never)]
    fn splice(&self) -> Option<Splice> {
        let target = self.run.served_by()?;
        if is_content(&self.job.route) {
            let models = target.models().filter(|_| self.file.as_ref().is_some_and(StoredFile::is_batch))?;
            return Some(Splice::Lines(Box::new(BatchLines::to_client(models))));
        }
        let FetchState::Reading { headers, .. } = &self.fetch else { return None };
        let content_type = headers.get("content-type").unwrap_or_default().to_ascii_lowercase();
        let kind = content_type.split(';').next().unwrap_or_default().trim();
        let is_stream = kind == "text/event-stream";
        if !is_stream && kind != "application/json" && !kind.ends_with("+json") && !kind.is_empty() {
            return None;
        }
        if self.job.hides_models {
            let names = target.renamed().map(|pairs| Names::translated(pairs, NamePlaces::Models, None));
            return Some(Splice::models(names));
        }
        let differs = |model: &str| target.model().is_some_and(|at_endpoint| at_endpoint != model);
        let model = self.job.model.as_deref().filter(|&model| differs(model));
        let ids = self.job.ids.as_ref().map(|(keys, owner)| Ids {
            keys: keys.clone(),
            owner: owner.clone(),
            region: target.region_id().clone(),
            endpoint: target.id().clone(),
        });
        let is_models = self.job.route.class() == Class::Models;
        let names = match (model, target.renamed()) {
            (Some(model), _) if is_models => Names::of_one(model, NamePlaces::Models),
            (None, Some(pairs)) if is_models => Names::translated(pairs, NamePlaces::Models, None),
            // A stored object may name any model, because it was made by an earlier request.
            (None, Some(pairs)) if self.job.model.is_none() => Names::translated(pairs, NamePlaces::Objects, ids),
            _ => Names::new(model, ids)?,
        };
        Some(Splice::new(names, is_stream))
    }

    /// The next bytes of the answer as the client gets them.
    #[inline(never)]
    pub(super) fn spliced(&mut self, bytes: Vec<u8>) -> Vec<u8> {
        match &mut self.splice {
            Some(splice) => splice.pass(&bytes),
            None => bytes,
        }
    }
}
