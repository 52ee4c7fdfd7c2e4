//! `bailiwick top`: shows at a terminal how a node fares, again and again. Asks the node's API in a thread of its own,
//! and draws what [`view::View`] makes of the answers and of the keys that are pressed.

mod view;

use std::io::IsTerminal;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use bailiwick_rules::time::Millis;
use clap::Args;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use serde::Deserialize;

use super::node::{Access, Node, NodeArgs};
use crate::program::fleet_report::NodesReport;
use crate::program::report::Report;
use crate::text::span::parse_span;
use view::{Answer, FenceCheck, Go, View};

/// How long a key is waited for before the picture is drawn again, as its ages have grown.
const REDRAW: Duration = Duration::from_millis(250);

/// Options of `bailiwick top`.
#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// How often the node is asked.
    #[arg(long, value_name = "SPAN", default_value = "2s", value_parser = parse_span)]
    every: Millis,
}

/// Shows the node until a key ends it.
pub(super) fn run(args: &TopArgs) -> Report {
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return Report::error("`bailiwick top` needs a terminal; `bailiwick status` prints the same once");
    }
    let node = match Node::find(&args.node, Access::Read) {
        Ok(node) => node,
        Err(errors) => return Report::failed(errors),
    };
    let (answer_sender, answers) = channel();
    let (wake, wakes) = channel();
    let every = args.every.to_std().max(REDRAW);
    // The thread ends with the program, or when the receiver of its answers is gone.
    std::thread::spawn(move || ask(&node, every, &answer_sender, &wakes));
    let mut terminal = match ratatui::try_init() {
        Ok(terminal) => terminal,
        Err(error) => return Report::error(format!("the terminal can't be used: {error}")),
    };
    let shown = show(&mut terminal, every, &answers, &wake);
    ratatui::restore();
    match shown {
        Ok(()) => Report::fine(""),
        Err(error) => Report::error(format!("the terminal can't be used any more: {error}")),
    }
}

/// As much of `/v1/picture` as is shown.
#[derive(Deserialize)]
struct PictureReport {
    checked: Option<FenceCheck>,
}

/// Asks the node again and again, until the receiver is gone. A message ends the pause, and says whether its peers are
/// asked, too.
fn ask(node: &Node, every: Duration, answers: &Sender<Answer>, wakes: &Receiver<bool>) {
    let mut with_peers = false;
    loop {
        let begun = Instant::now();
        let checked = read::<PictureReport>(node, "/v1/picture").ok().and_then(|picture| picture.checked);
        let mut answer = Answer { status: read(node, "/v1/status"), nodes: None, checked };
        if with_peers {
            answer.nodes = Some(read::<NodesReport>(node, "/v1/fleet/nodes"));
        }
        if answers.send(answer).is_err() {
            return;
        }
        match wakes.recv_timeout(every.saturating_sub(begun.elapsed())) {
            Ok(wants_peers) => with_peers = wants_peers,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Reads a path of the node's API.
fn read<T: serde::de::DeserializeOwned>(node: &Node, path: &str) -> Result<T, String> {
    let text = node.read(path).map_err(|errors| errors.join("; "))?;
    serde_json::from_str(&text).map_err(|error| format!("{path}: is no answer of this version: {error}"))
}

/// Draws, and takes keys, until one ends it.
fn show(
    terminal: &mut DefaultTerminal,
    every: Duration,
    answers: &Receiver<Answer>,
    wake: &Sender<bool>,
) -> std::io::Result<()> {
    let mut view = View::new(every);
    loop {
        for answer in answers.try_iter() {
            view.take(answer, Instant::now());
        }
        terminal.draw(|frame| view.draw(frame, Instant::now()))?;
        if !event::poll(REDRAW)? {
            continue;
        }
        let Event::Key(key) = event::read()? else { continue };
        if key.kind == KeyEventKind::Release {
            continue;
        }
        match view.press(key) {
            Go::End => return Ok(()),
            Go::On => {}
            // The asking thread may have ended; then its last answer is shown.
            Go::Ask => _ = wake.send(view.wants_peers()),
        }
    }
}
