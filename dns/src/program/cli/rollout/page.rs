//! Draws the HTML page of a rollout. Takes the record (what was counted and decided at each look), returns HTML with a
//! picture for each step and check. Called by `report`.
//!
//! The page has no script that runs. A signed page carries the report in a script of another type, which browsers treat
//! as data.

use std::fmt::Write;

use bailiwick_rules::rollout::Check;
use bailiwick_rules::rollout::evals::Finding;
use bailiwick_rules::rollout::machine::checks;
use bailiwick_rules::rollout::record::{Record, StepRecord};
use bailiwick_rules::rules::Rollout;
use bailiwick_rules::simulation::escape;

use crate::program::cli::seal::Page;

/// The size of a picture, in pixels.
const SIZE: (f64, f64) = (640.0, 120.0);

/// Draws a record.
pub(super) fn page(name: &str, rule: &Rollout, record: &Record) -> Page {
    let checks = checks(rule);
    let title = format!("Rollout {}", escape(name));
    let style = "body{font:15px system-ui;max-width:720px;margin:2em auto;color:#222} \
                 svg{background:#f6f6f6;display:block} figure{margin:1em 0} h2{margin-top:2em}";
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta http-equiv=\"content-security-policy\" \
         content=\"default-src 'none'; style-src 'unsafe-inline'\"><title>{title}</title>\n<style>{style}</style>\n\
         <h1>{title}</h1>\n"
    );
    let ended = rule.progress.as_ref().and_then(|progress| progress.ended.as_deref());
    let _ = writeln!(
        page,
        "<p>Service {}. {}.</p>\n<p>Each picture shows one check of one step, with the looks from left to right. A \
         look is one evaluation of what was counted so far. The blue band holds the differences (new arm less old arm) \
         or, for times, the ratios (new arm to old arm) that are still possible. Its confidence level holds for all \
         looks together, however many there are. The grey line is no difference. The dashed red line is the most that \
         is allowed.</p>",
        escape(rule.service.as_str()),
        escape(ended.unwrap_or("Under way"))
    );
    for step in &record.steps {
        let (region, share) = (escape(step.region.as_str()), step.share);
        let _ = writeln!(page, "<h2>{region}, {share} %, since {}</h2>", step.since);
        let _ = writeln!(page, "<p>{}</p>", escape(&step.outcome));
        for check in &checks {
            page += &figure(step, &checks, *check);
        }
    }
    page += &evals(record);
    Page::new(page)
}

/// The results of evals, region by region.
fn evals(record: &Record) -> String {
    let mut table = String::new();
    for of_region in record.evals.iter().filter(|evals| !evals.findings.is_empty()) {
        let region = escape(of_region.region.as_str());
        let _ = writeln!(table, "<h2>{region}, evals since {}</h2>\n<ul>", of_region.since);
        for finding in &of_region.findings {
            let Finding { suite, cases, means: [old, new], p_within, p_beyond, margin, at, .. } = finding;
            let _ = writeln!(
                table,
                "<li>{at}: {} scores {new:.4} in the new arm and {old:.4} in the old one, {cases} cases; p-value of \
                 \"worse by at most {margin}\": {p_within:.1e}; of \"worse by at least {margin}\": {p_beyond:.1e}</li>",
                escape(suite)
            );
        }
        table += "</ul>\n";
    }
    table
}

/// The picture of one check in one step. `checks` are all checks of the rollout.
fn figure(step: &StepRecord, checks: &[Check], check: Check) -> String {
    let mut ranges: Vec<(f64, f64)> = step
        .looks
        .iter()
        .filter_map(|look| look.possible.by_measure(checks).get(check.measure.as_str()).copied().flatten())
        .map(|range| (range.low, range.high.unwrap_or(f64::MAX)))
        .collect();
    if ranges.len() == 1 {
        // A band between one look and itself would have no width, so the range of a single look goes across the
        // picture.
        ranges.extend_from_within(..);
    }
    let (limit, no_change) = (check.limit(), if check.measure.is_time() { 1.0 } else { 0.0 });
    // Four times the margin to either side of "no difference". Wider bands are cut off.
    let reach = 4.0 * (limit - no_change).abs();
    let y = |value: f64| {
        let part = ((value - no_change) / reach).clamp(-1.0, 1.0);
        (1.0 - part) * SIZE.1 / 2.0
    };
    let last = f64::from(u32::try_from(ranges.len().saturating_sub(1)).unwrap_or(u32::MAX)).max(1.0);
    let at = |nth: usize| f64::from(u32::try_from(nth).unwrap_or(u32::MAX)) / last * SIZE.0;
    let upper = ranges.iter().enumerate().map(|(nth, (_, high))| format!("{:.1},{:.1}", at(nth), y(*high)));
    let lower = ranges.iter().enumerate().rev().map(|(nth, (low, _))| format!("{:.1},{:.1}", at(nth), y(*low)));
    let band = upper.chain(lower).collect::<Vec<_>>().join(" ");
    let line = |value: f64, more: &str| {
        format!("<line x1=\"0\" x2=\"{}\" y1=\"{1:.1}\" y2=\"{1:.1}\" {more}/>", SIZE.0, y(value))
    };
    // A band wholly beyond the picture lies at its edge without a height. Only the stroke shows it.
    format!(
        "<figure><figcaption>{}</figcaption><svg width=\"{2}\" height=\"{3}\"><polygon points=\"{1}\" \
         fill=\"#7aa6d8\" stroke=\"#7aa6d8\" stroke-width=\"2\"/>{4}{5}</svg></figure>\n",
        check.measure.as_str(),
        band,
        SIZE.0,
        SIZE.1,
        line(no_change, "stroke=\"#888\""),
        line(limit, "stroke=\"#c33\" stroke-dasharray=\"6 4\"")
    )
}

#[cfg(test)]
pub(super) mod tests {
    use bailiwick_rules::table::Table;
    use serde_json::{Value, json};

    use super::*;

    const EVIL: &str = "<script>alert(1)</script>\"'&";

    /// A rollout with these checks that has ended.
    pub(in super::super) fn rule(checks: &Value) -> Rollout {
        let rules = json!({
            "version": 1, "revision": 7, "jurisdictions": { "eu": { "include": ["EU"] } },
            "regions": { "fra": { "countries": ["DE"],
                                  "endpoints": { "e": { "url": "https://e.example/v1", "models": { "m": "old" } } } } },
            "services": { "chat": { "hosts": ["chat.example"], "pattern": "active-active", "regions": ["fra"],
                                    "residency": [{ "clients": ["eu"], "process_in": ["eu"] }] } },
            "rollouts": { "next": { "service": "chat", "model": "m", "from": "old", "to": "new", "regions": ["fra"],
                                    "checks": checks,
                                    "progress": { "since": "2026-12-01T06:00:00Z", "ended": EVIL } } },
        });
        Table::compile(rules.to_string().as_bytes()).expect("rules").rollouts()[0].rule.clone()
    }

    /// A record with one step, two looks at which this was possible, and an eval.
    pub(in super::super) fn record(possible: &Value) -> Record {
        let (empty, counts, at) = (json!({ "counts": {} }), json!([{}, {}]), "2026-12-01T06:00:00Z");
        let look = json!({ "at": at, "possible": possible, "attempts": [1, 1] });
        serde_json::from_value(json!({
            "steps": [{ "region": "fra", "share": 5, "since": at, "old": empty, "new": empty,
                        "last": counts, "forgotten": counts, "outcome": EVIL, "looks": [look, look] }],
            "evals": [{ "region": "fra", "since": at, "share": 5, "change": EVIL, "findings": [
                { "digest": EVIL, "suite": EVIL, "margin": 0.1, "begun": at,
                  "at": at, "cases": 1, "means": [1.0, 1.0], "p_within": 1.0, "p_beyond": 1.0 }] }],
        }))
        .expect("a record")
    }

    #[test]
    fn nothing_of_a_rollout_becomes_markup() {
        let rule = rule(&json!({ "error_rate": { "max_diff": 0.01 } }));
        let page = page(EVIL, &rule, &record(&json!({ EVIL: null }))).plain();
        assert!(!page.contains("<script"), "{page}");
        assert_eq!(page.matches("&lt;script&gt;alert(1)").count(), 5, "{page}");
    }

    #[test]
    fn the_band_of_a_single_look_goes_across_the_picture() {
        let rule = rule(&json!({ "error_rate": { "max_diff": 0.01 } }));
        let mut record = record(&json!({ "error_rate": { "low": -0.02, "high": 0.02 } }));
        record.steps[0].looks.truncate(1);
        let page = page("next", &rule, &record).plain();
        assert!(page.contains("points=\"0.0,30.0 640.0,30.0 640.0,90.0 0.0,90.0\""), "{page}");
    }

    #[test]
    fn a_band_beyond_the_picture_is_a_line_at_its_edge() {
        let rule = rule(&json!({ "error_rate": { "max_diff": 0.01 } }));
        let page = page("next", &rule, &record(&json!({ "error_rate": { "low": 0.5, "high": 0.6 } }))).plain();
        let band = "points=\"0.0,0.0 640.0,0.0 640.0,0.0 0.0,0.0\" fill=\"#7aa6d8\" stroke=\"#7aa6d8\"";
        assert!(page.contains(band), "{page}");
    }

    #[test]
    fn a_band_is_drawn_of_its_own_measure_when_a_check_is_added_before_it() {
        let rule = rule(&json!({ "error_rate": { "max_diff": 0.01 }, "finish_length": { "max_diff": 0.02 } }));
        let range = json!({ "low": -0.02, "high": 0.04 });
        let bands = |possible: Value| {
            let page = page("next", &rule, &record(&possible)).plain();
            let figures = page.split("<figcaption>").skip(1);
            let drawn = |figure: &str| Some((figure.split_once('<')?.0.to_owned(), !figure.contains("points=\"\"")));
            figures.filter_map(drawn).collect::<Vec<_>>()
        };
        let of = |errors, length| [("error_rate".to_owned(), errors), ("finish_length".to_owned(), length)];
        assert_eq!(bands(json!({ "finish_length": range })), of(false, true));
        assert_eq!(bands(json!([range])), of(false, false), "nobody knows of which check it is");
        assert_eq!(bands(json!([range, null])), of(true, false));
    }
}
