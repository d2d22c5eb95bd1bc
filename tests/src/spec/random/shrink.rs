//! The shortest sequence that still goes wrong, by leaving acts out.

use super::{Act, replay};
use std::panic;

/// Tells of a sequence that went wrong.
///
/// # Panics
/// Always: that is its purpose.
pub(super) fn report(seed: u64, acts: &[Act], wrong: &str) -> ! {
    eprintln!("seed {seed}, act {}: {wrong}", acts.len());
    eprintln!("looking for a shorter way there");
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let (shorter, wrong) = shrink(acts.to_vec(), wrong.to_owned());
    panic::set_hook(hook);
    let story: String = shorter.iter().map(|act| format!("  {act:x?}\n")).collect();
    panic!("FREEHOLD_SEED={seed}: {wrong}\nafter\n{story}");
}

/// Leaves out runs of acts, long ones first, as long as the rest goes wrong.
fn shrink(mut acts: Vec<Act>, mut wrong: String) -> (Vec<Act>, String) {
    let mut size = acts.len() / 2;
    while size > 0 {
        let mut start = 0;
        let mut shorter = false;
        while start < acts.len() {
            let mut candidate = acts.clone();
            candidate.drain(start..(start + size).min(acts.len()));
            match replay(&candidate) {
                Ok(_) => start += size,
                Err(failure) => {
                    candidate.truncate(failure.at + 1);
                    acts = candidate;
                    wrong = failure.wrong;
                    shorter = true;
                }
            }
        }
        // A run of one is tried again for as long as it helps.
        if size > 1 || !shorter {
            size /= 2;
        }
    }
    (acts, wrong)
}
