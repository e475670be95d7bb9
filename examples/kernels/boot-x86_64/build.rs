//! Tells the build scripts of kernels where the linker script is, by which all of them are linked.

use std::env;
use std::path::PathBuf;

fn main() {
    let directory = env::var_os("CARGO_MANIFEST_DIR")
        .map(PathBuf::from)
        .unwrap_or_default();
    let script = directory.join("kernel.ld");
    println!("cargo::rerun-if-changed={}", script.display());
    println!("cargo::metadata=script={}", script.display());
}
