//! Accesses to what is not the host's: refused in a way that a kernel survives, from wherever they come.

use super::support::{
    counter, ensure_access_refused, ensure_all_refused, ensure_fetch_refused, fill_pool, needs_cpus,
    pooled_frames,
};
use crate::hypercall::HYPERVISOR;
use crate::machine::machine;
use crate::paging::SpareTable;
use crate::paging::window::{Attributes, Window};
use crate::probe::{self, Access, Level};
use crate::registry::{Outcome, TestResult, case, ensure, ensure_eq, fail, skip, succeed};
use crate::{cpu, sysreg, timer};
use core::sync::atomic::{AtomicUsize, Ordering};
use hyp_abi::{Counter, FRAME_SIZE};

/// An address behind the last RAM, where nothing is.
fn nothing() -> Result<u64, Outcome> {
    let end = machine().memory.iter().map(|range| range.end).max();
    match end.filter(|end| *end < 200 << 30) {
        Some(end) => Ok(end + (1 << 30)),
        None => skip!("RAM reaches beyond the payload's map"),
    }
}

case!(freeholds_memory_is_refused_by_every_kind_of_access, {
    let Some(reserved) = machine().no_map.first() else {
        fail!("the tree shows no reservation of Freehold's")
    };
    let middle = reserved.start + (reserved.end - reserved.start) / 2 / FRAME_SIZE * FRAME_SIZE;
    for frame in [reserved.start, middle, reserved.end - FRAME_SIZE] {
        ensure_all_refused(frame)?;
        ensure_all_refused(frame + FRAME_SIZE - 64)?;
    }
    Ok(())
});

case!(a_refusal_looks_like_a_native_alignment_fault, {
    let frames = pooled_frames(2)?;
    succeed!(HYPERVISOR.donate(frames.one(1)));
    for level in Level::ALL {
        // The one alignment fault that this machine makes itself.
        let native = probe::access(
            level,
            Access::LoadExclusive,
            level.address(frames.frame(0) + 1),
            0,
        );
        let refused = probe::access(level, Access::LoadExclusive, level.address(frames.frame(1)), 0);
        let (Err(native), Err(refused)) = (native, refused) else {
            fail!("{level:?} was let through")
        };
        ensure_eq!(refused.esr, native.esr, "{level:?}: ESR");
        ensure_eq!(refused.spsr, native.spsr, "{level:?}: SPSR");
        ensure_eq!(
            (refused.daif, refused.sp_sel),
            (native.daif, native.sp_sel),
            "{level:?}: mask, stack pointer"
        );
        ensure_eq!(refused.elr, native.elr, "{level:?}: ELR");
    }
    succeed!(HYPERVISOR.reclaim(frames.one(1)));
    frames.free();
    Ok(())
});

/// Accesses that begin before an edge and end behind it; one of the two frames is donated.
fn across(donated: u64) -> TestResult {
    let frames = pooled_frames(2)?;
    frames.fill(3);
    succeed!(HYPERVISOR.donate(frames.one(donated)));
    let edge = frames.frame(1);
    for level in Level::ALL {
        for access in [
            Access::Load2,
            Access::Load4,
            Access::Load8,
            Access::Store2,
            Access::Store4,
            Access::Store8,
        ] {
            let address = level.address(edge - 1);
            let Err(fault) = probe::access(level, access, address, 0) else {
                fail!("{access:?} across the edge from {level:?} went through")
            };
            let got = (fault.class(), fault.status(), fault.is_write());
            ensure_eq!(
                got,
                (level.data_abort(), super::support::REFUSED, access.is_write()),
                "{access:?}, {level:?}"
            );
            // Arm ARM DDI 0487, D24.2.42: the address in FAR is one of those accessed on the page that faults.
            let page = level.address(frames.frame(donated));
            ensure!(
                (address..address + 8).contains(&fault.far),
                "FAR {:#x} of an access at {address:#x}",
                fault.far
            );
            ensure_eq!(
                fault.far & !(FRAME_SIZE - 1),
                page,
                "{access:?}, {level:?}: page in FAR"
            );
        }
    }
    let kept = frames.part_of(1 - donated);
    let torn = kept.find_wrong(|address| 3 ^ address);
    ensure!(
        torn.is_none_or(|(address, _)| address == edge - 8),
        "a store tore more than the last word: {torn:x?}"
    );
    succeed!(HYPERVISOR.reclaim(frames.one(donated)));
    frames.free();
    Ok(())
}

case!(an_access_that_ends_in_a_refused_frame_is_refused, { across(1) });
case!(an_access_that_begins_in_a_refused_frame_is_refused, { across(0) });

case!(stage_1_attributes_change_nothing, {
    let frame = pooled_frames(1)?;
    succeed!(HYPERVISOR.donate(frame.range()));
    let window = Window::new(1).expect("a CPU has window pages");
    for attributes in [
        Attributes::ReadWrite,
        Attributes::ReadOnly,
        Attributes::NonCacheable,
        Attributes::ExecutableDevice,
        Attributes::User,
        Attributes::UserReadOnly,
    ] {
        window.map(0, frame.frame(0), attributes);
        for level in Level::ALL {
            for access in [Access::Load8, Access::Store8, Access::LoadPair] {
                ensure!(
                    probe::access(level, access, window.address(), 0).is_err(),
                    "{access:?} through {attributes:?} from {level:?} went through"
                );
            }
        }
        let Err(fault) = probe::access(Level::El1, Access::Load8, window.address(), 0) else {
            fail!("went through")
        };
        ensure_eq!(
            (fault.status(), fault.far),
            (super::support::REFUSED, window.address()),
            "{attributes:?}"
        );
    }
    drop(window);
    succeed!(HYPERVISOR.reclaim(frame.range()));
    frame.free();
    Ok(())
});

case!(code_cannot_be_fetched_from_device_registers, {
    // A permission fault of stage 2, where HPFAR says nothing: the host's table maps devices without execution.
    let window = Window::new(1).expect("a CPU has window pages");
    window.map(0, machine().uart, Attributes::ExecutableDevice);
    let Err(fault) = probe::fetch(Level::El1, window.address(), 0) else {
        fail!("the UART was executed")
    };
    ensure_eq!(fault.class(), Level::El1.instruction_abort(), "class");
    ensure_eq!(
        (fault.status(), fault.far),
        (super::support::REFUSED, window.address()),
        "status, FAR"
    );
    Ok(())
});

case!(a_table_walk_through_a_refused_frame_is_refused, {
    let frame = pooled_frames(1)?;
    let table = SpareTable::new(frame.frame(0));
    frame.fill(0);
    table.hang();
    succeed!(HYPERVISOR.donate(frame.range()));
    let before = counter(Counter::HostAbortsInjected)?;
    let result = probe::access(Level::El1, Access::Load8, table.address(), 0);
    let after = counter(Counter::HostAbortsInjected)?;
    table.unhang();
    let Err(fault) = result else {
        fail!("a walk read EL2's frame")
    };
    ensure_eq!(fault.class(), Level::El1.data_abort(), "class");
    ensure_eq!(
        (fault.status(), fault.far),
        (super::support::REFUSED, table.address()),
        "status, FAR"
    );
    ensure_eq!(after - before, 1, "aborts given back");
    succeed!(HYPERVISOR.reclaim(frame.range()));
    frame.free();
    Ok(())
});

case!(a_walk_that_turns_to_nothing_is_survived, {
    needs_cpus(2)?;
    let hole = nothing()?;
    let window = Window::new(1).expect("a CPU has window pages");
    window.map(0, hole, Attributes::ReadWrite);
    ensure!(
        probe::access(Level::El1, Access::Load8, window.address(), 0).is_err(),
        "something answered"
    );
    let frame = pooled_frames(1)?;
    let descriptor = SpareTable::executable_device(machine().uart);
    succeed!(probe::access(
        Level::El1,
        Access::Store8,
        frame.frame(0),
        descriptor
    ));
    // Freehold must look up where a refused fetch went. Meanwhile the table in question is where nothing answers.
    let (table, nowhere) = (SpareTable::new(frame.frame(0)), SpareTable::new(hole));
    let at_work = AtomicUsize::new(cpu::count() - 1);
    let (refused, lost) = (AtomicUsize::new(0), AtomicUsize::new(0));
    cpu::run_everywhere(|cpu| {
        if cpu == 0 {
            while at_work.load(Ordering::Relaxed) > 0 {
                nowhere.hang();
                table.hang();
            }
            return;
        }
        for _ in 0..20_000 {
            let result = probe::fetch(Level::El1, table.address(), 0);
            let seen = match result {
                Err(fault) if fault.status() == super::support::REFUSED => &refused,
                _ => &lost,
            };
            seen.fetch_add(1, Ordering::Relaxed);
        }
        at_work.fetch_sub(1, Ordering::Relaxed);
    });
    table.unhang();
    ensure!(
        refused.load(Ordering::Relaxed) > 0 && lost.load(Ordering::Relaxed) > 0,
        "{refused:?} fetches were refused and {lost:?} found no table: the two never met"
    );
    frame.free();
    Ok(())
});

case!(every_cpu_is_refused_at_once, {
    needs_cpus(2)?;
    let frame = pooled_frames(1)?;
    succeed!(HYPERVISOR.donate(frame.range()));
    let refused = AtomicUsize::new(0);
    cpu::run_everywhere(|_| {
        for _ in 0..20 {
            for level in Level::ALL {
                let data = ensure_access_refused(level, Access::Store8, frame.frame(0));
                let code = ensure_fetch_refused(level, frame.frame(0));
                if data.is_ok() && code.is_ok() {
                    refused.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    });
    ensure_eq!(refused.load(Ordering::Relaxed), 40 * cpu::count());
    succeed!(HYPERVISOR.reclaim(frame.range()));
    frame.free();
    Ok(())
});

case!(interrupts_come_while_accesses_are_refused, {
    let frame = pooled_frames(1)?;
    succeed!(HYPERVISOR.donate(frame.range()));
    let before = timer::interrupts();
    timer::interrupt_every(sysreg::counter_frequency() / 10_000);
    sysreg::unmask_irqs();
    let mut result = Ok(());
    for _ in 0..2000 {
        result = ensure_access_refused(Level::El1, Access::Load8, frame.frame(0));
        if result.is_err() {
            break;
        }
    }
    sysreg::mask_irqs();
    timer::stop();
    result?;
    ensure!(timer::interrupts() > before, "no interrupt came in between");
    succeed!(HYPERVISOR.reclaim(frame.range()));
    frame.free();
    Ok(())
});

case!(refusals_are_counted, {
    let frame = pooled_frames(1)?;
    succeed!(HYPERVISOR.donate(frame.range()));
    let aborts = counter(Counter::HostAborts)?;
    let injected = counter(Counter::HostAbortsInjected)?;
    for _ in 0..7 {
        ensure_access_refused(Level::El1, Access::Load8, frame.frame(0))?;
    }
    ensure_eq!(counter(Counter::HostAborts)? - aborts, 7, "aborts");
    ensure_eq!(
        counter(Counter::HostAbortsInjected)? - injected,
        7,
        "aborts given back"
    );
    succeed!(HYPERVISOR.reclaim(frame.range()));
    frame.free();
    Ok(())
});

case!(an_address_with_nothing_does_not_kill_the_host, {
    // Whatever the bus answers, the host must be able to go on.
    let hole = nothing()?;
    fill_pool()?;
    let window = Window::new(1).expect("a CPU has window pages");
    window.map(0, hole, Attributes::ReadWrite);
    ensure!(
        probe::access(Level::El1, Access::Load8, window.address(), 0).is_err(),
        "something answered"
    );
    Ok(())
});
