//! `tests/vectors/*.json` hold on this machine; `tests/edge/vectors.spec.ts` runs the same files in the Worker's Wasm.
//!
//! `BLESS=1 cargo test -p bailiwick-tests vectors` rewrites what is expected; read the difference before keeping it.

use std::path::PathBuf;

#[test]
fn vectors_hold_natively() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors");
    let mut cases = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        // Another project's cases stand in a folder of their own.
        if path.is_dir() {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&path, bailiwick_rules::testing::bless(&text).unwrap()).unwrap();
            continue;
        }
        match bailiwick_rules::testing::run(&text) {
            Ok(count) => cases += count,
            Err(difference) => panic!("{}: {difference}", path.display()),
        }
    }
    println!("vectors: {cases} cases");
    assert!(cases >= 40 || std::env::var_os("BLESS").is_some());
}
