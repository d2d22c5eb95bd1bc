//! The payload itself: that its probes, CPUs, timer and allocator show what happens, on a machine without Freehold.

use super::support::{frames, needs_cpus};
use crate::barrier::Barrier;
use crate::exception::class;
use crate::paging::window::{Attributes, Window};
use crate::probe::{self, Access, Level};
use crate::registry::{case, ensure, ensure_eq, fail, succeed};
use crate::{bench, cpu, frames as allocator, sysreg, timer};
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use hyp_abi::FRAME_SIZE;

/// Fault status codes (Arm ARM DDI 0487, D24.2.40): translation, permission and alignment.
const TRANSLATION_3: u64 = 0b00_0111;
const PERMISSION_3: u64 = 0b00_1111;
const ALIGNMENT: u64 = 0b10_0001;

case!(an_access_to_an_unmapped_page_is_caught, {
    let window = Window::new(1).expect("a CPU has window pages");
    for access in Access::ALL {
        let address = window.address() + 0x40;
        match probe::access(Level::El1, access, address, 0) {
            Ok(_) => fail!("{access:?} of an unmapped page went through"),
            Err(fault) => {
                ensure_eq!(fault.class(), class::DATA_ABORT_SAME, "{access:?}: class");
                ensure_eq!(fault.status(), TRANSLATION_3, "{access:?}: status");
                ensure_eq!(fault.far, address, "{access:?}: address");
                ensure_eq!(fault.is_write(), access.is_write(), "{access:?}: write");
                ensure_eq!(
                    fault.elr,
                    probe::snippet(Level::El1, access),
                    "{access:?}: instruction"
                );
            }
        }
    }
    Ok(())
});

case!(user_code_faults_at_el0_and_comes_back, {
    let frame = frames(1)?;
    frame.fill(7);
    let window = Window::new(1).expect("a CPU has window pages");
    for access in Access::ALL {
        // Mapped, but for EL1 alone.
        window.map(0, frame.frame(0), Attributes::ReadWrite);
        let address = window.address() + 0x80;
        match probe::access(Level::El0, access, address, 0) {
            Ok(_) => fail!("{access:?} of the kernel's page went through"),
            Err(fault) => {
                ensure_eq!(fault.class(), class::DATA_ABORT_LOWER, "{access:?}: class");
                ensure_eq!(fault.status(), PERMISSION_3, "{access:?}: status");
                ensure_eq!(fault.far, address, "{access:?}: address");
                ensure_eq!(fault.spsr, probe::EL0_SPSR, "{access:?}: PSTATE");
                ensure_eq!(
                    fault.elr,
                    probe::snippet(Level::El0, access),
                    "{access:?}: instruction"
                );
            }
        }
        window.map(0, frame.frame(0), Attributes::User);
        succeed!(probe::access(Level::El0, access, address, 0));
    }
    drop(window);
    frame.free();
    Ok(())
});

case!(both_levels_see_the_same_memory, {
    let frame = frames(1)?;
    let physical = frame.frame(0);
    for (level, other) in [(Level::El1, Level::El0), (Level::El0, Level::El1)] {
        let value = 0x1234_5678_9abc_def0 ^ level as u64;
        succeed!(probe::access(
            level,
            Access::Store8,
            level.address(physical),
            value
        ));
        let seen = succeed!(probe::access(other, Access::Load8, other.address(physical), 0));
        ensure_eq!(seen, value, "{other:?} after a store of {level:?}");
        let low = succeed!(probe::access(other, Access::Load2, other.address(physical), 0));
        ensure_eq!(low, value & 0xffff, "half a word");
    }
    frame.free();
    Ok(())
});

case!(a_store_to_a_read_only_page_is_caught, {
    let frame = frames(1)?;
    frame.fill(1);
    let window = Window::new(1).expect("a CPU has window pages");
    window.map(0, frame.frame(0), Attributes::UserReadOnly);
    for level in Level::ALL {
        succeed!(probe::access(level, Access::Load8, window.address(), 0));
        match probe::access(level, Access::Store8, window.address(), 0) {
            Ok(_) => fail!("{level:?} wrote a read-only page"),
            Err(fault) => ensure_eq!(
                (fault.class(), fault.status()),
                (level.data_abort(), PERMISSION_3)
            ),
        }
    }
    ensure_eq!(frame.find_wrong(|address| 1 ^ address), None);
    drop(window);
    frame.free();
    Ok(())
});

case!(an_access_across_an_edge_faults_on_the_far_page, {
    let frame = frames(1)?;
    let window = Window::new(2).expect("a CPU has window pages");
    window.map(0, frame.frame(0), Attributes::ReadWrite);
    let edge = window.address() + FRAME_SIZE;
    for access in [Access::Load8, Access::Store8, Access::Load4, Access::Store2] {
        let Err(fault) = probe::access(Level::El1, access, edge - 1, 0) else {
            fail!("{access:?} went through")
        };
        ensure_eq!(fault.class(), class::DATA_ABORT_SAME, "{access:?}: class");
        ensure!(
            (edge - 1..=edge).contains(&fault.far),
            "{access:?}: address {:#x}",
            fault.far
        );
    }
    drop(window);
    frame.free();
    Ok(())
});

case!(an_exclusive_load_off_its_alignment_is_an_alignment_fault, {
    let frame = frames(1)?;
    for level in Level::ALL {
        let address = level.address(frame.frame(0) + 1);
        let Err(fault) = probe::access(level, Access::LoadExclusive, address, 0) else {
            fail!("it went through")
        };
        ensure_eq!(
            (fault.class(), fault.status(), fault.far),
            (level.data_abort(), ALIGNMENT, address)
        );
    }
    frame.free();
    Ok(())
});

case!(code_runs_at_both_levels_and_its_absence_is_caught, {
    // MOV X0, #42
    const MOV_X0_42: u32 = 0xd280_0540;
    let frame = frames(1)?;
    let window = Window::new(1).expect("a CPU has window pages");
    for level in Level::ALL {
        frame.write_code(0, &[MOV_X0_42, probe::end_of_code(level)]);
        let got = succeed!(probe::fetch(level, level.address(frame.frame(0)), 0));
        ensure_eq!(got, 42, "{level:?}");
        let Err(fault) = probe::fetch(level, window.address(), 0) else {
            fail!("{level:?} ran nothing at all")
        };
        ensure_eq!(fault.class(), level.instruction_abort(), "{level:?}: class");
        ensure_eq!(
            (fault.status(), fault.far, fault.elr),
            (TRANSLATION_3, window.address(), window.address())
        );
    }
    drop(window);
    frame.free();
    Ok(())
});

case!(an_undefined_instruction_is_caught_at_both_levels, {
    // UDF #0; MRS X0, VBAR_EL2, which no EL1 may read; MRS X0, MIDR_EL1, which EL1 may.
    for instruction in [0x0000_0000, 0xd53c_c000] {
        for level in Level::ALL {
            let Err(fault) = probe::execute(level, instruction, [0; 2]) else {
                fail!("{instruction:#x} ran")
            };
            ensure_eq!(
                (fault.class(), fault.elr),
                (class::UNKNOWN, probe::code_address(level))
            );
        }
    }
    let [midr, _] = succeed!(probe::execute(Level::El1, 0xd538_0000, [0; 2]));
    ensure_eq!(midr, sysreg::midr());
    Ok(())
});

case!(every_cpu_runs_what_it_is_given, {
    let seen = AtomicU64::new(0);
    let wrong = AtomicUsize::new(0);
    for _ in 0..20 {
        seen.store(0, Ordering::Relaxed);
        cpu::run_everywhere(|cpu| {
            if cpu != cpu::number() {
                wrong.fetch_add(1, Ordering::Relaxed);
            }
            seen.fetch_or(1 << cpu, Ordering::Relaxed);
        });
        ensure_eq!(seen.load(Ordering::Relaxed).count_ones() as usize, cpu::count());
    }
    ensure_eq!(wrong.load(Ordering::Relaxed), 0);
    Ok(())
});

case!(a_barrier_holds_all_cpus_together, {
    needs_cpus(2)?;
    let barrier = Barrier::new(cpu::count());
    let (arrived, early) = (AtomicUsize::new(0), AtomicUsize::new(0));
    cpu::run_everywhere(|_| {
        for round in 1..=10 {
            arrived.fetch_add(1, Ordering::Relaxed);
            barrier.wait();
            if arrived.load(Ordering::Relaxed) < round * cpu::count() {
                early.fetch_add(1, Ordering::Relaxed);
            }
            barrier.wait();
        }
    });
    ensure_eq!(
        (arrived.load(Ordering::Relaxed), early.load(Ordering::Relaxed)),
        (10 * cpu::count(), 0)
    );
    Ok(())
});

case!(every_cpu_can_fault_at_once, {
    let caught = AtomicUsize::new(0);
    cpu::run_everywhere(|_| {
        let Some(window) = Window::new(1) else { return };
        for round in 0..50 {
            let address = window.address() + round * 8;
            for level in Level::ALL {
                let fault = probe::access(level, Access::Load8, address, 0);
                if fault.is_err_and(|fault| fault.far == address && fault.class() == level.data_abort()) {
                    caught.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    });
    ensure_eq!(caught.load(Ordering::Relaxed), 100 * cpu::count());
    Ok(())
});

case!(the_timer_interrupts_every_cpu, {
    let missed = AtomicUsize::new(0);
    cpu::run_everywhere(|_| {
        let before = timer::interrupts();
        timer::interrupt_every(sysreg::counter_frequency() / 1000);
        sysreg::unmask_irqs();
        let deadline = sysreg::counter() + sysreg::counter_frequency() * 5;
        while timer::interrupts() < before + 5 && sysreg::counter() < deadline {
            core::hint::spin_loop();
        }
        sysreg::mask_irqs();
        timer::stop();
        if timer::interrupts() < before + 5 {
            missed.fetch_add(1, Ordering::Relaxed);
        }
    });
    ensure_eq!(
        missed.load(Ordering::Relaxed),
        0,
        "CPUs whose timer did not come five times"
    );
    Ok(())
});

case!(frames_are_aligned_apart_and_come_back, {
    let before = allocator::free_frames();
    let one = frames(3)?;
    let other = super::support::frames_aligned(512, 512 * FRAME_SIZE)?;
    ensure_eq!(other.range().base % (512 * FRAME_SIZE), 0);
    let (a, b) = (one.range(), other.range());
    ensure!(
        a.base + a.frames * FRAME_SIZE <= b.base || b.base + b.frames * FRAME_SIZE <= a.base,
        "{a:x?} {b:x?}"
    );
    ensure_eq!(
        allocator::free_frames(),
        before - 515,
        "free frames while some are taken"
    );
    one.free();
    other.free();
    ensure_eq!(
        allocator::free_frames(),
        before,
        "free frames after all were given back"
    );
    ensure!(allocator::allocate(1 << 40).is_none(), "a pebibyte");
    Ok(())
});

case!(a_bracket_counts_what_is_in_it, {
    let floor = bench::floor();
    let figure = bench::ticks_of(|| (0..1000).for_each(|i| _ = core::hint::black_box(i)));
    ensure!(
        figure.least > floor.least && figure.median >= figure.least,
        "{figure:?} above {floor:?}"
    );
    Ok(())
});
