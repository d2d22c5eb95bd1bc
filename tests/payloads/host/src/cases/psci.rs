//! PSCI and the rest of the firmware's calls, as Freehold relays or refuses them (Arm DEN0022, DEN0028).

use super::support::{counter, ensure_all_refused, needs_cpus, pooled_frames};
use crate::boot;
use crate::firmware::{self, Firmware};
use crate::hypercall::{Conduit, HYPERVISOR, Hvc, call_with_all};
use crate::machine::machine;
use crate::probe::{self, Level};
use crate::registry::{TestResult, case, ensure, ensure_eq, fail, succeed};
use crate::{cpu, interrupts, sysreg, timer};
use core::sync::atomic::{AtomicU64, Ordering};
use host_shim::Hypercall;
use hyp_abi::Counter;
use smccc::psci::{self, AffinityState};

// Function identifiers: DEN0022 5.1, DEN0028 7.
const PSCI_VERSION: u32 = 0x8400_0000;
const CPU_ON: u32 = 0xc400_0003;
const AFFINITY_INFO: u32 = 0xc400_0004;
const MIGRATE: u32 = 0xc400_0005;
const PSCI_FEATURES: u32 = 0x8400_000a;
const SMCCC_VERSION: u32 = 0x8000_0000;
const SMCCC_ARCH_FEATURES: u32 = 0x8000_0001;

const ARCH_WORKAROUND_1: u32 = 0x8000_8000;
const ARCH_WORKAROUND_2: u32 = 0x8000_7fff;
const ARCH_WORKAROUND_3: u32 = 0x8000_3fff;

const SUCCESS: i64 = 0;
const NOT_SUPPORTED: i64 = -1;
const INVALID_PARAMETERS: i64 = -2;
const ALREADY_ON: i64 = -4;
const INVALID_ADDRESS: i64 = -9;

/// An affinity that no CPU of the tree has.
const NO_CPU: u64 = 0xff_00ff_fffe;

case!(the_conduit_is_smc, {
    ensure!(machine().psci_by_smc, "the device tree says HVC");
    let answer = Hvc.call([u64::from(PSCI_VERSION), 0, 0, 0, 0, 0, 0]);
    ensure_eq!(answer[0].cast_signed(), NOT_SUPPORTED, "PSCI_VERSION by HVC");
    Ok(())
});

case!(the_version_is_1_0_or_later, {
    let version = succeed!(psci::version::<Firmware>());
    ensure!(version.major >= 1, "{version:?}");
    Ok(())
});

case!(features_names_what_there_is, {
    for function in [PSCI_VERSION, CPU_ON, AFFINITY_INFO, PSCI_FEATURES] {
        let answer = firmware::call(PSCI_FEATURES, [u64::from(function), 0, 0]);
        ensure!(answer >= SUCCESS, "PSCI_FEATURES of {function:#x}: {answer}");
    }
    for function in [0x8400_00ff, 0xc400_00ff, 0x8400_0063, 0xdead_beef] {
        let answer = firmware::call(PSCI_FEATURES, [function, 0, 0]);
        ensure_eq!(answer, NOT_SUPPORTED, "PSCI_FEATURES of {function:#x}");
    }
    Ok(())
});

case!(a_cpu_that_is_on_cannot_be_started_again, {
    let entry = boot::secondary_entry_address();
    for &affinity in &machine().cpus {
        ensure_eq!(
            firmware::call(CPU_ON, [affinity, entry, 0]),
            ALREADY_ON,
            "CPU {affinity:#x}"
        );
    }
    Ok(())
});

case!(a_cpu_that_does_not_exist_cannot_be_started, {
    let entry = boot::secondary_entry_address();
    for affinity in [NO_CPU, 1 << 40, u64::MAX, 1 << 31] {
        ensure_eq!(
            firmware::call(CPU_ON, [affinity, entry, 0]),
            INVALID_PARAMETERS,
            "CPU {affinity:#x}"
        );
        ensure_eq!(
            firmware::call(AFFINITY_INFO, [affinity, 0, 0]),
            INVALID_PARAMETERS,
            "CPU {affinity:#x}"
        );
    }
    Ok(())
});

case!(a_cpu_cannot_be_started_in_memory_that_is_not_the_hosts, {
    needs_cpus(2)?;
    let Some(reserved) = machine().no_map.first() else {
        fail!("the tree shows no reservation of Freehold's")
    };
    let frame = pooled_frames(1)?;
    succeed!(HYPERVISOR.donate(frame.range()));
    succeed!(cpu::stop(1));
    for entry in [reserved.start, frame.frame(0), machine().uart, 1 << 50, !3] {
        let answer = firmware::call(CPU_ON, [machine().cpus[1], entry, 0]);
        ensure_eq!(answer, INVALID_ADDRESS, "entry {entry:#x}");
    }
    ensure_eq!(
        cpu::affinity_info(machine().cpus[1]).ok(),
        Some(AffinityState::Off),
        "the CPU afterwards"
    );
    succeed!(cpu::start(1));
    succeed!(HYPERVISOR.reclaim(frame.range()));
    frame.free();
    Ok(())
});

case!(affinity_info_tells_who_is_on, {
    for &affinity in &machine().cpus {
        ensure_eq!(
            cpu::affinity_info(affinity).ok(),
            Some(AffinityState::On),
            "CPU {affinity:#x}"
        );
    }
    Ok(())
});

case!(a_cpu_goes_off_and_comes_back, {
    needs_cpus(2)?;
    let last = cpu::count() - 1;
    let frame = pooled_frames(1)?;
    succeed!(HYPERVISOR.donate(frame.range()));
    for round in 0..5 {
        succeed!(cpu::stop(last));
        ensure_eq!(
            cpu::affinity_info(machine().cpus[last]).ok(),
            Some(AffinityState::Off),
            "round {round}"
        );
        succeed!(cpu::start(last));
        ensure_eq!(
            cpu::affinity_info(machine().cpus[last]).ok(),
            Some(AffinityState::On),
            "round {round}"
        );
        // It is as confined as before.
        let refused = AtomicU64::new(0);
        cpu::run_on(last, || {
            if ensure_all_refused(frame.frame(0)).is_ok() {
                refused.fetch_add(1, Ordering::Relaxed);
            }
        });
        ensure_eq!(
            refused.load(Ordering::Relaxed),
            1,
            "accesses refused on the CPU that came back"
        );
    }
    succeed!(HYPERVISOR.reclaim(frame.range()));
    frame.free();
    Ok(())
});

case!(every_other_cpu_goes_off_and_comes_back, {
    needs_cpus(2)?;
    for cpu in 1..cpu::count() {
        succeed!(cpu::stop(cpu));
    }
    for cpu in (1..cpu::count()).rev() {
        succeed!(cpu::start(cpu));
    }
    let seen = AtomicU64::new(0);
    cpu::run_everywhere(|cpu| _ = seen.fetch_or(1 << cpu, Ordering::Relaxed));
    ensure_eq!(seen.load(Ordering::Relaxed).count_ones() as usize, cpu::count());
    Ok(())
});

case!(a_new_cpu_begins_as_psci_says, {
    needs_cpus(2)?;
    // DEN0022 6.4: EL1, exceptions masked, MMU off. The entry code has only turned the MMU on and kept the mask.
    let (level, mask) = (AtomicU64::new(0), AtomicU64::new(0));
    succeed!(cpu::stop(1));
    succeed!(cpu::start(1));
    cpu::run_on(1, || {
        level.store(sysreg::current_el() >> 2 & 3, Ordering::Relaxed);
        mask.store(sysreg::daif(), Ordering::Relaxed);
    });
    ensure_eq!(level.load(Ordering::Relaxed), 1, "exception level");
    ensure_eq!(mask.load(Ordering::Relaxed), 0b1111 << 6, "exception mask");
    Ok(())
});

/// The calls must all be answered with NOT_SUPPORTED.
fn ensure_not_supported(functions: &[u32]) -> TestResult {
    for &function in functions {
        let answer = firmware::call(function, [0x1234, 0x5678, 0x9abc]);
        ensure_eq!(answer, NOT_SUPPORTED, "function {function:#x}");
    }
    Ok(())
}

case!(an_unknown_psci_call_is_not_supported, {
    ensure_not_supported(&[0x8400_001f, 0xc400_001f, 0x8400_00aa, MIGRATE ^ 0xf0, 0xc400_0000])
});

case!(ff_a_is_not_supported, {
    // DEN0077A: FFA_ERROR to the end of the 32-bit range, FFA_VERSION, FFA_RXTX_MAP, FFA_MEM_SHARE, _LEND, _DONATE,
    // _RECLAIM in both sizes.
    ensure_not_supported(&[
        0x8400_0060,
        0x8400_0063,
        0x8400_0064,
        0x8400_0069,
        0x8400_0071,
        0x8400_0072,
        0x8400_0073,
        0x8400_0077,
        0xc400_0066,
        0xc400_0071,
        0xc400_0072,
        0xc400_0073,
        0x8400_00ef,
        0xc400_00ef,
    ])
});

case!(calls_of_other_owners_are_not_supported, {
    // CPU service, SiP, OEM, standard hypervisor, vendor hypervisor, trusted applications, trusted OS; yielding too.
    ensure_not_supported(&[
        0x8100_0000,
        0x8200_0000,
        0xc200_0000,
        0x8300_0000,
        0xc300_ff01,
        0x8500_0000,
        0x8600_0000,
        0xc600_4600,
        0xb000_0000,
        0xb200_0000,
        0xbf00_ff01,
        0x0200_0000,
        0x3200_0000,
        0x0000_0000,
        0xffff_ffff,
    ])
});

case!(
    a_function_with_bits_above_32_is_what_its_lower_half_says_or_nothing,
    {
        // DEN0028 5.2: the function identifier is W0. Whatever is made of it, it is no way around the filter.
        for function in [0xc200_0000_u64, 0x8400_0063, 0x8200_0000] {
            let smc = 0xd400_0003;
            let [x0, _] = succeed!(probe::execute(Level::El1, smc, [function | 0xabcd << 32, 0]));
            ensure_eq!(x0 as u32 as i32, -1, "function {function:#x} with an upper half");
        }
        Ok(())
    }
);

case!(an_smc_with_another_number_is_not_supported, {
    for immediate in [1_u32, 0x80, 0xffff] {
        let smc = 0xd400_0003 | immediate << 5;
        let [x0, x1] = succeed!(probe::execute(Level::El1, smc, [u64::from(PSCI_VERSION), 0x55]));
        ensure_eq!(
            (x0.cast_signed(), x1),
            (NOT_SUPPORTED, 0x55),
            "SMC #{immediate:#x}"
        );
    }
    Ok(())
});

case!(an_smc_of_el0_is_undefined, {
    let Err(fault) = probe::execute(Level::El0, 0xd400_0003, [u64::from(PSCI_VERSION), 0]) else {
        fail!("a user program reached the firmware")
    };
    ensure_eq!(fault.class(), crate::exception::class::UNKNOWN);
    Ok(())
});

case!(smccc_and_its_workarounds_reach_the_firmware, {
    // Whether the firmware knows them is its own affair (QEMU's does not): that it is asked is Freehold's.
    let refused = counter(Counter::SmcsRefused)?;
    let version = firmware::call(SMCCC_VERSION, [0; 3]);
    ensure!(
        version == NOT_SUPPORTED || version >= 0x1_0000,
        "SMCCC_VERSION: {version:#x}"
    );
    for function in [
        SMCCC_VERSION,
        ARCH_WORKAROUND_1,
        ARCH_WORKAROUND_2,
        ARCH_WORKAROUND_3,
    ] {
        let offered = firmware::call(SMCCC_ARCH_FEATURES, [u64::from(function), 0, 0]);
        ensure!(
            offered >= NOT_SUPPORTED,
            "ARCH_FEATURES of {function:#x}: {offered}"
        );
        ensure!(
            version >= 0x1_0001 || offered < 0,
            "SMCCC {version:#x} offers {function:#x}"
        );
    }
    ensure_eq!(
        counter(Counter::SmcsRefused)?,
        refused,
        "SMCs that the firmware never saw"
    );
    Ok(())
});

case!(calls_preserve_x4_to_x17, {
    for function in [
        PSCI_VERSION,
        SMCCC_VERSION,
        0x8400_0063,
        0xc200_0000,
        AFFINITY_INFO,
    ] {
        let mut registers: [u64; 18] = core::array::from_fn(|n| 0x0202_0202_0202_0202 * (n as u64 + 0x30));
        registers[0] = u64::from(function);
        let after = call_with_all(Conduit::Smc, registers);
        ensure_eq!(after[4..], registers[4..], "x4 to x17 after call {function:#x}");
    }
    Ok(())
});

case!(smcs_are_counted, {
    let (all, refused) = (counter(Counter::Smcs)?, counter(Counter::SmcsRefused)?);
    for _ in 0..5 {
        firmware::call(PSCI_VERSION, [0; 3]);
        firmware::call(0xc200_0000, [0; 3]);
    }
    ensure_eq!(counter(Counter::Smcs)? - all, 10, "SMCs");
    ensure_eq!(
        counter(Counter::SmcsRefused)? - refused,
        5,
        "SMCs that the firmware never saw"
    );
    Ok(())
});

case!(a_suspended_cpu_wakes_up, {
    // A standby state (DEN0022 5.4.2, StateType 0): the call returns when an interrupt pends. QEMU's is a WFI.
    const CPU_SUSPEND: u32 = 0xc400_0001;
    let before = timer::interrupts();
    timer::interrupt_every(sysreg::counter_frequency() / 500);
    let answer = firmware::call(CPU_SUSPEND, [0, boot::secondary_entry_address(), 0]);
    sysreg::unmask_irqs();
    sysreg::mask_irqs();
    timer::stop();
    ensure_eq!(answer, SUCCESS, "CPU_SUSPEND");
    ensure!(
        timer::interrupts() > before,
        "nothing woke it: {}",
        interrupts::TIMER.raw_value()
    );
    Ok(())
});
