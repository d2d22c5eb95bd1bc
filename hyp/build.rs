//! Hands the linker script to the linker. The image is position-independent: its entry code applies the relative
//! relocations itself.

use std::env;
use std::path::PathBuf;

fn main() {
    let manifest = env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR for build scripts");
    let script = PathBuf::from(manifest).join("../linker/hyp.ld");
    println!("cargo::rerun-if-changed={}", script.display());
    println!("cargo::rerun-if-changed=src");
    if env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        println!("cargo::rustc-link-arg-bins=-T{}", script.display());
        for argument in [
            "-pie",
            "--no-dynamic-linker",
            "-znotext",
            "-zmax-page-size=4096",
            "--orphan-handling=error",
        ] {
            println!("cargo::rustc-link-arg-bins={argument}");
        }
    }
}
