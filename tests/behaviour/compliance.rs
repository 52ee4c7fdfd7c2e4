//! `docs/compliance.md` names the test that proves each RFC; the tests it names exist.

use bailiwick_tests::geo::root;

#[test]
fn every_test_named_by_the_compliance_page_exists() {
    let text = std::fs::read_to_string(root().join("docs/compliance.md")).unwrap();
    let named: Vec<(&str, &str)> =
        text.split('`').skip(1).step_by(2).filter_map(|code| code.split_once(".rs::")).collect();
    assert!(named.len() > 30, "only {} tests are named", named.len());
    for (file, name) in named {
        let path = root().join(format!("{file}.rs"));
        let source = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(source.contains(&format!("fn {name}(")), "{file}.rs has no test {name}");
    }
    let row = |line: &&str| line.starts_with("| ") && line.as_bytes()[2].is_ascii_digit();
    for line in text.lines().filter(row) {
        assert!(line.contains(".rs::") || line.contains("Ferret"), "no test proves this: {line}");
    }
}
