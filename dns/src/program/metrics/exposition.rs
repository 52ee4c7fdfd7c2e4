//! The text of `/metrics`. Takes counters and the state of rules, regions and sources, returns OpenMetrics text. Called
//! by [`super::Metrics::text`].

mod accesses;
mod aggregate;
mod fleet;
mod loads;
mod observed;
mod peers;
mod planned;
mod releases;
mod replicas;
mod zones;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bailiwick_rules::health::Status;
use bailiwick_rules::id::{RegionId, ServiceId};
use bailiwick_rules::table::Table;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text::encode};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

pub(super) use observed::{HISTOGRAMS, labels, seconds};

use super::{Metrics, QTYPES, RCODES, TRANSPORTS, ThreadCounters, latency};
use crate::program::logs::queue;
use crate::response::wire::Transport;
use crate::state::owner::{FileKind, Handle};
use crate::state::snapshot::MonitorView;

/// The sources of what a node serves, with their names in labels.
const SOURCES: [(FileKind, &str); 4] =
    [(FileKind::Rules, "rules"), (FileKind::Zones, "zones"), (FileKind::Keys, "keys"), (FileKind::Geoip, "geoip")];
const STATUSES: [Status; 3] = [Status::Up, Status::Down, Status::Unknown];

/// All metrics in Prometheus' text format.
pub(super) fn text(metrics: Arc<Metrics>, handle: Handle) -> String {
    let mut registry = Registry::with_prefix("bailiwick");
    registry.register_collector(Box::new(Exposition { metrics, handle }));
    let mut text = String::new();
    match encode(&mut text, &registry) {
        Ok(()) => text,
        // Writing to a `String` never fails.
        Err(fmt::Error) => String::new(),
    }
}

#[derive(Debug)]
struct Exposition {
    metrics: Arc<Metrics>,
    handle: Handle,
}

impl Collector for Exposition {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.queries(&mut encoder)?;
        self.latency(&mut encoder)?;
        self.limits(&mut encoder)?;
        self.steered(&mut encoder)?;
        self.rules(&mut encoder)?;
        self.fences(&mut encoder)?;
        self.sources(&mut encoder)?;
        self.keys(&mut encoder)?;
        self.signatures(&mut encoder)?;
        self.regions(&mut encoder)?;
        self.overrides(&mut encoder)?;
        self.probes(&mut encoder)?;
        self.observed(&mut encoder)?;
        aggregate::encode(&self.metrics.aggregated, &self.handle, &mut encoder)?;
        accesses::encode(&self.metrics.accesses, &mut encoder)?;
        self.leases(&mut encoder)?;
        loads::encode(&self.handle, &mut encoder)?;
        replicas::encode(&self.handle, &mut encoder)?;
        releases::encode(&self.handle, &mut encoder)?;
        planned::encode(&self.handle, &mut encoder)?;
        fleet::encode(&self.handle, &mut encoder)?;
        peers::encode(&self.handle, &mut encoder)?;
        self.tasks(&mut encoder)
    }
}

impl Exposition {
    /// The numbers of packets, by transport and answer.
    fn queries(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let threads = self.metrics.threads();
        // The shared counter of a transport. For UDP, the counters of the threads that answer datagrams are added.
        let total = |transport: Transport, own: &AtomicU64, of_thread: &dyn Fn(&ThreadCounters) -> u64| {
            let by_threads = threads.iter().map(|thread| of_thread(thread)).sum::<u64>();
            read(own) + if transport == Transport::Udp { by_threads } else { 0 }
        };
        let mut answered =
            counter(encoder, "queries", "Packets answered, by transport, response code and type asked for")?;
        for (by_rcode, (transport, transport_name)) in self.metrics.answered.iter().zip(TRANSPORTS) {
            let rcodes = RCODES.iter().map(|(_, name)| *name).chain(["other"]);
            for ((rcode, by_qtype), rcode_name) in by_rcode.iter().enumerate().zip(rcodes) {
                let qtypes = QTYPES.iter().map(|(_, name)| *name).chain(["other"]);
                for ((qtype, own), qtype_name) in by_qtype.iter().enumerate().zip(qtypes) {
                    let count = total(transport, own, &|thread| read(&thread.answered[rcode][qtype]));
                    let labels = [("transport", transport_name), ("rcode", rcode_name), ("qtype", qtype_name)];
                    if count > 0 {
                        sample(&mut answered, &labels, count)?;
                    }
                }
            }
        }
        let mut dropped = counter(encoder, "dropped", "Packets not answered: responses and what is no DNS message")?;
        for (own, (transport, name)) in self.metrics.dropped.iter().zip(TRANSPORTS) {
            sample(&mut dropped, &[("transport", name)], total(transport, own, &|thread| read(&thread.dropped)))?;
        }
        let mut truncated = counter(encoder, "truncated", "Answers truncated for their size")?;
        for (own, (transport, name)) in self.metrics.truncated.iter().zip(TRANSPORTS) {
            sample(&mut truncated, &[("transport", name)], total(transport, own, &|thread| read(&thread.truncated)))?;
        }
        let mut hits = counter(encoder, "memo_hits", "Datagrams answered by what was kept of an earlier answer")?;
        sample(&mut hits, &[], threads.iter().map(|thread| read(&thread.memo_hits)).sum())?;
        let help = "Kept answers that weren't what they should be, of those that are compared: always 0";
        let mut mismatches = counter(encoder, "memo_mismatch", help)?;
        sample(&mut mismatches, &[], threads.iter().map(|thread| read(&thread.memo_mismatches)).sum())
    }

    /// How far the limits of connections and answers are used.
    fn limits(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        if let Some(gate) = &self.metrics.gate {
            let open = u64::try_from(gate.count()).unwrap_or(u64::MAX);
            gauge(encoder, "connections", "Connections open over TCP, TLS and HTTPS")?.encode_gauge(&open)?;
            let (in_all, per_client) = gate.limits();
            let mut most =
                gauge(encoder, "connections_limit", "How many connections may be open, in all and of one client")?;
            for (scope, limit) in [("all", in_all), ("client", per_client)] {
                let limit = u64::try_from(limit).unwrap_or(u64::MAX);
                most.encode_family(&[("scope", scope)])?.encode_gauge(&limit)?;
            }
            let mut refused = counter(encoder, "connections_refused", "Connections refused by the limits of [tcp]")?;
            sample(&mut refused, &[], gate.refused())?;
        }
        if let Some(limiter) = &self.metrics.limiter {
            let most = u64::from(limiter.per_second());
            let help = "How many answers of one class a prefix gets in a second";
            gauge(encoder, "rate_limit_per_second", help)?.encode_gauge(&most)?;
            let mut limited = counter(encoder, "rate_limited", "Answers not sent whole, by what was done instead")?;
            sample(&mut limited, &[("action", "truncated")], limiter.slipped())?;
            sample(&mut limited, &[("action", "dropped")], limiter.dropped())?;
        }
        Ok(())
    }

    /// How long answers took.
    fn latency(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "How long answers took, from a sample of datagrams and of all packets over streams";
        let mut metric = encoder.encode_descriptor("answer_seconds", help, None, MetricType::Histogram)?;
        let threads = self.metrics.threads();
        for (own, (transport, name)) in self.metrics.latency.iter().zip(TRANSPORTS) {
            let mut sum = latency::Sum::default();
            sum.add(own);
            if transport == Transport::Udp {
                threads.iter().for_each(|thread| sum.add(&thread.latency));
            }
            let labels = [("transport", name)];
            let mut family = metric.encode_family(&labels)?;
            family.encode_histogram::<NoLabelSet>(sum.seconds(), sum.count(), &sum.buckets(), None)?;
        }
        Ok(())
    }

    /// The numbers of answers that the rules decided.
    fn steered(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut metric = counter(
            encoder,
            "steered_answers",
            "Answers at steered names, by service and region; without a region: denied_answers or nothing",
        )?;
        let mut steered: BTreeMap<(ServiceId, Option<RegionId>), u64> = BTreeMap::new();
        for ((service, region, _), count) in self.metrics.all_steered() {
            *steered.entry((service, region)).or_default() += count;
        }
        for ((service, region), count) in steered {
            let region = region.as_ref().map_or("", |region| region.as_str());
            sample(&mut metric, &[("service", service.as_str()), ("region", region)], count)?;
        }
        Ok(())
    }

    /// Which rules and which GeoIP database are in service.
    fn rules(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let revision = self.handle.snapshot().table().revision();
        gauge(encoder, "rules_revision", "The revision of the rules in service")?.encode_gauge(&revision.number)?;
        let (number, digest) = (revision.number.to_string(), revision.sha256_hex());
        let help = "The rules in service: nodes with different digests follow different rules";
        let labels = [("revision", number.as_str()), ("sha256", digest.as_str())];
        gauge(encoder, "rules_info", help)?.encode_family(&labels)?.encode_gauge(&1_u64)?;
        let accepted = self.handle.status().rules.accepted_at.map_or(0, |at| at.0 / 1000);
        let help =
            "When the rules in service were accepted, in seconds since 1970; 0: they were kept from before the start";
        gauge(encoder, "rules_accepted_seconds", help)?.encode_gauge(&accepted)?;
        if let Some(built) = self.handle.snapshot().world().places().built() {
            let help = "When the GeoIP database was built, as it says itself, in seconds since 1970";
            gauge(encoder, "geoip_built_seconds", help)?.encode_gauge(&(built.0 / 1000))?;
        }
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        gauge(encoder, "build_info", "The program's version")?.encode_family(&version)?.encode_gauge(&1_u64)
    }

    /// What the last check of fences found.
    fn fences(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "What leads out of its fence, as the last check found it: decisions, and answers that were given";
        let mut metric = gauge(encoder, "fence_violations", help)?;
        for (of, count) in self.metrics.fences.violations() {
            metric.encode_family(&[("of", of)])?.encode_gauge(&count)?;
        }
        let help = "When fences were checked last, in seconds since 1970; 0: not yet";
        gauge(encoder, "fences_checked_seconds", help)?.encode_gauge(&self.metrics.fences.checked())
    }

    /// The versions of files that were accepted or refused.
    fn sources(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let status = self.handle.status();
        let help =
            "Versions of rules, zones, keys and GeoIP database, by what became of them; the first at start included";
        let mut reloads = counter(encoder, "reloads", help)?;
        for (source, name) in SOURCES {
            let counts = status.of(source);
            let results = [("accepted", counts.accepted), ("refused", counts.refused), ("ignored", counts.ignored)];
            for (result, count) in results {
                sample(&mut reloads, &[("source", name), ("result", result)], count)?;
            }
        }
        let help = "1 while the version last offered was refused and an older one is in service";
        let mut failing = gauge(encoder, "source_failing", help)?;
        for (source, name) in SOURCES {
            let failed = u64::from(status.of(source).last_error.is_some());
            failing.encode_family(&[("source", name)])?.encode_gauge(&failed)?;
        }
        self.zones(encoder, &status)?;
        if !self.metrics.files.is_empty() {
            let help = "1 while certificate or token files last offered were refused and those before are in service";
            let mut failing = gauge(encoder, "files_failing", help)?;
            for file in &self.metrics.files {
                let failed = u64::from(file.is_failing());
                failing.encode_family(&[("files", file.files.as_str())])?.encode_gauge(&failed)?;
            }
            let help = "When the certificate in service expires, in seconds since 1970";
            let mut expires = gauge(encoder, "certificate_expires_seconds", help)?;
            for file in &self.metrics.files {
                if let Some(at) = file.expires() {
                    expires.encode_family(&[("files", file.files.as_str())])?.encode_gauge(&(at.0 / 1000))?;
                }
            }
        }
        let failed = u64::from(status.not_persisted.is_some());
        gauge(encoder, "persist_failing", "1 while the state directory can't be written")?.encode_gauge(&failed)
    }

    /// The health of regions and endpoints.
    fn regions(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let snapshot = self.handle.snapshot_owned();
        let report = snapshot.health_report("", self.handle.now());
        let mut metric = gauge(encoder, "region_status", "1 for the status a region has, overrides included")?;
        for (region, reported) in &report.regions {
            for status in STATUSES {
                let labels = [("region", region.as_str()), ("status", word(status))];
                metric.encode_family(&labels)?.encode_gauge(&u64::from(reported.status == status))?;
            }
        }
        let mut metric = gauge(encoder, "region_forced", "1 while an override forces a region's status")?;
        for (region, reported) in &report.regions {
            let forced = u64::from(reported.forced.is_some());
            metric.encode_family(&[("region", region.as_str())])?.encode_gauge(&forced)?;
        }
        let mut metric = gauge(encoder, "endpoint_forced", "1 while an override forces an endpoint's status")?;
        for (region, reported) in &report.regions {
            for (endpoint, endpoint_report) in &reported.endpoints {
                let labels = [("region", region.as_str()), ("endpoint", endpoint.as_str())];
                metric.encode_family(&labels)?.encode_gauge(&u64::from(endpoint_report.forced.is_some()))?;
            }
        }
        let mut metric = gauge(encoder, "endpoint_status", "1 for the status an endpoint has, overrides included")?;
        for (region, reported) in &report.regions {
            for (endpoint, endpoint_report) in &reported.endpoints {
                for status in STATUSES {
                    let labels =
                        [("region", region.as_str()), ("endpoint", endpoint.as_str()), ("status", word(status))];
                    metric.encode_family(&labels)?.encode_gauge(&u64::from(endpoint_report.status == status))?;
                }
            }
        }
        Ok(())
    }

    /// When overrides end.
    fn overrides(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let (snapshot, now) = (self.handle.snapshot_owned(), self.handle.now());
        let overrides: Vec<_> = snapshot.health().overrides.iter().filter(|(_, forced)| forced.until > now).collect();
        if overrides.is_empty() {
            return Ok(());
        }
        let help =
            "When an override that came by the API ends, in seconds since 1970; without an endpoint: of the region";
        let mut ends = gauge(encoder, "override_ends_seconds", help)?;
        for (of, forced) in overrides {
            let labels = [("region", of.region.as_str()), ("endpoint", of.endpoint_name().unwrap_or_default())];
            ends.encode_family(&labels)?.encode_gauge(&(forced.until.0 / 1000))?;
        }
        Ok(())
    }

    fn observed(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let snapshot = self.handle.snapshot_owned();
        self.handle.observed().with(|sums| {
            sums.follow(snapshot.table());
            observed::write(encoder, sums, self.handle.now())
        })
    }

    /// How much of each quota isolates of Workers were granted. Writes nothing if no isolate has asked.
    fn leases(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let now = self.handle.now();
        self.handle.leases().with_quotas(|ledgers, is_shared| {
            if ledgers.is_empty() {
                return Ok(());
            }
            let mut granted = counter(encoder, "quota_granted", "Requests and tokens that isolates were granted")?;
            for (quota, shared) in ledgers {
                let amounts = shared.ledger.granted();
                for (unit, amount) in [("requests", amounts.requests), ("tokens", amounts.tokens)] {
                    sample(&mut granted, &[("quota", quota.as_str()), ("unit", unit)], amount)?;
                }
            }
            let mut holders = gauge(encoder, "quota_isolates", "Isolates of Workers that share a quota now")?;
            for (quota, shared) in ledgers {
                let active = u64::try_from(shared.ledger.active(now)).unwrap_or(u64::MAX);
                holders.encode_family(&[("quota", quota.as_str())])?.encode_gauge(&active)?;
            }
            if is_shared {
                let help =
                    "1 while the fleet's store doesn't answer, so that this node grants its part of a quota only";
                let mut cut_off = gauge(encoder, "quota_cut_off", help)?;
                for (quota, shared) in ledgers {
                    let is_cut_off = u64::from(shared.is_cut_off(now));
                    cut_off.encode_family(&[("quota", quota.as_str())])?.encode_gauge(&is_cut_off)?;
                }
            }
            Ok(())
        })
    }

    /// Whether the long-lived tasks run.
    fn tasks(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let tasks = self.handle.tasks().health();
        let mut failing = gauge(encoder, "task_failing", "1 while a long-lived task is down or makes no turn")?;
        for task in &tasks {
            let is_failing = u64::from(task.is_in_trouble);
            failing.encode_family(&[("task", task.task.as_str())])?.encode_gauge(&is_failing)?;
        }
        let help =
            "Times that a long-lived task panicked or ended and went on: a fault of the program, please report it";
        let mut panics = counter(encoder, "task_panics", help)?;
        for task in &tasks {
            sample(&mut panics, &[("task", task.task.as_str())], task.panics)?;
        }
        let help = "Lines of log that were lost: the queue was full, or they could not be written";
        let mut lost = counter(encoder, "log_lines_lost", help)?;
        for (reason, count) in queue::lost_lines() {
            sample(&mut lost, &[("reason", reason)], count)?;
        }
        Ok(())
    }

    fn probes(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let status = self.handle.status();
        let mut metric = counter(encoder, "probes", "Health checks carried out, by result")?;
        sample(&mut metric, &[("result", "passed")], status.probes_passed)?;
        sample(&mut metric, &[("result", "failed")], status.probes_failed)?;
        self.monitors(encoder)
    }

    /// Metrics of monitors, labelled by what they watch. If the label `endpoint` is empty, a monitor watches the region
    /// as a whole.
    fn monitors(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let snapshot = self.handle.snapshot_owned();
        let (table, health) = (snapshot.table(), snapshot.health());
        let help = "Health checks by what they watch, since it is watched by this monitor; without an endpoint: the \
            region as a whole";
        let mut probes = counter(encoder, "monitor_probes", help)?;
        for monitor in &health.monitors {
            for (result, count) in [("passed", monitor.probes.passed), ("failed", monitor.probes.failed)] {
                let mut labels = labels_of(table, monitor);
                labels.push(("result", result));
                sample(&mut probes, &labels, count)?;
            }
        }
        if health.monitors.iter().any(|monitor| monitor.model.is_some()) {
            let help = "Verdicts of monitors that ask a model for a token, since it is watched by this monitor";
            let mut verdicts = counter(encoder, "monitor_verdicts", help)?;
            for monitor in &health.monitors {
                for (verdict, count) in monitor.model.iter().flat_map(|model| model.counts.iter()) {
                    let mut labels = labels_of(table, monitor);
                    labels.push(("verdict", verdict.as_str()));
                    sample(&mut verdicts, &labels, count)?;
                }
            }
        }
        let help = "Since when a monitor has its status, in seconds since 1970; at most since this process began";
        let mut since = gauge(encoder, "monitor_since_seconds", help)?;
        for monitor in &health.monitors {
            let labels = labels_of(table, monitor);
            since.encode_family(&labels.as_slice())?.encode_gauge(&(monitor.since.0 / 1000))?;
        }
        if health.by_family.is_some() {
            let help =
                "1 for the status of half a monitor that tells the families of addresses apart, overrides left out";
            let mut metric = gauge(encoder, "monitor_family_status", help)?;
            for monitor in health.monitors.iter().filter(|monitor| monitor.family.is_some()) {
                let current = monitor.monitored.machine.status();
                for status in STATUSES {
                    let mut labels = labels_of(table, monitor);
                    labels.push(("status", word(status)));
                    metric.encode_family(&labels.as_slice())?.encode_gauge(&u64::from(current == status))?;
                }
            }
        }
        let help = "Since when a region has its status, overrides included, in seconds since 1970; at most since this \
            process began";
        let mut since = gauge(encoder, "region_since_seconds", help)?;
        for (region, at) in table.regions().iter().zip(&health.since) {
            since.encode_family(&[("region", region.id.as_str())])?.encode_gauge(&(at.0 / 1000))?;
        }
        Ok(())
    }
}

/// The labels of a monitor: the region and the endpoint that it watches, and the address family if it watches IPv4 and
/// IPv6 separately.
fn labels_of<'a>(table: &'a Table, monitor: &MonitorView) -> Vec<(&'static str, &'a str)> {
    let region = table.region(monitor.region);
    let endpoint = monitor.endpoint.and_then(|position| region.endpoints.get(position));
    let mut labels = vec![("region", region.id.as_str()), ("endpoint", endpoint.map_or("", |(id, _)| id.as_str()))];
    labels.extend(monitor.family.map(|family| ("family", family.as_str())));
    labels
}

fn word(status: Status) -> &'static str {
    match status {
        Status::Up => "up",
        Status::Down => "down",
        Status::Unknown => "unknown",
    }
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn counter<'e>(
    encoder: &'e mut DescriptorEncoder<'_>,
    name: &'e str,
    help: &str,
) -> Result<MetricEncoder<'e>, fmt::Error> {
    encoder.encode_descriptor(name, help, None, MetricType::Counter)
}

fn gauge<'e>(
    encoder: &'e mut DescriptorEncoder<'_>,
    name: &'e str,
    help: &str,
) -> Result<MetricEncoder<'e>, fmt::Error> {
    encoder.encode_descriptor(name, help, None, MetricType::Gauge)
}

fn sample(metric: &mut MetricEncoder<'_>, labels: &[(&str, &str)], value: u64) -> fmt::Result {
    metric.encode_family(&labels)?.encode_counter::<NoLabelSet, u64, f64>(&value, None)
}
