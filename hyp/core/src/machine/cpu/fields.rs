//! The fields of the ID registers that are looked at (Arm ARM DDI 0487, D24.2).

use tock_registers::register_bitfields;

register_bitfields! {u64,
    pub(super) CURRENT_EL [
        EL OFFSET(2) NUMBITS(2) [],
    ],
    pub(super) HCR [
        E2H OFFSET(34) NUMBITS(1) [],
    ],
    pub(super) PFR0 [
        CSV3 OFFSET(60) NUMBITS(4) [],
        CSV2 OFFSET(56) NUMBITS(4) [],
        AMU OFFSET(44) NUMBITS(4) [],
        MPAM OFFSET(40) NUMBITS(4) [],
        SVE OFFSET(32) NUMBITS(4) [],
        RAS OFFSET(28) NUMBITS(4) [],
        GIC OFFSET(24) NUMBITS(4) [],
        AdvSIMD OFFSET(20) NUMBITS(4) [],
        FP OFFSET(16) NUMBITS(4) [],
    ],
    pub(super) PFR1 [
        SME OFFSET(24) NUMBITS(4) [],
        MPAM_frac OFFSET(16) NUMBITS(4) [],
        MTE OFFSET(8) NUMBITS(4) [],
        SSBS OFFSET(4) NUMBITS(4) [],
        BT OFFSET(0) NUMBITS(4) [],
    ],
    pub(super) DFR0 [
        BRBE OFFSET(52) NUMBITS(4) [],
        TraceBuffer OFFSET(44) NUMBITS(4) [],
        TraceFilt OFFSET(40) NUMBITS(4) [],
        PMSVer OFFSET(32) NUMBITS(4) [],
        PMUVer OFFSET(8) NUMBITS(4) [],
    ],
    pub(super) ISAR0 [
        RNDR OFFSET(60) NUMBITS(4) [],
        TLB OFFSET(56) NUMBITS(4) [],
    ],
    pub(super) ISAR1 [
        SB OFFSET(36) NUMBITS(4) [],
        API OFFSET(8) NUMBITS(4) [],
        APA OFFSET(4) NUMBITS(4) [],
    ],
    pub(super) ISAR2 [
        CLRBHB OFFSET(28) NUMBITS(4) [],
        APA3 OFFSET(12) NUMBITS(4) [],
    ],
    pub(super) MMFR0 [
        ECV OFFSET(60) NUMBITS(4) [],
        FGT OFFSET(56) NUMBITS(4) [],
        TGran4_2 OFFSET(40) NUMBITS(4) [],
        TGran4 OFFSET(28) NUMBITS(4) [],
        PARange OFFSET(0) NUMBITS(4) [],
    ],
    pub(super) MMFR1 [
        ECBHB OFFSET(60) NUMBITS(4) [],
        HCX OFFSET(40) NUMBITS(4) [],
        XNX OFFSET(28) NUMBITS(4) [],
        PAN OFFSET(20) NUMBITS(4) [],
        LO OFFSET(16) NUMBITS(4) [],
        VMIDBits OFFSET(4) NUMBITS(4) [],
    ],
    pub(super) MMFR2 [
        EVT OFFSET(56) NUMBITS(4) [],
        BBM OFFSET(52) NUMBITS(4) [],
        TTL OFFSET(48) NUMBITS(4) [],
        FWB OFFSET(40) NUMBITS(4) [],
    ],
    pub(super) MMFR4 [
        E2H0 OFFSET(24) NUMBITS(4) [],
    ],
}
