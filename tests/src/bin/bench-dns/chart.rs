//! Draws the rows of a report as an SVG: CPU time per answer over the echo's, a panel for each workload and number of
//! threads, a bar for each server with a whisker from least to most. Where the reader prefers dark, it is dark.

use std::fmt::Write as _;

use crate::report::Row;

const WIDTH: f64 = 760.0;
/// Where bars begin: what is left of it is names.
const NAMES: f64 = 130.0;
/// What is right of the longest bar: its figure.
const FIGURE: f64 = 150.0;
const ROW: f64 = 26.0;
const TITLE: f64 = 52.0;
const PANEL: f64 = 32.0;

const STYLE: &str = "text{font:13px system-ui,sans-serif;fill:#24292f}.title{font-size:15px;font-weight:600}\
.panel{font-weight:600}\
.note{fill:#57606a}.back{fill:#fff}.bar{fill:#9aa7b4}.own{fill:#1f6feb}.echo{fill:#d0d7de}\
.limit{stroke:#57606a;stroke-dasharray:3 3}\
.whisker{stroke:#24292f;stroke-width:1.5;fill:none}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.note{fill:#9198a1}.back{fill:#0d1117}.bar{fill:#6e7681}\
.own{fill:#388bfd}\
.echo{fill:#30363d}\
.limit{stroke:#9198a1}.whisker{stroke:#e6edf3}}";

/// The chart of all rows.
pub(crate) fn chart(rows: &[Row<'_>]) -> String {
    let longest = rows.iter().map(|row| row.ratio.most).fold(1.0, f64::max);
    let x = |ratio: f64| NAMES + ratio / longest * (WIDTH - NAMES - FIGURE);
    let mut body = String::new();
    let mut y = TITLE;
    for panel in rows.chunk_by(|one, next| one.title() == next.title()) {
        let _ = writeln!(body, "<text class=\"panel\" x=\"16\" y=\"{}\">{}</text>", y + 19.0, panel[0].title());
        y += PANEL;
        let end = y + ROW * count(panel.len());
        for row in panel {
            let (class, middle) = (class(row.server), y + 11.0);
            let (least, most) = (x(row.ratio.least), x(row.ratio.most));
            let _ = writeln!(
                body,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
                 <rect class=\"{class}\" x=\"{NAMES:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"16\" rx=\"2\"/>\
                 <path class=\"whisker\" d=\"M{least:.1} {middle:.1}H{most:.1}M{least:.1} {:.1}v8M{most:.1} {:.1}v8\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                NAMES - 8.0,
                y + 15.5,
                escaped(row.server),
                y + 3.0,
                x(row.ratio.median) - NAMES,
                middle - 4.0,
                middle - 4.0,
                most + 8.0,
                y + 15.5,
                row.ratio
            );
            y += ROW;
        }
        let _ = writeln!(
            body,
            "<path class=\"limit\" d=\"M{0:.1} {1:.1}V{end:.1}\"/>",
            x(1.0),
            end - ROW * count(panel.len())
        );
        y += 10.0;
    }
    let height = y + 8.0;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" role=\"img\">\n\
         <title>CPU time per DNS answer by UDP, over that of an echo</title>\n<style>{STYLE}</style>\n\
         <rect class=\"back\" width=\"100%\" height=\"100%\"/>\n\
         <text class=\"title\" x=\"16\" y=\"24\">CPU time per answer by UDP, as a multiple of an echo’s</text>\n\
         <text class=\"note\" x=\"16\" y=\"43\">median; the line: least to most; shorter is better, 1.00 is the \
         limit</text>\n{body}</svg>\n"
    )
}

fn class(server: &str) -> &'static str {
    match server {
        "bailiwick" => "own",
        "echo" => "echo",
        _ => "bar",
    }
}

#[allow(clippy::cast_precision_loss)] // a few rows
fn count(rows: usize) -> f64 {
    rows as f64
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::example;

    /// The names of elements in the order they end, if each that begins ends, and no text has a bare bracket or
    /// ampersand.
    fn elements(xml: &str) -> Option<Vec<String>> {
        let (mut open, mut ended) = (Vec::new(), Vec::new());
        for part in xml.split('<').skip(1) {
            let (tag, text) = part.split_once('>')?;
            if text.contains('>')
                || text
                    .split('&')
                    .skip(1)
                    .any(|rest| rest.split_once(';').is_none_or(|(name, _)| !name.chars().all(char::is_alphanumeric)))
            {
                return None;
            }
            if let Some(name) = tag.strip_prefix('/') {
                ended.push(open.pop().filter(|begun| begun == name)?);
                continue;
            }
            let name = tag.split([' ', '/']).next()?.to_owned();
            // Quotes come in pairs, an attribute each.
            if tag.matches('"').count() != 2 * tag.matches("=\"").count() {
                return None;
            }
            if tag.ends_with('/') { ended.push(name) } else { open.push(name) }
        }
        open.is_empty().then_some(ended)
    }

    #[test]
    fn the_chart_is_well_formed_and_has_a_bar_for_each_row() {
        let report = example();
        let rows = report.rows();
        let chart = chart(&rows);
        let elements = elements(&chart).unwrap_or_else(|| panic!("not well-formed: {chart}"));
        assert_eq!(elements.last().map(String::as_str), Some("svg"));
        assert_eq!(elements.iter().filter(|name| *name == "rect").count(), 1 + rows.len());
        assert!(chart.contains("a&lt;b&amp;c"));
        assert_eq!(chart.matches("class=\"own\"").count(), 2);
        assert!(chart.contains(">1.05 (1.04–1.06)<"));
    }

    #[test]
    fn what_is_malformed_is_seen_as_such() {
        for wrong in ["<a>", "<a></b>", "<a b=\"c></a>", "<a>x & y</a>", "<a>x > y</a>"] {
            assert_eq!(elements(wrong), None, "{wrong}");
        }
        assert_eq!(elements("<a><b c=\"d\"/>x &amp; y</a>"), Some(vec!["b".to_owned(), "a".to_owned()]));
    }

    #[test]
    fn bars_stay_within_the_picture() {
        let report = example();
        let chart = chart(&report.rows());
        for width in chart.split("width=\"").skip(1).filter_map(|rest| rest.split('"').next()?.parse::<f64>().ok()) {
            assert!(width > 0.0 && width <= WIDTH, "{width}");
        }
    }
}
