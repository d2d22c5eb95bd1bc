//! The doors of the EL2 image on the machine: what is in its code, and what it does when traced.

use freehold_tests::doors::expect::Model;
use freehold_tests::doors::operations::OPERATIONS;
use freehold_tests::doors::rules::{RULES, no_vectors, returns_are_guarded};
use freehold_tests::doors::session::{Built, Session};
use freehold_tests::trials;
use libtest_mimic::{Arguments, Failed, Trial};
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

/// The models: walks that must be turned off while a VMID is not that of EL1's state; invalidations that must be done
/// twice; features.
const MODELS: [Model; 3] = [
    Model {
        speculates_at: true,
        ..model("cortex-a72", 44)
    },
    Model {
        repeats_tlbi: true,
        ..model("cortex-a76", 40)
    },
    Model {
        range_tlbi: true,
        ..model("max", 48)
    },
];

const fn model(cpu: &'static str, pa_bits: u32) -> Model {
    Model {
        cpu,
        pa_bits,
        range_tlbi: false,
        repeats_tlbi: false,
        speculates_at: false,
        cache_line: 0,
        zero_block: 0,
    }
}

type Shared<T> = Arc<OnceLock<Result<T, String>>>;

/// What is made once, when the first test wants it.
fn of<T>(
    shared: &OnceLock<Result<T, String>>,
    make: impl FnOnce() -> anyhow::Result<T>,
) -> Result<&T, Failed> {
    shared
        .get_or_init(|| make().map_err(|error| format!("{error:#}")))
        .as_ref()
        .map_err(Failed::from)
}

fn image_trials(built: &Shared<Built>) -> Vec<Trial> {
    type Check = Box<dyn FnOnce(&freehold_tests::doors::code::Code) -> Result<(), String> + Send>;
    let mut checks: Vec<(&str, Check)> = RULES
        .iter()
        .map(|rule| (rule.name, Box::new(|code: &_| rule.check(code)) as Check))
        .collect();
    checks.push(("no_vector_register_is_used", Box::new(no_vectors)));
    checks.push(("nothing_is_executed_past_a_return", Box::new(returns_are_guarded)));
    let trial = |(name, check): (&str, Check)| {
        let built = Arc::clone(built);
        Trial::test(format!("image::{name}"), move || {
            let code = of(&built, Built::new)?
                .code()
                .map_err(|error| Failed::from(format!("{error:#}")))?;
            check(&code).map_err(Failed::from)
        })
    };
    checks.into_iter().map(trial).collect()
}

fn machine_trials(built: &Shared<Built>, model: Model) -> Vec<Trial> {
    type Check = Box<dyn FnOnce(&Session) -> Result<(), String> + Send>;
    let mut checks: Vec<(&str, Check)> = OPERATIONS
        .iter()
        .map(|operation| {
            (
                *operation,
                Box::new(|session: &Session| session.check(operation)) as Check,
            )
        })
        .collect();
    let mut add = |name, check: Check| checks.push((name, check));
    add(
        "every_operation_is_played",
        Box::new(|session| {
            let played = session.operations();
            if played == OPERATIONS {
                Ok(())
            } else {
                Err(format!("the payload plays {played:?}"))
            }
        }),
    );
    add("every_step_counts", Box::new(Session::every_step_counts));
    add("cpus_come_in", Box::new(Session::cpus_come_in));
    add(
        "start_arguments_are_clean",
        Box::new(Session::start_arguments_are_clean),
    );
    add(
        "invalidations_are_complete",
        Box::new(Session::invalidations_are_complete),
    );
    add("vttbr_is_synchronized", Box::new(Session::vttbr_is_synchronized));
    add("vectors_are_open", Box::new(Session::vectors_are_open));
    add("code_is_never_written", Box::new(Session::code_is_never_written));
    let session = Shared::<Session>::default();
    let trial = |(name, check): (&str, Check)| {
        let (built, session) = (Arc::clone(built), Arc::clone(&session));
        Trial::test(format!("{}::{name}", model.cpu), move || {
            let built = of(&built, Built::new)?;
            let session = of(&session, || Session::run(built, model))?;
            check(session).map_err(Failed::from)
        })
    };
    checks.into_iter().map(trial).collect()
}

fn list(_: &Arguments) -> anyhow::Result<Vec<Trial>> {
    let built = Shared::default();
    let mut trials = image_trials(&built);
    for model in MODELS {
        trials.extend(machine_trials(&built, model));
    }
    Ok(trials)
}

fn main() -> ExitCode {
    trials::run(None, list)
}
