//! Ends the Wasm's memory at 96 MiB of an isolate's 128 MB: what doesn't fit is refused (`inflight`), and the runtime's
//! own share stays.

/// In bytes, whole pages of 64 KiB.
const LARGEST_MEMORY: u32 = 96 << 20;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "wasm32") {
        println!("cargo::rustc-link-arg-cdylib=--max-memory={LARGEST_MEMORY}");
    }
}
