//! The page of a run. Takes the outcomes of all regions, returns HTML: a table of the regions, and the cases that
//! aren't right everywhere with what each region answered. Called by `bailiwick eval run`.
//!
//! Answers are a model's words: everything is escaped, and the page has no script.

use std::collections::BTreeMap;
use std::fmt::Write;

use bailiwick_rules::eval::{Header, Outcome, Suite};
use bailiwick_rules::simulation::escape;

use super::table::{COLUMNS, Summary};

/// The most cases that are shown.
const MOST_CASES: usize = 500;
/// How much of an answer is shown, in characters.
const SHOWN: usize = 600;

/// The page.
pub(super) fn page(header: &Header, suite: &Suite, regions: &[(Summary, Vec<Outcome>)]) -> String {
    let title = format!("Eval {}", escape(&header.suite));
    let style = "body{font:15px system-ui;max-width:1100px;margin:2em auto;color:#222}table{border-collapse:collapse}\
                 td,th{padding:.3em .8em;border-bottom:1px solid #ddd;text-align:left;vertical-align:top}\
                 pre{white-space:pre-wrap;margin:0;max-width:480px;overflow-wrap:anywhere}.wrong{color:#a22}";
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta http-equiv=\"content-security-policy\" \
         content=\"default-src 'none'; style-src 'unsafe-inline'\"><title>{title}</title>\n<style>{style}</style>\n\
         <h1>{title}</h1>\n<p>Service {}, model {}, {} cases, {} times each.</p>\n",
        escape(&header.service),
        escape(&header.model),
        header.cases,
        header.repeat
    );
    page += "<table><tr>";
    for column in COLUMNS {
        let _ = write!(page, "<th>{column}</th>");
    }
    page += "</tr>\n";
    for (summary, _) in regions {
        let cells = summary.cells().map(|cell| format!("<td>{}</td>", escape(&cell)));
        let _ = writeln!(page, "<tr>{}</tr>", cells.concat());
    }
    page += "</table>\n";
    page += &cases(suite, regions);
    page + "</html>\n"
}

/// The cases that aren't right everywhere.
fn cases(suite: &Suite, regions: &[(Summary, Vec<Outcome>)]) -> String {
    let mut by_case: BTreeMap<&str, Vec<(&str, &Outcome)>> = BTreeMap::new();
    for (summary, outcomes) in regions {
        for outcome in outcomes {
            by_case.entry(&outcome.case).or_default().push((&summary.region, outcome));
        }
    }
    let isnt_right = |found: &&Vec<(&str, &Outcome)>| found.iter().any(|(_, outcome)| outcome.right != Some(true));
    let wrong = suite.cases.iter().filter_map(|case| Some((case, by_case.get(case.id.as_str()).filter(isnt_right)?)));
    let wrong: Vec<_> = wrong.collect();
    let mut page = format!("<h2>{} cases aren't right everywhere</h2>\n", wrong.len());
    if wrong.len() > MOST_CASES {
        let _ = writeln!(page, "<p>The first {MOST_CASES} are shown.</p>");
    }
    for (case, found) in wrong.into_iter().take(MOST_CASES) {
        let question = case.messages.as_array().and_then(|all| all.last()).map(|last| &last["content"]);
        let question =
            question.map_or_else(String::new, |question| question.as_str().map_or(question.to_string(), str::to_owned));
        let _ = write!(page, "<h3>{}</h3>\n<pre>{}</pre>\n<table>", escape(&case.id), shown(&question));
        for (region, outcome) in found {
            let verdict = match (outcome.right, outcome.score) {
                (Some(true), _) => "right".to_owned(),
                (Some(false), _) => "wrong".to_owned(),
                (None, Some(score)) => format!("{score:.3}"),
                (None, None) => "no answer".to_owned(),
            };
            let class = if outcome.right == Some(true) { "right" } else { "wrong" };
            let why = outcome.note.as_deref().or(outcome.error.as_deref()).unwrap_or_default();
            let _ = writeln!(
                page,
                "<tr><td>{}</td><td class=\"{class}\">{verdict}</td><td>{}</td><td><pre>{}</pre></td></tr>",
                escape(region),
                shown(why),
                shown(outcome.answer.as_deref().unwrap_or_default())
            );
        }
        page += "</table>\n";
    }
    page
}

/// The begin of a text, line by line.
fn shown(text: &str) -> String {
    let cut: String = text.chars().take(SHOWN).collect();
    let more = if cut.len() < text.len() { " …" } else { "" };
    cut.lines().map(escape).collect::<Vec<_>>().join("\n") + more
}

#[cfg(test)]
mod tests {
    use bailiwick_rules::eval::{VERSION, read_suite};

    use super::*;

    const EVIL: &str = "<script>alert(1)</script>\"'&";

    #[test]
    fn nothing_of_a_prompt_or_an_answer_becomes_markup() {
        let line = serde_json::json!({ "id": format!("x{EVIL}"), "prompt": EVIL, "expect": { "exact": EVIL } });
        let suite = read_suite(line.to_string().as_bytes()).expect("a suite");
        let header = Header {
            bailiwick_eval: VERSION,
            suite: EVIL.into(),
            suite_hash: suite.hash.clone(),
            cases: 1,
            service: EVIL.into(),
            region: None,
            arm: None,
            begun: None,
            model: EVIL.into(),
            seed: None,
            repeat: 1,
        };
        let outcome = Outcome {
            case: suite.cases[0].id.clone(),
            right: Some(false),
            score: Some(0.0),
            note: Some(EVIL.into()),
            answer: Some(format!("{EVIL}\nsecond line{}", "é".repeat(2_000))),
            ..Outcome::default()
        };
        let summary = Summary::of(EVIL, 1, [&outcome].into_iter());
        let page = page(&header, &suite, &[(summary, vec![outcome])]);
        assert!(!page.contains("<script"), "{page}");
        assert!(page.matches("&lt;script&gt;").count() >= 8, "{page}");
        assert!(page.contains("second line") && page.contains("é …"));
        assert!(page.contains("1 cases aren't right everywhere"));
    }
}
