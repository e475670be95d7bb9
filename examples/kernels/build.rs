//! Links each kernel by its own script, at fixed addresses.

use std::env;
use std::path::PathBuf;

fn main() {
    let directory = env::var_os("CARGO_MANIFEST_DIR")
        .map(PathBuf::from)
        .unwrap_or_default();
    let script = directory.join("kernel.ld");
    println!("cargo::rerun-if-changed={}", script.display());
    let arguments = [
        "--no-pie",
        "-static",
        "-znoexecstack",
        "-zmax-page-size=4096",
        "--build-id=none",
    ];
    for argument in arguments {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
    println!("cargo::rustc-link-arg-bins=-T{}", script.display());
}
