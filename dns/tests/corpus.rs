//! The fuzz targets' checks as ordinary tests. The inputs are those that fuzzing begins with (`fuzz/seeds`), and those
//! that once broke a check or reached new code (`fuzz/regressions`).

#[path = "../fuzz/src/checks.rs"]
mod checks;

use std::path::Path;

use proptest::prelude::*;

/// Every input of a target.
fn inputs(target: &str) -> Vec<Vec<u8>> {
    let mut inputs = Vec::new();
    for folder in ["seeds", "regressions"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(folder).join(target);
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.expect("an entry").path();
            println!("{target} {}: {}", inputs.len(), path.display());
            inputs.push(std::fs::read(&path).expect("an input"));
        }
    }
    assert!(!inputs.is_empty(), "{target} has no inputs");
    inputs
}

/// Puts every input of a target to its check.
fn all(target: &str, check: fn(&[u8])) {
    for (number, input) in inputs(target).iter().enumerate() {
        println!("{target} {number}");
        check(input);
    }
}

/// What becomes of an input when some of it is cut out and something else put in.
fn damaged(inputs: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let with = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..12),
        "[0-9A-Za-z+/=\\-:\"{}\\[\\], \n]{0,12}".prop_map(String::into_bytes),
    ];
    (prop::sample::select(inputs), any::<prop::sample::Index>(), 0..12_usize, with).prop_map(
        |(mut input, at, cut, with)| {
            let at = at.index(input.len() + 1);
            let end = input.len().min(at + cut);
            input.splice(at..end, with);
            input
        },
    )
}

#[test]
fn packets_get_sound_responses_or_none() {
    all("packet", checks::packet);
}

#[test]
fn metrics_pages_are_read_alike_in_pieces_or_refused() {
    all("metrics_page", checks::metrics_page);
}

#[test]
fn answers_of_models_are_read_alike_in_pieces() {
    all("model_answer", checks::model_answer);
    let bytes = prop_oneof![damaged(inputs("model_answer")), prop::collection::vec(any::<u8>(), 0..200)];
    proptest!(ProptestConfig::with_cases(2_000), |(bytes in bytes)| checks::model_answer(&bytes));
}

#[test]
fn packs_of_bundles_stay_in_their_folder_or_are_refused() {
    all("bundle_pack", checks::bundle_pack);
    let bytes = prop_oneof![damaged(inputs("bundle_pack")), prop::collection::vec(any::<u8>(), 0..200)];
    proptest!(ProptestConfig::with_cases(2_000), |(bytes in bytes)| checks::bundle_pack(&bytes));
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

#[test]
fn states_of_keys_are_read_or_refused_with_words() {
    all("key_state", checks::key_state);
    let bytes = prop_oneof![damaged(inputs("key_state")), prop::collection::vec(any::<u8>(), 0..200)];
    proptest!(|(bytes in bytes)| checks::key_state(&bytes));
}

#[test]
fn keys_are_read_or_refused_with_words() {
    all("key_pem", checks::key_pem);
    let bytes = prop_oneof![damaged(inputs("key_pem")), prop::collection::vec(any::<u8>(), 0..200)];
    proptest!(|(bytes in bytes)| checks::key_pem(&bytes));
}

#[test]
fn headers_of_quotas_are_read_or_left_out() {
    all("quota_headers", checks::quota_headers);
    let bytes = prop_oneof![damaged(inputs("quota_headers")), prop::collection::vec(any::<u8>(), 0..200)];
    proptest!(ProptestConfig::with_cases(2_000), |(bytes in bytes)| checks::quota_headers(&bytes));
}

#[test]
fn answers_about_replicas_are_read_or_refused_with_a_word() {
    all("replica_answer", checks::replica_answer);
    let bytes = prop_oneof![damaged(inputs("replica_answer")), prop::collection::vec(any::<u8>(), 0..200)];
    proptest!(ProptestConfig::with_cases(2_000), |(bytes in bytes)| checks::replica_answer(&bytes));
}
