//! Tests of the thread that writes state to disk, with disks that fail or hang.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc::unbounded_channel;

use super::*;

const LONG: Duration = Duration::from_secs(20);

fn store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    (directory, store)
}

#[test]
fn failed_writes_are_reported_and_retried() {
    let (_directory, store) = store();
    let (attempts, mut reported) = unbounded_channel();
    let keeper = Keeper::start(store, attempts).unwrap();
    let tries = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&tries);
    let write = move |_: &Store| match counted.fetch_add(1, Ordering::SeqCst) {
        0 => Err(io::Error::from(io::ErrorKind::StorageFull)),
        _ => Ok(()),
    };
    let outcome = keeper.keep(Kind::Rules, Box::new(write));
    assert!(outcome.recv_timeout(LONG).unwrap().is_err());
    let outcomes =
        [reported.blocking_recv().unwrap(), reported.blocking_recv().unwrap()].map(|attempt| attempt.outcome.is_ok());
    assert_eq!((outcomes, tries.load(Ordering::SeqCst)), ([false, true], 2));
}

#[test]
fn a_write_that_hangs_holds_up_nobody_and_only_the_latest_version_follows_it() {
    let (_directory, store) = store();
    let (attempts, mut reported) = unbounded_channel();
    let keeper = Keeper::start(store, attempts).unwrap();
    let (release, hangs) = mpsc::channel::<()>();
    let hangs = Mutex::new(hangs);
    let hung = keeper.keep(
        Kind::Rules,
        Box::new(move |_| {
            hangs.lock().unwrap().recv().unwrap();
            Ok(())
        }),
    );
    let begun = Instant::now();
    assert!(hung.recv_timeout(Duration::from_millis(10)).is_err(), "no caller has an outcome yet");
    let superseded = keeper.keep(Kind::Overrides, Box::new(|_| Err(io::Error::other("the older version was written"))));
    let latest = keeper.keep(Kind::Overrides, Box::new(|_| Ok(())));
    keeper.handle().finish(Duration::from_millis(50));
    assert!(begun.elapsed() < LONG);
    release.send(()).unwrap();
    assert_eq!(latest.recv_timeout(LONG), Ok(Ok(())));
    assert!(superseded.recv().is_err(), "the superseded state was never written");
    assert!(reported.blocking_recv().unwrap().outcome.is_ok() && reported.blocking_recv().unwrap().outcome.is_ok());
}

#[test]
fn a_panic_while_writing_ends_nothing() {
    let (_directory, store) = store();
    let (attempts, _told) = unbounded_channel();
    let keeper = Keeper::start(store, attempts).unwrap();
    let outcome = keeper.keep(Kind::Rules, Box::new(|_| panic!("for the test")));
    assert_eq!(outcome.recv_timeout(LONG).unwrap(), Err("a fault of this program".to_owned()));
    let outcome = keeper.keep(Kind::Overrides, Box::new(|_| Ok(())));
    assert_eq!(outcome.recv_timeout(LONG), Ok(Ok(())));
}

#[test]
fn what_is_due_is_written_before_the_end() {
    let (_directory, store) = store();
    let (attempts, mut reported) = unbounded_channel();
    let keeper = Keeper::start(store, attempts).unwrap();
    keeper.keep(Kind::Rules, Box::new(|_| Ok(())));
    drop(keeper);
    assert!(reported.blocking_recv().unwrap().outcome.is_ok());
    assert!(reported.blocking_recv().is_none(), "the thread ends");
}
