//! Devices that EL2 keeps: gone from the tree, refused, or there with less than they have.

use super::support::{ensure_access_refused, ensure_fetch_refused};
use crate::interrupts;
use crate::machine::machine;
use crate::probe::{self, Access, Level};
use crate::registry::{Outcome, TestResult, case, ensure, ensure_eq, fail, succeed};

/// QEMU virt's firmware configuration device and GIC ITS (`hw/arm/virt.c`, `base_memmap`).
const FW_CFG: u64 = 0x0902_0000;
const ITS: u64 = 0x0808_0000;
const ITS_TRANSLATER: u64 = ITS + 0x1_0000 + 0x40;

/// Offsets in a redistributor's RD frame (IHI 0069, 12.10).
const GICR_CTLR: u64 = 0x0;
const GICR_TYPER: u64 = 0x8;
const GICR_PROPBASER: u64 = 0x70;
const GICR_PENDBASER: u64 = 0x78;
/// GICR_ISENABLER0 in the SGI frame, 64 KiB above.
const GICR_ISENABLER0: u64 = 0x1_0100;

case!(the_tree_names_no_device_of_freeholds, {
    ensure!(!machine().devices.fw_cfg, "fw_cfg is in the device tree");
    ensure!(!machine().devices.its, "an ITS is in the device tree");
    Ok(())
});

case!(the_tree_names_no_virtual_timer, {
    // The binding's order: secure physical, physical, virtual, hypervisor. PPI 11 is the virtual timer's, INTID 27.
    let interrupts = &machine().devices.timer_interrupts;
    ensure!(
        interrupts.iter().any(|&(kind, number)| (kind, number) == (1, 14)),
        "no physical timer: {interrupts:?}"
    );
    ensure!(
        interrupts.iter().all(|&(kind, number)| (kind, number) != (1, 11)),
        "a virtual timer: {interrupts:?}"
    );
    Ok(())
});

/// Every word and kind of access to the page of registers must be refused.
fn ensure_registers_refused(page: u64) -> TestResult {
    for level in Level::ALL {
        for offset in [0, 8, 0x10, 0x18, 0xff8] {
            // DC ZVA of device memory is an alignment fault of stage 1 already; exclusives are not for devices.
            for access in [
                Access::Load1,
                Access::Load4,
                Access::Load8,
                Access::LoadPair,
                Access::Store1,
                Access::Store4,
                Access::Store8,
                Access::StorePair,
                Access::LoadWriteBack,
                Access::StoreWriteBack,
            ] {
                ensure_access_refused(level, access, page + offset)?;
            }
        }
    }
    Ok(())
}

case!(fw_cfg_is_refused, { ensure_registers_refused(FW_CFG) });

case!(the_its_is_refused, {
    ensure_registers_refused(ITS)?;
    ensure_access_refused(Level::El1, Access::Store4, ITS_TRANSLATER)
});

case!(registers_are_not_executed, {
    // The payload maps devices without execution, so this one is stage 1's own permission fault.
    for level in Level::ALL {
        let Err(fault) = probe::fetch(level, level.address(machine().uart), 0) else {
            fail!("the UART was executed")
        };
        ensure_eq!(fault.class(), level.instruction_abort());
    }
    // In RAM's place behind the GIC nothing is mapped for execution either.
    ensure!(
        ensure_fetch_refused(Level::El1, FW_CFG).is_err(),
        "stage 1 let a fetch from fw_cfg through to stage 2"
    );
    Ok(())
});

/// This CPU's redistributor.
fn redistributor() -> Result<u64, Outcome> {
    match interrupts::own_redistributor_address(machine()) {
        Some(address) => Ok(address),
        None => fail!("no redistributor has this CPU's affinity"),
    }
}

fn read4(address: u64) -> Result<u64, Outcome> {
    Ok(succeed!(probe::access(Level::El1, Access::Load4, address, 0)))
}

fn read8(address: u64) -> Result<u64, Outcome> {
    Ok(succeed!(probe::access(Level::El1, Access::Load8, address, 0)))
}

fn write8(address: u64, value: u64) -> TestResult {
    succeed!(probe::access(Level::El1, Access::Store8, address, value));
    Ok(())
}

case!(the_redistributor_has_no_lpis, {
    let base = redistributor()?;
    ensure_eq!(read8(base + GICR_TYPER)? & 1, 0, "GICR_TYPER.PLPIS");
    // The same by halves.
    ensure_eq!(read4(base + GICR_TYPER)? & 1, 0, "GICR_TYPER.PLPIS, lower half");
    ensure_eq!(
        read4(base + GICR_TYPER + 4)?,
        read8(base + GICR_TYPER)? >> 32,
        "GICR_TYPER, upper half"
    );
    Ok(())
});

case!(lpi_tables_cannot_be_set, {
    let base = redistributor()?;
    for offset in [GICR_PROPBASER, GICR_PENDBASER] {
        ensure_eq!(read8(base + offset)?, 0, "register {offset:#x}");
        write8(base + offset, u64::MAX)?;
        ensure_eq!(
            read8(base + offset)?,
            0,
            "register {offset:#x} after a store of 8 bytes"
        );
        for half in [0, 4] {
            succeed!(probe::access(
                Level::El1,
                Access::Store4,
                base + offset + half,
                0xffff_ffff
            ));
        }
        ensure_eq!(
            read8(base + offset)?,
            0,
            "register {offset:#x} after two stores of 4 bytes"
        );
    }
    Ok(())
});

case!(lpis_cannot_be_enabled, {
    let base = redistributor()?;
    let before = read4(base + GICR_CTLR)?;
    ensure_eq!(before & 1, 0, "GICR_CTLR.EnableLPIs");
    succeed!(probe::access(
        Level::El1,
        Access::Store4,
        base + GICR_CTLR,
        before | 1
    ));
    ensure_eq!(read4(base + GICR_CTLR)?, before, "GICR_CTLR after a store");
    Ok(())
});

case!(
    an_access_to_the_redistributor_that_says_nothing_of_itself_does_no_harm,
    {
        // A pair or a write-back has no valid syndrome: EL2 cannot carry it out, and must not guess.
        let base = redistributor()?;
        for access in [
            Access::LoadPair,
            Access::StorePair,
            Access::LoadWriteBack,
            Access::StoreWriteBack,
        ] {
            if let Err(fault) = probe::access(Level::El1, access, base + GICR_PROPBASER, u64::MAX) {
                ensure_eq!(fault.class(), Level::El1.data_abort(), "{access:?}");
            }
            ensure_eq!(
                read8(base + GICR_PROPBASER)?,
                0,
                "GICR_PROPBASER after {access:?}"
            );
        }
        Ok(())
    }
);

case!(the_rest_of_the_redistributor_works, {
    let base = redistributor()?;
    // The physical timer's interrupt is enabled in this very payload.
    let enabled = read4(base + GICR_ISENABLER0)?;
    let timer = 1 << interrupts::TIMER.raw_value();
    ensure_eq!(enabled & timer, timer, "GICR_ISENABLER0");
    succeed!(probe::access(
        Level::El1,
        Access::Store4,
        base + GICR_ISENABLER0 + 0x80,
        timer
    ));
    ensure_eq!(read4(base + GICR_ISENABLER0)? & timer, 0, "after it was disabled");
    succeed!(probe::access(
        Level::El1,
        Access::Store4,
        base + GICR_ISENABLER0,
        timer
    ));
    ensure_eq!(
        read4(base + GICR_ISENABLER0)?,
        enabled,
        "after it was enabled again"
    );
    Ok(())
});
