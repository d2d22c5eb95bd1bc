//! Links the payload with its own script, as an image that runs wherever it is loaded.

use std::path::Path;

fn main() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../linker/payload.ld");
    println!("cargo::rerun-if-changed={}", script.display());
    println!("cargo::rerun-if-changed=src");
    println!("cargo::rustc-link-arg-bins=-T{}", script.display());
    println!("cargo::rustc-link-arg-bins=-pie");
    println!("cargo::rustc-link-arg-bins=--no-dynamic-linker");
    // The entry code relocates all of the image, its read-only data too, before anything reads it.
    println!("cargo::rustc-link-arg-bins=-znotext");
    // The linker script keeps the slices that are gathered at link time; this keeps the linker from dropping them.
    println!("cargo::rustc-link-arg-bins=-znostart-stop-gc");
}
