//! Keeps a history of the documents that were in service. Takes each change of the owner's status, and heads (signed
//! statements of who published a document, why and for which stage) that bring the document in service to more nodes.
//! Has document and head written to the state directory. Started by [`super::start`].

use std::path::Path;
use std::sync::Arc;

use bailiwick_host::system::tasks::{Ended, supervise};
use bailiwick_rules::fleet::head::Head;

use crate::state::owner::Handle;
use crate::state::snapshot::Snapshot;
use crate::state::store::{Kind, Store};

/// Starts the task that follows the owner until the owner ends.
pub(super) fn start(handle: &Handle) {
    let handle = handle.clone();
    let pulse = handle.tasks().waiting("history");
    tokio::spawn(supervise(pulse, move || run(handle.clone())));
}

/// Notes each revision that comes into service, and keeps it on disk with its head.
async fn run(handle: Handle) -> Ended {
    let mut status = handle.follow_status();
    let mut known = None;
    loop {
        let snapshot = handle.snapshot_owned();
        let revision = snapshot.table().revision();
        if known != Some(revision) {
            known = Some(revision);
            handle.fleet().with(|view| {
                view.serves(revision.number, &revision.sha256_hex());
                keep(&handle, &snapshot, view.head.clone());
            });
        }
        if status.changed().await.is_err() {
            return Ended::OnRequest;
        }
    }
}

/// Has a document written with its head. Called while the fleet's status is locked, so that the newest head is written
/// last.
fn keep(handle: &Handle, snapshot: &Snapshot, head: Option<Head>) {
    let (number, bytes) = (snapshot.table().revision().number, Arc::clone(snapshot.rules_bytes()));
    let write = move |store: &Store| store.keep_in_history(number, &bytes, head.as_ref());
    handle.keep(Kind::History(number), Box::new(write));
}

/// Keeps a head that brings the document in service to more nodes. Returns `false` if another document is in service,
/// or the known head is for as many nodes already.
pub(crate) fn note(handle: &Handle, head: &Head) -> bool {
    let snapshot = handle.snapshot_owned();
    handle.fleet().with(|view| {
        let is_noted = view.note(snapshot.table().revision(), head);
        if is_noted {
            keep(handle, &snapshot, view.head.clone());
            tracing::info!(
                json.event = "stage", json.revision = head.revision, json.stage = %head.stage,
                "revision {} is for nodes of stage {} now", head.revision, head.stage
            );
        }
        is_noted
    })
}

/// Restores the head of the document in service from the state directory.
pub(super) fn restore(state_dir: &Path, handle: &Handle) {
    let revision = handle.snapshot().table().revision();
    if let Some(head) = Store::head_in_history(state_dir, revision.number) {
        handle.fleet().with(|view| view.note(revision, &head));
    }
}
