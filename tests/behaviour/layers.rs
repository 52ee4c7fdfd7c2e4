//! What may not import what, as ARCHITECTURE.md says: reads the sources of both halves and looks at their imports.

mod circles;
mod modules;
mod source;

use std::path::{Path, PathBuf};

use bailiwick_tests::geo::root;
use modules::{Modules, Names};

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

fn floor(module: &Names) -> Option<usize> {
    let folder = module.first()?;
    FLOORS.iter().position(|floor| floor.contains(&folder.as_str()))
}

#[test]
fn no_folder_of_the_dns_half_imports_one_above_it() {
    let modules = Modules::read(&root().join("dns/src"));
    let uses = modules.uses();
    assert!(uses.len() > 300, "only {} uses were read", uses.len());
    let mut upwards = Vec::new();
    // The root of the crate declares all folders.
    for (user, used) in uses.into_iter().filter(|(user, used)| !user.is_empty() && !used.is_empty()) {
        let (own, other) = (floor(user), floor(used));
        assert!(own.is_some() && other.is_some(), "{user:?} or {used:?} is on no floor");
        if other > own {
            upwards.push(format!("{} imports {}", user.join("::"), used.join("::")));
        }
    }
    assert_eq!(upwards, [""; 0]);
}

#[test]
fn only_one_module_knows_nats() {
    let all = sources(&root().join("dns/src"));
    let knows = |text: &str| ["async_nats", "nkeys::"].iter().any(|foreign| text.contains(foreign));
    let knowing: Vec<&String> = all.iter().filter(|(_, text)| knows(text)).map(|(file, _)| file).collect();
    assert!(knowing.len() > 2, "only {knowing:?} name it");
    for file in knowing {
        assert!(file.starts_with("state/fleet/nats/") || file == "state/fleet/nats.rs", "{file} names a NATS library");
    }
}

#[test]
fn the_edges_decisions_know_no_runtime() {
    let decide = sources(&root().join("edge-worker/src/decide"));
    assert!(decide.len() > 40, "only {} files were read", decide.len());
    for (file, text) in decide {
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        for line in code {
            for foreign in ["crate::platform", "crate::runtime", "SystemTime", "Instant::now"].iter().chain(&WORKERS) {
                assert!(!line.contains(foreign), "{file} uses {foreign}: {line}");
            }
        }
    }
}

/// What names the Workers runtime.
const WORKERS: [&str; 5] = ["worker::", "web_sys", "js_sys", "wasm_bindgen", "JsValue"];

#[test]
fn only_the_platform_and_the_entry_know_the_workers_runtime() {
    let all = sources(&root().join("edge-worker/src"));
    let code = |text: &str| {
        let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        lines.collect::<Vec<_>>().join("\n")
    };
    let knows = |text: &str| WORKERS.iter().any(|foreign| code(text).contains(foreign));
    let knowing: Vec<&String> = all.iter().filter(|(_, text)| knows(text)).map(|(file, _)| file).collect();
    assert!(knowing.len() > 5, "only {knowing:?} name it");
    for file in knowing {
        let may = file.starts_with("platform/workers") || file == "worker_entry.rs";
        assert!(may, "{file} names the Workers runtime");
    }
}
