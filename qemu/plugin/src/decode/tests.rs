//! Words as the GNU assembler makes them, against the names they must get.

use super::{Kind, Operation, accesses_memory, marker, marker_word, uses_vectors};

#[track_caller]
fn decodes(word: u32, kind: Kind, name: &str) {
    let operation = Operation::decode(word).unwrap();
    assert_eq!(
        (operation.kind, operation.name.as_ref()),
        (kind, name),
        "{word:#010x}"
    );
}

#[test]
fn exceptions() {
    decodes(0xD69F_03E0, Kind::Eret, "");
    decodes(0xD400_0001, Kind::Svc, "#0");
    decodes(0xD400_0002, Kind::Hvc, "#0");
    decodes(0xD41F_FFE2, Kind::Hvc, "#65535");
    decodes(0xD400_0003, Kind::Smc, "#0");
    // HLT, by which semihosting calls, is none of them.
    assert_eq!(Operation::decode(0xD45E_0000), None);
}

#[test]
fn barriers() {
    decodes(0xD503_3B9F, Kind::Dsb, "ish");
    decodes(0xD503_3A9F, Kind::Dsb, "ishst");
    decodes(0xD503_3F9F, Kind::Dsb, "sy");
    decodes(0xD503_379F, Kind::Dsb, "nsh");
    decodes(0xD503_3A3F, Kind::Dsb, "ishnxs");
    decodes(0xD503_3BBF, Kind::Dmb, "ish");
    decodes(0xD503_3FDF, Kind::Isb, "");
    decodes(0xD503_30FF, Kind::Sb, "");
    decodes(0xD503_309F, Kind::Sb, "ssbb");
    decodes(0xD503_349F, Kind::Sb, "pssbb");
    // CLREX, NOP, WFI.
    for word in [0xD503_3F5F, 0xD503_201F, 0xD503_207F] {
        assert_eq!(Operation::decode(word), None, "{word:#010x}");
    }
}

#[test]
fn maintenance() {
    decodes(0xD50C_83DF, Kind::Tlbi, "vmalls12e1is");
    decodes(0xD50C_8020, Kind::Tlbi, "ipas2e1is");
    decodes(0xD50C_80A0, Kind::Tlbi, "ipas2le1is");
    decodes(0xD50C_8040, Kind::Tlbi, "ripas2e1is");
    decodes(0xD508_831F, Kind::Tlbi, "vmalle1is");
    decodes(0xD50C_839F, Kind::Tlbi, "alle1is");
    decodes(0xD50C_8320, Kind::Tlbi, "vae2is");
    decodes(0xD50C_871F, Kind::Tlbi, "alle2");
    decodes(0xD50C_9020, Kind::Tlbi, "ipas2e1isnxs");
    decodes(0xD50E_871F, Kind::Tlbi, "6_c8_c7_0");
    decodes(0xD50B_7A20, Kind::Dc, "cvac");
    decodes(0xD50B_7E23, Kind::Dc, "civac");
    decodes(0xD50B_7B20, Kind::Dc, "cvau");
    decodes(0xD50B_7420, Kind::Dc, "zva");
    decodes(0xD508_711F, Kind::Ic, "ialluis");
    decodes(0xD508_751F, Kind::Ic, "iallu");
    decodes(0xD50B_7520, Kind::Ic, "ivau");
    decodes(0xD50C_7880, Kind::At, "s12e1r");
}

#[test]
fn registers() {
    decodes(0xD51C_2100, Kind::Msr, "vttbr_el2");
    decodes(0xD51C_2140, Kind::Msr, "vtcr_el2");
    decodes(0xD51C_1100, Kind::Msr, "hcr_el2");
    decodes(0xD51C_2000, Kind::Msr, "ttbr0_el2");
    decodes(0xD51C_1000, Kind::Msr, "sctlr_el2");
    decodes(0xD518_2040, Kind::Msr, "tcr_el1");
    // Reading one, and writing SPSR_EL2 or ELR_EL2, is no news.
    for word in [0xD53C_2100, 0xD51C_4000, 0xD51C_4020] {
        assert_eq!(Operation::decode(word), None, "{word:#010x}");
    }
}

#[test]
fn markers() {
    for number in [0, 1, 0x1234, u16::MAX] {
        assert_eq!(marker(marker_word(number)), Some(number));
    }
    assert_eq!(marker_word(7), 0xD280_00FF);
    // The same to x30, and movn, are none.
    assert_eq!(marker(0xD280_00FE), None);
    assert_eq!(marker(0x9280_00FF), None);
}

#[test]
fn loads_and_stores() {
    // stp x0, x1, [sp, #-16]!; stlr x9, [x24]; ldr x0, [x0]; stxr w1, x2, [x3]; a literal load; str q0, [x0].
    for word in [
        0xA9BF_07E0,
        0xC89F_FF09,
        0xF940_0000,
        0xC801_7C62,
        0x5800_0000,
        0x3D80_0000,
    ] {
        assert!(accesses_memory(word), "{word:#010x}");
    }
    // ERET; add x0, x1, x2; b .; dc zva, x0; fadd d0, d0, d0.
    for word in [0xD69F_03E0, 0x8B02_0020, 0x1400_0000, 0xD50B_7420, 0x1E60_2800] {
        assert!(!accesses_memory(word), "{word:#010x}");
    }
}

#[test]
fn vector_instructions() {
    // fadd d0, d0, d0; add v0.16b, v0.16b, v0.16b; fmov x0, d0; str q0, [x0]; ldp d0, d1, [sp]; ptrue p0.b;
    // addvl x0, x0, #1; smstart is a hint to the system, but fmopa is not.
    for word in [
        0x1E60_2800,
        0x4E20_8400,
        0x9E66_0000,
        0x3D80_0000,
        0x6D40_07E0,
        0x2518_E3E0,
        0x0420_5020,
        0x8080_0000,
    ] {
        assert!(uses_vectors(word), "{word:#010x}");
    }
    // mov x0, x1; stp x0, x1, [sp]; udf #0; br x0; dsb sy.
    for word in [0xAA01_03E0, 0xA900_07E0, 0, 0xD61F_0000, 0xD503_3F9F] {
        assert!(!uses_vectors(word), "{word:#010x}");
    }
}
