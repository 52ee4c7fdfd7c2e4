//! The inputs that fuzzing begins with and those that it found worth keeping, put to the same checks as an ordinary test (`fuzz/seeds`,
//! `fuzz/kept`).

#[path = "../fuzz/src/checks.rs"]
mod checks;

use std::path::Path;

/// Puts every input of a target to its check.
fn all(target: &str, check: fn(&[u8])) {
    let mut count = 0;
    for folder in ["seeds", "kept"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(folder).join(target);
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.expect("an entry").path();
            let bytes = std::fs::read(&path).expect("an input");
            println!("{}", path.display());
            check(&bytes);
            count += 1;
        }
    }
    assert!(count > 0, "{target} has no inputs");
}

#[test]
fn packets_get_sound_responses_or_none() {
    all("packet", checks::packet);
}

#[test]
fn client_subnets_are_echoed_or_refused() {
    all("ecs", checks::ecs);
}

#[test]
fn zone_files_are_read_or_refused() {
    all("zone_file", checks::zone_file);
}

#[test]
fn rules_steer_nobody_out_of_the_fence() {
    all("rules", checks::rules);
}
