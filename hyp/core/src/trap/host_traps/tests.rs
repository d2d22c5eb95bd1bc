use super::*;

const BARE: IdRegisters = IdRegisters::NONE;

fn traps(id: IdRegisters) -> HostTraps {
    HostTraps::new(&id, Settings::default())
}

/// The value of one register with a feature, beside that of a CPU with no feature at all.
fn gained(id: IdRegisters, register: fn(&HostTraps) -> u64) -> u64 {
    let (with, without) = (register(&traps(id)), register(&traps(BARE)));
    assert_eq!(with & without, without, "a feature takes nothing away");
    with ^ without
}

#[test]
fn a_cpu_without_features_has_stage_2_and_the_smc_trap() {
    let traps = traps(BARE);
    assert_eq!(traps.hcr_el2, 0x8008_0001);
    assert_eq!(traps.cptr_el2, 0x33ff);
    assert_eq!(traps.mdcr_el2, 0);
    assert_eq!(traps.cnthctl_el2, 3);
    assert_eq!((traps.hstr_el2, traps.hacr_el2, traps.cntvoff_el2), (0, 0, 0));
    for absent in [
        traps.hcrx_el2,
        traps.icc_sre_el2,
        traps.ich_hcr_el2,
        traps.actlr_el2,
        traps.zcr_el2,
        traps.smcr_el2,
        traps.pmscr_el2,
        traps.trfcr_el2,
        traps.brbcr_el2,
        traps.mpam2_el2,
        traps.mpamhcr_el2,
    ] {
        assert_eq!(absent, None);
    }
    assert_eq!(traps.fine_grained, None);
}

#[test]
fn no_trap_bit_of_hcr_is_set_but_the_named_ones() {
    // A CPU with every field of every ID register full.
    let full = IdRegisters {
        midr: u64::MAX,
        pfr0: u64::MAX,
        pfr1: u64::MAX,
        pfr2: u64::MAX,
        smfr0: u64::MAX,
        dfr0: u64::MAX,
        dfr1: u64::MAX,
        isar0: u64::MAX,
        isar1: u64::MAX,
        isar2: u64::MAX,
        isar3: u64::MAX,
        mmfr0: u64::MAX,
        mmfr1: u64::MAX,
        mmfr2: u64::MAX,
        mmfr3: u64::MAX,
        mmfr4: u64::MAX,
    };
    let traps = HostTraps::new(
        &full,
        Settings {
            force_write_back: true,
            pmcr: u64::MAX,
            mpamidr: u64::MAX,
            mpidr: u64::MAX,
        },
    );
    assert_eq!(
        traps.hcr_el2,
        HCR_VM | HCR_TSC | HCR_RW | HCR_APK | HCR_API | HCR_ENSCXT | HCR_TME | HCR_TID5 | HCR_TID3 | HCR_FWB
    );
    // E2H, TGE and the interrupt routing stay off whatever the CPU has.
    assert_eq!(traps.hcr_el2 & (1 << 34 | 1 << 27 | 0b111 << 3), 0);
    assert_eq!(traps.cptr_el2, 0x22ff);
}

#[test]
fn pointer_authentication_is_the_hosts() {
    for isar1 in [1 << 4, 1 << 8] {
        let id = IdRegisters { isar1, ..BARE };
        assert_eq!(gained(id, |traps| traps.hcr_el2), 1 << 40 | 1 << 41);
    }
}

#[test]
fn tags_are_hidden_only_where_memory_has_some() {
    let with = |mte: u64| IdRegisters {
        pfr1: mte << 8,
        ..BARE
    };
    assert_eq!(gained(with(1), |traps| traps.hcr_el2), 0);
    assert_eq!(gained(with(2), |traps| traps.hcr_el2), 1 << 58 | 1 << 18);
    assert_eq!(gained(with(3), |traps| traps.hcr_el2), 1 << 58 | 1 << 18);
}

#[test]
fn context_numbers_and_transactions_are_the_hosts() {
    let id = IdRegisters {
        pfr0: 2 << 56,
        ..BARE
    };
    assert_eq!(gained(id, |traps| traps.hcr_el2), 1 << 53);
    let id = IdRegisters {
        isar0: 1 << 24,
        ..BARE
    };
    assert_eq!(gained(id, |traps| traps.hcr_el2), 1 << 39);
}

#[test]
fn extended_controls_follow_their_features() {
    let hcx = IdRegisters {
        mmfr1: 1 << 40,
        ..BARE
    };
    assert_eq!(traps(hcx).hcrx_el2, Some(0));
    for (id, expected) in [
        (
            IdRegisters {
                isar1: 1 << 60,
                ..hcx
            },
            0b010,
        ),
        (
            IdRegisters {
                isar1: 2 << 60,
                ..hcx
            },
            0b110,
        ),
        (
            IdRegisters {
                isar1: 3 << 60,
                ..hcx
            },
            0b111,
        ),
        (
            IdRegisters {
                isar2: 1 << 16,
                ..hcx
            },
            1 << 11,
        ),
        (IdRegisters { mmfr3: 1, ..hcx }, 1 << 14),
        (IdRegisters { mmfr3: 1 << 4, ..hcx }, 1 << 15),
        (
            IdRegisters {
                mmfr3: 1 << 32,
                ..hcx
            },
            1 << 17,
        ),
        (IdRegisters { pfr1: 1 << 44, ..hcx }, 1 << 22),
        (IdRegisters { pfr2: 1 << 32, ..hcx }, 1 << 23),
        (
            IdRegisters {
                isar3: 1 << 12,
                ..hcx
            },
            1 << 24,
        ),
    ] {
        assert_eq!(traps(id).hcrx_el2, Some(expected));
    }
}

#[test]
fn all_counters_are_the_hosts_and_stop_at_el2() {
    let with = |version: u64| IdRegisters {
        dfr0: version << 8,
        ..BARE
    };
    let mdcr = |version: u64| {
        HostTraps::new(
            &with(version),
            Settings {
                // N = 6, and every other bit of PMCR_EL0 set.
                pmcr: 6 << 11 | !(0x1f << 11),
                ..Settings::default()
            },
        )
        .mdcr_el2
    };
    assert_eq!(mdcr(0), 0);
    assert_eq!(mdcr(0xf), 0);
    assert_eq!(mdcr(1), 6);
    assert_eq!(mdcr(4), 6 | 1 << 17);
    assert_eq!(mdcr(5), 6 | 1 << 17);
    assert_eq!(mdcr(6), 6 | 1 << 17 | 1 << 23);
    assert_eq!(mdcr(9), 6 | 1 << 17 | 1 << 23);
}

#[test]
fn profiling_and_trace_buffers_are_translated_by_the_host() {
    let spe = IdRegisters {
        dfr0: 1 << 32,
        ..BARE
    };
    assert_eq!(gained(spe, |traps| traps.mdcr_el2), 0b11 << 12);
    assert_eq!(traps(spe).pmscr_el2, Some(0x50));
    let trbe = IdRegisters {
        dfr0: 1 << 44 | 1 << 40,
        ..BARE
    };
    assert_eq!(gained(trbe, |traps| traps.mdcr_el2), 0b11 << 24);
    assert_eq!(traps(trbe).trfcr_el2, Some(0));
    let brbe = IdRegisters {
        dfr0: 1 << 52,
        ..BARE
    };
    assert_eq!(traps(brbe).brbcr_el2, Some(0x18));
}

#[test]
fn vectors_are_as_long_as_they_get() {
    let sve = IdRegisters {
        pfr0: 1 << 32,
        ..BARE
    };
    assert_eq!(traps(sve).cptr_el2, 0x32ff);
    assert_eq!(traps(sve).zcr_el2, Some(0xf));
    let sme = IdRegisters {
        pfr1: 1 << 24,
        ..BARE
    };
    assert_eq!(traps(sme).cptr_el2, 0x23ff);
    assert_eq!(traps(sme).smcr_el2, Some(0xf));
    let sme2 = IdRegisters {
        smfr0: 1 << 56 | 1 << 63,
        ..sme
    };
    assert_eq!(traps(sme2).smcr_el2, Some(0xf | 1 << 30 | 1 << 31));
}

#[test]
fn the_gic_is_used_through_its_system_registers() {
    let id = IdRegisters {
        pfr0: 1 << 24,
        ..BARE
    };
    assert_eq!(traps(id).icc_sre_el2, Some(0xf));
    assert_eq!(traps(id).ich_hcr_el2, Some(0));
}

#[test]
fn a_core_of_arm_keeps_its_inner_registers() {
    let id = IdRegisters {
        midr: 0x410f_d083,
        ..BARE
    };
    assert_eq!(traps(id).actlr_el2, Some(0));
    assert_eq!(traps(id).vpidr_el2, 0x410f_d083);
    let id = IdRegisters {
        midr: 0x610f_0000,
        ..BARE
    };
    assert_eq!(traps(id).actlr_el2, None);
}

#[test]
fn the_caches_are_closed_where_el1_could_read_them_out() {
    // Cortex-A57 r1p0 and Cortex-A72 r0p3; Cortex-A53, A76 and Neoverse N1 as the test machines have them; `max`.
    for (midr, expected) in [
        (0x411f_d070, HCR_TIDCP),
        (0x410f_d083, HCR_TIDCP),
        (0x410f_d034, 0),
        (0x414f_d0b1, 0),
        (0x414f_d0c1, 0),
        (0x000f_0510, 0),
    ] {
        let id = IdRegisters { midr, ..BARE };
        assert_eq!(gained(id, |traps| traps.hcr_el2), expected, "{midr:#x}");
    }
}

#[test]
fn memory_partitioning_is_the_hosts() {
    let id = IdRegisters {
        pfr1: 1 << 16,
        ..BARE
    };
    assert_eq!(traps(id).mpam2_el2, Some(0));
    assert_eq!(traps(id).mpamhcr_el2, None);
    let id = IdRegisters {
        pfr0: 1 << 40,
        pfr1: 1 << 24,
        ..BARE
    };
    let traps = HostTraps::new(
        &id,
        Settings {
            mpamidr: 1 << 17,
            ..Settings::default()
        },
    );
    assert_eq!(traps.mpam2_el2, Some(1 << 50));
    assert_eq!(traps.mpamhcr_el2, Some(0));
}
