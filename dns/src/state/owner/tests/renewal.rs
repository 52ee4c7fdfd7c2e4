//! Tests of a renewal that fails. Takes keys that can't sign, and checks what is served, reported, counted and
//! tried again.

use std::io::{self, Write};

use tracing_subscriber::fmt::MakeWriter;

use super::*;
use crate::dnssec::key_set::KeySet;
use crate::program::metrics::Metrics;
use crate::protocol::rdata::rtype;
use crate::testing::signed::{DO, ask, verify};

/// What was logged.
#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn lines(&self, holding: &str) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().filter(|line| line.contains(holding)).map(str::to_owned).collect()
    }
}

impl Write for Log {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'l> MakeWriter<'l> for Log {
    type Writer = Self;

    fn make_writer(&'l self) -> Self {
        self.clone()
    }
}

/// Makes the key of the only zone fail to sign, or work again.
fn set_failing(handle: &Handle, fails: bool) {
    let snapshot = handle.snapshot_owned();
    snapshot.world().key_sets().flat_map(KeySet::signers).for_each(|key| key.set_failing(fails));
}

#[tokio::test(start_paused = true)]
async fn a_failed_renewal_keeps_the_old_signatures_and_is_retried() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).with_ansi(false).finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    let handle = begin(signed(), &Scripted::default()).await;
    let metrics = Arc::new(Metrics::default());
    let failing = |value| metrics.text(&handle).contains(&format!("bailiwick_signature_renewal_failing {value}\n"));
    let before = handle.snapshot_owned();
    let due = before.world().renewal_due(NOW).unwrap();
    assert!(failing(0));

    set_failing(&handle, true);
    let within_days = |done| tokio::time::timeout(Duration::from_secs(5 * 86_400), done);
    let failed_after = async |at: Timestamp| {
        let failed =
            move |_: &Snapshot, status: &Status| status.not_renewed.as_ref().is_some_and(|reported| reported.at > at);
        assert_eq!(within_days(handle.wait_until(failed)).await, Ok(true), "after {at} nothing failed");
        handle.status().not_renewed.clone().unwrap()
    };
    let first = failed_after(NOW).await;
    assert!(first.at.since(due).0 < 60_000, "failed as soon as it was due: {due}, {}", first.at);
    assert!(first.errors.len() == 1 && first.errors[0].contains("can't be signed: the system gives no random bytes"));
    let second = failed_after(first.at).await;
    assert!((60_000..=60_100).contains(&second.at.since(first.at).0), "{} and {}", first.at, second.at);
    let third = failed_after(second.at).await;
    assert!((60_000..=60_100).contains(&third.at.since(second.at).0), "{} and {}", second.at, third.at);

    assert_eq!(handle.status().renewals, 0);
    assert!(failing(1), "{}", metrics.text(&handle));
    let snapshot = handle.snapshot_owned();
    assert!(Arc::ptr_eq(snapshot.world(), before.world()), "the signed zones stay in service");
    let message = ask(snapshot.zones(), &*snapshot, "example.com", rtype::SOA, DO);
    let now = u32::try_from(handle.now().0 / 1000).unwrap();
    assert_eq!(
        verify(&message, snapshot.world().key_sets().next().unwrap(), now, &[]),
        Ok(1),
        "and the old signature is still valid"
    );
    let reported = log.lines("signatures can't be renewed");
    assert_eq!(reported.len(), 3, "{reported:?}");
    let until = before.world().signed_until(NOW).map(|(_, until)| until).min().unwrap();
    assert!(reported.iter().all(|line| line.contains("ERROR") && line.contains(&until.to_string())), "{reported:?}");

    set_failing(&handle, false);
    assert!(handle.wait_until(|_, status| status.renewals == 1 && status.awaited_revision.is_none()).await);
    assert_eq!(handle.status().not_renewed, None);
    assert!(failing(0));
    assert!(handle.now().since(third.at).0 <= 60_100, "at the next try");
    let snapshot = handle.snapshot_owned();
    let (now, next) = (handle.now(), snapshot.world().renewal_due(handle.now()).unwrap());
    assert!(next > now && !Arc::ptr_eq(snapshot.world(), before.world()), "what was due is signed, the next at {next}");
    assert_eq!(log.lines("signatures renewed").len(), 1);
}
