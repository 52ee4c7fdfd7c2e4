//! `docs/reference.md` has a line for every key of `bailiwick.toml` and of the rules, made from the program's types.
//! `BLESS=1 cargo test -p bailiwick-tests --test behaviour reference` writes it.

mod config;
mod rules;

use bailiwick_tests::geo::root;

const HEAD: &str = "\
# Reference: every key

<!-- Made by `BLESS=1 cargo test -p bailiwick-tests --test behaviour reference`. Edit the doc comments in the code. -->

Every key of `bailiwick.toml` and of `rules.json`, with its type, its default and its meaning. A dash in place of a
default means that the key may be left out, and has no value then. A duration is written as `500ms`, `5s`, `2m` or `1h`.
[`operations.md`](operations.md) and [`rules.md`](rules.md) explain them. `bailiwick init` writes both files.
";

/// A table of keys.
#[derive(Default)]
struct Table {
    rows: Vec<[String; 4]>,
}

impl Table {
    fn row(&mut self, key: &str, kind: &str, default: &str, meaning: &str) {
        let cell = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|");
        self.rows.push([format!("`{key}`"), cell(kind), cell(default), cell(meaning)]);
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "| key | type | default | meaning |\n| --- | --- | --- | --- |")?;
        self.rows.iter().try_for_each(|row| writeln!(f, "| {} |", row.join(" | ")))
    }
}

#[test]
fn the_reference_on_disk_is_what_the_program_says() {
    let current = format!("{HEAD}\n{}\n{}", config::section(), rules::section());
    let path = root().join("docs/reference.md");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &current).unwrap();
    }
    let on_disk = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = current.lines().zip(on_disk.lines()).find(|(new, old)| new != old);
    assert!(
        on_disk == current,
        "docs/reference.md is not current: {differs:?}; \
         write it again with BLESS=1 cargo test -p bailiwick-tests --test behaviour reference"
    );
}

#[test]
fn every_default_of_a_duration_or_a_choice_is_documented() {
    let section = rules::section();
    for (key, default) in [("headers_streamed", "`15s`"), ("when_all_down", "`serve-fence`"), ("weight", "`1`")] {
        let row = section.lines().find(|line| line.starts_with(&format!("| `{key}` "))).expect(key);
        assert_eq!(row.split(" | ").nth(2), Some(default), "{row}");
    }
}
