//! Keeps a history of the documents that were in service. Takes each change of the owner's status, has document and
//! head written to the state directory. Started by [`super::start`].

use std::path::PathBuf;
use std::sync::Arc;

use bailiwick_rules::fleet::head::Head;

use crate::state::owner::Handle;
use crate::state::store::{Kind, Store};
use crate::system::tasks::{Ended, supervise};

/// Follows the owner for as long as it lives.
pub(super) fn start(state_dir: PathBuf, handle: &Handle) {
    let handle = handle.clone();
    let pulse = handle.tasks().waiting("history");
    let state_dir = Arc::new(state_dir);
    tokio::spawn(supervise(pulse, move || run(Arc::clone(&state_dir), handle.clone())));
}

async fn run(state_dir: Arc<PathBuf>, handle: Handle) -> Ended {
    let mut status = handle.follow_status();
    restore(&state_dir, &handle).await;
    let mut known = None;
    loop {
        let snapshot = handle.snapshot_owned();
        let revision = snapshot.table().revision();
        if known != Some(revision) {
            known = Some(revision);
            let head = handle.fleet().with(|known| {
                known.serves(revision.number, &revision.sha256_hex());
                known.head.clone()
            });
            let bytes = Arc::clone(snapshot.rules_bytes());
            let number = revision.number;
            let write = move |store: &Store| store.keep_in_history(number, &bytes, head.as_ref());
            handle.keep(Kind::History(number), Box::new(write));
        }
        if status.changed().await.is_err() {
            return Ended::AsTold;
        }
    }
}

/// Finds the head of the document in service as it was kept before the start.
async fn restore(state_dir: &Arc<PathBuf>, handle: &Handle) {
    let (directory, revision) = (Arc::clone(state_dir), handle.snapshot().table().revision());
    let read = move || Store::head_in_history(&directory, revision.number);
    let head: Option<Head> = tokio::task::spawn_blocking(read).await.ok().flatten();
    if let Some(head) = head.filter(|head| head.names() == Some(revision)) {
        handle.fleet().with(|known| known.head = Some(head));
    }
}
