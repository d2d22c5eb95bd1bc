//! Links the guest with its own script, for the one address at which the payload host puts it.

use std::path::Path;

fn main() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../linker/guest.ld");
    println!("cargo::rerun-if-changed={}", script.display());
    println!("cargo::rerun-if-changed=src");
    println!("cargo::rustc-link-arg-bins=-T{}", script.display());
}
