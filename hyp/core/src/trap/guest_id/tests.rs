//! What guests see of CPUs: QEMU's models as their registers read at EL2 (QEMU 7.2), and of ones that nobody built.

use super::*;

const CORTEX_A53: IdRegisters = IdRegisters {
    midr: 0x410f_d034,
    pfr0: 0x0100_0222,
    dfr0: 0x1030_5106,
    isar0: 0x0001_1120,
    mmfr0: 0x1122,
    ..IdRegisters::NONE
};

const CORTEX_A72: IdRegisters = IdRegisters {
    midr: 0x410f_d083,
    mmfr0: 0x1124,
    ..CORTEX_A53
};

const CORTEX_A76: IdRegisters = IdRegisters {
    midr: 0x414f_d0b1,
    pfr0: 0x1100_0000_1111_0112,
    pfr1: 0x10,
    dfr0: 0x1030_5408,
    isar0: 0x0000_1000_1021_1120,
    isar1: 0x0010_0001,
    mmfr0: 0x0010_1122,
    mmfr1: 0x1021_2122,
    mmfr2: 0x1011,
    ..IdRegisters::NONE
};

const NEOVERSE_N1: IdRegisters = IdRegisters {
    midr: 0x414f_d0c1,
    pfr1: 0x20,
    mmfr0: 0x0010_1125,
    ..CORTEX_A76
};

const MAX: IdRegisters = IdRegisters {
    midr: 0x000f_0510,
    pfr0: 0x1201_0011_2111_0222,
    pfr1: 0x0100_0021,
    smfr0: 0x80f1_00fd_0000_0000,
    dfr0: 0x1030_5609,
    isar0: 0x1221_1111_1021_2120,
    isar1: 0x0011_1111_0121_1012,
    mmfr0: 0x0323_1020_1126,
    mmfr1: 0x0110_1021_1122,
    mmfr2: 0x1021_0110_1001_1011,
    ..IdRegisters::NONE
};

/// DebugVer 6, two breakpoints and two watchpoints; no double lock and no PMU over threads.
const DEBUG: u64 = 0x000f_00f0_0010_1006;

fn register(crm: u8, op2: u8) -> SystemRegister {
    SystemRegister::new(3, 0, 0, crm, op2)
}

fn read(id: &IdRegisters, ipa_bits: u32, crm: u8, op2: u8) -> u64 {
    GuestCpu { id, ipa_bits }.read(register(crm, op2))
}

/// The registers that are not zero, of a guest with IPAs of so many bits.
fn seen(id: &IdRegisters, ipa_bits: u32) -> std::vec::Vec<((u8, u8), u64)> {
    (1..8)
        .flat_map(|crm| (0..8).map(move |op2| (crm, op2)))
        .map(|(crm, op2)| ((crm, op2), read(id, ipa_bits, crm, op2)))
        .filter(|(_, value)| *value != 0)
        .collect()
}

#[test]
fn a_guest_on_a_cortex_a53_sees_armv8_0_without_aarch32() {
    assert_eq!(
        seen(&CORTEX_A53, 40),
        [
            ((4, 0), 0x0100_0011),
            ((5, 0), DEBUG),
            ((6, 0), 0x0001_1120),
            ((7, 0), 0x22),
        ]
    );
}

#[test]
fn a_guest_on_a_cortex_a72_has_the_physical_addresses_of_its_vm() {
    let expected = |range: u64| {
        [
            ((4, 0), 0x0100_0011),
            ((5, 0), DEBUG),
            ((6, 0), 0x0001_1120),
            ((7, 0), 0x20 | range),
        ]
    };
    assert_eq!(seen(&CORTEX_A72, 40), expected(2));
    assert_eq!(seen(&CORTEX_A72, 44), expected(4));
}

#[test]
fn a_guest_on_a_cortex_a76_sees_no_ras_and_no_lor() {
    assert_eq!(
        seen(&CORTEX_A76, 40),
        [
            ((4, 0), 0x1100_0000_0111_0011),
            ((4, 1), 0x10),
            ((5, 0), DEBUG),
            ((6, 0), 0x0000_1000_1021_1120),
            ((6, 1), 0x0010_0001),
            ((7, 0), 0x0010_0022),
            ((7, 1), 0x0020_2002),
            ((7, 2), 0x11),
        ]
    );
}

#[test]
fn a_guest_on_a_neoverse_n1_sees_ssbs_with_its_instructions() {
    assert_eq!(
        seen(&NEOVERSE_N1, 48),
        [
            ((4, 0), 0x1100_0000_0111_0011),
            ((4, 1), 0x20),
            ((5, 0), DEBUG),
            ((6, 0), 0x0000_1000_1021_1120),
            ((6, 1), 0x0010_0001),
            ((7, 0), 0x0010_0025),
            ((7, 1), 0x0020_2002),
            ((7, 2), 0x11),
        ]
    );
}

#[test]
fn a_guest_on_max_sees_no_sve_sme_or_52_bits() {
    assert_eq!(
        seen(&MAX, 40),
        [
            ((4, 0), 0x1101_0000_0111_0011),
            ((4, 1), 0x21),
            ((5, 0), DEBUG),
            ((6, 0), 0x1221_1111_1021_2120),
            ((6, 1), 0x0011_1111_0121_1012),
            ((7, 0), 0x0010_0022),
            ((7, 1), 0x0010_0020_1002),
            ((7, 2), 0x1021_0010_1001_0011),
        ]
    );
}

/// The list as one line a register, from bits 63:60 down to 3:0. A digit is the most that is shown; `s` and `t` are
/// signed fields of at most 1 and 0; `=` is always 1; `-` is hidden.
const LIST: [((u8, u8), &str); 8] = [
    ((4, 0), "11-1-----1ss--=="),
    ((4, 1), "-------1------21"),
    ((6, 0), "122111111-31212-"),
    ((6, 1), "--11221111311552"),
    ((6, 2), "1-1-----1111511-"),
    ((7, 0), "1---1---tt1---25"),
    ((7, 1), "11-11-3--13-2--2"),
    ((7, 2), "1-21--111-11--11"),
];

fn by_the_list(limit: char, field: u64) -> u64 {
    let negative = field >= 8;
    match limit {
        '-' => 0,
        '=' => 1,
        's' | 't' if negative => field,
        's' => field.min(1),
        't' => 0,
        digit => field.min(u64::from(digit.to_digit(16).unwrap())),
    }
}

/// A CPU whose ID registers hold this, but for CSV2, which is 1.
fn all(value: u64) -> IdRegisters {
    IdRegisters {
        midr: value,
        pfr0: value & !(0xf << 56) | 1 << 56,
        pfr1: value,
        pfr2: value,
        smfr0: value,
        dfr0: value,
        dfr1: value,
        isar0: value,
        isar1: value,
        isar2: value,
        isar3: value,
        mmfr0: value,
        mmfr1: value,
        mmfr2: value,
        mmfr3: value,
        mmfr4: value,
    }
}

#[test]
fn every_field_of_every_register_keeps_to_the_list() {
    for field in 0..16_u64 {
        let value = 0x1111_1111_1111_1111 * field;
        let id = all(value);
        for crm in 1..8 {
            for op2 in 0..8 {
                let got = read(&id, 48, crm, op2);
                if (crm, op2) == (5, 0) {
                    assert_eq!(got, DEBUG);
                    continue;
                }
                let line = LIST.iter().find(|(number, _)| *number == (crm, op2));
                let limits = line.map_or("----------------", |(_, limits)| limits);
                for (limit, shift) in limits.chars().zip((0..64).step_by(4).rev()) {
                    let of_cpu = if (crm, op2, shift) == (4, 0, 56) { 1 } else { field };
                    assert_eq!(
                        got >> shift & 0xf,
                        by_the_list(limit, of_cpu),
                        "register {crm} {op2}, bit {shift}, field {field}"
                    );
                }
            }
        }
    }
}

#[test]
fn fields_do_not_touch_each_other() {
    for (shift, field) in (0..64)
        .step_by(4)
        .flat_map(|shift| (1..16).map(move |field| (shift, field)))
    {
        let (with, without) = (all(field << shift), all(0));
        for ((crm, op2), _) in LIST {
            let changed = read(&with, 48, crm, op2) ^ read(&without, 48, crm, op2);
            assert_eq!(changed & !(0xf << shift), 0, "register {crm} {op2}, bit {shift}");
        }
    }
}

#[test]
fn what_needs_state_that_is_not_kept_is_hidden() {
    let full = all(u64::MAX);
    for ((crm, op2), shift, name) in [
        ((4, 0), 8, "EL2"),
        ((4, 0), 12, "EL3"),
        ((4, 0), 28, "RAS"),
        ((4, 0), 32, "SVE"),
        ((4, 0), 36, "SEL2"),
        ((4, 0), 40, "MPAM"),
        ((4, 0), 44, "AMU"),
        ((4, 0), 52, "RME"),
        ((4, 1), 8, "MTE"),
        ((4, 1), 12, "RAS_frac"),
        ((4, 1), 16, "MPAM_frac"),
        ((4, 1), 24, "SME"),
        ((4, 1), 36, "NMI"),
        ((4, 1), 40, "MTE_frac"),
        ((4, 1), 44, "GCS"),
        ((4, 1), 48, "THE"),
        ((5, 0), 4, "TraceVer"),
        ((5, 0), 8, "PMUVer"),
        ((5, 0), 32, "PMSVer"),
        ((5, 0), 40, "TraceFilt"),
        ((5, 0), 44, "TraceBuffer"),
        ((5, 0), 52, "BRBE"),
        ((6, 0), 24, "TME"),
        ((6, 1), 60, "LS64"),
        ((6, 2), 0, "WFxT"),
        ((7, 0), 8, "BigEnd"),
        ((7, 0), 56, "FGT"),
        ((7, 1), 8, "VH"),
        ((7, 1), 16, "LO"),
        ((7, 1), 40, "HCX"),
        ((7, 2), 12, "IESB"),
        ((7, 2), 24, "NV"),
        ((7, 2), 40, "FWB"),
        ((7, 3), 8, "S1PIE"),
        ((7, 3), 16, "S1POE"),
        ((7, 3), 32, "D128"),
    ] {
        assert_eq!(read(&full, 48, crm, op2) >> shift & 0xf, 0, "{name}");
    }
}

#[test]
fn a_granule_that_is_not_there_stays_not_there() {
    // TGran16 0, TGran64 and TGran4 0b1111.
    let id = IdRegisters {
        mmfr0: 0xff << 24,
        ..IdRegisters::NONE
    };
    assert_eq!(read(&id, 48, 7, 0), 0xff << 24);
}

#[test]
fn a_cpu_without_floating_point_shows_none() {
    let id = IdRegisters {
        pfr0: 0xff << 16,
        ..IdRegisters::NONE
    };
    assert_eq!(read(&id, 48, 4, 0), 0x00ff_0011);
}

#[test]
fn the_fraction_of_csv2_counts_for_1_alone() {
    for (csv2, frac, expected) in [(0, 1, 0), (1, 0, 0), (1, 1, 1), (1, 2, 1), (2, 1, 0), (3, 2, 0)] {
        let id = IdRegisters {
            pfr0: csv2 << 56,
            pfr1: frac << 32,
            ..IdRegisters::NONE
        };
        assert_eq!(read(&id, 48, 4, 1) >> 32 & 0xf, expected, "{csv2} {frac}");
        assert_eq!(read(&id, 48, 4, 0) >> 56 & 0xf, csv2.min(1));
    }
}

#[test]
fn physical_addresses_hold_in_the_vms_and_in_the_cpus() {
    let sizes = [
        (0, 32),
        (1, 36),
        (2, 40),
        (3, 42),
        (4, 44),
        (5, 48),
        (6, 52),
        (7, 56),
    ];
    for (cpu, cpu_bits) in sizes {
        for ipa_bits in 32..=48 {
            let id = IdRegisters {
                mmfr0: cpu,
                ..IdRegisters::NONE
            };
            let shown = read(&id, ipa_bits, 7, 0) & 0xf;
            let (_, bits) = sizes[usize::try_from(shown).unwrap()];
            assert!(bits <= ipa_bits && bits <= cpu_bits);
            // And no smaller than must be.
            let next = sizes[usize::try_from(shown + 1).unwrap()].1;
            assert!(next > ipa_bits || shown == cpu);
        }
    }
    for ipa_bits in [0, 31, 49, u32::MAX] {
        assert!(read(&MAX, ipa_bits, 7, 0) & 0xf <= 5);
    }
}

#[test]
fn only_the_space_of_feature_registers_is_read() {
    let full = all(u64::MAX);
    let cpu = GuestCpu {
        id: &full,
        ipa_bits: 48,
    };
    for op0 in 0..4 {
        for op1 in 0..8 {
            for crn in 0..16 {
                for crm in 0..16 {
                    for op2 in 0..8 {
                        let register = SystemRegister::new(op0, op1, crn, crm, op2);
                        let inside = (op0, op1, crn) == (3, 0, 0) && (1..8).contains(&crm);
                        assert_eq!(id_number(register).is_some(), inside);
                        assert!(inside || cpu.read(register) == 0);
                    }
                }
            }
        }
    }
}

#[test]
fn vcpus_are_named_by_their_affinity() {
    assert_eq!(mpidr(0), 0x8000_0000);
    assert_eq!(mpidr(15), 0x8000_000f);
    assert_eq!(mpidr(16), 0x8000_0100);
    assert_eq!(mpidr(63), 0x8000_030f);
    for vcpu in 0..64 {
        assert_eq!(vcpu_of(mpidr(vcpu) & 0x00ff_ffff), Some(vcpu));
    }
    for affinity in [0x10, 0x400, 0x1000, 0x1_0000, 1 << 31, 1 << 32, u64::MAX] {
        assert_eq!(vcpu_of(affinity), None, "{affinity:#x}");
    }
}

#[test]
fn a_cpu_that_lacks_what_guests_are_shown_is_not_one_for_them() {
    for cpu in [CORTEX_A53, CORTEX_A72, CORTEX_A76, MAX] {
        assert!(is_shown_no_less(&cpu, &cpu));
    }
    // An A72 does all that an A53 does; an A76 does more, among it without state that EL2 would have to keep.
    assert!(is_shown_no_less(&CORTEX_A53, &CORTEX_A72) && is_shown_no_less(&CORTEX_A72, &CORTEX_A53));
    assert!(is_shown_no_less(&CORTEX_A53, &CORTEX_A76));
    assert!(
        !is_shown_no_less(&CORTEX_A76, &CORTEX_A53),
        "LSE and half precision"
    );
    let plain = CORTEX_A76;
    for less in [
        // CSV2, atomics, DPB, PAN.
        IdRegisters {
            pfr0: plain.pfr0 & !(0xf << 56),
            ..plain
        },
        IdRegisters {
            isar0: plain.isar0 & !(0xf << 20),
            ..plain
        },
        IdRegisters {
            isar1: plain.isar1 & !0xf,
            ..plain
        },
        IdRegisters {
            mmfr1: plain.mmfr1 & !(0xf << 20),
            ..plain
        },
        // No floating point, no 64 KiB granule at stage 1.
        IdRegisters {
            pfr0: plain.pfr0 | 0xff << 16,
            ..plain
        },
        IdRegisters {
            mmfr0: plain.mmfr0 | 0xf << 24,
            ..plain
        },
        // Pointer authentication that signs differently, or that the first one lacks.
        IdRegisters {
            isar1: plain.isar1 | 1 << 4,
            ..plain
        },
    ] {
        assert!(!is_shown_no_less(&plain, &less), "{less:x?}");
    }
    let signs = |how: u64| IdRegisters {
        isar1: plain.isar1 | how << 4,
        ..plain
    };
    assert!(!is_shown_no_less(&signs(1), &signs(3)) && !is_shown_no_less(&signs(1), &plain));
    // What guests are not shown may differ: SVE, the PMU, MTE, more of CSV2.
    let more = IdRegisters {
        pfr0: plain.pfr0 | 1 << 32 | 2 << 56,
        pfr1: plain.pfr1 | 2 << 8,
        dfr0: 0,
        ..plain
    };
    assert!(is_shown_no_less(&plain, &more));
}
