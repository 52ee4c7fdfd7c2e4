//! One thread: accepts connections, keeps every request of them on itself, and ends. Called by `native_entry`.

use core::cell::RefCell;
use core::time::Duration;
use std::io;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::LocalOptions;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::counts::Counts;
use super::metrics::Asked;
use super::settings::{Isolate, Settings};
use super::watch::Watch;
use super::{connection, tasks};
use crate::platform::native::{background, later};
use crate::runtime;

/// How long a thread waits at its end for work that blocks.
const LAST_WORK: Duration = Duration::from_secs(1);
/// How often a thread wakes at least, and looks at the limits of its connections.
const TICK: Duration = Duration::from_millis(500);
/// How long it accepts nothing after an error, such as too many open files. Those that end make room.
const REST: Duration = Duration::from_millis(50);

/// What a thread is told.
pub(super) struct Thread {
    pub(super) listeners: Vec<std::net::TcpListener>,
    pub(super) settings: Arc<Settings>,
    pub(super) counts: Arc<Counts>,
    pub(super) is_ending: watch::Receiver<bool>,
    /// Those who ask for its metrics.
    pub(super) asked: mpsc::Receiver<Asked>,
}

/// One thread's work: accepts connections until the process ends, and lets those that are open answer what they got.
pub(super) fn run(thread: Thread) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    // As a task, since whatever wakes the outermost future wakes the thread by a call of the system.
    let served = runtime.block_on(async { tokio::task::spawn_local(serve(thread)).await });
    // A disk or a name server may hang.
    runtime.shutdown_timeout(LAST_WORK);
    served?
}

async fn serve(thread: Thread) -> io::Result<()> {
    let Thread { listeners, settings, counts, is_ending, asked } = thread;
    let listeners = listeners.into_iter().map(TcpListener::from_std).collect::<io::Result<Vec<_>>>()?;
    let most = (settings.limits.connections / settings.threads).max(1);
    let mut ending = is_ending.clone();
    let drain = settings.limits.drain;
    let isolate = Rc::new(Isolate { env: settings.env.clone(), settings, counts, is_ending });
    let mut connections = JoinSet::new();
    let watches = Rc::<RefCell<Vec<Weak<Watch>>>>::default();
    tokio::task::spawn_local(later::run());
    tokio::task::spawn_local(tick(Rc::clone(&isolate), Rc::clone(&watches)));
    tokio::task::spawn_local(tell_metrics(asked));
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listeners), if connections.len() < most => accepted,
            Some(_) = connections.join_next() => {
                isolate.counts.ended();
                continue;
            }
            _ = ending.wait_for(|is_ending| *is_ending) => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                isolate.counts.accepted();
                let watch = Watch::new(Instant::now());
                watches.borrow_mut().push(Rc::downgrade(&watch));
                connections.spawn_local(connection::serve(stream, peer, Rc::clone(&isolate), watch));
            }
            Err(_) => {
                isolate.counts.failed_to_accept();
                tokio::time::sleep(REST).await;
            }
        }
    }
    drop(listeners);
    let ended = async {
        while connections.join_next().await.is_some() {
            isolate.counts.ended();
        }
        background::finish().await;
    };
    let _ = tokio::time::timeout(drain, ended).await;
    tasks::close();
    connections.shutdown().await;
    Ok(())
}

/// The next connection at any of the listeners.
async fn accept(listeners: &[TcpListener]) -> io::Result<(TcpStream, SocketAddr)> {
    core::future::poll_fn(|context| {
        let mut accepted = listeners.iter().map(|listener| listener.poll_accept(context));
        accepted.find(core::task::Poll::is_ready).unwrap_or(core::task::Poll::Pending)
    })
    .await
}

/// Looks at the limits of all connections, again and again. This also keeps a timer that rings soon: for a timer that
/// would be the next to ring tokio calls the system to wake itself, and so nearly none of a request's is.
async fn tick(isolate: Rc<Isolate>, watches: Rc<RefCell<Vec<Weak<Watch>>>>) {
    let mut ticks = tokio::time::interval(TICK);
    loop {
        let now = ticks.tick().await;
        watches.borrow_mut().retain(|watch| {
            let Some(watch) = watch.upgrade() else { return false };
            if let Some(reason) = watch.look(now, &isolate.settings.limits) {
                isolate.counts.closed(reason);
            }
            true
        });
    }
}

/// Tells this thread's metrics to those who ask.
async fn tell_metrics(mut asked: mpsc::Receiver<Asked>) {
    while let Some(asking) = asked.recv().await {
        let _ = asking.send(runtime::exposition());
    }
}
