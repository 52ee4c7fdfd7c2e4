//! Who is measured when, and what belongs together afterwards. Takes servers and workloads, returns the turns in their
//! order. Takes measurements, returns those of one server, or their ratios to those of the same server with one thread.
//! Called by [`rounds`](crate::rounds), [`bursts`](crate::bursts) and [`report`](crate::report).

use crate::server::Server;
use crate::stats::Spread;
use crate::workload::{Kind, Workload};

/// What a measurement is about.
#[derive(Debug, Clone)]
pub(crate) struct Turn {
    /// The server.
    pub(crate) server: String,
    /// How many threads it had.
    pub(crate) threads: usize,
    /// What it was asked.
    pub(crate) kind: Kind,
    /// In which round, from 0.
    pub(crate) round: usize,
}

impl Turn {
    /// The turn of a server with a workload in a round.
    pub(crate) fn new(server: &Server, workload: &Workload, round: usize) -> Self {
        let (name, threads) = (server.peer.name().to_owned(), server.cores.threads);
        Self { server: name, threads, kind: workload.kind, round }
    }
}

/// What was measured in a turn.
pub(crate) trait Measured {
    /// The turn it was measured in.
    fn turn(&self) -> &Turn;
}

/// Each server with each workload that it answers, round by round. In each round another server comes first.
pub(crate) fn all<'a>(
    rounds: usize,
    servers: &'a [Server],
    workloads: &'a [Workload],
) -> impl Iterator<Item = (&'a Server, &'a Workload, usize)> {
    let each = move |round: usize, workload: &'a Workload| {
        let places = (0..servers.len()).map(move |place| &servers[(place + round) % servers.len()]);
        places.filter(|server| server.peer.answers(workload.kind)).map(move |server| (server, workload, round))
    };
    (0..rounds).flat_map(move |round| workloads.iter().flat_map(move |workload| each(round, workload)))
}

/// The measurements of one server with so many threads and one kind of question.
pub(crate) fn of<'a, M: Measured>(
    all: &'a [M],
    kind: Kind,
    server: &'a str,
    threads: usize,
) -> impl Iterator<Item = &'a M> {
    all.iter().filter(move |one| {
        let turn = one.turn();
        turn.kind == kind && turn.server == server && turn.threads == threads
    })
}

/// The ratios of a figure with several threads to the same with one thread, round by round. `None` for one thread.
pub(crate) fn over_one<M: Measured>(
    all: &[M],
    kind: Kind,
    server: &str,
    threads: usize,
    figure: fn(&M) -> f64,
) -> Option<Spread> {
    let pairs = of(all, kind, server, threads).filter_map(|several| {
        let one = of(all, kind, server, 1).find(|one| one.turn().round == several.turn().round)?;
        Some(figure(several) / figure(one))
    });
    if threads > 1 { Spread::of(pairs) } else { None }
}
