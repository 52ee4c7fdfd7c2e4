//! The report. Takes samples, returns rows of medians as a Markdown table and as JSON. Called by `main`; `chart` draws
//! the same rows.

#[cfg(test)]
mod tests;

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::bursts::{self, Bursts};
use crate::flood::{self, Flooded};
use crate::quic;
use crate::rounds::Sample;
use crate::server::named;
use crate::stats::Spread;
use crate::streams::{CONNECTIONS, OUTSTANDING, Streamed, TRANSPORTS};
use crate::turn::{self, Turn};
use crate::workload::Kind;

/// A server that used less than this share of its cores wasn't the bottleneck.
const BUSY: f64 = 0.9;

/// What is known of a server besides its answers.
#[derive(Debug, Clone)]
pub(crate) struct About {
    /// The server.
    pub(crate) server: String,
    /// How many threads it had.
    pub(crate) threads: usize,
    /// What it says its version is.
    pub(crate) version: String,
    /// Seconds from its start to its first answer.
    pub(crate) loaded: f64,
    /// Its memory after all rounds, in MiB.
    pub(crate) memory: f64,
    /// Octets that each static name costs, if there are enough of them to tell.
    pub(crate) per_name: Option<f64>,
}

/// Everything that was measured.
#[derive(Debug)]
pub(crate) struct Report {
    /// The machine and the settings, in words.
    pub(crate) circumstances: Value,
    /// Queries per second at which latency was measured.
    pub(crate) rate: u32,
    /// The servers, in the order of the rows.
    pub(crate) about: Vec<About>,
    /// All samples.
    pub(crate) samples: Vec<Sample>,
    /// Threads at work at the same time.
    pub(crate) bursts: Vec<Bursts>,
    /// Known names beside a flood.
    pub(crate) floods: Vec<Flooded>,
    /// Requests over streams.
    pub(crate) streams: Vec<Streamed>,
}

/// One server with one workload.
#[derive(Debug)]
pub(crate) struct Row<'r> {
    kind: Kind,
    threads: usize,
    cores: usize,
    /// The server.
    pub(crate) server: &'r str,
    /// CPU time per answer over the echo's.
    pub(crate) ratio: Spread,
    cpu: Spread,
    user: Spread,
    rate: Spread,
    busy: Spread,
    generator: Spread,
    /// Thousands of answers per second, had it had its cores to itself.
    whole: Spread,
    /// CPU time per answer over the same server's with one thread, round by round.
    over_one: Option<Spread>,
    octets: Spread,
    latency: Option<[Spread; 2]>,
    faults: [u64; 3],
}

impl Row<'_> {
    /// What the rows beside it have in common with it: the workload and the number of threads.
    pub(crate) fn title(&self) -> String {
        named(self.kind.name(), self.threads)
    }

    /// How many of its cores' seconds per second somebody had of whom is known.
    fn used(&self) -> f64 {
        self.busy.median + self.generator.median
    }
}

impl Report {
    /// The rows: by workload, then by the number of threads, then by server.
    pub(crate) fn rows(&self) -> Vec<Row<'_>> {
        let mut titles: Vec<(Kind, usize)> =
            self.samples.iter().map(|Sample { turn, .. }| (turn.kind, turn.threads)).collect();
        titles.sort_unstable();
        titles.dedup();
        let rows = titles.into_iter().flat_map(|(kind, threads)| {
            let about = self.about.iter().filter(move |about| about.threads == threads);
            about.filter_map(move |about| self.row(kind, threads, &about.server))
        });
        rows.collect()
    }

    fn row<'r>(&'r self, kind: Kind, threads: usize, server: &'r str) -> Option<Row<'r>> {
        let over_one = turn::over_one(&self.samples, kind, server, threads, |sample| sample.cpu);
        let samples: Vec<&Sample> = turn::of(&self.samples, kind, server, threads).collect();
        let of = |figure: fn(&Sample) -> f64| Spread::of(samples.iter().map(|sample| figure(sample)));
        let late = |figure: fn((u32, u32, u64)) -> u32| {
            Spread::of(samples.iter().filter_map(|sample| sample.latency).map(|latency| f64::from(figure(latency))))
        };
        let mut faults = [0; 3];
        for sample in &samples {
            faults.iter_mut().zip(sample.faults).for_each(|(sum, count)| *sum += count);
        }
        Some(Row {
            kind,
            threads,
            cores: samples.first()?.cores,
            server,
            ratio: of(Sample::ratio)?,
            cpu: of(|sample| sample.cpu)?,
            user: of(|sample| sample.user)?,
            rate: of(|sample| sample.rate / 1e3)?,
            busy: of(|sample| sample.busy)?,
            generator: of(|sample| sample.generator)?,
            whole: of(|sample| sample.whole() / 1e3)?,
            over_one,
            octets: of(|sample| sample.octets)?,
            latency: late(|latency| latency.0).zip(late(|latency| latency.1)).map(|(half, most)| [half, most]),
            faults,
        })
    }

    /// The tables, in Markdown.
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        let rows = self.rows();
        for rows in rows.chunk_by(|one, next| one.title() == next.title()) {
            self.rows_of_one_title(rows, &mut text);
        }
        bursts::table(&self.bursts, &mut text);
        flood::table(&self.floods, &mut text);
        self.streamed(&mut text);
        text.push_str(
            "| server | start to first answer, s | memory, MiB | per name, octets | version |\n|---|---|---|---|---|\n",
        );
        for about in &self.about {
            let per_name = about.per_name.map_or(String::new(), |octets| format!("{octets:.0}"));
            let version = about.version.replace('|', "\\|");
            let About { loaded, memory, .. } = about;
            let server = named(&about.server, about.threads);
            let _ = writeln!(text, "| {server} | {loaded:.2} | {memory:.1} | {per_name} | {version} |");
        }
        for doubt in self.doubts(&rows) {
            let _ = write!(text, "\n{doubt}\n");
        }
        text
    }

    fn rows_of_one_title(&self, rows: &[Row<'_>], text: &mut String) {
        // Without a rate no latency was measured.
        let (late, late_line) = match self.rate {
            0 => (String::new(), ""),
            rate => (format!(" p50 at {rate}/s, µs | p99 at {rate}/s, µs |"), "---|---|"),
        };
        let (threads, cores) = (rows[0].threads, rows[0].cores);
        let (several, several_line) = match threads {
            1 => (String::new(), ""),
            _ => (
                format!(" × by one thread | cores: server | generator | 1,000 answers/s by {cores} whole cores |"),
                "---|---|---|---|",
            ),
        };
        let _ = write!(
            text,
            "**{}**\n\n| server | × echo | CPU per answer, µs | of it user, µs | 1,000 answers/s |{several}{late} \
             octets | \
             lost / wrong / stray |\n|---|---|---|---|---|{several_line}{late_line}---|---|\n",
            rows[0].title()
        );
        for row in rows {
            let several = match (threads, row.over_one) {
                (1, _) => String::new(),
                (_, over_one) => format!(
                    " {} | {:.2} | {:.2} | {:.0} |",
                    over_one.map_or(String::new(), |over_one| over_one.to_string()),
                    row.busy.median,
                    row.generator.median,
                    row.whole
                ),
            };
            let late = match row.latency {
                Some([half, most]) => format!(" {half:.0} | {most:.0} |"),
                // At the rate, nothing was answered.
                None if self.rate > 0 => " | |".to_owned(),
                None => String::new(),
            };
            let [lost, wrong, stray] = row.faults;
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {:.0} |{several}{late} {:.0} | {lost} / {wrong} / {stray} |",
                row.server, row.ratio, row.cpu, row.user, row.rate, row.octets.median
            );
        }
        if threads > 1 {
            text.push_str(
                "\nCPU time is the scheduler's account of each process. “By whole cores”: what was answered, over \
                 the share of its cores that the \
                 server had; the rest was the generator's. It holds as far as an answer costs no more when no \
                 generator is in between, and threads may \
                 have taken turns: bursts, below, show them at work at once.\n",
            );
        }
        text.push('\n');
    }

    /// The table of streams.
    fn streamed(&self, text: &mut String) {
        if self.streams.is_empty() {
            return;
        }
        let _ = write!(
            text,
            "**streams**: static names, {CONNECTIONS} connections, {OUTSTANDING} requests outstanding; doq: {} \
             connections, each closed after {} requests\n\n\
             | transport | server | 1,000 requests/s | CPU per request, µs | × bailiwick | lost |\n\
             |---|---|---|---|---|---|\n",
            quic::CONNECTIONS,
            quic::QUERIES_PER_CONNECTION
        );
        for transport in TRANSPORTS {
            for about in self.about.iter().filter(|about| about.threads == 1) {
                let own = || self.streams_of(transport, &about.server);
                let rate = Spread::of(own().map(|one| one.rate / 1e3));
                let Some((rate, cpu)) = rate.zip(Spread::of(own().map(|one| one.cpu))) else { continue };
                let lost: u64 = own().map(|one| one.lost).sum();
                // Of the same round, because the machine's speed drifts.
                let ratios = own().zip(self.streams_of(transport, "bailiwick")).map(|(one, ours)| one.cpu / ours.cpu);
                let ratio = Spread::of(ratios).map_or_else(String::new, |ratio| ratio.to_string());
                let server = &about.server;
                let _ = writeln!(text, "| {transport} | {server} | {rate:.1} | {cpu:.1} | {ratio} | {lost} |");
            }
        }
        text.push('\n');
    }

    /// The samples of a server over a transport, by round.
    fn streams_of<'s>(&'s self, transport: &'s str, server: &'s str) -> impl Iterator<Item = &'s Streamed> {
        self.streams.iter().filter(move |one| one.transport == transport && one.server == server)
    }

    /// Why figures may be worth less than they seem.
    #[allow(clippy::cast_precision_loss)] // a number of cores
    fn doubts(&self, rows: &[Row<'_>]) -> Vec<String> {
        let mut doubts = Vec::new();
        let idle: Vec<String> = rows
            .iter()
            .filter(|row| row.used() < BUSY * row.cores as f64)
            .map(|row| format!("{} {} {:.0} %", row.title(), row.server, row.used() * 100.0 / row.cores as f64))
            .collect();
        if !idle.is_empty() {
            doubts.push(format!(
                "Not kept busy ({}): something else ran on these cores, or the generator was slower. Smaller \
                 batches cost more per answer.",
                idle.join(", ")
            ));
        }
        for row in rows.iter().filter(|row| row.server == "echo" && (row.ratio.median - 1.0).abs() > 0.03) {
            doubts.push(format!(
                "The echo beside itself is × {} with {}: differences smaller than that mean nothing here.",
                row.ratio,
                row.title()
            ));
        }
        doubts
    }

    /// Whether any answer was wrong.
    pub(crate) fn wrong(&self) -> bool {
        self.samples.iter().any(|sample| sample.faults[1] > 0)
            || self.bursts.iter().any(|bursts| bursts.faults[1] > 0)
            || self.floods.iter().any(|flooded| flooded.wrong > 0)
    }

    /// Everything, for programs.
    pub(crate) fn json(&self) -> Value {
        let samples = self.samples.iter().map(|sample| {
            let ([lost, wrong, stray], Turn { server, threads, kind, round }) = (sample.faults, &sample.turn);
            let latency = sample.latency.map(|(half, most, lost)| json!({ "p50": half, "p99": most, "lost": lost }));
            json!({
                "server": server, "workload": kind.name(), "threads": threads, "cores": sample.cores,
                "round": round, "over_echo": sample.ratio(), "generator": sample.generator,
                "answers_per_second_by_whole_cores": sample.whole(),
                "cpu_us": sample.cpu, "user_us": sample.user, "echo_us": sample.echo, "answers_per_second": sample.rate,
                "busy": sample.busy, "octets": sample.octets, "lost": lost, "wrong": wrong, "stray": stray,
                "latency_us": latency,
            })
        });
        let rows = self.rows().into_iter().map(|row| {
            let latency = row.latency.map(|[half, most]| json!({ "p50": half.json(), "p99": most.json() }));
            json!({
                "server": row.server, "workload": row.kind.name(), "threads": row.threads, "cores": row.cores,
                "generator": row.generator.json(), "thousand_answers_per_second_by_whole_cores": row.whole.json(),
                "cpu_over_one_thread": row.over_one.map(Spread::json), "over_echo": row.ratio.json(),
                "cpu_us": row.cpu.json(),
                "user_us": row.user.json(), "thousand_answers_per_second": row.rate.json(), "busy": row.busy.json(),
                "latency_us": latency,
            })
        });
        let servers = self.about.iter().map(|about| {
            json!({
                "server": about.server, "threads": about.threads, "version": about.version,
                "start_seconds": about.loaded,
                "memory_mib": about.memory, "octets_per_name": about.per_name,
            })
        });
        let streams = self.streams.iter().map(|one| {
            json!({
                "server": one.server, "transport": one.transport, "requests_per_second": one.rate, "cpu_us": one.cpu,
                "lost": one.lost, "round": one.round,
            })
        });
        json!({
            "circumstances": self.circumstances, "servers": servers.collect::<Vec<_>>(),
            "rows": rows.collect::<Vec<_>>(),
            "bursts": self.bursts.iter().map(Bursts::json).collect::<Vec<_>>(),
            "floods": self.floods.iter().map(Flooded::json).collect::<Vec<_>>(),
            "streams": streams.collect::<Vec<_>>(), "samples": samples.collect::<Vec<_>>(),
        })
    }
}

/// A report of made-up figures, for tests of this file and of the chart.
#[cfg(test)]
pub(crate) fn example() -> Report {
    let sample = |server: &str, kind, cpu: f64, wrong| Sample {
        turn: Turn { server: server.to_owned(), threads: 1, kind, round: 0 },
        cores: 1,
        cpu,
        user: 0.25,
        echo: [0.9, 1.1],
        rate: 500_000.0,
        busy: 0.99,
        generator: 0.0,
        octets: 62.0,
        faults: [0, wrong, 0],
        latency: Some((20, 95, 0)),
    };
    let about = |server: &str| About {
        server: server.to_owned(),
        threads: 1,
        version: "1 | <2>".to_owned(),
        loaded: 0.25,
        memory: 12.5,
        per_name: None,
    };
    Report {
        circumstances: json!({}),
        rate: 20_000,
        about: ["echo", "bailiwick", "a<b&c"].map(about).to_vec(),
        samples: vec![
            sample("echo", Kind::Static, 1.0, 0),
            sample("bailiwick", Kind::Static, 1.04, 0),
            sample("bailiwick", Kind::Static, 1.06, 0),
            sample("bailiwick", Kind::Missing, 1.5, 0),
            sample("a<b&c", Kind::Static, 2.0, 1),
        ],
        bursts: Vec::new(),
        floods: Vec::new(),
        streams: Vec::new(),
    }
}
