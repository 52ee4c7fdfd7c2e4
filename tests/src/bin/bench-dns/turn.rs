//! Whose turn it is: servers and workloads enter, turns leave, and of what was measured in them one server's own,
//! beside its own by one thread. [`rounds`](crate::rounds), [`bursts`](crate::bursts) and [`report`](crate::report)
//! call it.

use crate::server::Server;
use crate::stats::Spread;
use crate::workload::{Kind, Workload};

/// Of what a measurement is.
#[derive(Debug, Clone)]
pub(crate) struct Turn {
    /// Of whom.
    pub(crate) server: String,
    /// How many threads it had.
    pub(crate) threads: usize,
    /// Asked what.
    pub(crate) kind: Kind,
    /// In which round, from 0.
    pub(crate) round: usize,
}

impl Turn {
    /// A server's, asked this in that round.
    pub(crate) fn new(server: &Server, workload: &Workload, round: usize) -> Self {
        let (name, threads) = (server.peer.name().to_owned(), server.cores.threads);
        Self { server: name, threads, kind: workload.kind, round }
    }
}

/// What was measured in a turn.
pub(crate) trait Measured {
    /// Whose it was.
    fn turn(&self) -> &Turn;
}

/// Each server with each workload that it answers, in so many rounds; whose turn comes first turns with them.
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

/// What was measured of one server with so many threads, asked one thing.
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

/// A figure of several threads over the same server's by one, round by round; `None` of one thread.
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
