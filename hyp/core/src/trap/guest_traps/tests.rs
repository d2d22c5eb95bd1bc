use super::*;

const BARE: IdRegisters = IdRegisters::NONE;

/// A CPU with every field of every ID register full, but for the PMU, of which 0xf is "not the architecture's".
const FULL: IdRegisters = IdRegisters {
    midr: u64::MAX,
    pfr0: u64::MAX,
    pfr1: u64::MAX,
    pfr2: u64::MAX,
    smfr0: u64::MAX,
    dfr0: !(0xf << 8) | 9 << 8,
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

const EVERYTHING: GuestSettings = GuestSettings {
    force_write_back: true,
    pointer_authentication: true,
    pmcr: u64::MAX,
    mpamidr: u64::MAX,
};

fn traps(id: IdRegisters) -> GuestTraps {
    GuestTraps::new(&id, GuestSettings::default())
}

/// What a feature adds to a register of a CPU without any.
fn gained(change: impl FnOnce(&mut IdRegisters), register: fn(&GuestTraps) -> u64) -> u64 {
    let mut id = BARE;
    change(&mut id);
    let (with, without) = (register(&traps(id)), register(&traps(BARE)));
    assert_eq!(with & without, without, "a feature takes nothing away");
    with ^ without
}

/// Bit positions as the Arm ARM's register pages give them, apart from the code's, each with what it keeps.
#[test]
fn each_bit_of_hcr_has_its_reason() {
    let expected = [
        (0, "VM: the guest has its own memory, and no other"),
        (1, "SWIO: invalidating by set and way loses nobody's lines"),
        (2, "PTW: a walk does not read devices"),
        (3, "FMO: the host's FIQs are not the guest's"),
        (4, "IMO: the host's IRQs are not the guest's, and its SGIs trap"),
        (5, "AMO: SErrors are the host's"),
        (9, "FB: a vCPU may have run on another CPU"),
        (10, "BSU = 0b01: so may its barriers"),
        (13, "TWI: waiting gives the CPU back"),
        (14, "TWE: so does this way of waiting"),
        (16, "TID1: no SMIDR_EL1, and a REVIDR_EL1 that does not change"),
        (18, "TID3: the list of features"),
        (19, "TSC: the firmware is not the guest's"),
        (20, "TIDCP: no access to the core's own registers"),
        (21, "TACR: nor to its control"),
        (22, "TSW: set and way mean nothing to a vCPU that moves"),
        (31, "RW: EL1 is AArch64"),
    ];
    let value = expected.iter().fold(0_u64, |value, (bit, _)| value | 1 << bit);
    assert_eq!(traps(BARE).hcr_el2, value, "{:#x}", traps(BARE).hcr_el2 ^ value);
}

#[test]
fn features_that_are_hidden_add_their_traps_to_hcr() {
    assert_eq!(gained(|id| id.mmfr1 = 1 << 16, |traps| traps.hcr_el2), 1 << 35);
    assert_eq!(gained(|id| id.pfr0 = 1 << 28, |traps| traps.hcr_el2), 1 << 36);
    assert_eq!(gained(|id| id.pfr1 = 1 << 8, |traps| traps.hcr_el2), 0);
    assert_eq!(gained(|id| id.pfr1 = 2 << 8, |traps| traps.hcr_el2), 1 << 58);
    // Transactions and context numbers trap when their bits are clear.
    assert_eq!(gained(|id| id.isar0 = 1 << 24, |traps| traps.hcr_el2), 0);
    assert_eq!(gained(|id| id.pfr0 = 2 << 56, |traps| traps.hcr_el2), 0);
}

#[test]
fn pointer_authentication_needs_a_cpu_that_has_it_and_a_guest_that_is_shown_it() {
    let cpu = IdRegisters {
        isar1: 1 << 4,
        ..BARE
    };
    let given = GuestSettings {
        pointer_authentication: true,
        ..GuestSettings::default()
    };
    for (id, settings, expected) in [
        (BARE, GuestSettings::default(), 0),
        (BARE, given, 0),
        (cpu, GuestSettings::default(), 0),
        (cpu, given, 0b11 << 40),
    ] {
        assert_eq!(GuestTraps::new(&id, settings).hcr_el2 & 0b11 << 40, expected);
    }
}

#[test]
fn write_back_is_forced_where_the_tables_say_so() {
    let settings = GuestSettings {
        force_write_back: true,
        ..GuestSettings::default()
    };
    let value = GuestTraps::new(&BARE, settings).hcr_el2;
    assert_eq!(value ^ traps(BARE).hcr_el2, 1 << 46);
}

#[test]
fn what_would_hand_el2_or_other_guests_to_a_guest_is_never_set() {
    let hcr = GuestTraps::new(&FULL, EVERYTHING).hcr_el2;
    for (bit, name) in [
        (6, "VF"),
        (7, "VI"),
        (8, "VSE"),
        (11, "BSU, outer shareable or full system"),
        (12, "DC"),
        (17, "TID2"),
        (25, "TTLB"),
        (27, "TGE"),
        (29, "HCD"),
        (32, "CD"),
        (33, "ID"),
        (34, "E2H"),
        (37, "TEA"),
        (39, "TME"),
        (42, "NV"),
        (45, "NV2"),
        (47, "FIEN"),
        (51, "AMVOFFEN"),
        (53, "EnSCXT"),
        (56, "ATA"),
    ] {
        assert_eq!(hcr & 1 << bit, 0, "HCR_EL2.{name}");
    }
    assert_eq!(hcr, 0x0400_4318_807d_663f, "{hcr:#x}");
}

#[test]
fn the_extended_controls_open_memory_operations_and_nothing_else() {
    assert_eq!(traps(BARE).hcrx_el2, None);
    let hcrx = |change: fn(&mut IdRegisters)| {
        let mut id = IdRegisters {
            mmfr1: 1 << 40,
            ..BARE
        };
        change(&mut id);
        traps(id).hcrx_el2
    };
    assert_eq!(hcrx(|_| {}), Some(0));
    assert_eq!(hcrx(|id| id.isar2 = 1 << 16), Some(1 << 11));
    assert_eq!(hcrx(|id| id.pfr1 = 1 << 36), Some(1 << 6));
    assert_eq!(hcrx(|id| *id = FULL), Some(1 << 11 | 1 << 6));
}

#[test]
fn floating_point_traps_at_first_and_vectors_always() {
    // RES1 bits 13, 9 and 7:0; TFP 10; TZ 8 and TSM 12, which are RES1 on CPUs without the features.
    assert_eq!(traps(BARE).cptr_el2, 0x37ff);
    assert_eq!(
        gained(|id| id.pfr0 = 1 << 32, |traps| traps.cptr_el2),
        0,
        "SVE stays closed"
    );
    assert_eq!(
        gained(|id| id.pfr1 = 1 << 24, |traps| traps.cptr_el2),
        0,
        "SME stays closed"
    );
    assert_eq!(traps(BARE).cptr_el2 & !CPTR_TFP, 0x33ff);
    assert_eq!(gained(|id| id.pfr0 = 1 << 44, |traps| traps.cptr_el2), 1 << 30);
    assert_eq!(gained(|id| id.dfr0 = 1 << 4, |traps| traps.cptr_el2), 1 << 20);
}

#[test]
fn debug_always_traps() {
    assert_eq!(traps(BARE).mdcr_el2, 1 << 9 | 1 << 10 | 1 << 11);
}

#[test]
fn the_counters_are_the_hosts() {
    let mdcr = |version: u64| {
        let id = IdRegisters {
            dfr0: version << 8,
            ..BARE
        };
        let settings = GuestSettings {
            // N = 6, and every other bit of PMCR_EL0 set.
            pmcr: 6 << 11 | !(0x1f << 11),
            ..GuestSettings::default()
        };
        GuestTraps::new(&id, settings).mdcr_el2 ^ traps(BARE).mdcr_el2
    };
    let all = 6 | 1 << 5 | 1 << 6;
    assert_eq!(mdcr(0), 0);
    assert_eq!(mdcr(0xf), 0);
    assert_eq!(mdcr(1), all);
    assert_eq!(mdcr(4), all | 1 << 17);
    assert_eq!(mdcr(6), all | 1 << 17 | 1 << 23);
}

#[test]
fn profiling_and_trace_are_barred() {
    let mdcr: fn(&GuestTraps) -> u64 = |traps| traps.mdcr_el2;
    assert_eq!(gained(|id| id.dfr0 = 1 << 32, mdcr), 1 << 14);
    assert_eq!(gained(|id| id.dfr0 = 1 << 40, mdcr), 1 << 19);
    assert_eq!(gained(|id| id.mmfr0 = 1 << 56, mdcr), 1 << 27);
    // The buffers are EL2's, which does not use them: E2PB 13:12, E2TB 25:24.
    let full = GuestTraps::new(&FULL, EVERYTHING);
    assert_eq!(full.mdcr_el2 & (0b11 << 12 | 0b11 << 24), 0);
    assert_eq!(full.mdcr_el2, 0x088a_4e7f, "{:#x}", full.mdcr_el2);
    assert_eq!(
        (full.pmscr_el2, full.trfcr_el2, full.brbcr_el2),
        (Some(0), Some(0), Some(0))
    );
    let bare = traps(BARE);
    assert_eq!(
        (bare.pmscr_el2, bare.trfcr_el2, bare.brbcr_el2),
        (None, None, None)
    );
}

#[test]
fn the_physical_timer_is_the_hosts_and_its_counter_is_everybodys() {
    // EL1PCTEN 1, EL1PCEN 0; no event stream, no trap and no mask of the virtual timer.
    assert_eq!(traps(BARE).cnthctl_el2, 0b01);
    assert_eq!(GuestTraps::new(&FULL, EVERYTHING).cnthctl_el2, 0b01);
}

#[test]
fn a_guest_cannot_change_the_interface_to_the_gic_under_the_host() {
    assert_eq!(traps(BARE).icc_sre_el2, None);
    let id = IdRegisters {
        pfr0: 1 << 24,
        ..BARE
    };
    assert_eq!(traps(id).icc_sre_el2, Some(0b0111));
}

#[test]
fn the_host_chooses_maintenance_interrupts_and_no_traps() {
    assert_eq!(ich_hcr(0), 1);
    assert_eq!(ich_hcr(u64::MAX), 0xf800_00ff);
    for bit in 0..64 {
        let asked = 1_u64 << bit;
        let allowed = matches!(bit, 1..=7 | 27..=31);
        assert_eq!(ich_hcr(asked), if allowed { asked | 1 } else { 1 }, "bit {bit}");
    }
}

#[test]
fn memory_partitioning_traps() {
    assert_eq!((traps(BARE).mpam2_el2, traps(BARE).mpamhcr_el2), (None, None));
    let id = IdRegisters {
        pfr0: 1 << 40,
        ..BARE
    };
    for (mpamidr, mpam2, mpamhcr) in [
        (0, 0b11 << 48, None),
        (1 << 17, 0b11 << 48, Some(1 << 31)),
        (1 << 58, 0b11 << 48 | 1 << 58, None),
    ] {
        let settings = GuestSettings {
            mpamidr,
            ..GuestSettings::default()
        };
        let traps = GuestTraps::new(&id, settings);
        assert_eq!((traps.mpam2_el2, traps.mpamhcr_el2), (Some(mpam2), mpamhcr));
    }
}

#[test]
fn fine_grained_traps_leave_everything_closed() {
    assert!(traps(BARE).fine_grained.is_none());
    let fine = traps(IdRegisters {
        mmfr0: 1 << 56,
        ..BARE
    })
    .fine_grained
    .unwrap();
    assert_eq!((fine.hfgrtr_el2, fine.hfgwtr_el2), (0, 0));
    assert!(fine.hafgrtr_el2.is_none() && fine.second.is_none());

    let full = GuestTraps::new(&FULL, EVERYTHING).fine_grained.unwrap();
    // HFGRTR_EL2: LOR* 23:19, SCXTNUM 31:30, ER* 49:40; writes without LORID 21, ERRIDR 40, ERXFR 42, ERXPFGF 46.
    assert_eq!(full.hfgrtr_el2, 0x1f << 19 | 0b11 << 30 | 0x3ff << 40);
    assert_eq!(
        full.hfgrtr_el2 & !full.hfgwtr_el2,
        1 << 21 | 1 << 40 | 1 << 42 | 1 << 46
    );
    assert_eq!(full.hfgwtr_el2 & !full.hfgrtr_el2, 0);
    // What opens a feature, from nACCDATA_EL1 (50) on, is clear, and so are the registers of which it is made.
    assert_eq!(full.hfgrtr_el2 >> 50, 0);
    assert_eq!(
        (
            full.hfgitr_el2,
            full.hdfgrtr_el2,
            full.hdfgwtr_el2,
            full.hafgrtr_el2
        ),
        (0, 0, 0, Some(0))
    );
    let second = full.second.unwrap();
    assert_eq!(second.hfgrtr2_el2 | second.hfgwtr2_el2 | second.hfgitr2_el2, 0);
    assert_eq!(second.hdfgrtr2_el2 | second.hdfgwtr2_el2, 0);
}

#[test]
fn keys_that_a_guest_is_not_given_trap_twice() {
    let settings = GuestSettings {
        pointer_authentication: false,
        ..EVERYTHING
    };
    let without = GuestTraps::new(&FULL, settings).fine_grained.unwrap();
    let with = GuestTraps::new(&FULL, EVERYTHING).fine_grained.unwrap();
    assert_eq!(without.hfgrtr_el2 ^ with.hfgrtr_el2, 0x1f0);
    assert_eq!(without.hfgwtr_el2 ^ with.hfgwtr_el2, 0x1f0);
}

#[test]
fn who_watches_el1_is_named() {
    assert_eq!(Watchers::of(&BARE), Watchers::default());
    let of = |dfr0| Watchers::of(&IdRegisters { dfr0, ..BARE });
    let none = Watchers::default();
    for (dfr0, expected) in [
        (
            1 << 8,
            Watchers {
                counters: true,
                ..none
            },
        ),
        (0xf << 8, none),
        (
            1 << 32,
            Watchers {
                profiling: true,
                ..none
            },
        ),
        (1 << 40, Watchers { trace: true, ..none }),
        (
            1 << 44,
            Watchers {
                trace_buffer: true,
                ..none
            },
        ),
        (
            1 << 52,
            Watchers {
                branch_records: true,
                ..none
            },
        ),
    ] {
        assert_eq!(of(dfr0), expected);
    }
}
