//! Measures round by round. Takes running servers and workloads, returns samples. Called by `main`. Each server is
//! measured in each round, and the order changes with the round, so that a machine that gets slower doesn't favour one
//! of them. The echo is measured just before and just after each server.

use std::time::{Duration, Instant};

use crate::load::{Expected, Pace, Stream, Tally, Timed, run};
use crate::peers::Peer;
use crate::proc::own;
use crate::server::Server;
use crate::stats::percentile;
use crate::turn::{self, Measured, Turn};
use crate::workload::{Draw, Workload};

/// How long the echo is measured before and after, at most.
const ECHO: Duration = Duration::from_millis(400);
/// How long a server is asked before it is measured.
const WARM: Duration = Duration::from_millis(150);

/// How it is measured.
#[derive(Debug)]
pub(crate) struct Plan {
    /// How many rounds.
    pub(crate) rounds: usize,
    /// How long each time.
    pub(crate) length: Duration,
    /// How many queries are outstanding.
    pub(crate) window: usize,
    /// Queries per second at which latency is measured; 0: it isn't.
    pub(crate) rate: u32,
}

impl Plan {
    /// About how long so many measurements of each round take.
    pub(crate) fn takes(&self, measurements: usize) -> Duration {
        let timed = if self.rate == 0 { Duration::ZERO } else { self.length };
        let one = self.length.min(WARM) + 2 * self.length.min(ECHO) + self.length + timed;
        one * u32::try_from(measurements * self.rounds).unwrap_or(u32::MAX)
    }
}

/// One measurement.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    /// What was measured.
    pub(crate) turn: Turn,
    /// On how many cores.
    pub(crate) cores: usize,
    /// CPU time per answer in µs.
    pub(crate) cpu: f64,
    /// Of that, outside the kernel.
    pub(crate) user: f64,
    /// The echo's CPU time per answer in µs, before and after.
    pub(crate) echo: [f64; 2],
    /// Answers per second.
    pub(crate) rate: f64,
    /// Seconds of CPU per second. With what the generator had of the same cores below their number, something else ran
    /// there, or nothing.
    pub(crate) busy: f64,
    /// What the generator had per second of the server's cores, in seconds: 0 where it has one of its own.
    pub(crate) generator: f64,
    /// Octets per answer.
    pub(crate) octets: f64,
    /// Queries lost, answers wrong, answers nobody waited for.
    pub(crate) faults: [u64; 3],
    /// Microseconds at the fixed rate: half of the answers came sooner, and 99 of 100; with how many were lost.
    pub(crate) latency: Option<(u32, u32, u64)>,
}

impl Measured for Sample {
    fn turn(&self) -> &Turn {
        &self.turn
    }
}

impl Sample {
    /// CPU time per answer over the echo's.
    pub(crate) fn ratio(&self) -> f64 {
        self.cpu / f64::midpoint(self.echo[0], self.echo[1])
    }

    /// Answers per second by all of its cores, had it had them to itself: what it answered, over the share of them that
    /// it had.
    #[allow(clippy::cast_precision_loss)] // a number of cores
    pub(crate) fn whole(&self) -> f64 {
        self.rate * self.cores as f64 / self.busy.max(1e-9)
    }
}

/// Measures `servers`, among them an echo for each number of threads; `tell` gets a line about each measurement.
///
/// # Errors
/// When a server has ended.
pub(crate) fn measure(
    servers: &[Server],
    workloads: &[Workload],
    plan: &Plan,
    draw: &mut Draw,
    mut tell: impl FnMut(String),
) -> Result<Vec<Sample>, String> {
    let mut samples = Vec::new();
    for (server, workload, round) in turn::all(plan.rounds, servers, workloads) {
        let is_beside = |echo: &&Server| matches!(echo.peer, Peer::Echo) && echo.cores.threads == server.cores.threads;
        let Some(echo) = servers.iter().find(is_beside) else { continue };
        let sample = one(server, echo, workload, plan, round, draw)?;
        tell(format!(
            "round {} of {}: {} {}: ×{:.2} ({:.3} µs of CPU per answer, {:.0} answers/s)",
            round + 1,
            plan.rounds,
            workload.kind.name(),
            server.name(),
            sample.ratio(),
            sample.cpu,
            sample.rate
        ));
        samples.push(sample);
    }
    Ok(samples)
}

#[allow(clippy::cast_precision_loss)] // counts of seconds
fn one(
    server: &Server,
    echo: &Server,
    workload: &Workload,
    plan: &Plan,
    round: usize,
    draw: &mut Draw,
) -> Result<Sample, String> {
    let short = plan.length.min(ECHO);
    let shoot = |server: &Server, pace, timed, length, draw: &mut Draw| {
        shoot(server, &[stream(server, workload, pace, timed)], length, draw)
    };
    let window = Pace::Window(plan.window);
    shoot(server, window, Timed::No, plan.length.min(WARM), draw)?;
    let before = shoot(echo, window, Timed::No, short, draw)?;
    let shot = shoot(server, window, Timed::No, plan.length, draw)?;
    let after = shoot(echo, window, Timed::No, short, draw)?;
    let latency = if plan.rate == 0 {
        None
    } else {
        let tally = shoot(server, Pace::Rate(plan.rate), Timed::FromDue, plan.length, draw)?.tallies.remove(0);
        let at = |share| percentile(&tally.latencies, share);
        at(0.5).zip(at(0.99)).map(|(half, most)| (half, most, tally.lost))
    };
    let Tally { answered, lost, wrong, stray, octets, took, .. } = shot.tallies[0];
    Ok(Sample {
        turn: Turn::new(server, workload, round),
        cores: server.cores.count(),
        cpu: shot.cpu,
        user: shot.user,
        echo: [before.cpu, after.cpu],
        rate: answered as f64 / took.as_secs_f64().max(1e-9),
        busy: shot.busy,
        generator: if server.cores.shared() { shot.generator } else { 0.0 },
        octets: octets as f64 / answered.max(1) as f64,
        faults: [lost, wrong, stray],
        latency,
    })
}

/// Gives each of a server's threads that answer a core of its own: those that work most while it is asked.
///
/// # Errors
/// When it answers nothing, or not by as many threads as it should.
pub(crate) fn spread_out(server: &Server, workload: &Workload, draw: &mut Draw) -> Result<(), String> {
    let before = server.cpu();
    shoot(server, &[stream(server, workload, Pace::Window(100), Timed::No)], WARM, draw)?;
    let busiest = server.cpu().busiest(&before, server.cores.threads);
    if busiest.len() < server.cores.threads {
        return Err(format!("{} answers by {} threads", server.name(), busiest.len()));
    }
    server.cores.spread(&busiest)
}

/// Questions to a server, with what it ought to answer.
pub(crate) fn stream<'w>(server: &Server, workload: &'w Workload, pace: Pace, timed: Timed) -> Stream<'w> {
    let expected = match server.peer {
        // What comes back is the query.
        Peer::Echo => Expected { rcode: 0, records: 0 },
        _ => Expected { rcode: workload.rcode, records: workload.records },
    };
    // Enough for the kernel to divide them about evenly.
    let sockets = if server.cores.threads == 1 { 1 } else { 16 * server.cores.threads };
    Stream { workload, expected, pace, timed, sockets }
}

/// The result of asking one server.
pub(crate) struct Shot {
    /// What became of the queries of each stream.
    pub(crate) tallies: Vec<Tally>,
    /// The server's CPU time per answer in µs.
    pub(crate) cpu: f64,
    /// Of that, outside the kernel.
    user: f64,
    /// The server's CPU time per second in seconds.
    busy: f64,
    /// The generator's.
    generator: f64,
}

/// Asks one server and reads what that cost it.
///
/// # Errors
/// When it answers nothing, or can't be asked.
#[allow(clippy::cast_precision_loss)] // counts of seconds
pub(crate) fn shoot(
    server: &Server,
    streams: &[Stream<'_>],
    length: Duration,
    draw: &mut Draw,
) -> Result<Shot, String> {
    server.cores.on_generator()?;
    server.settle();
    let (before, mine, began) = (server.cpu(), own(), Instant::now());
    let tallies = run(server.address, streams, length, draw).map_err(|error| format!("{}: {error}", server.name()))?;
    let (mine, spent) = (own().since(&mine), server.cpu().since(&before));
    let elapsed = began.elapsed().as_secs_f64();
    let answered: u64 = tallies.iter().map(|tally| tally.answered).sum();
    if answered == 0 {
        return Err(format!("{} answered nothing", server.name()));
    }
    let answered = answered as f64;
    Ok(Shot {
        tallies,
        cpu: spent.nanoseconds as f64 / 1e3 / answered,
        user: spent.user_nanoseconds() / 1e3 / answered,
        busy: spent.nanoseconds as f64 / 1e9 / elapsed,
        generator: mine.nanoseconds as f64 / 1e9 / elapsed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Kind;

    #[test]
    fn what_the_generator_took_is_made_up_for() {
        let sample = Sample {
            turn: Turn { server: "bailiwick".to_owned(), threads: 2, kind: Kind::Static, round: 0 },
            cores: 2,
            cpu: 2.5,
            user: 0.5,
            echo: [2.0, 3.0],
            rate: 500_000.0,
            busy: 1.25,
            generator: 0.75,
            octets: 62.0,
            faults: [0; 3],
            latency: None,
        };
        assert!((sample.ratio() - 1.0).abs() < 1e-9);
        // 2.5 µs each on two whole cores.
        assert!((sample.whole() - 800_000.0).abs() < 1e-3, "{}", sample.whole());
        assert!((sample.whole() - sample.cores as f64 * 1e6 / sample.cpu).abs() < 1e-3, "the same by CPU per answer");
    }
}
