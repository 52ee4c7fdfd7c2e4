//! What may not import what, as ARCHITECTURE.md says: reads the sources of both halves and looks at their imports.

use std::path::{Path, PathBuf};

use bailiwick_tests::geo::root;

/// The folders of `dns/src`. Each imports only those of its own floor and of the floors before it.
const FLOORS: [&[&str]; 11] = [
    &["system", "text"],
    &["protocol"],
    &["zone"],
    &["dnssec"],
    &["zones"],
    &["locate"],
    &["response"],
    &["net"],
    &["state"],
    &["memo"],
    &["program"],
];
/// Imports upwards that are still there: who imports, and from which folder. This list only gets shorter.
const NOT_YET: [(&str, &str); 3] = [
    // A measurement that is run by hand, and compiled with tests alone.
    ("dnssec/cost.rs", "locate"),
    ("dnssec/cost.rs", "response"),
    ("dnssec/cost.rs", "state"),
];

fn sources(folder: &Path) -> Vec<(String, String)> {
    fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
            match entry.path() {
                path if path.is_dir() => collect(&path, found),
                path if path.extension().is_some_and(|extension| extension == "rs") => found.push(path),
                _ => {}
            }
        }
    }
    let mut found = Vec::new();
    collect(folder, &mut found);
    let read = |path: PathBuf| {
        let name = path.strip_prefix(folder).expect("below it").to_string_lossy().into_owned();
        (name, std::fs::read_to_string(path).expect("UTF-8"))
    };
    found.into_iter().map(read).filter(|(name, _)| !name.contains("test")).collect()
}

/// Lines of code before the unit tests, with what each takes from `crate::`.
fn imports(text: &str) -> impl Iterator<Item = &str> {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let code = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let end = |name: &str| name.find(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap_or(name.len());
    code.flat_map(|line| line.split("crate::").skip(1)).map(move |name| &name[..end(name)])
}

fn floor(folder: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&folder))
}

#[test]
fn no_folder_of_the_dns_half_imports_one_above_it() {
    let (mut upwards, mut seen) = (Vec::new(), 0);
    for (file, text) in sources(&root().join("dns/src")) {
        let Some(own) = floor(file.split('/').next().unwrap_or_default().trim_end_matches(".rs")) else { continue };
        for folder in imports(&text) {
            seen += 1;
            let is_above = floor(folder).is_some_and(|other| other > own);
            if is_above && !NOT_YET.contains(&(file.as_str(), folder)) {
                upwards.push(format!("{file} imports {folder}"));
            }
        }
    }
    assert!(seen > 300, "only {seen} imports were read");
    assert_eq!(upwards, [""; 0]);
}

#[test]
fn the_edges_decisions_know_no_runtime() {
    let decide = sources(&root().join("edge-worker/src/decide"));
    assert!(decide.len() > 40, "only {} files were read", decide.len());
    for (file, text) in decide {
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        for line in code {
            for foreign in ["crate::runtime", "worker::", "web_sys::", "js_sys::", "SystemTime", "Instant::now"] {
                assert!(!line.contains(foreign), "{file} uses {foreign}: {line}");
            }
        }
    }
}
