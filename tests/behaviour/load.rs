//! `bailiwick plan` and `bailiwick simulate`, as typed; and that `docs/load.md` shows what they print.
//! `BLESS=1 cargo test -p bailiwick-tests --test behaviour load::` writes its picture.

use std::process::Output;

use bailiwick_tests::geo::root;
use bailiwick_tests::node::bailiwick;
use tempfile::TempDir;

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn page() -> String {
    std::fs::read_to_string(root().join("docs/load.md")).unwrap()
}

/// The rules of the page, in a file.
fn rules() -> (TempDir, String) {
    let page = page();
    let block = page.split("```json\n").nth(1).and_then(|rest| rest.split("```").next()).expect("the rules come first");
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("rules.json");
    std::fs::write(&file, block).unwrap();
    let name = file.display().to_string();
    (folder, name)
}

#[test]
fn the_page_shows_what_plan_prints_and_its_exit_code_is_for_scripts() {
    let (folder, rules) = rules();
    let reported = bailiwick(["plan", "--rules", &rules]);
    assert_eq!(reported.status.code(), Some(1), "Paris can't carry Frankfurt's");
    assert!(page().contains(&out(&reported)), "docs/load.md is to show:\n{}", out(&reported));

    let kept = bailiwick(["plan", "--rules", &rules, "--lose", "eu-paris", "--max-load", "100%"]);
    assert_eq!(kept.status.code(), Some(1), "Frankfurt has no room for the load of Paris either");
    let demand = folder.path().join("peak.json");
    std::fs::write(&demand, r#"{ "chat": { "DE": 40, "FR": 45, "unknown": 1 } }"#).unwrap();
    let reported = bailiwick(["plan", "--rules", &rules, "--demand", demand.to_str().unwrap(), "--json"]);
    assert_eq!(reported.status.code(), Some(0), "{reported:?}");
    let json: serde_json::Value = serde_json::from_str(&out(&reported)).unwrap();
    assert_eq!(
        (&json["ok"], &json["demand"], json["fences"].as_array().unwrap().len()),
        (&true.into(), &"file".into(), 3)
    );

    let wrong = bailiwick(["plan", "--rules", &rules, "--lose", "eu-pairs"]);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("did you mean \"eu-paris\"?"), "{wrong:?}");
    assert_eq!(bailiwick(["plan", "--max-load", "lots"]).status.code(), Some(2));
}

#[test]
fn check_warns_of_a_loss_that_is_not_carried() {
    let (_folder, rules) = rules();
    let reported = bailiwick(["check", "--rules", &rules]);
    assert!(reported.status.success(), "warnings are no errors: {reported:?}");
    let warnings = String::from_utf8_lossy(&reported.stderr).into_owned();
    assert!(warnings.contains("without eu-frankfurt has a load of 140 %"), "{warnings}");
}

#[test]
fn the_page_shows_what_simulate_prints_and_draws() {
    let folder = TempDir::new().unwrap();
    let picture = folder.path().join("out.svg").display().to_string();
    let scenario = root().join("docs/scenarios/nearest-dies-at-peak.json").display().to_string();
    let reported = bailiwick(["simulate", &scenario, "--svg", &picture]);
    assert!(reported.status.success(), "{reported:?}");
    assert!(page().contains(&out(&reported)), "docs/load.md is to show:\n{}", out(&reported));
    let drawn = std::fs::read_to_string(&picture).unwrap();
    let shown = root().join("docs/nearest-dies-at-peak.svg");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&shown, &drawn).unwrap();
    }
    assert!(
        std::fs::read_to_string(&shown).unwrap_or_default() == drawn,
        "docs/nearest-dies-at-peak.svg isn't current; write it by BLESS=1 cargo test -p bailiwick-tests --test \
         behaviour load::"
    );
}
