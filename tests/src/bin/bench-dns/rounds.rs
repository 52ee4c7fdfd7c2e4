//! The measuring: running servers and workloads enter, samples leave. Rounds are interleaved and their order turns, so that what drifts on the
//! machine meets everybody; the echo is measured just before and just after each.

use std::time::{Duration, Instant};

use crate::load::{Expected, Pace, Told, run};
use crate::peers::Peer;
use crate::server::Server;
use crate::stats::percentile;
use crate::workload::{Draw, Kind, Workload};

/// How long the echo is measured before and after, at most.
const ECHO: Duration = Duration::from_millis(400);
/// How long a server is asked before it is measured.
const WARM: Duration = Duration::from_millis(150);

/// How it is measured.
#[derive(Debug)]
pub(crate) struct Plan {
    /// How often.
    pub(crate) rounds: usize,
    /// How long each time.
    pub(crate) length: Duration,
    /// How many queries are outstanding.
    pub(crate) window: usize,
    /// Queries per second at which latency is measured; 0: it isn't.
    pub(crate) rate: u32,
    /// How many sockets the generator has: a server's threads divide clients by their ports.
    pub(crate) sockets: usize,
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
    /// Of whom.
    pub(crate) server: String,
    /// Asked what.
    pub(crate) kind: Kind,
    /// In which round, from 0.
    pub(crate) round: usize,
    /// CPU time per answer in µs.
    pub(crate) cpu: f64,
    /// Of that, outside the kernel.
    pub(crate) user: f64,
    /// The echo's CPU time per answer in µs, before and after.
    pub(crate) echo: [f64; 2],
    /// Answers per second.
    pub(crate) rate: f64,
    /// Seconds of CPU per second. Below the number of threads the generator was the slower one, or something else ran there.
    pub(crate) busy: f64,
    /// Octets per answer.
    pub(crate) octets: f64,
    /// Queries lost, answers wrong, answers nobody waited for.
    pub(crate) faults: [u64; 3],
    /// Microseconds at the fixed rate: half of the answers came sooner, and 99 of 100; with how many were lost.
    pub(crate) latency: Option<(u32, u32, u64)>,
}

impl Sample {
    /// CPU time per answer over the echo's.
    pub(crate) fn ratio(&self) -> f64 {
        self.cpu / f64::midpoint(self.echo[0], self.echo[1])
    }
}

/// Measures `servers`, of which the first is the echo; `tell` gets a line about each measurement.
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
    let Some(echo) = servers.first() else { return Ok(samples) };
    for round in 0..plan.rounds {
        for workload in workloads {
            for place in 0..servers.len() {
                let server = &servers[(place + round) % servers.len()];
                if !server.peer.answers(workload.kind) {
                    continue;
                }
                let sample = one(server, echo, workload, plan, round, draw)?;
                tell(format!(
                    "round {} of {}: {} {}: ×{:.2} ({:.3} µs of CPU per answer, {:.0} answers/s)",
                    round + 1,
                    plan.rounds,
                    workload.kind.name(),
                    server.peer.name(),
                    sample.ratio(),
                    sample.cpu,
                    sample.rate
                ));
                samples.push(sample);
            }
        }
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
    let pace = Pace::Window(plan.window);
    let short = plan.length.min(ECHO);
    shoot(server, workload, pace, plan.length.min(WARM), plan, draw)?;
    let before = shoot(echo, workload, pace, short, plan, draw)?;
    let shot = shoot(server, workload, pace, plan.length, plan, draw)?;
    let after = shoot(echo, workload, pace, short, plan, draw)?;
    let latency = if plan.rate == 0 {
        None
    } else {
        let told = shoot(server, workload, Pace::Rate(plan.rate), plan.length, plan, draw)?.told;
        let at = |share| percentile(&told.latencies, share);
        at(0.5).zip(at(0.99)).map(|(half, most)| (half, most, told.lost))
    };
    let Told { answered, lost, wrong, stray, octets, .. } = shot.told;
    Ok(Sample {
        server: server.peer.name().to_owned(),
        kind: workload.kind,
        round,
        cpu: shot.cpu,
        user: shot.user,
        echo: [before.cpu, after.cpu],
        rate: answered as f64 / shot.told.took.as_secs_f64().max(1e-9),
        busy: shot.busy,
        octets: octets as f64 / answered.max(1) as f64,
        faults: [lost, wrong, stray],
        latency,
    })
}

struct Shot {
    told: Told,
    cpu: f64,
    user: f64,
    busy: f64,
}

/// Asks one server and reads what that cost it.
#[allow(clippy::cast_precision_loss)] // counts of seconds
fn shoot(
    server: &Server,
    workload: &Workload,
    pace: Pace,
    length: Duration,
    plan: &Plan,
    draw: &mut Draw,
) -> Result<Shot, String> {
    let expected = match server.peer {
        // What comes back is the query.
        Peer::Echo => Expected { rcode: 0, records: 0 },
        _ => Expected { rcode: workload.rcode, records: workload.records },
    };
    server.settle();
    let (before, began) = (server.cpu(), Instant::now());
    let told = run(server.address, workload, expected, pace, length, plan.sockets, draw)
        .map_err(|error| format!("{}: {error}", server.peer.name()))?;
    let spent = server.cpu().since(&before);
    if told.answered == 0 {
        return Err(format!("{} answered nothing", server.peer.name()));
    }
    let answered = told.answered as f64;
    Ok(Shot {
        cpu: spent.nanoseconds as f64 / 1e3 / answered,
        user: spent.user_nanoseconds() / 1e3 / answered,
        busy: spent.nanoseconds as f64 / 1e9 / began.elapsed().as_secs_f64(),
        told,
    })
}
