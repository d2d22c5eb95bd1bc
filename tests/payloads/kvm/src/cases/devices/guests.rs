//! What of it a guest sees that runs.

use super::super::{cases, same, succeed};
use super::{DATAMATCH, GICD, GICR, Gic, RESAMPLE, bell, drive, eventfd, irqfd, spi};
use crate::Outcome;
use crate::device::Errno;
use crate::guest::{BASE, CPU_ON, Do, Exit, Guest, KINDS, list_of};
use std::time::{Duration, Instant};

cases![
    devices_interrupt_a_guest_that_waits,
    devices_interrupt_a_guest_that_does_not_wait,
    devices_interrupt_by_eventfds,
    devices_are_asked_to_look_again,
    devices_hear_doorbells,
    devices_have_a_timer_that_wakes,
    devices_have_a_timer_that_interrupts,
    devices_let_vcpus_interrupt_each_other,
];

/// What a guest does first: the controller on, SPI 40 an edge and SPI 41 a level, both for vCPU 0, its SGIs and its timer.
pub(in crate::cases) fn setup() -> Vec<Do> {
    let mut list = own(0);
    list.extend([
        Do::Store(4, GICD, 2),
        Do::Store(4, GICD + 0x84, 0b11 << 8),
        Do::Store(4, GICD + 0xc08, 2 << 16),
        Do::Store(4, GICD + 0x104, 0b11 << 8),
    ]);
    list
}

/// What each vCPU does for its own interrupts.
pub(in crate::cases) fn own(vcpu: u64) -> Vec<Do> {
    let frame = GICR + vcpu * 0x2_0000 + 0x1_0000;
    vec![
        Do::Store(4, frame + 0x80, 0xffff_ffff),
        Do::Store(4, frame + 0x100, 1 << 27 | 0xffff),
        Do::Interrupts,
    ]
}

/// A guest of each kind does that.
fn each(list: &[Do], work: impl Fn(&Guest, &Gic) -> Outcome) -> Outcome {
    for kind in KINDS {
        let list: Vec<_> = setup().into_iter().chain(list.iter().copied()).collect();
        let guest = Guest::new(kind, &[&list])?;
        let gic = succeed("a controller", Gic::of(&guest.vm))?;
        succeed("its place", gic.make())?;
        work(&guest, &gic).map_err(|why| format!("kind {kind:#x}: {why}"))?;
    }
    Ok(())
}

/// Does something while the guest runs, after a while.
fn meanwhile(work: impl FnOnce() + Send, run: impl FnOnce() -> Outcome) -> Outcome {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(100));
            work();
        });
        run()
    })
}

pub(in crate::cases) const WAIT: Do = Do::Take { waits: true };
pub(in crate::cases) const LOOK: Do = Do::Take { waits: false };

fn devices_interrupt_a_guest_that_waits() -> Outcome {
    each(&[Do::Report(1), WAIT, WAIT, WAIT], |guest, gic| {
        let (vm, vcpu) = (&guest.vm, guest.vcpu());
        let pulse = || {
            let done = drive(vm, spi(40), 1).and_then(|_| drive(vm, spi(40), 0));
            assert_eq!(done, Ok(0));
        };
        vcpu.reports("the guest", 1)?;
        pulse();
        vcpu.reports("an interrupt before it waits", 40)?;
        meanwhile(pulse, || vcpu.reports("one while it waits", 40))?;
        meanwhile(
            || {
                // Its registers are at rest only if no vCPU runs. The one of the guest does before long.
                let until = Instant::now() + Duration::from_secs(20);
                while gic.get(1, 0).is_ok() && Instant::now() < until {
                    std::thread::yield_now();
                }
                assert_eq!(gic.get(1, 0), Err(Errno(libc::EBUSY)));
                assert_eq!(gic.set(1, 0, 0), Err(Errno(libc::EBUSY)));
                assert_eq!(drive(vm, spi(41), 1), Ok(0));
            },
            || vcpu.reports("a level", 41),
        )?;
        same("the line", drive(vm, spi(41), 0), Ok(0))?;
        same("a register", gic.get(1, 0), Ok(0xffff_ffff_0000_0052))?;
        vcpu.turns_off()
    })
}

fn devices_interrupt_a_guest_that_does_not_wait() -> Outcome {
    each(&[LOOK, LOOK, LOOK], |guest, _| {
        let vm = &guest.vm;
        for _ in 0..2 {
            meanwhile(
                || {
                    let done = drive(vm, spi(40), 1).and_then(|_| drive(vm, spi(40), 0));
                    assert_eq!(done, Ok(0));
                },
                || guest.vcpu().reports("an interrupt", 40),
            )?;
        }
        // The line is still high when it is taken, so it comes again.
        same("the line", drive(vm, spi(41), 1), Ok(0))?;
        guest.vcpu().reports("a level", 41)?;
        same("the line", drive(vm, spi(41), 0), Ok(0))?;
        guest.vcpu().turns_off()
    })
}

fn devices_interrupt_by_eventfds() -> Outcome {
    each(&[WAIT, LOOK, WAIT], |guest, _| {
        let fd = eventfd()?;
        same("a line", irqfd(&guest.vm, fd.raw(), 8, 0, 0), Ok(0))?;
        for _ in 0..3 {
            meanwhile(|| fd.signal(), || guest.vcpu().reports("an interrupt", 40))?;
        }
        same("what is read", fd.count(), 0)?;
        guest.vcpu().turns_off()
    })
}

fn devices_are_asked_to_look_again() -> Outcome {
    each(&[WAIT, Do::Report(1), WAIT, Do::Report(2)], |guest, _| {
        let (vm, vcpu) = (&guest.vm, guest.vcpu());
        let (fd, again) = (eventfd()?, eventfd()?);
        same("a line", irqfd(vm, fd.raw(), 9, RESAMPLE, again.raw()), Ok(0))?;
        for round in 1..=2 {
            meanwhile(|| fd.signal(), || vcpu.reports("a level", 41))?;
            // Its report came after it had served the interrupt, and so does this.
            vcpu.reports("what follows", round)?;
            same("how often it was asked", again.count(), 1)?;
        }
        vcpu.turns_off()
    })
}

fn devices_hear_doorbells() -> Outcome {
    let place = 0x0a00_0050;
    let stores = [
        Do::Store(4, place, 1),
        Do::Store(4, place, 1),
        Do::Store(4, place, 2),
        Do::Store(2, place, 1),
        Do::Store(8, place + 8, 77),
        Do::Store(1, place + 8, 77),
    ];
    each(&stores, |guest, _| {
        let (vm, vcpu) = (&guest.vm, guest.vcpu());
        let (one, all) = (eventfd()?, eventfd()?);
        same("a doorbell", bell(vm, one.raw(), place, 4, DATAMATCH, 1), Ok(0))?;
        same("a doorbell", bell(vm, all.raw(), place + 8, 0, 0, 0), Ok(0))?;
        same("another value", vcpu.run(), Ok(Exit::Store(place, 4, 2)))?;
        same("another width", vcpu.run(), Ok(Exit::Store(place, 2, 1)))?;
        vcpu.turns_off()?;
        same("signals", (one.count(), all.count()), (2, 2))
    })
}

/// Ticks of a tenth of a second: the counter of QEMU's machine, and more where it is slower.
const TENTH: u64 = 6_250_000;

fn devices_have_a_timer_that_wakes() -> Outcome {
    each(
        &[Do::Timer(0), WAIT, Do::Timer(TENTH), WAIT, Do::TimerState],
        |guest, _| {
            guest.vcpu().reports("the timer", 27)?;
            guest.vcpu().reports("the timer again", 27)?;
            guest.vcpu().reports("it is off", 0)?;
            guest.vcpu().turns_off()
        },
    )
}

fn devices_have_a_timer_that_interrupts() -> Outcome {
    each(&[Do::Timer(0), LOOK, Do::Timer(TENTH), LOOK], |guest, _| {
        guest.vcpu().reports("the timer", 27)?;
        guest.vcpu().reports("the timer again", 27)?;
        guest.vcpu().turns_off()
    })
}

fn devices_let_vcpus_interrupt_each_other() -> Outcome {
    // SGI 5 to Aff0 1; SGI 6 back, and SGI 7 to all others.
    let mut first = setup();
    first.extend([
        Do::Call(CPU_ON, 1, BASE, list_of(1)),
        Do::Send(5 << 24 | 0b10),
        WAIT,
        LOOK,
    ]);
    let mut second = own(1);
    second.extend([
        WAIT,
        Do::Send(6 << 24 | 0b01),
        Do::Send(7 << 24 | 1 << 40),
        Do::Report(1),
    ]);
    for kind in KINDS {
        let guest = Guest::new(kind, &[&first, &second])?;
        let gic = succeed("a controller", Gic::of(&guest.vm))?;
        succeed("its place", gic.make())?;
        let vcpu = guest.vcpu();
        std::thread::scope(|scope| {
            let other = scope.spawn(|| -> Outcome {
                guest.vcpus[1].reports("the second's interrupt", 5)?;
                guest.vcpus[1].reports("that it goes on", 1)
            });
            vcpu.reports("that the second is on", 0)?;
            vcpu.reports("the first's interrupt", 6)?;
            vcpu.reports("another", 7)?;
            other.join().map_err(|_| "the second panicked".to_owned())?
        })?;
        vcpu.turns_off()?;
    }
    Ok(())
}
