use super::*;
use crate::trap::abort::Abort;
use crate::trap::syndrome::FaultRegisters;

const ALL: PstateFeatures = PstateFeatures {
    pan: true,
    ssbs: true,
    tag_check_override: true,
    nmi: true,
    gcs: true,
    ebep: true,
};
const NONE: PstateFeatures = PstateFeatures {
    pan: false,
    ssbs: false,
    tag_check_override: false,
    nmi: false,
    gcs: false,
    ebep: false,
};
const WRITE: Exception = Exception::DataAbort {
    far: Some(0xdead_b000),
    write: true,
    cache_maintenance: false,
};

fn source(spsr: u64) -> Source {
    Source {
        spsr,
        elr: 0xffff_8000_1000_0004,
        sctlr_el1: SCTLR_SPAN,
        vbar_el1: 0xffff_8000_2000_0800,
        gcscr_el1: 0,
    }
}

#[test]
fn the_vector_follows_the_interrupted_state() {
    for (spsr, offset, class) in [
        (0b0000, 0x400, 0x24),          // EL0t
        (0b0100, 0x000, 0x25),          // EL1t
        (0b0101, 0x200, 0x25),          // EL1h
        (0b1_0000, 0x600, 0x24),        // AArch32 User, A32
        (0b1_0000 | 0x20, 0x600, 0x24), // AArch32 User, T32
    ] {
        let entry = enter_el1(&source(spsr), NONE, WRITE);
        assert_eq!(entry.pc, 0xffff_8000_2000_0800 + offset);
        assert_eq!(entry.esr_el1 >> 26, class);
        assert_eq!(entry.elr_el1, 0xffff_8000_1000_0004);
        assert_eq!(entry.spsr_el1, spsr);
    }
}

#[test]
fn a_refused_write_is_an_alignment_fault() {
    let entry = enter_el1(&source(0b0101), NONE, WRITE);
    // EC 0x25, IL, WnR, FSC 0x21, and nothing else.
    assert_eq!(entry.esr_el1, 0x9600_0061);
    assert_eq!(entry.far_el1, Some(0xdead_b000));
}

#[test]
fn a_refused_fetch_is_one_too() {
    let entry = enter_el1(
        &source(0),
        NONE,
        Exception::InstructionAbort { far: Some(0x40_0000) },
    );
    assert_eq!(entry.esr_el1, 0x8200_0021);
    let entry = enter_el1(
        &source(0b0101),
        NONE,
        Exception::InstructionAbort { far: Some(0x40_0000) },
    );
    assert_eq!(entry.esr_el1, 0x8600_0021);
}

#[test]
fn cache_maintenance_stays_recognisable() {
    let exception = Exception::DataAbort {
        far: Some(0),
        write: true,
        cache_maintenance: true,
    };
    assert_eq!(enter_el1(&source(0), NONE, exception).esr_el1, 0x9200_0161);
}

#[test]
fn an_unknown_address_is_said_to_be_unknown() {
    let exception = Exception::DataAbort {
        far: None,
        write: false,
        cache_maintenance: false,
    };
    let entry = enter_el1(&source(0), NONE, exception);
    assert_eq!(entry.esr_el1, 0x9200_0421);
    assert_eq!(entry.far_el1, None);
}

#[test]
fn undefined_has_no_syndrome_and_no_address() {
    for spsr in [0, 0b0101, 0b1_0000] {
        let entry = enter_el1(&source(spsr), ALL, Exception::Undefined);
        assert_eq!(entry.esr_el1, 0x0200_0000);
        assert_eq!(entry.far_el1, None);
    }
}

#[test]
fn a_fault_on_a_stage_1_walk_is_not_passed_on_as_one() {
    let abort = Abort::decode(
        FaultRegisters {
            esr: 0x24 << 26 | 1 << 9 | 1 << 7 | 1 << 6 | 0b00_0111,
            far: 0x1234,
            hpfar: 0,
        },
        false,
    );
    let entry = enter_el1(&source(0), NONE, Exception::refusing(&abort));
    // Neither S1PTW (bit 7) nor EA (bit 9) nor ISV (bit 24), and IL although the trapped instruction was short.
    assert_eq!(entry.esr_el1, 0x9200_0061);
    assert_eq!(entry.far_el1, Some(0x1234));
}

#[test]
fn the_bare_state_is_el1h_with_everything_masked() {
    assert_eq!(enter_el1(&source(0), NONE, WRITE).pstate, 0x3c5);
    // Nothing of a full SPSR comes through but NZCV and DIT; without FEAT_PAN not even PAN.
    let full = !SPSR_AARCH32;
    assert_eq!(
        enter_el1(&source(full), NONE, WRITE).pstate,
        0x3c5 | 0xf << 28 | SPSR_DIT
    );
}

#[test]
fn pan_is_set_unless_span_says_otherwise() {
    let pan = PstateFeatures { pan: true, ..NONE };
    let mut source = source(0);
    assert_eq!(enter_el1(&source, pan, WRITE).pstate & SPSR_PAN, 0);
    source.spsr |= SPSR_PAN;
    assert_eq!(enter_el1(&source, pan, WRITE).pstate & SPSR_PAN, SPSR_PAN);
    source.spsr = 0;
    source.sctlr_el1 = 0;
    assert_eq!(enter_el1(&source, pan, WRITE).pstate & SPSR_PAN, SPSR_PAN);
    assert_eq!(enter_el1(&source, NONE, WRITE).pstate & SPSR_PAN, 0);
}

#[test]
fn ssbs_follows_dssbs_and_not_the_interrupted_state() {
    let ssbs = PstateFeatures { ssbs: true, ..NONE };
    let mut source = source(SPSR_SSBS);
    assert_eq!(enter_el1(&source, ssbs, WRITE).pstate & SPSR_SSBS, 0);
    source.sctlr_el1 |= SCTLR_DSSBS;
    assert_eq!(enter_el1(&source, ssbs, WRITE).pstate & SPSR_SSBS, SPSR_SSBS);
    assert_eq!(enter_el1(&source, NONE, WRITE).pstate & SPSR_SSBS, 0);
}

#[test]
fn newer_fields_follow_their_controls() {
    let mut source = source(0b0101);
    let pstate = enter_el1(&source, ALL, WRITE).pstate;
    assert_eq!(
        pstate & (SPSR_TCO | SPSR_ALLINT | SPSR_PM | SPSR_EXLOCK),
        SPSR_TCO | SPSR_ALLINT | SPSR_PM
    );
    source.sctlr_el1 |= SCTLR_SPINTMASK;
    source.gcscr_el1 = GCSCR_EXLOCKEN;
    let pstate = enter_el1(&source, ALL, WRITE).pstate;
    assert_eq!(
        pstate & (SPSR_TCO | SPSR_ALLINT | SPSR_PM | SPSR_EXLOCK),
        SPSR_TCO | SPSR_PM | SPSR_EXLOCK
    );
    // From EL0 the lock is always open.
    source.spsr = 0;
    assert_eq!(enter_el1(&source, ALL, WRITE).pstate & SPSR_EXLOCK, 0);
}

#[test]
fn aarch32_bits_do_not_leak_into_aarch64_ones() {
    // AArch32 SPSR: SSBS 23 (AArch64's UAO), T 5, E 9 (D), GE 19:16, IT 15:10 and 26:25 (BTYPE, SSBS, ALLINT, TCO).
    let aarch32 = 0b1_0000 | 1 << 5 | 1 << 9 | 0xf << 16 | 0x3f << 10 | 0b11 << 25 | SPSR_UAO;
    let entry = enter_el1(&source(aarch32), NONE, WRITE);
    assert_eq!(entry.pstate, 0x3c5);
    assert_eq!(entry.spsr_el1, aarch32);
}
