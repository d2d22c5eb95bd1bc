//! CPUs that see each other's stores late: what the orderings of the core's atomics promise, and no more.
//!
//! A library takes the place of the core's atomics and locks in which a load may answer with any value that its ordering
//! allows, under `--cfg shuttle --cfg loom`. As a part of the ordinary tests each case here builds this file in that way,
//! in a target directory of its own, and runs the case of the same name there.

#[cfg(loom)]
#[path = "ordering/explored.rs"]
mod explored;

#[cfg(not(shuttle))]
mod apart {
    use std::env;
    use std::path::Path;
    use std::process::Command;

    /// Runs a case with every value that a load may answer.
    fn run(case: &str) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .expect("the tests lie in the workspace");
        let target = env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| root.join("target"), |directory| root.join(directory));
        let mut flags = env::var("RUSTFLAGS").unwrap_or_default();
        flags.push_str(" --cfg shuttle --cfg loom");
        let output = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .current_dir(root)
            .args(["test", "--package", "freehold-tests", "--test", "ordering"])
            .args(["--", "--exact", "--nocapture"])
            .arg(format!("explored::{case}"))
            .env("RUSTFLAGS", flags)
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .env("CARGO_TARGET_DIR", target.join("loom"))
            .output()
            .expect("cargo runs");
        let told = String::from_utf8_lossy(&output.stdout);
        print!("{told}");
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "explored::{case}: {}", output.status);
        // A name that fits no case would succeed, too.
        assert!(
            told.contains("test result: ok. 1 passed"),
            "explored::{case} was not run"
        );
    }

    macro_rules! cases {
        ($($name:ident),* $(,)?) => {
            $(
                #[test]
                fn $name() {
                    run(stringify!($name));
                }
            )*
        };
    }

    cases!(
        who_takes_a_lock_finds_the_entries_that_were_written_under_it,
        a_walk_that_finds_a_table_finds_what_was_stored_into_it,
    );
}
