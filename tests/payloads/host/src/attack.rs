//! A hostile host: every CPU attacks Freehold at once, at random, in every way that EL1 has.
//!
//! The seed fixes each CPU's stream of attacks. Each CPU keeps book of the memory that is its own ([`ground`]), so
//! that valid calls stay frequent and every answer can be judged; [`attacker`] is one CPU, whose attacks are in
//! [`hypercalls`], [`guests`], [`access`], [`stage1`], [`devices`], [`firmware_calls`] and [`system`].
//!
//! In the end all memory is taken back, Freehold's audit is asked for, and what was counted ([`tally`]) is printed, a
//! line each that begins with `A `. The machine then stands still, for whoever wants to look into it; it does not end
//! by itself.

mod access;
mod attacker;
mod bank;
mod call;
mod devices;
mod end;
mod firmware_calls;
mod gadget;
mod ground;
mod guests;
mod hypercalls;
pub(crate) mod random;
mod stage1;
mod system;
mod tally;

pub(crate) use gadget::caught_at_el1;

use crate::console::println;
use crate::exit::{Exit, leave};
use crate::hypercall::HYPERVISOR;
use crate::{cpu, sysreg};
use attacker::Attacker;
use ground::{Estate, Ground};
use hyp_abi::Features;
use spin::Once;
use spin::mutex::TicketMutex;
use tally::Kind;

/// Each CPU attacks in so many bursts with all others, and in as many while the last CPU goes off and comes back.
const ROUNDS: u64 = 6;

/// Of a round's calls, one in so many is made while the last CPU comes and goes.
const CYCLED: u64 = 3;

static GROUND: Once<Ground> = Once::new();
static ESTATES: [TicketMutex<Option<Estate>>; cpu::MAX] = [const { TicketMutex::new(None) }; cpu::MAX];
static ATTACKERS: [TicketMutex<Option<Attacker<'static>>>; cpu::MAX] =
    [const { TicketMutex::new(None) }; cpu::MAX];

/// What the command line asks for.
#[derive(Clone, Copy, Debug)]
struct Settings {
    seed: u64,
    calls: u64,
}

/// Reads `seed=… calls=…`, in decimal.
fn parse(words: &str) -> Option<Settings> {
    let mut settings = Settings {
        seed: 1,
        calls: 10_000,
    };
    for word in words.split_ascii_whitespace() {
        let (name, value) = word.split_once('=')?;
        let value = value.parse().ok()?;
        match name {
            "seed" => settings.seed = value,
            "calls" => settings.calls = value,
            _ => return None,
        }
    }
    Some(settings)
}

/// Attacks, reports, and stands still.
pub(crate) fn run(words: &str) -> ! {
    let Some(Settings { seed, calls }) = parse(words) else {
        println!("payload: `attack {words}` makes no sense");
        leave(Exit::UnknownCommand)
    };
    let Ok(ground) =
        GROUND.try_call_once(|| ground::divide(|cpu, estate| *ESTATES[cpu].lock() = Some(estate)))
    else {
        println!("payload: no room for an attack, or no Freehold");
        leave(Exit::NothingToRun)
    };
    println!("A begin {seed} {calls} {}", cpu::count());
    println!("A reservation {:#x} {:#x}", ground.hyp.start, ground.hyp.end);
    if let Ok(info) = HYPERVISOR.version() {
        let entropy = info.features.contains(Features::ENTROPY);
        println!("A entropy {}", u8::from(entropy));
    }
    for cpu in 0..cpu::count() {
        let estate = ESTATES[cpu].lock().take().expect("every CPU has its estate");
        *ATTACKERS[cpu].lock() = Some(Attacker::new(seed, cpu, ground, estate));
    }
    attack(calls);
    if let Some(attacker) = ATTACKERS[0].lock().as_mut() {
        attacker.end_guests();
    }
    end::take_back(ground, |work| {
        for attacker in &ATTACKERS[..cpu::count()] {
            if let Some(attacker) = attacker.lock().as_mut() {
                work(attacker);
            }
        }
    });
    end::audit(ground);
    tally::print();
    println!("A done {}", tally::failures());
    // The runner looks at memory and registers now, and ends QEMU itself.
    sysreg::mask_irqs();
    loop {
        sysreg::wait_for_interrupt();
    }
}

/// All CPUs at once, by turns with and without the last one.
fn attack(calls: u64) {
    let cpus = cpu::count();
    let each = calls.div_ceil(ROUNDS * cpus as u64);
    for _ in 0..ROUNDS {
        if cpus == 1 {
            burst(0, each, |_| ());
            continue;
        }
        let cycled = each / CYCLED;
        // What the last CPU does not do while it is off is done by the others, and by all in the other half.
        cpu::run_everywhere(|cpu| burst(cpu, each - cycled / 2, |_| ()));
        let victim = cpus - 1;
        cpu::run_on_first(victim, |cpu| {
            let mut is_on = true;
            burst(cpu, cycled, |_| {
                if cpu == 0 {
                    let switched = if is_on {
                        cpu::stop(victim)
                    } else {
                        cpu::start(victim)
                    };
                    tally::attack(Kind::CpuCycle, switched.is_ok());
                    is_on = is_on != switched.is_ok();
                }
            });
            if !is_on {
                tally::attack(Kind::CpuCycle, cpu::start(victim).is_ok());
            }
        });
    }
}

fn burst(cpu: usize, calls: u64, between: impl FnMut(&mut Attacker<'static>)) {
    if let Some(attacker) = ATTACKERS[cpu].lock().as_mut() {
        attacker.burst(calls, between);
    }
}
