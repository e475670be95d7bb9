//! Links a kernel by a script, at fixed addresses: its own, or that of the boot code which it uses.

use std::env;
use std::path::PathBuf;

fn main() {
    let own = || {
        let directory = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
        directory.unwrap_or_default().join("kernel.ld")
    };
    // Set by `boot-x86_64` for what depends on it.
    let script = env::var_os("DEP_BOOT_X86_64_SCRIPT").map_or_else(own, PathBuf::from);
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
