//! The `wasm-bindgen` command with the options that worker-build gives it: takes a Wasm file, writes it with its
//! JavaScript to `--out-dir`. `scripts/setup` builds it; `scripts/build-edge` names it to worker-build.

use std::env;

use anyhow::{Context, Result, bail};
use wasm_bindgen_cli_support::Bindgen;

fn main() -> Result<()> {
    let mut arguments = env::args().skip(1);
    let mut bindgen = Bindgen::new();
    let mut out_dir = None;
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().with_context(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--version" | "-V" => {
                println!("wasm-bindgen {} (slim)", env!("CARGO_PKG_VERSION"));
                return Ok(());
            }
            "--out-dir" => out_dir = Some(value()?),
            "--out-name" => _ = bindgen.out_name(&value()?),
            "--target" => match value()?.as_str() {
                "module" => _ = bindgen.module(true)?,
                other => bail!("--target {other} is not built in; install wasm-bindgen-cli"),
            },
            "--typescript" => _ = bindgen.typescript(true),
            "--no-typescript" => _ = bindgen.typescript(false),
            "--debug" => _ = bindgen.debug(true),
            "--no-demangle" => _ = bindgen.demangle(false),
            "--keep-debug" => _ = bindgen.keep_debug(true),
            "--omit-default-module-path" => _ = bindgen.omit_default_module_path(true),
            "--split-linked-modules" => _ = bindgen.split_linked_modules(true),
            "--experimental-reset-state-function" => _ = bindgen.reset_state_function(true),
            "--force-enable-abort-handler" => _ = bindgen.force_enable_abort_handler(true),
            option if option.starts_with('-') => bail!("{option} is not built in; install wasm-bindgen-cli"),
            input => _ = bindgen.input_path(input),
        }
    }
    bindgen.generate(out_dir.context("--out-dir is missing")?)
}
