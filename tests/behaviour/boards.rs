//! `deploy/grafana`: the boards are made of the tables in [`panels`], so that all look alike. With `BLESS=1` this
//! writes them; else it compares.

pub(crate) mod panels;

use bailiwick_tests::geo::root;
use panels::{BOARDS, Board, Panel};
use serde_json::{Value, json};

/// The width and height of a panel; two stand side by side.
const WIDTH: usize = 12;
const HEIGHT: usize = 8;

fn source() -> Value {
    json!({ "type": "prometheus", "uid": "${datasource}" })
}

/// A board as Grafana reads it.
fn board(board: &Board) -> Value {
    let Board { title, uid, variable: (name, label, query), panels, .. } = board;
    let variables = json!([
        { "name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source" },
        { "name": name, "type": "query", "label": label, "datasource": source(), "query": query, "includeAll": true,
          "multi": true, "allValue": ".*", "refresh": 2 },
    ]);
    let panels: Vec<Value> = panels.iter().enumerate().map(|(nth, one)| panel(nth, one)).collect();
    json!({ "title": title, "uid": uid, "schemaVersion": 39, "version": 1, "editable": true, "refresh": "30s",
            "time": { "from": "now-6h", "to": "now" }, "tags": ["bailiwick"],
            "templating": { "list": variables }, "panels": panels })
}

fn panel(nth: usize, (title, unit, queries): &Panel) -> Value {
    let target = |(letter, (query, legend)): (char, &(&str, &str))| {
        let letter = letter.to_string();
        json!({ "refId": letter, "expr": query, "legendFormat": legend, "datasource": source() })
    };
    let targets: Vec<Value> = ('A'..).zip(*queries).map(target).collect();
    let place = json!({ "x": nth % 2 * WIDTH, "y": nth / 2 * HEIGHT, "w": WIDTH, "h": HEIGHT });
    json!({ "id": nth + 1, "type": "timeseries", "title": title, "description": "", "datasource": source(),
            "gridPos": place, "fieldConfig": { "defaults": { "unit": unit }, "overrides": [] }, "targets": targets })
}

#[test]
fn boards_are_what_their_tables_say() {
    for one in &BOARDS {
        let file = root().join(one.file);
        let text = serde_json::to_string_pretty(&board(one)).expect("JSON") + "\n";
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&file, &text).expect("written");
        }
        let kept = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(kept == text, "{} isn't what its table says; see CONTRIBUTING.md, \"One test\"", one.file);
    }
}

#[test]
fn every_panel_asks_something_and_has_a_name_of_its_own() {
    for one in &BOARDS {
        let mut titles: Vec<&str> = one.panels.iter().map(|(title, ..)| *title).collect();
        titles.sort_unstable();
        titles.dedup();
        assert_eq!(titles.len(), one.panels.len(), "{}", one.file);
        let variable = format!("~\"${}\"", one.variable.0);
        for (title, _, queries) in one.panels {
            assert!(!queries.is_empty(), "{title}");
            for (query, legend) in *queries {
                assert!(query.contains(&variable) && !legend.is_empty(), "{title}: {query}");
            }
        }
    }
}
