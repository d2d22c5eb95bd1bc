//! An exception to EL2: what its registers say, what is done about the access, and what EL1 is told.

use super::reader::{FIRST_FRAME, Reader};
use crate::spec::Holding;
use crate::spec::rig::{Rig, span};
use hyp_abi::{FRAME_SIZE, FrameRange, HostCall};
use hyp_core::Ipa;
use hyp_core::geometry::Tiny;
use hyp_core::hardware::Regime;
use hyp_core::map::Entry;
use hyp_core::ownership::{AbortVerdict, HostAccess};
use hyp_core::state::State;
use hyp_core::trap::abort::{Abort, FaultAddress};
use hyp_core::trap::access::{Resume, Width, big_endian};
use hyp_core::trap::inject::{self, Exception, PstateFeatures, SPSR_EL1H, Source, enter_el1};
use hyp_core::trap::syndrome::{FaultRegisters, Syndrome};
use std::cell::RefCell;

thread_local! {
    /// A machine on which a page is donated, one shared, one broken, one the firmware's, and one of a device.
    static MACHINE: RefCell<Rig<Tiny>> = RefCell::new({
        let mut rig = Rig::new(&[span(FIRST_FRAME, 32)], span(FIRST_FRAME, 16));
        let host = FIRST_FRAME + 16;
        rig.claim(span(host + 9, 1), Entry::plain(State::Reserved), Holding::Reserved);
        rig.claim(span(host + 13, 2), Entry::plain(State::Device), Holding::Device);
        let range = |offset: u64| FrameRange::new((host + offset) * FRAME_SIZE, 1);
        for call in [HostCall::DonateHyp(range(1)), HostCall::ShareHyp(range(6))] {
            rig.call(&Default::default(), call.encode(), &[]).expect("it is a good call");
        }
        rig
    });
}

/// Decodes an exception, and answers it if it is an abort.
///
/// # Panics
/// If the answer is not one that EL1 may get, or the host gets at memory that is not its own.
pub fn aborts(data: &[u8]) {
    let mut reader = Reader::new(data);
    while !reader.is_empty() {
        let registers = FaultRegisters {
            esr: reader.word(),
            far: reader.register(),
            // HPFAR_EL2 holds bits 47:12 of an address in its bits 43:4.
            hpfar: reader.register() >> 8,
        };
        let source = Source {
            spsr: reader.register(),
            elr: reader.register(),
            sctlr_el1: reader.register(),
            vbar_el1: reader.register(),
            gcscr_el1: reader.register(),
        };
        let exception = match Syndrome::decode(registers) {
            Syndrome::InstructionAbort(abort) | Syndrome::DataAbort(abort) => {
                abort_of(&abort, &source, &mut reader);
                Exception::refusing(&abort)
            }
            Syndrome::OwnAbort(abort) => {
                let _ = (abort.address(), abort.address_without_hpfar());
                continue;
            }
            _ => Exception::Undefined,
        };
        inject(&source, reader.byte(), exception);
        step(&source, registers.esr);
    }
}

/// Where the access went, and whether it may go on.
fn abort_of(abort: &Abort, source: &Source, reader: &mut Reader<'_>) {
    if let Some(access) = abort.access {
        let mut x = [0; 31];
        x[usize::from(access.register) % 31] = reader.word();
        let order = big_endian(source.spsr, source.sctlr_el1);
        let stored = access.stored(&x, order);
        assert_eq!(access.width.cut(stored), stored);
        access.load(&mut x, stored, order);
        if !access.sixty_four {
            let loaded = x.get(usize::from(access.register)).copied().unwrap_or(0);
            assert_eq!(Width::Word.cut(loaded), loaded);
        }
    }
    let kind = if abort.fetch {
        assert!(
            !abort.wants_write() || abort.stage1_walk,
            "a fetch does not write"
        );
        HostAccess::Fetch
    } else if abort.wants_write() {
        HostAccess::Write
    } else {
        HostAccess::Read
    };
    for address in [abort.address(), abort.address_without_hpfar()] {
        if let FaultAddress::Known(ipa) = address {
            judge(ipa, kind);
        }
    }
}

/// Whoever may go on reaches what is its own; whoever may not reaches nothing.
fn judge(ipa: Ipa, access: HostAccess) {
    MACHINE.with_borrow_mut(|rig| {
        let system = rig.system();
        let hw = system.hardware();
        hw.unwatch();
        hw.watch(system.host_table(), [ipa]);
        let verdict = system.judge_host_abort(ipa, access);
        let reached = !hw.reach(Regime::Host, ipa).is_empty();
        let number = ipa.value() / FRAME_SIZE;
        let holding = rig.memory().holding(rig.layout(), number);
        match holding {
            Some(Holding::Device) => {
                assert_eq!(verdict == AbortVerdict::Retry, access != HostAccess::Fetch);
            }
            Some(holding) => {
                let may = holding.host_reaches();
                assert_eq!(verdict == AbortVerdict::Retry, may, "{holding:?}: {verdict:?}");
                assert_eq!(reached, may, "{holding:?}");
            }
            None => {
                let outside = ipa.value() >> system.host_table().ia_bits() != 0;
                if outside || access == HostAccess::Fetch {
                    assert_eq!(verdict, AbortVerdict::Inject);
                }
            }
        }
        hw.unwatch();
    });
}

/// What EL1 finds is an exception as a CPU would have made it.
fn inject(source: &Source, features: u8, exception: Exception) {
    let has = |bit: u8| features >> bit & 1 != 0;
    let features = PstateFeatures {
        pan: has(0),
        ssbs: has(1),
        tag_check_override: has(2),
        nmi: has(3),
        gcs: has(4),
        ebep: has(5),
    };
    let entry = enter_el1(source, features, exception);
    assert_eq!(entry.pc & !0x7ff, source.vbar_el1 & !0x7ff);
    assert!(
        matches!(entry.pc & 0x7ff, 0 | 0x200 | 0x400 | 0x600),
        "{:#x} is no vector",
        entry.pc
    );
    assert_eq!(entry.pstate & 0b1_1111, SPSR_EL1H, "EL1, AArch64, its own stack");
    assert_eq!(entry.pstate & inject::SPSR_DAIF, inject::SPSR_DAIF);
    assert_eq!((entry.elr_el1, entry.spsr_el1), (source.elr, source.spsr));
    let class = entry.esr_el1 >> 26;
    assert!(
        matches!(class, 0x00 | 0x20 | 0x21 | 0x24 | 0x25),
        "class {class:#x}"
    );
    assert_eq!(entry.esr_el1 >> 32, 0);
}

/// Past the instruction is two or four bytes on.
fn step(source: &Source, esr: u64) {
    let at = Resume {
        elr: source.elr,
        spsr: source.spsr,
    };
    let past = at.past(esr);
    let bytes = past.elr.wrapping_sub(at.elr) & 0xffff_ffff;
    assert!(matches!(bytes, 2 | 4), "{bytes} bytes");
    assert_eq!(past.spsr & inject::SPSR_SS, 0);
}
