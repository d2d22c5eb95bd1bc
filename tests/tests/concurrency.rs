//! CPUs at once on the same and on neighboring frames, in many explored schedules.
//!
//! The schedules are explored by a library that takes the place of the core's atomics and locks, under `--cfg shuttle`.
//! As a part of the ordinary tests each case here builds this file in that way, in a target directory of its own, and
//! runs the case of the same name there. A failure prints the schedule.

#[cfg(shuttle)]
#[path = "concurrency/explored.rs"]
mod explored;

#[cfg(not(shuttle))]
mod apart {
    use std::env;
    use std::path::Path;
    use std::process::Command;

    /// Runs a case under explored schedules.
    fn run(case: &str) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .expect("the tests lie in the workspace");
        let target = env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| root.join("target"), |directory| root.join(directory));
        let mut flags = env::var("RUSTFLAGS").unwrap_or_default();
        flags.push_str(" --cfg shuttle");
        let output = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .current_dir(root)
            .args(["test", "--package", "freehold-tests", "--test", "concurrency"])
            .args(["--", "--exact", "--nocapture"])
            .arg(format!("explored::{case}"))
            .env("RUSTFLAGS", flags)
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .env("CARGO_TARGET_DIR", target.join("shuttle"))
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
        calls_on_one_region_happen_in_some_order,
        calls_across_regions_leave_everything_in_agreement,
        the_pool_comes_and_goes_while_it_is_used,
        too_few_pages_for_all_leave_everything_in_agreement,
        halves_of_a_region_come_back_while_it_is_collapsed,
        a_cpu_that_faults_on_its_own_memory_goes_back,
        a_frame_is_taken_by_force_while_it_changes_hands,
    );
}
