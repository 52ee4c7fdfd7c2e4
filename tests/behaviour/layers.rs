//! What may not import what, as ARCHITECTURE.md says: reads the sources of all crates and looks at their imports.

mod circles;
mod modules;
mod source;

use std::path::{Path, PathBuf};

use bailiwick_tests::geo::root;
use modules::{Modules, Names};

/// The folders of `dns/src`. Each imports only those of its own floor and of the floors before it.
const DNS_FLOORS: [&[&str]; 11] = [
    &["text"],
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

/// The modules of `shared/host/src`, in the same way.
const HOST_FLOORS: [&[&str]; 3] = [&["system"], &["certificate", "locate", "sockets"], &["process"]];

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

/// The floor of the folder that a module is in.
fn floor(floors: &[&[&str]], module: &Names) -> Option<usize> {
    let folder = module.first()?;
    floors.iter().position(|floor| floor.contains(&folder.as_str()))
}

/// The uses, among at least so many, of a module on a higher floor.
fn upwards(folder: &str, floors: &[&[&str]], least: usize) -> Vec<String> {
    let modules = Modules::read(&root().join(folder));
    let uses = modules.uses();
    assert!(uses.len() > least, "only {} uses were read", uses.len());
    let mut upwards = Vec::new();
    // The root of the crate declares all folders.
    for (user, used) in uses.into_iter().filter(|(user, used)| !user.is_empty() && !used.is_empty()) {
        let (own, other) = (floor(floors, user), floor(floors, used));
        assert!(own.is_some() && other.is_some(), "{user:?} or {used:?} is on no floor");
        if other > own {
            upwards.push(format!("{} imports {}", user.join("::"), used.join("::")));
        }
    }
    upwards
}

#[test]
fn no_folder_of_the_dns_half_imports_one_above_it() {
    assert_eq!(upwards("dns/src", &DNS_FLOORS, 300), [""; 0]);
}

#[test]
fn what_both_halves_need_of_the_machine_knows_neither() {
    assert_eq!(upwards("shared/host/src", &HOST_FLOORS, 15), [""; 0]);
    for (folder, foreign) in [
        ("shared/host/src", &["bailiwick_dns", "bailiwick_edge"][..]),
        ("shared/src", &["bailiwick_host", "bailiwick_dns", "bailiwick_edge"]),
    ] {
        for (file, text) in sources(&root().join(folder)) {
            for name in foreign {
                assert!(!text.contains(name), "{folder}/{file} names {name}");
            }
        }
    }
}

#[test]
fn one_file_has_unsafe_code() {
    let mut allowing = Vec::new();
    for folder in ["dns/src", "edge-worker/src", "shared/src", "shared/host/src", "tests/src"] {
        let all = sources(&root().join(folder)).into_iter();
        let files = all.filter(|(_, text)| text.contains("(unsafe_code)") && !text.contains("forbid(unsafe_code)"));
        allowing.extend(files.map(|(file, _)| format!("{folder}/{file}")));
    }
    assert_eq!(allowing, ["shared/host/src/system/batch.rs"]);
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
