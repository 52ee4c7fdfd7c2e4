//! Takes DNS queries of all transports, returns answers from the current snapshot (rules, zones and health of one
//! moment), and counts them. Called by the listeners, through [`Respond`] and [`Datagrams`].

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use arc_swap::cache::Cache;
use bailiwick_host::system::clock::Clock;

use crate::memo::Memo;
use crate::net::rate_limit::Limiter;
use crate::program::metrics::{EVERY, Metrics, SteeredCounters, ThreadCounters};
use crate::response::respond::{Datagram, Datagrams, Respond};
use crate::response::wire::{self, Context, Outcome, Settings, Transport, respond};
use crate::state::owner::Handle;
use crate::state::snapshot::Snapshot;
use crate::state::snapshot::signing::seconds;

/// Answers queries from the current snapshot, and counts the answers.
pub(super) struct Responder {
    handle: Handle,
    metrics: Arc<Metrics>,
    settings: Arc<ArcSwap<Settings>>,
    limiter: Option<Arc<Limiter>>,
    clock: Clock,
}

impl Responder {
    pub(super) fn new(
        handle: Handle,
        metrics: Arc<Metrics>,
        settings: Settings,
        limiter: Option<Arc<Limiter>>,
        clock: Clock,
    ) -> Self {
        Self { handle, metrics, settings: Arc::new(ArcSwap::from_pointee(settings)), limiter, clock }
    }

    /// Replaces the settings. The next batch of queries uses the new ones.
    pub(super) fn set(&self, settings: Settings) {
        self.settings.store(Arc::new(settings));
    }

    fn context<'c>(&'c self, settings: &'c Settings, now: u32) -> Context<'c> {
        let limiter = self.limiter.as_deref().map(|limiter| limiter as &dyn wire::Limiter);
        Context { settings, limiter, now }
    }
}

impl Respond for Responder {
    fn respond(&self, packet: &[u8], from: IpAddr, transport: Transport, out: &mut Vec<u8>) -> Outcome {
        let snapshot = self.handle.snapshot();
        let settings = self.settings.load();
        let context = self.context(&settings, seconds(self.clock.now()));
        let begun = Instant::now();
        let outcome = respond(&context, snapshot.zones(), &**snapshot, packet, from, transport, out);
        self.metrics.took(transport, begun.elapsed());
        self.metrics.count(transport, &outcome);
        if let Outcome::Answered { service: Some(service), region, origin, .. } = outcome
            && let Some(service) = snapshot.table().services().get(service.get())
        {
            let region = region.map(|region| &snapshot.table().region(region).id);
            self.metrics.count_steered(&service.id, region, origin);
        }
        outcome
    }

    fn datagrams(self: Arc<Self>) -> Box<dyn Datagrams> {
        Box::new(Thread::new(self))
    }
}

/// Answers the datagrams of one thread. No other thread writes to its memo or its counters.
struct Thread {
    snapshots: Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>,
    settings: Cache<Arc<ArcSwap<Settings>>, Arc<Settings>>,
    /// The snapshot for the current batch of datagrams.
    snapshot: Arc<Snapshot>,
    /// The time of the current batch, in seconds since the epoch.
    now: u32,
    memo: Memo,
    counters: Arc<ThreadCounters>,
    steered: Arc<SteeredCounters>,
    /// How many batches were answered. One batch in [`EVERY`] is timed.
    batches: u32,
    responder: Arc<Responder>,
}

impl Thread {
    fn new(responder: Arc<Responder>) -> Self {
        let snapshot = responder.handle.snapshot_owned();
        let counters = responder.metrics.thread();
        Self {
            snapshots: responder.handle.snapshots(),
            settings: Cache::new(Arc::clone(&responder.settings)),
            now: seconds(responder.clock.now()),
            memo: Memo::new(),
            steered: counters.steered_under(snapshot.world().rules()),
            snapshot,
            counters,
            batches: 0,
            responder,
        }
    }
}

impl Datagrams for Thread {
    fn begin(&mut self) {
        self.now = seconds(self.responder.clock.now());
        self.settings.load();
        self.counters.set_memo(self.memo.hits(), self.memo.mismatches());
        let current = self.snapshots.load();
        if !Arc::ptr_eq(current, &self.snapshot) {
            if !Arc::ptr_eq(current.world().rules(), self.snapshot.world().rules()) {
                self.steered = self.counters.steered_under(current.world().rules());
            }
            self.snapshot = Arc::clone(current);
        }
    }

    fn recover(&mut self) {
        self.memo = Memo::new();
    }

    fn respond(&mut self, batch: &mut [Datagram<'_>]) {
        self.batches = self.batches.wrapping_add(1);
        if self.batches % EVERY != 1 {
            return self.answer(batch);
        }
        let begun = Instant::now();
        self.answer(batch);
        self.counters.latency.add(begun.elapsed(), u64::try_from(batch.len()).unwrap_or(0));
    }
}

impl Thread {
    /// Answers a batch of datagrams, and counts the answers.
    fn answer(&mut self, batch: &mut [Datagram<'_>]) {
        let context = self.responder.context(self.settings.load(), self.now);
        let (counters, steered) = (&self.counters, &self.steered);
        self.memo.respond(&context, &self.snapshot, batch, |outcome| {
            counters.count(&outcome);
            if let Outcome::Answered { service: Some(service), region, origin, .. } = outcome {
                steered.add(service, region, origin);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use bailiwick_host::locate::geoip::Places;
    use bailiwick_rules::health::{Forced, Status};
    use bailiwick_rules::id::RegionId;
    use bailiwick_rules::rules::Monitor;
    use bailiwick_rules::time::{Millis, Timestamp};

    use super::*;
    use crate::state::load::compile_rules;
    use crate::state::owner::{InitialState, Offer, spawn};
    use crate::state::probe::{ProbeFailure, ProbeSuccess, Prober, Targets};
    use crate::state::snapshot::{Rules, World, ZoneSource};
    use crate::testing::{CLIENT, query};
    use crate::zone::file;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    struct NoProbes;

    impl Prober for NoProbes {
        async fn probe(&self, _: &Monitor, _: Targets) -> Result<ProbeSuccess, ProbeFailure> {
            Ok(ProbeSuccess::default())
        }

        async fn read_load(
            &self,
            _: &bailiwick_rules::rules::LoadSource,
        ) -> Result<bailiwick_rules::load::EngineReading, String> {
            Err("nothing is read here".to_owned())
        }

        async fn read_replica(
            &self,
            _: &bailiwick_rules::rules::ReplicaSource,
            _: &Clock,
        ) -> Result<bailiwick_rules::replica::ReplicaReading, bailiwick_rules::replica::ReadFailure> {
            Err(bailiwick_rules::replica::ReadFailure::Wrong("nothing is read here".to_owned()))
        }
    }

    /// Rules with one service at `chat.example.com`. Region `a` answers 192.0.2.1. Its standby `b` answers 192.0.2.2.
    fn rules(revision: u64) -> Arc<Rules> {
        let region =
            |last: u8| serde_json::json!({ "countries": ["DE"], "answers": { "A": [format!("192.0.2.{last}")] } });
        let service = serde_json::json!({ "hosts": ["chat.example.com"], "pattern": "active-passive", "regions": ["a",
            "b"],
            "residency": [{ "clients": ["unknown"], "process_in": ["eu"] }] });
        let rules = serde_json::json!({ "version": 1, "revision": revision,
            "jurisdictions": { "eu": { "include": ["EU"] } },
            "regions": { "a": region(1), "b": region(2) }, "services": { "chat": service } });
        compile_rules(rules.to_string().into_bytes(), "rules.json").unwrap()
    }

    fn zones(address: &str) -> Arc<[ZoneSource]> {
        let origin: crate::protocol::name::Name = "example.com".parse().unwrap();
        let text = format!(
            "$TTL 1h\n@ SOA ns.example.net. h.example.net. 1 2 3 4 60\n@ NS ns.example.net.\nwww A {address}\n"
        );
        let records = file::parse(text.as_bytes(), "z", &origin, &mut |_| Err("no files".into())).unwrap();
        [ZoneSource { origin, records }].into()
    }

    async fn live() -> (Arc<Responder>, Handle) {
        let world = World::build(rules(1), zones("192.0.2.80"), Arc::default(), Arc::new(Places::none()), NOW, None);
        let world = world.unwrap();
        let beginning = InitialState {
            node: String::new(),
            world,
            status: crate::state::owner::Status::default(),
            store: None,
            overrides: std::collections::BTreeMap::default(),
            fleet_overrides: Vec::new(),
            agreed: bailiwick_rules::fleet::Agreed::default(),
            faults: std::collections::BTreeMap::default(),
            rejected: std::collections::BTreeMap::default(),
            set_aside: Vec::new(),
        };
        let clock = Clock::of_runtime(NOW);
        let handle = spawn(beginning, NoProbes, clock.clone()).await;
        let live = Responder::new(handle.clone(), Arc::default(), Settings::anonymous(), None, clock);
        (Arc::new(live), handle)
    }

    /// Asks for the address of `host`, and returns its last octet.
    fn ask(datagrams: &mut dyn Datagrams, host: &str) -> u8 {
        let mut out = Vec::new();
        datagrams.respond(&mut [Datagram { packet: &query(host, 1, &[]), from: CLIENT, response: &mut out }]);
        assert_eq!(out[7], 1, "the response has one answer");
        let address = out.windows(3).position(|octets| octets == [192, 0, 2]).unwrap();
        out[address + 3]
    }

    /// Asks twice, so that the second answer comes from the memo (the answers that a thread keeps).
    fn both(datagrams: &mut dyn Datagrams, host: &str) -> [u8; 2] {
        [ask(datagrams, host), ask(datagrams, host)]
    }

    #[tokio::test]
    async fn a_batch_begun_after_a_change_has_nothing_of_before() {
        let (live, handle) = live().await;
        let mut datagrams = Arc::clone(&live).datagrams();
        datagrams.begin();
        let chat = "chat.example.com";
        assert_eq!(both(&mut *datagrams, chat), [1, 1]);
        assert_eq!(both(&mut *datagrams, "www.example.com"), [80, 80]);

        let a = RegionId::parse("a").unwrap();
        let forced = Forced { status: Status::Down, until: NOW.after(Millis(600_000)), reason: "drill".into() };
        handle.set_override(a.clone().into(), forced).await.unwrap();
        assert_eq!(ask(&mut *datagrams, chat), 1, "the batch keeps the snapshot with which it began");
        datagrams.begin();
        assert_eq!(both(&mut *datagrams, chat), [2, 2]);
        handle.delete_override(a.into()).await.unwrap();
        datagrams.begin();
        assert_eq!(both(&mut *datagrams, chat), [1, 1]);

        handle.offer(Offer::Zones(zones("192.0.2.81"))).await;
        assert!(handle.wait_until(|_, status| status.zones.accepted == 1).await);
        datagrams.begin();
        assert_eq!(both(&mut *datagrams, "www.example.com"), [81, 81]);
        assert_eq!(both(&mut *datagrams, chat), [1, 1]);
    }

    #[tokio::test]
    async fn what_threads_count_is_summed_over_threads_and_rules() {
        let (live, handle) = live().await;
        for revision in 2..4 {
            for _ in 0..2 {
                let mut datagrams = Arc::clone(&live).datagrams();
                datagrams.begin();
                both(&mut *datagrams, "chat.example.com");
                handle.offer(Offer::Rules(rules(revision))).await;
                assert!(handle.wait_until(|snapshot, _| snapshot.table().revision().number == revision).await);
                datagrams.begin();
                both(&mut *datagrams, "chat.example.com");
                both(&mut *datagrams, "www.example.com");
            }
        }
        live.respond(&query("chat.example.com", 1, &[]), CLIENT, Transport::Udp, &mut Vec::new());
        let text = live.metrics.text(&handle);
        for line in [
            "bailiwick_queries_total{transport=\"udp\",rcode=\"NOERROR\",qtype=\"A\"} 25",
            "bailiwick_steered_answers_total{service=\"chat\",region=\"a\"} 17",
            "bailiwick_memo_mismatch_total{} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        let hits = text.lines().find_map(|line| line.strip_prefix("bailiwick_memo_hits_total{} ")).unwrap();
        assert!(hits.parse::<u64>().unwrap() > 0);
    }
}
