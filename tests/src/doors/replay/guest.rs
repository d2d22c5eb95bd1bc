//! Guests that do what the machine's did.

use super::Replay;
use crate::doors::acts::{GuestDeed, Run};
use anyhow::{Context as _, Result, ensure};
use hyp_abi::VmCall;
use hyp_abi::run_page::{AccessFlags, ENTRY_FLAGS};
use hyp_core::addr::{FRAME_SHIFT, PhysAddr};
use hyp_core::trap::syndrome::FaultRegisters;
use hyp_core::vm::{Trap, TrapKind, VcpuContext};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// ESR_EL2 of `HVC #0` (Arm ARM DDI 0487, D24.2.40): its class, and that the instruction has 32 bits.
const HVC: u64 = 0x16 << 26 | 1 << 25;

/// The classes of aborts from a lower level: of a fetch, and of a data access.
const FETCH_ABORT: u64 = 0x20;
const DATA_ABORT: u64 = 0x24;

/// ISS of an abort: WnR, S1PTW, and the fault status codes of level 3.
const WRITE: u64 = 1 << 6;
const WALK: u64 = 1 << 7;
const TRANSLATION_FAULT: u64 = 0b00_0111;
const ACCESS_FLAG_FAULT: u64 = 0b00_1011;
const PERMISSION_FAULT: u64 = 0b00_1111;

impl Replay {
    /// Runs a vCPU. The double's guest does what the machine's did.
    pub(super) fn run(&self, run: &Run) -> Result<()> {
        let double = self.system.hardware();
        let page = PhysAddr::new(run.page).context("no page of RAM")?.frame();
        for (word, value) in (ENTRY_FLAGS..).zip(run.entry) {
            double.set_word(page, word, value);
        }
        let heard = run
            .guest
            .iter()
            .copied()
            .filter(|deed| *deed != GuestDeed::Vectors);
        let script: VecDeque<GuestDeed> = heard.collect();
        let script = Arc::new(Mutex::new(script));
        let guest = Arc::clone(&script);
        double.play_guest(Some(Box::new(move |_, context| {
            let next = guest.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            next.map_or_else(interrupt, |deed| trap(deed, context))
        })));
        let call = VmCall::Run {
            vm: run.vm,
            index: run.vcpu,
        };
        self.call(call.encode(), run.answer)?;
        double.play_guest(None);
        let left = script.lock().unwrap_or_else(PoisonError::into_inner).len();
        ensure!(left == 0, "the run ended {left} deeds of the guest too early");
        Ok(())
    }
}

/// What a guest does that has done all that it was to do: the run's answer is then another one than the machine's.
fn interrupt() -> Trap {
    Trap {
        kind: TrapKind::Interrupt,
        registers: FaultRegisters::default(),
    }
}

/// The trap that a deed is.
fn trap(deed: GuestDeed, context: &mut VcpuContext) -> Trap {
    let registers = match deed {
        GuestDeed::Call(arguments) => {
            context.x[..arguments.len()].copy_from_slice(&arguments);
            FaultRegisters {
                esr: HVC,
                ..FaultRegisters::default()
            }
        }
        GuestDeed::Fault { gfn, access } => fault(access, TRANSLATION_FAULT, gfn),
        GuestDeed::Denied { gfn, access } => fault(access, PERMISSION_FAULT, gfn),
        // The latter is not in the script.
        GuestDeed::Interrupt | GuestDeed::Vectors => return interrupt(),
        GuestDeed::Unused { gfn } => abort(DATA_ABORT, ACCESS_FLAG_FAULT, gfn),
    };
    Trap {
        kind: TrapKind::Synchronous,
        registers,
    }
}

fn fault(access: u64, status: u64, gfn: u64) -> FaultRegisters {
    let access = AccessFlags::from_bits_truncate(access);
    let bit = |flag, bit| if access.contains(flag) { bit } else { 0 };
    let class = if access.contains(AccessFlags::FETCH) {
        FETCH_ABORT
    } else {
        DATA_ABORT
    };
    let iss = bit(AccessFlags::WRITE, WRITE) | bit(AccessFlags::WALK, WALK) | status;
    abort(class, iss, gfn)
}

/// The registers of an abort in a page. HPFAR_EL2 has bits 47:12 of the IPA in 39:4.
const fn abort(class: u64, iss: u64, gfn: u64) -> FaultRegisters {
    FaultRegisters {
        esr: class << 26 | 1 << 25 | iss,
        far: gfn << FRAME_SHIFT,
        hpfar: gfn << 4,
    }
}
