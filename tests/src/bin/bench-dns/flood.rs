//! Measures whether a flood disturbs others. Takes running servers, returns how fast they answer known names beside a
//! flood of unknown ones, and how their memory grows. Called by `main`; `report` prints it.
//!
//! Known names are asked at a fixed rate. The kernel's clock times them from just before they are sent until their
//! answer is there, so a generator that is busy with the flood adds nothing. On a virtual machine whole milliseconds
//! are missing now and then, whatever is measured. So each tenth of a second is measured by itself, and the median of
//! all is reported. Any flood makes whoever shares a core with it wait. So each flood of missing names is compared with
//! one of as many known names.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use crate::load::{Pace, Tally, Timed};
use crate::rounds::{Plan, shoot, stream};
use crate::server::Server;
use crate::stats::{Spread, percentile};
use crate::workload::{Draw, Workload};

/// How long one measurement takes; its figures are the medians of all those of a round.
const PIECE: Duration = Duration::from_millis(100);
/// The rates of floods, in hundredths of what a server takes of missing names.
const SHARES: [u32; 3] = [25, 50, 75];
/// The longest measurement of what a server takes of missing names.
const CAPACITY: Duration = Duration::from_millis(500);

/// The flood beside which known names are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Background {
    /// Nothing else.
    Nothing,
    /// Known names, by so many hundredths of what the server takes of missing ones.
    Known(u32),
    /// Missing names, by so many hundredths of what the server takes of them.
    Missing(u32),
}

impl Background {
    /// All there are: first each alone, then floods of both kinds by their rate.
    fn all() -> impl Iterator<Item = Self> {
        [Self::Nothing]
            .into_iter()
            .chain(SHARES.into_iter().flat_map(|share| [Self::Known(share), Self::Missing(share)]))
    }

    fn label(self) -> String {
        match self {
            Self::Nothing => "nothing".to_owned(),
            Self::Known(share) => format!("known, {share} %"),
            Self::Missing(share) => format!("**missing**, {share} %"),
        }
    }
}

/// One measurement.
#[derive(Debug, Clone)]
pub(crate) struct Flooded {
    /// The server.
    pub(crate) server: String,
    /// In which round, from 0.
    pub(crate) round: usize,
    /// The flood.
    pub(crate) beside: Background,
    /// Answers to the flood per second.
    pub(crate) rate: f64,
    /// Microseconds of known names in a typical piece: half of the answers came sooner, 99 of 100; and in all pieces,
    /// 999 of 1,000.
    pub(crate) took: [f64; 3],
    /// Known names without an answer, and queries of the flood without one.
    pub(crate) lost: [u64; 2],
    /// Answers that were wrong.
    pub(crate) wrong: u64,
    /// The server's memory before and after, in octets.
    pub(crate) memory: [u64; 2],
}

impl Flooded {
    /// By how many KiB the server's memory grew.
    #[allow(clippy::cast_precision_loss)] // octets of memory
    fn grown(&self) -> f64 {
        (self.memory[1] as f64 - self.memory[0] as f64) / 1024.0
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        let (beside, share) = match self.beside {
            Background::Nothing => ("nothing", 0),
            Background::Known(share) => ("known", share),
            Background::Missing(share) => ("missing", share),
        };
        let [half, most, rare] = self.took;
        json!({
            "server": self.server, "round": self.round, "beside": beside, "percent": share,
            "answers_per_second": self.rate,
            "latency_us": { "p50": half, "p99": most, "p99.9": rare }, "lost": self.lost[0], "flood_lost": self.lost[1],
            "wrong": self.wrong, "memory_before": self.memory[0], "memory_after": self.memory[1],
        })
    }
}

/// Who is measured: a generator on the server's own cores would itself be in the way.
fn measured(servers: &[Server]) -> impl Iterator<Item = &Server> {
    servers.iter().filter(|server| server.cores.threads == 1)
}

/// How many pieces a measurement has.
fn pieces(plan: &Plan) -> u32 {
    u32::try_from(plan.length.as_millis() / PIECE.as_millis()).unwrap_or(u32::MAX).max(1)
}

/// About how long all of it takes: before each piece a server is let settle.
pub(crate) fn takes(plan: &Plan, servers: &[Server]) -> Duration {
    let all = u32::try_from(Background::all().count()).unwrap_or(u32::MAX);
    let once = CAPACITY.min(plan.length) + (PIECE + PIECE / 2) * pieces(plan) * all;
    once * u32::try_from(plan.rounds * measured(servers).count()).unwrap_or(u32::MAX)
}

/// Measures the servers of one thread, interleaved; `tell` gets a line about each measurement.
///
/// # Errors
/// When a server has ended or answered nothing, or no rate is set.
// Counts and rates of seconds.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
pub(crate) fn measure(
    servers: &[Server],
    names: u32,
    plan: &Plan,
    draw: &mut Draw,
    mut tell: impl FnMut(String),
) -> Result<Vec<Flooded>, String> {
    if plan.rate == 0 {
        return Err("--flood asks known names at --rate, which is 0".to_owned());
    }
    let (known, missing) = (Workload::of_static(names), Workload::of_missing());
    let mut all = Vec::new();
    for round in 0..plan.rounds {
        for server in measured(servers) {
            // What it takes of missing names just now; by the way, it gets warm.
            let asked = stream(server, &missing, Pace::Window(plan.window), Timed::No);
            let tally = shoot(server, &[asked], CAPACITY.min(plan.length), draw)?.tallies.remove(0);
            let takes = tally.answered as f64 / tally.took.as_secs_f64().max(1e-9);
            for beside in Background::all() {
                let timed = stream(server, &known, Pace::Steady(plan.rate), Timed::OnTheWay);
                let flood = |workload, share: u32| {
                    let rate = (takes * f64::from(share) / 100.0) as u32;
                    stream(server, workload, Pace::Steady(rate), Timed::No)
                };
                let streams = match beside {
                    Background::Nothing => vec![timed],
                    Background::Known(share) => vec![timed, flood(&known, share)],
                    Background::Missing(share) => vec![timed, flood(&missing, share)],
                };
                let before = server.memory();
                let pieces = (0..pieces(plan)).map(|_| Ok(shoot(server, &streams, PIECE, draw)?.tallies));
                let pieces = pieces.collect::<Result<Vec<_>, String>>()?;
                let memory = [before, server.memory()];
                let one = summary_of(server.peer.name(), round, beside, &pieces, memory);
                tell(format!(
                    "round {} of {}: {} beside {}: p50 {:.0} µs, p99 {:.0} µs; memory {:+.0} KiB",
                    round + 1,
                    plan.rounds,
                    one.server,
                    beside.label().replace('*', ""),
                    one.took[0],
                    one.took[1],
                    one.grown()
                ));
                all.push(one);
            }
        }
    }
    Ok(all)
}

/// One measurement of its pieces, each with what became of the known names and of the flood.
#[allow(clippy::cast_precision_loss)] // counts of seconds
fn summary_of(server: &str, round: usize, beside: Background, pieces: &[Vec<Tally>], memory: [u64; 2]) -> Flooded {
    let typical = |share| {
        let figures = pieces.iter().filter_map(|piece| percentile(&piece[0].latencies, share));
        Spread::of(figures.map(f64::from)).map_or(f64::INFINITY, |spread| spread.median)
    };
    let mut all: Vec<u32> = pieces.iter().flat_map(|piece| piece[0].latencies.iter().copied()).collect();
    all.sort_unstable();
    let floods = || pieces.iter().filter_map(|piece| piece.get(1));
    let seconds: f64 = floods().map(|tally| tally.took.as_secs_f64()).sum();
    Flooded {
        server: server.to_owned(),
        round,
        beside,
        rate: floods().map(|tally| tally.answered).sum::<u64>() as f64 / seconds.max(1e-9),
        took: [typical(0.5), typical(0.99), percentile(&all, 0.999).map_or(f64::INFINITY, f64::from)],
        lost: [pieces.iter().map(|piece| piece[0].lost).sum(), floods().map(|tally| tally.lost).sum()],
        wrong: pieces.iter().flatten().map(|tally| tally.wrong).sum(),
        memory,
    }
}

/// Tells them in Markdown, medians over the rounds.
#[allow(clippy::cast_precision_loss)] // octets of memory
pub(crate) fn table(all: &[Flooded], text: &mut String) {
    if all.is_empty() {
        return;
    }
    text.push_str(
        "**flood**: known names at the fixed rate, µs from sending to the kernel having the answer, in a typical \
         tenth of a second, beside so much of what the \
         server takes of missing names\n\n| server | beside | 1,000 answers/s beside | p50, µs | p99, µs | p99.9 of \
         all, µs | lost: known / flood | memory before, MiB | \
         grown by, KiB |\n|---|---|---|---|---|---|---|---|---|\n",
    );
    let mut names: Vec<&str> = Vec::new();
    for one in all {
        if !names.contains(&one.server.as_str()) {
            names.push(&one.server);
        }
    }
    for (server, beside) in names.iter().flat_map(|name| Background::all().map(move |beside| (name, beside))) {
        let rounds: Vec<&Flooded> = all.iter().filter(|one| one.server == **server && one.beside == beside).collect();
        let of = |figure: &dyn Fn(&Flooded) -> f64| Spread::of(rounds.iter().map(|one| figure(one)));
        let took = |rank: usize| of(&move |one: &Flooded| one.took[rank]);
        let (Some(rate), Some(half), Some(most), Some(rare), Some(memory), Some(grown)) = (
            of(&|one| one.rate / 1e3),
            took(0),
            took(1),
            took(2),
            of(&|one| one.memory[0] as f64 / f64::from(1 << 20)),
            of(&Flooded::grown),
        ) else {
            continue;
        };
        let lost = [0, 1].map(|of| rounds.iter().map(|one| one.lost[of]).sum::<u64>());
        let _ = writeln!(
            text,
            "| {server} | {} | {:.0} | {half:.0} | {most:.0} | {rare:.0} | {} / {} | {:.1} | {grown:.0} |",
            beside.label(),
            rate.median,
            lost[0],
            lost[1],
            memory.median
        );
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_server_has_a_row_for_each_flood_with_the_median_of_its_rounds() {
        let one = |server: &str, round, beside, most: u32| Flooded {
            server: server.to_owned(),
            round,
            beside,
            rate: 100_000.0,
            took: [10.0, f64::from(most), f64::from(2 * most)],
            lost: [1, 2],
            wrong: 0,
            memory: [10 << 20, (10 << 20) + 4096],
        };
        let all: Vec<Flooded> = [("echo", 20), ("bailiwick", 30)]
            .into_iter()
            .flat_map(|(server, most)| {
                let rounds = (0..3).flat_map(move |round| Background::all().map(move |beside| (round, beside)));
                rounds.map(move |(round, beside)| one(server, round, beside, most + u32::try_from(round).unwrap()))
            })
            .collect();
        let mut text = String::new();
        table(&all, &mut text);
        assert_eq!(text.matches("\n| echo | ").count(), 7, "{text}");
        let row =
            "| bailiwick | **missing**, 75 % | 100 | 10 (10–10) | 31 (30–32) | 62 (60–64) | 3 / 6 | 10.0 | 4 (4–4) |";
        assert!(text.contains(row), "{text}");
        let columns: Vec<usize> =
            text.lines().filter(|line| line.starts_with('|')).map(|line| line.matches('|').count()).collect();
        assert!(columns.iter().all(|&count| count == columns[0]), "{text}");
        assert!((all[0].grown() - 4.0).abs() < 1e-9);
        assert_eq!(all[0].json()["latency_us"]["p99.9"], 40.0);
        // One piece of three was disturbed: it shows in the rare ones alone.
        let piece = |late: u32| {
            let latencies = (0..1000).map(|number| if number < 950 { 10 } else { late }).collect();
            vec![
                Tally { latencies, lost: 1, ..Tally::default() },
                Tally { answered: 500, took: PIECE, ..Tally::default() },
            ]
        };
        let typical = summary_of("echo", 0, Background::Missing(25), &[piece(20), piece(5000), piece(30)], [0, 0]);
        assert_eq!((typical.took, typical.lost), ([10.0, 30.0, 5000.0], [3, 0]));
        assert!((typical.rate - 5000.0).abs() < 1e-6, "{}", typical.rate);
        let mut none = String::new();
        table(&[], &mut none);
        assert_eq!(none, "");
    }
}
