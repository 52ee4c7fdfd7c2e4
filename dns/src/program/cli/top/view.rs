//! What `bailiwick top` shows. Takes answers of the node, keys and the time, draws one table of the node's status with
//! a head above it. Nothing here asks a node or a terminal. A fence is the list of the regions that may process a
//! client's data.

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::time::{Duration, Instant};

use bailiwick_rules::health::Status;
use bailiwick_rules::time::{Millis, Timestamp};
use ratatui::Frame;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Table, TableState};
use serde::Deserialize;

use crate::program::fleet_report::{FleetReport, NodesReport};
use crate::program::node_status::{NodeStatus, Row, Sheet};
use crate::text::span::words;

/// The tables, in the order of their keys. The first eight are those of a node's status and of its fleet.
const PANES: [&str; 8] = ["regions", "fences", "load", "replicas", "overrides", "sources", "keys", "nodes"];
/// The pane that asks the node's peers, too.
const NODES: usize = 7;
/// If the node hasn't answered for this many intervals, the age of its last answer is shown in red.
const SILENT: u32 = 3;
/// The greatest width of a column except the last one, in characters.
const WIDEST: usize = 44;

/// What the node answered.
#[derive(Debug)]
pub(super) struct Answer {
    /// `/v1/status`.
    pub(super) status: Result<NodeStatus, String>,
    /// `/v1/fleet/nodes`, if it was asked.
    pub(super) nodes: Option<Result<NodesReport, String>>,
    /// What the node checked of fences, of `/v1/picture`. `None`: it tells none, as one of an earlier version.
    pub(super) checked: Option<FenceCheck>,
}

/// What a node checked of fences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) struct FenceCheck {
    /// When.
    pub(super) at: Timestamp,
    /// How many decisions and answers were outside their fence.
    pub(super) violations: u64,
}

/// What a key asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Go {
    /// To go on.
    On,
    /// To ask the node at once.
    Ask,
    /// To end.
    End,
}

/// What is known, and what of it is shown.
#[derive(Debug)]
pub(super) struct View {
    every: Duration,
    status: Option<NodeStatus>,
    nodes: Option<NodesReport>,
    checked: Option<FenceCheck>,
    /// When the last good answer came.
    heard: Option<Instant>,
    /// Why the last question got no good answer.
    trouble: Option<String>,
    pane: usize,
    /// The column by which rows are ordered; `None`: the worst first, else as the node says them.
    order: Option<usize>,
    chosen: TableState,
}

impl View {
    /// A view of a node that is asked every `every`.
    pub(super) fn new(every: Duration) -> Self {
        let chosen = TableState::default().with_selected(Some(0));
        let (status, nodes, checked) = (None, None, None);
        Self { every, status, nodes, checked, heard: None, trouble: None, pane: 0, order: None, chosen }
    }

    /// Whether the node's peers are to be asked.
    pub(super) fn wants_peers(&self) -> bool {
        self.pane == NODES
    }

    /// Takes an answer. What was known stays when there is none.
    pub(super) fn take(&mut self, answer: Answer, now: Instant) {
        self.trouble = None;
        self.checked = answer.checked.or(self.checked);
        match answer.status {
            Ok(status) => (self.status, self.heard) = (Some(status), Some(now)),
            Err(why) => self.trouble = Some(why),
        }
        match answer.nodes {
            Some(Ok(nodes)) => self.nodes = Some(nodes),
            Some(Err(why)) => self.trouble = self.trouble.take().or(Some(why)),
            None => {}
        }
    }

    /// Does what a key says.
    pub(super) fn press(&mut self, key: KeyEvent) -> Go {
        let last = self.sheet().rows.len().saturating_sub(1);
        let row = self.chosen.selected().unwrap_or(0).min(last);
        match key.code {
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Go::End,
            KeyCode::Char('q') | KeyCode::Esc => return Go::End,
            KeyCode::Char('r') => return Go::Ask,
            KeyCode::Tab | KeyCode::Right | KeyCode::Char('l') => return self.turn_to((self.pane + 1) % PANES.len()),
            KeyCode::BackTab | KeyCode::Left | KeyCode::Char('h') => {
                return self.turn_to((self.pane + PANES.len() - 1) % PANES.len());
            }
            KeyCode::Char(digit @ '1'..='8') => return self.turn_to(digit as usize - '1' as usize),
            KeyCode::Char('s') => {
                let columns = self.sheet().heads.len();
                self.order = self.order.map_or(Some(0), |column| Some(column + 1).filter(|next| *next < columns));
            }
            KeyCode::Down | KeyCode::Char('j') => self.chosen.select(Some((row + 1).min(last))),
            KeyCode::Up | KeyCode::Char('k') => self.chosen.select(Some(row.saturating_sub(1))),
            KeyCode::PageDown | KeyCode::Char(' ') => self.chosen.select(Some((row + 20).min(last))),
            KeyCode::PageUp => self.chosen.select(Some(row.saturating_sub(20))),
            KeyCode::Home | KeyCode::Char('g') => self.chosen.select(Some(0)),
            KeyCode::End | KeyCode::Char('G') => self.chosen.select(Some(last)),
            _ => {}
        }
        Go::On
    }

    fn turn_to(&mut self, pane: usize) -> Go {
        let wanted = self.wants_peers();
        (self.pane, self.order) = (pane, None);
        self.chosen.select(Some(0));
        if self.wants_peers() == wanted { Go::On } else { Go::Ask }
    }

    /// The table that is shown, in its order.
    fn sheet(&self) -> Sheet {
        let name = PANES.get(self.pane).copied().unwrap_or_default();
        let of_status = || self.status.as_ref()?.sheets().into_iter().find(|sheet| sheet.name == name);
        let mut sheet = match self.pane {
            NODES => nodes_sheet(self.nodes.as_ref()),
            _ => of_status().unwrap_or_else(|| Sheet::new(name, [], [])),
        };
        match self.order {
            Some(column) => sheet.rows.sort_by_cached_key(|row| sort_key(row.cells.get(column))),
            None => worst_first(&mut sheet.rows),
        }
        sheet
    }

    /// Draws all of it.
    pub(super) fn draw(&mut self, frame: &mut Frame<'_>, now: Instant) {
        let head = self.head(now);
        let height = u16::try_from(head.len()).unwrap_or(u16::MAX);
        let parts = [Constraint::Length(height), Constraint::Length(1), Constraint::Min(1), Constraint::Length(1)];
        let [top, tabs, table, foot] = Layout::vertical(parts).areas(frame.area());
        frame.render_widget(Paragraph::new(head), top);
        frame.render_widget(Paragraph::new(self.tabs()), tabs);
        self.table(frame, table);
        let keys = "q quit   1-8 tab tables   arrows rows   s sort   r ask now";
        frame.render_widget(Paragraph::new(keys.dim()), foot);
    }

    /// The node, how fresh this is, and what is wrong.
    fn head(&self, now: Instant) -> Vec<Line<'static>> {
        let Some(status) = &self.status else {
            let line = match &self.trouble {
                Some(why) => Line::from(why.clone().red()),
                None => Line::from("the node is asked"),
            };
            return vec![line];
        };
        let silent = self.heard.map_or(Duration::MAX, |heard| now.duration_since(heard));
        let since = words(Millis(u64::try_from(silent.as_millis()).unwrap_or(u64::MAX)));
        let heard = match silent > self.every * SILENT {
            true => format!("no answer for {since}").red().bold(),
            false => format!("{since} ago").dim(),
        };
        let up = words(status.now.since(status.begun));
        let what = format!(" bailiwick {}, up for {up}, rules revision {}   ", status.version, status.revision);
        let mut lines = vec![Line::from(vec![status.node.clone().bold(), what.into(), heard]), summary(status)];
        lines.extend(self.checked.map(|checked| fences(checked, status.now)));
        let alarms = self.trouble.clone().into_iter().chain(status.alarms());
        lines.extend(alarms.take(3).map(|alarm| Line::from(alarm.red())));
        lines.extend(status.warnings.iter().take(1).map(|warning| Line::from(format!("warning: {warning}").yellow())));
        lines
    }

    fn tabs(&self) -> Line<'static> {
        let tab = |(number, name): (usize, &str)| {
            let text = format!(" {} {name} ", number + 1);
            if number == self.pane { text.reversed() } else { text.dim() }
        };
        Line::from(PANES.into_iter().enumerate().map(tab).collect::<Vec<_>>())
    }

    /// Draws the rows of the chosen sheet.
    fn table(&mut self, frame: &mut Frame<'_>, area: Rect) {
        let sheet = self.sheet();
        if sheet.rows.is_empty() {
            let (name, is_known) =
                (sheet.name, if self.wants_peers() { self.nodes.is_some() } else { self.status.is_some() });
            let none = if is_known { format!("no {name}") } else { "the node is asked".to_owned() };
            frame.render_widget(Paragraph::new(none.dim()), area);
            return;
        }
        // Fewer rows than before: the choice moves up with them.
        self.chosen.select(self.chosen.selected().map(|row| row.min(sheet.rows.len() - 1)));
        let widths = widths(&sheet);
        let heads = sheet.heads.iter().enumerate().map(|(column, head)| {
            let mark = if self.order == Some(column) { " v" } else { "" };
            format!("{head}{mark}")
        });
        let heads = ratatui::widgets::Row::new(heads).style(Style::new().add_modifier(Modifier::BOLD));
        let rows = sheet.rows.into_iter().map(|row| {
            let colour = colour(row.status);
            ratatui::widgets::Row::new(row.cells).style(colour.map_or(Style::new(), |colour| Style::new().fg(colour)))
        });
        let table = Table::new(rows, widths).header(heads).column_spacing(2);
        let table = table.row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
        frame.render_stateful_widget(table, area, &mut self.chosen);
    }
}

/// In one line: whether anything is outside its fence.
fn fences(checked: FenceCheck, now: Timestamp) -> Line<'static> {
    let (violations, ago) = (checked.violations, words(now.since(checked.at)));
    let text = format!("{violations} fence violations");
    let text = if violations == 0 { text.green() } else { text.red().bold() };
    Line::from(vec![text, format!(", checked {ago} ago").dim()])
}

/// In one line: how many regions are in which state, how much is withheld, and what operators force.
fn summary(status: &NodeStatus) -> Line<'static> {
    let regions = || status.regions.iter().filter(|row| row.endpoint.is_none());
    let count = |wanted: Status| regions().filter(|row| row.status == wanted).count();
    let (up, down, unknown) = (count(Status::Up), count(Status::Down), count(Status::Unknown));
    let withheld = status.replicas.iter().filter(|replica| replica.withheld).count();
    let mut parts = vec![Span::from(format!("{} regions: ", regions().count())), format!("{up} up").green()];
    let mut add = |count: usize, text: String, colour: Color| {
        if count > 0 {
            parts.extend([Span::from(", "), text.fg(colour)]);
        }
    };
    add(down, format!("{down} down"), Color::Red);
    add(unknown, format!("{unknown} unknown"), Color::Yellow);
    add(withheld, format!("{withheld} withheld for stale knowledge"), Color::Yellow);
    let forced = status.overrides.len();
    add(forced, format!("{forced} forced by operators"), Color::Yellow);
    Line::from(parts)
}

/// The nodes of a fleet.
fn nodes_sheet(nodes: Option<&NodesReport>) -> Sheet {
    let heads = ["node", "stage", "mode", "revision", "lag", "connected", "says"];
    let row = |report: &FleetReport| {
        let lag = words(Millis(report.lag_seconds.saturating_mul(1000)));
        let connected = if report.connected { "yes" } else { "no" };
        let refusal = report.last_refusal.as_ref().map(|refusal| format!("refused: {}", refusal.why));
        let trouble = report.nats.as_ref().and_then(|store| store.trouble.clone());
        let is_alone = !report.connected && report.mode != "files";
        let status = if is_alone || refusal.is_some() { Status::Down } else { Status::Up };
        let says = trouble.or(refusal).unwrap_or("-".to_owned());
        let cells = [
            report.node.clone(),
            report.stage.to_string(),
            report.mode.clone(),
            report.revision.to_string(),
            lag,
            connected.to_owned(),
            says,
        ];
        Row { status, ..Row::plain(cells) }
    };
    let Some(nodes) = nodes else { return Sheet::new("nodes", heads, []) };
    let missing = nodes.missing.iter().map(|missing| {
        let dash = || "-".to_owned();
        let cells = [missing.peer.clone(), dash(), dash(), dash(), dash(), "no".to_owned(), missing.why.clone()];
        Row { status: Status::Down, ..Row::plain(cells) }
    });
    let rows: Vec<Row> = std::iter::once(&nodes.asked).chain(nodes.peers.values()).map(row).chain(missing).collect();
    Sheet::new("nodes", heads, rows)
}

/// Regions that are down come first, each with its endpoints.
fn worst_first(rows: &mut Vec<Row>) {
    let mut groups: Vec<Vec<Row>> = Vec::new();
    for row in rows.drain(..) {
        let belongs = row.cells.first().is_some_and(|cell| cell.starts_with(' '));
        match groups.last_mut() {
            Some(group) if belongs => group.push(row),
            _ => groups.push(vec![row]),
        }
    }
    groups.sort_by_key(|group| Reverse(group.iter().any(|row| row.status == Status::Down)));
    rows.extend(groups.into_iter().flatten());
}

/// Numbers are ordered as numbers, and come before words.
fn sort_key(cell: Option<&String>) -> (u64, String) {
    let text = cell.map_or("", |cell| cell.trim());
    let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
    (digits.parse().unwrap_or(u64::MAX), text.to_lowercase())
}

/// The widths of a sheet's columns.
fn widths(sheet: &Sheet) -> Vec<Constraint> {
    let columns = sheet.heads.len();
    let width = |column: usize| {
        let cells = sheet.rows.iter().filter_map(|row| row.cells.get(column)).chain(sheet.heads.get(column));
        let widest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0).min(WIDEST);
        match column + 1 == columns {
            true => Constraint::Fill(1),
            // With the mark of the order.
            false => Constraint::Length(u16::try_from(widest + 2).unwrap_or(u16::MAX)),
        }
    };
    (0..columns).map(width).collect()
}

fn colour(status: Status) -> Option<Color> {
    (status == Status::Down).then_some(Color::Red)
}
