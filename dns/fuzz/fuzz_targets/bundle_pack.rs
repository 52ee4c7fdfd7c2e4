//! libFuzzer's bytes enter `checks::bundle_pack`.
#![no_main]

#[path = "../src/checks.rs"]
#[allow(dead_code, reason = "each target runs one check")]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::bundle_pack(bytes));
