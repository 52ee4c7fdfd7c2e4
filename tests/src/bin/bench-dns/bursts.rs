//! Measures several threads that work at the same time. Takes running servers, returns what an answer costs them and
//! how fast they answer, while the generator sleeps. Called by `main`.
//!
//! A generator needs about as much of a machine as a server. On two cores, two threads of a server would share one of
//! them, and never run at the same time. So the server is stopped (SIGSTOP) until a burst of queries lies in its
//! sockets, and the generator sleeps while the server answers. The kernel's timestamps say when the last answer was
//! there. Each thread is given a core of its own beforehand, because threads that are woken together often share one.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::batch;
use crate::load::{Flight, Pace, Stream, Tally, Timed};
use crate::rounds::{Plan, spread_out, stream};
use crate::server::{Server, named};
use crate::stats::Spread;
use crate::turn::{self, Measured, Turn};
use crate::workload::{Draw, Kind, Workload};

/// How many queries a socket of the generator has its share of: its batch.
const EACH: usize = batch::SIZE;
/// The most sockets of the generator, for each thread of the server.
const SOCKETS: usize = 24;
/// A burst of which something is missing for so long has lost it.
const PATIENCE: Duration = Duration::from_millis(500);

/// One measurement: bursts for as long as a round has.
#[derive(Debug, Clone)]
pub(crate) struct Bursts {
    /// What was measured.
    pub(crate) turn: Turn,
    /// How many queries a burst has.
    pub(crate) burst: usize,
    /// CPU time per answer in µs.
    pub(crate) cpu: f64,
    /// Answers per second, from when the server may run to its last answer.
    pub(crate) rate: f64,
    /// Queries lost, answers wrong, answers nobody waited for.
    pub(crate) faults: [u64; 3],
}

impl Measured for Bursts {
    fn turn(&self) -> &Turn {
        &self.turn
    }
}

impl Bursts {
    /// How many cores the server was on at once, on average.
    fn cores(&self) -> f64 {
        self.cpu * self.rate / 1e6
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        let ([lost, wrong, stray], Turn { server, threads, kind, round }) = (self.faults, &self.turn);
        json!({
            "server": server, "threads": threads, "workload": kind.name(), "round": round, "burst": self.burst,
            "cpu_us": self.cpu, "answers_per_second": self.rate, "cores": self.cores(), "lost": lost,
            "wrong": wrong, "stray": stray,
        })
    }
}

/// About how long all of it takes: filling and emptying sockets takes the generator as long as answering takes the
/// server.
pub(crate) fn takes(plan: &Plan, measurements: usize) -> Duration {
    (plan.length + Duration::from_millis(50)) * u32::try_from(measurements * plan.rounds).unwrap_or(u32::MAX)
}

/// Measures all servers with all workloads, interleaved. `held`: how many queries a server's socket holds, at least.
/// `tell` gets a line about each measurement.
///
/// # Errors
/// When a server has ended or answers nothing.
pub(crate) fn measure(
    servers: &[Server],
    workloads: &[Workload],
    plan: &Plan,
    held: usize,
    draw: &mut Draw,
    mut tell: impl FnMut(String),
) -> Result<Vec<Bursts>, String> {
    let mut all = Vec::new();
    for server in servers.iter().filter(|server| server.cores.threads > 1) {
        if let Some(workload) = workloads.iter().find(|workload| server.peer.answers(workload.kind)) {
            spread_out(server, workload, draw)?;
        }
    }
    for (server, workload, round) in turn::all(plan.rounds, servers, workloads) {
        let one = one(server, workload, plan.length, round, held, draw)?;
        tell(format!(
            "bursts, round {} of {}: {} {}: {:.3} µs of CPU per answer, {:.0} answers/s, on {:.2} cores at once",
            round + 1,
            plan.rounds,
            workload.kind.name(),
            server.name(),
            one.cpu,
            one.rate,
            one.cores()
        ));
        all.push(one);
    }
    Ok(all)
}

/// Over how many sockets a burst goes, so that none of a server's is overfull although the kernel divides them by
/// chance.
fn sockets(threads: usize, held: usize) -> usize {
    (held * threads * 3 / 4 / EACH).clamp(1, SOCKETS * threads)
}

/// Receives what answers `sent` queries, and returns when the last answer came. What doesn't come in time is lost.
fn collect(
    flights: &mut [Flight],
    asked: &Stream<'_>,
    (began, outstanding): (Instant, Instant),
    sent: usize,
    tally: &mut Tally,
) -> std::io::Result<u64> {
    let (already, mut last) = (tally.answered, 0);
    loop {
        for flight in &mut *flights {
            flight.receive(began, asked, tally)?;
            last = last.max(flight.latest());
        }
        let answered = usize::try_from(tally.answered - already).unwrap_or(usize::MAX);
        if answered >= sent || outstanding.elapsed() > PATIENCE {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    for flight in flights {
        tally.lost += flight.sweep(Duration::MAX);
    }
    Ok(last)
}

#[allow(clippy::cast_precision_loss)] // counts and nanoseconds of seconds
fn one(
    server: &Server,
    workload: &Workload,
    length: Duration,
    round: usize,
    held: usize,
    draw: &mut Draw,
) -> Result<Bursts, String> {
    let threads = server.cores.threads;
    let sockets = sockets(threads, held);
    let mut asked = stream(server, workload, Pace::Window(sockets * EACH), Timed::OnTheWay);
    asked.sockets = sockets;
    let fault = |error: std::io::Error| format!("{} can't be asked any more: {error}", server.name());
    let flights = (0..sockets).map(|_| Flight::new(server.address, &asked)).collect::<Result<Vec<_>, _>>();
    let mut flights = flights.map_err(fault)?;
    server.cores.on_generator()?;
    server.settle();
    let began = Instant::now();
    let mut tally = Tally::default();
    let (mut worked, mut spent) = (0, 0);
    // The first tells how long to sleep, and counts for nothing.
    let mut expected = None;
    loop {
        let halted = server.halt()?;
        let mut sent = 0;
        for flight in &mut flights {
            sent += flight.send(&asked, draw, began, u64::MAX, &mut tally).map_err(fault)?;
        }
        let (before, released) = (server.cpu(), batch::now());
        drop(halted);
        let outstanding = Instant::now();
        std::thread::sleep(expected.unwrap_or(Duration::from_millis(20)));
        let last = collect(&mut flights, &asked, (began, outstanding), sent, &mut tally).map_err(fault)?.max(released);
        let took = last.saturating_sub(released);
        if expected.is_some() {
            worked += took;
            spent += server.cpu().since(&before).nanoseconds;
        } else {
            (tally.answered, tally.sent) = (0, 0);
        }
        // With something to spare: looking too early disturbs.
        expected = Some(Duration::from_nanos(took + took / 4));
        if began.elapsed() >= length && tally.answered > 0 {
            break;
        }
        if tally.answered == 0 && began.elapsed() > length + PATIENCE * 4 {
            return Err(format!("{} answered nothing", server.name()));
        }
    }
    let answered = tally.answered as f64;
    Ok(Bursts {
        turn: Turn::new(server, workload, round),
        burst: sockets * EACH,
        cpu: spent as f64 / 1e3 / answered,
        rate: answered * 1e9 / (worked as f64).max(1.0),
        faults: [tally.lost, tally.wrong, tally.stray],
    })
}

/// Tells them in Markdown, medians over the rounds, those of several threads over those of one in the same round.
pub(crate) fn table(all: &[Bursts], text: &mut String) {
    if all.is_empty() {
        return;
    }
    text.push_str(
        "**bursts**: queries that lay ready before the server might run, the generator asleep while it answered \
         them; × by one thread: round by round\n\n| workload | server | CPU per answer, µs | × by one thread | \
         1,000 answers/s | × by one thread | \
         cores at once | queries in a burst \
         | lost / wrong / stray |\n|---|---|---|---|---|---|---|---|---|\n",
    );
    let mut keys: Vec<(Kind, &str, usize)> = Vec::new();
    for Bursts { turn, .. } in all {
        let key = (turn.kind, turn.server.as_str(), turn.threads);
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys.sort_by_key(|key| key.0);
    for (kind, server, threads) in keys {
        let own = || turn::of(all, kind, server, threads);
        let by_one = |figure| {
            turn::over_one(all, kind, server, threads, figure).map_or(String::new(), |spread| spread.to_string())
        };
        let spread = |figure: fn(&Bursts) -> f64| Spread::of(own().map(figure));
        let (Some(cpu), Some(rate), Some(cores)) =
            (spread(|one| one.cpu), spread(|one| one.rate / 1e3), spread(Bursts::cores))
        else {
            continue;
        };
        let [lost, wrong, stray] = [0, 1, 2].map(|which| own().map(|one| one.faults[which]).sum::<u64>());
        let burst = own().map(|one| one.burst).max().unwrap_or(0);
        let _ = writeln!(
            text,
            "| {} | {} | {cpu} | {} | {rate:.0} | {} | {cores} | {burst} | {lost} / {wrong} / {stray} |",
            kind.name(),
            named(server, threads),
            by_one(|one| one.cpu),
            by_one(|one| one.rate),
        );
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_threads_are_told_beside_one_round_by_round() {
        let one = |server: &str, threads: usize, round, cpu, rate| Bursts {
            turn: Turn { server: server.to_owned(), threads, kind: Kind::Static, round },
            burst: 64,
            cpu,
            rate,
            faults: [0, 0, 1],
        };
        let all = [
            one("bailiwick", 1, 0, 2.0, 500_000.0),
            one("bailiwick", 2, 0, 2.2, 900_000.0),
            one("bailiwick", 1, 1, 4.0, 250_000.0),
            one("bailiwick", 2, 1, 4.0, 450_000.0),
            one("nsd", 1, 0, 3.0, 300_000.0),
        ];
        let mut text = String::new();
        table(&all, &mut text);
        let row = "| static | bailiwick, 2 threads | 3.10 (2.20–4.00) | 1.05 (1.00–1.10) | 675 (450–900) | 1.80 \
            (1.80–1.80) | 1.89 (1.80–1.98) | 64 | 0 / 0 / 2 |";
        assert!(text.contains(row), "{text}");
        assert!(
            text.contains("| static | nsd | 3.00 (3.00–3.00) |  | 300 (300–300) |  | 0.90 (0.90–0.90) |"),
            "{text}"
        );
        let mut none = String::new();
        table(&[], &mut none);
        assert_eq!(none, "");
    }

    #[test]
    fn a_burst_fits_the_sockets_it_is_for() {
        assert_eq!(sockets(1, 1638), 19);
        assert_eq!(sockets(2, 1638), 38);
        assert_eq!(sockets(2, 166), 3);
        assert_eq!(sockets(1, 10), 1);
        assert_eq!(sockets(1, 1_000_000), SOCKETS);
    }
}
