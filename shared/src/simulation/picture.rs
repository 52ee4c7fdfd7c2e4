//! Draws a simulation. Takes outcomes of one scenario, returns a picture as SVG with one panel for each way of
//! steering: the loads of regions over time, and what was refused. Called by `bailiwick simulate --svg`.

use core::fmt::Write as _;
use std::collections::BTreeSet;

use super::scenario::Scenario;
use super::world::{Outcome, Sample, Way};
use crate::table::{RegionIndex, Table};
use crate::time::Millis;

/// The most regions that get a line of their own: those with the highest peaks.
const LINES: usize = 8;
/// Colours that can be distinguished by people who don't see red or green (Okabe and Ito 2008).
const COLOURS: [&str; LINES] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#b8a800"];
/// The measures of a panel, in pixels.
const WIDTH: f64 = 820.0;
const HEIGHT: f64 = 190.0;
const LEFT: f64 = 56.0;
const TOP: f64 = 76.0;
const GAP: f64 = 58.0;

/// The picture. It can stand on a light or a dark page, as it has a background of its own.
#[must_use]
pub fn svg(table: &Table, scenario: &Scenario, outcomes: &[Outcome]) -> String {
    let shown = shown(table, outcomes);
    let height = TOP + outcomes.len() as f64 * (HEIGHT + GAP) + 24.0;
    let width = LEFT + WIDTH + 24.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\"\nfont-family=\"system-ui, \
         sans-serif\" \
         font-size=\"12\" role=\"img\">\n<title>{title}</title>\n<rect width=\"{width}\" height=\"{height}\" \
         fill=\"#fff\"/>\n\
         <text x=\"{LEFT}\" y=\"22\" font-size=\"15\" font-weight=\"600\">{title}</text>\n",
        title = escape(&scenario.title)
    );
    legend(&mut out, table, &shown);
    let most = most(outcomes);
    for (nth, outcome) in outcomes.iter().enumerate() {
        panel(&mut out, scenario, outcome, &shown, most, TOP + nth as f64 * (HEIGHT + GAP));
    }
    out += "</svg>\n";
    out
}

/// A text escaped for HTML or SVG. Control characters are left out.
#[must_use]
pub fn escape(text: &str) -> String {
    let printable = text.chars().filter(|character| !character.is_control());
    printable
        .map(|character| match character {
            '<' => "&lt;".to_owned(),
            '>' => "&gt;".to_owned(),
            '&' => "&amp;".to_owned(),
            '"' => "&quot;".to_owned(),
            other => other.to_string(),
        })
        .collect()
}

/// The regions with the highest peaks over all outcomes, sorted by index.
fn shown(table: &Table, outcomes: &[Outcome]) -> Vec<RegionIndex> {
    let peak = |index: usize| {
        let loads =
            outcomes.iter().flat_map(|outcome| &outcome.samples).filter_map(|sample| *sample.loads.get(index)?);
        loads.fold(0.0_f64, f64::max)
    };
    let mut peaks: Vec<(f64, usize)> = (0..table.regions().len()).map(|index| (peak(index), index)).collect();
    peaks.sort_by(|peak, other| other.0.total_cmp(&peak.0).then(peak.1.cmp(&other.1)));
    let chosen: BTreeSet<usize> = peaks.into_iter().take(LINES).map(|(_, index)| index).collect();
    chosen.into_iter().map(RegionIndex::new).collect()
}

fn legend(out: &mut String, table: &Table, shown: &[RegionIndex]) {
    let mut x = LEFT;
    for (region, colour) in shown.iter().zip(COLOURS) {
        let name = &table.region(*region).id;
        let _ = writeln!(
            out,
            "<rect x=\"{x:.0}\" y=\"36\" width=\"12\" height=\"3\" fill=\"{colour}\"/>\n<text x=\"{:.0}\" \
             y=\"42\">{name}</text>",
            x + 16.0
        );
        x += 30.0 + 7.0 * name.as_str().len() as f64;
    }
    let _ = writeln!(
        out,
        "<rect x=\"{x:.0}\" y=\"33\" width=\"12\" height=\"9\" fill=\"#c00\" fill-opacity=\".25\"/>\n\
         <text x=\"{:.0}\" y=\"42\">refused: all at full height</text>",
        x + 16.0
    );
}

/// The load at the top of each panel: the highest peak, rounded up to a half, between 1.5 and 5 times full.
fn most(outcomes: &[Outcome]) -> f64 {
    let peak = outcomes.iter().map(|outcome| outcome.peak.0).fold(1.0, f64::max);
    ((peak * 2.0).ceil() / 2.0).clamp(1.5, 5.0)
}

fn heading(way: Way) -> &'static str {
    match way {
        Way::Nearest => "By distance alone",
        Way::Health => "By distance and health",
        Way::Load => "By distance, health and load",
    }
}

fn panel(out: &mut String, scenario: &Scenario, outcome: &Outcome, shown: &[RegionIndex], most: f64, top: f64) {
    let x = |at: Millis| LEFT + WIDTH * at.0 as f64 / scenario.length.0.max(1) as f64;
    let y = |load: f64| top + HEIGHT * (1.0 - (load / most).min(1.0));
    let _ = writeln!(
        out,
        "<text x=\"{LEFT}\" y=\"{:.0}\" font-weight=\"600\">{}: {:.1} % refused, peak {:.0} %, collapses: {}</text>",
        top - 8.0,
        heading(outcome.way),
        outcome.refused * 100.0,
        outcome.peak.0 * 100.0,
        outcome.collapses
    );
    for event in &scenario.events {
        let (from, to) = (x(event.at), x(Millis((event.at.0 + event.lasts.0).min(scenario.length.0))));
        let _ = writeln!(
            out,
            "<rect x=\"{from:.1}\" y=\"{top}\" width=\"{:.1}\" height=\"{HEIGHT}\" fill=\"#eee\"/>",
            (to - from).max(0.0)
        );
    }
    for load in
        [0.0, 0.5, 1.0].into_iter().chain((3..=10).map(|half| f64::from(half) / 2.0)).filter(|load| *load <= most)
    {
        let (colour, at) = (if load == 1.0 { "#c00" } else { "#ddd" }, y(load));
        let _ = writeln!(
            out,
            "<path d=\"M{LEFT} {at:.1}h{WIDTH}\" stroke=\"{colour}\"/>\n<text x=\"{:.0}\" y=\"{:.1}\" \
             text-anchor=\"end\">{:.0} %</text>",
            LEFT - 6.0,
            at + 4.0,
            load * 100.0
        );
    }
    hours(out, scenario, top, x);
    let refused = outcome
        .samples
        .iter()
        .zip(0..)
        .map(|(sample, nth)| format!("{}L{:.1} {:.1}", line_break(nth), x(sample.at), y(sample.refused * most)));
    let refused: String = refused.collect();
    let last = outcome.samples.last().map_or(LEFT, |sample| x(sample.at));
    let bottom = top + HEIGHT;
    let _ = writeln!(
        out,
        "<path d=\"M{LEFT} {bottom}{refused}\nL{last:.1} {bottom}Z\" fill=\"#c00\" fill-opacity=\".25\"/>"
    );
    for (region, colour) in shown.iter().zip(COLOURS) {
        let path = line(&outcome.samples, *region, &x, &y);
        let _ = writeln!(out, "<path d=\"{path}\"\nfill=\"none\" stroke=\"{colour}\" stroke-width=\"1.6\"/>");
    }
}

/// A line break before every eighth point of a path, so that the file can be read and compared.
fn line_break(nth: u32) -> &'static str {
    if nth.is_multiple_of(8) { "\n" } else { "" }
}

/// A region's load over time, with a gap while it is down.
fn line(samples: &[Sample], region: RegionIndex, x: &impl Fn(Millis) -> f64, y: &impl Fn(f64) -> f64) -> String {
    let mut path = String::new();
    let mut draws = false;
    for (sample, nth) in samples.iter().zip(0..) {
        match sample.loads.get(region.get()).copied().flatten() {
            Some(load) => {
                let _ = write!(
                    path,
                    "{}{}{:.1} {:.1}",
                    line_break(nth),
                    if draws { 'L' } else { 'M' },
                    x(sample.at),
                    y(load)
                );
                draws = true;
            }
            None => draws = false,
        }
    }
    path
}

fn hours(out: &mut String, scenario: &Scenario, top: f64, x: impl Fn(Millis) -> f64) {
    let hours = scenario.length.0.div_ceil(3_600_000);
    let every = hours.div_ceil(12).max(1);
    for hour in (0..=hours).step_by(usize::try_from(every).unwrap_or(1)) {
        let at = Millis(hour * 3_600_000);
        if at <= scenario.length {
            let below = top + HEIGHT + 16.0;
            let _ = writeln!(out, "<text x=\"{:.1}\" y=\"{below:.1}\" text-anchor=\"middle\">{hour} h</text>", x(at));
        }
    }
}
