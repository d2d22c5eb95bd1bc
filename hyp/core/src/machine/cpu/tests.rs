//! CPUs by their ID registers: QEMU's models as they read at EL2, and ones that nobody built.

use super::*;

/// A CPU that passes: EL2, every granule, GICv3, 40 bits, nothing else.
const PLAIN: CpuIdentity = CpuIdentity {
    current_el: 2 << 2,
    hcr_el2: 0,
    id: IdRegisters {
        pfr0: 1 << 24,
        mmfr0: 2,
        ..IdRegisters::NONE
    },
};

/// The plain CPU with one change to its ID registers.
fn with(change: impl FnOnce(&mut IdRegisters)) -> CpuIdentity {
    let mut identity = PLAIN;
    change(&mut identity.id);
    identity
}

fn features(identity: CpuIdentity) -> CpuFeatures {
    judge_cpu(&identity).unwrap()
}

fn refusal(identity: CpuIdentity) -> RefusalReason {
    judge_cpu(&identity).unwrap_err()
}

#[test]
fn a_plain_cpu_passes_and_has_nothing() {
    let plain = features(PLAIN);
    assert_eq!((plain.pa_bits, plain.pa_range, plain.vmid_bits), (40, 2, 8));
    assert!(plain.simd);
    assert!(
        !plain.stage2_write_back && !plain.tlbi_range && !plain.tlbi_level_hint && !plain.sve && !plain.mte
    );
    assert_eq!(
        (
            plain.csv2,
            plain.bbm_level,
            plain.fine_grained_traps,
            plain.pmu_version
        ),
        (0, 0, 0, 0)
    );
}

#[test]
fn other_exception_levels_are_refused() {
    for el in [0, 1, 3] {
        let identity = CpuIdentity {
            current_el: u64::from(el) << 2,
            ..PLAIN
        };
        assert_eq!(refusal(identity), RefusalReason::NotEl2(el));
    }
}

#[test]
fn e2h_res1_is_refused_by_the_field_and_by_the_bit() {
    for e2h0 in [0b1110, 0b1111] {
        assert_eq!(refusal(with(|id| id.mmfr4 = e2h0 << 24)), RefusalReason::E2hRes1);
    }
    assert_eq!(
        refusal(CpuIdentity {
            hcr_el2: 1 << 34,
            ..PLAIN
        }),
        RefusalReason::E2hRes1
    );
    // The neighbors of the field and of the bit say nothing about E2H.
    features(CpuIdentity {
        hcr_el2: !(1 << 34),
        ..with(|id| id.mmfr4 = !(0xf << 24))
    });
}

#[test]
fn the_4_kib_granule_is_needed_at_both_stages() {
    let with = |tgran4: u64, tgran4_2: u64| with(|id| id.mmfr0 = 5 | tgran4 << 28 | tgran4_2 << 40);
    for tgran4_2 in 0..16 {
        assert_eq!(refusal(with(0xf, tgran4_2)), RefusalReason::NoStage1Granule);
    }
    for tgran4 in [0, 1] {
        assert_eq!(refusal(with(tgran4, 1)), RefusalReason::NoStage2Granule);
        for tgran4_2 in [0, 2, 3] {
            assert_eq!(features(with(tgran4, tgran4_2)).pa_bits, 48);
        }
    }
}

#[test]
fn a_cpu_without_gic_registers_is_refused() {
    assert_eq!(refusal(with(|id| id.pfr0 = 0)), RefusalReason::NoGicCpuInterface);
    assert!(features(with(|id| id.pfr0 = 3 << 24)).gic_v4_1);
}

#[test]
fn physical_address_sizes() {
    let sizes = [
        (0, 32),
        (1, 36),
        (2, 40),
        (3, 42),
        (4, 44),
        (5, 48),
        (6, 48),
        (7, 48),
        (15, 48),
    ];
    for (field, bits) in sizes {
        let cpu = features(with(|id| id.mmfr0 = field));
        assert_eq!((cpu.pa_bits, cpu.pa_range), (bits, field.min(5)));
    }
}

/// Every feature is read from its own field, and from no other: with that field alone set, only it differs from
/// the plain CPU. Positions are written here as the Arm ARM's tables give them, apart from the code's.
#[test]
fn each_feature_has_its_own_field() {
    type Set = fn(&mut IdRegisters) -> &mut u64;
    type Change = fn(&mut CpuFeatures);
    let rows: [(Set, u64, Change); 33] = [
        (|id| &mut id.mmfr1, 2 << 4, |f| f.vmid_bits = 16),
        (|id| &mut id.mmfr1, 1 << 16, |f| f.limited_ordering = true),
        (|id| &mut id.mmfr1, 1 << 20, |f| f.privileged_access_never = true),
        (|id| &mut id.mmfr1, 1 << 28, |f| f.stage2_execute_by_el = true),
        (|id| &mut id.mmfr1, 1 << 40, |f| f.extended_hcr = true),
        (
            |id| &mut id.mmfr1,
            1 << 60,
            |f| f.branch_history_by_context = true,
        ),
        (|id| &mut id.mmfr2, 1 << 40, |f| f.stage2_write_back = true),
        (|id| &mut id.mmfr2, 1 << 48, |f| f.tlbi_level_hint = true),
        (|id| &mut id.mmfr2, 2 << 52, |f| f.bbm_level = 2),
        (|id| &mut id.mmfr2, 2 << 56, |f| f.enhanced_traps = true),
        (|id| &mut id.mmfr0, 1 << 56, |f| f.fine_grained_traps = 1),
        (|id| &mut id.mmfr0, 2 << 60, |f| f.enhanced_counter = 2),
        (|id| &mut id.isar0, 1 << 12, |f| f.sha256 = true),
        (|id| &mut id.isar0, 2 << 56, |f| f.tlbi_range = true),
        (|id| &mut id.isar0, 1 << 60, |f| f.random_numbers = true),
        (|id| &mut id.isar1, 1 << 36, |f| f.speculation_barrier = true),
        (|id| &mut id.isar1, 5 << 4, |f| f.pointer_authentication = true),
        (|id| &mut id.isar1, 1 << 8, |f| f.pointer_authentication = true),
        (|id| &mut id.isar2, 5 << 12, |f| f.pointer_authentication = true),
        (|id| &mut id.isar2, 1 << 28, |f| f.clear_branch_history = true),
        (|id| &mut id.pfr0, 2 << 28, |f| f.ras = true),
        (|id| &mut id.pfr0, 1 << 32, |f| f.sve = true),
        (|id| &mut id.pfr0, 1 << 40, |f| f.mpam = true),
        (|id| &mut id.pfr0, 1 << 44, |f| f.activity_monitors = true),
        (|id| &mut id.pfr0, 2 << 56, |f| f.csv2 = 2),
        (|id| &mut id.pfr0, 1 << 60, |f| f.csv3 = true),
        (|id| &mut id.pfr1, 1, |f| f.branch_target_identification = true),
        (|id| &mut id.pfr1, 2 << 4, |f| f.ssbs = true),
        (|id| &mut id.pfr1, 2 << 8, |f| f.mte = true),
        (|id| &mut id.pfr1, 1 << 24, |f| f.sme = true),
        (|id| &mut id.dfr0, 6 << 8, |f| f.pmu_version = 6),
        (|id| &mut id.dfr0, 1 << 32, |f| f.statistical_profiling = true),
        (|id| &mut id.dfr0, 1 << 44, |f| f.trace_buffer = true),
    ];
    for (index, (register, bits, change)) in rows.into_iter().enumerate() {
        let identity = with(|id| *register(id) |= bits);
        let mut expected = features(PLAIN);
        change(&mut expected);
        assert_eq!(features(identity), expected, "row {index}");
    }
}

#[test]
fn values_that_say_no_or_go_further() {
    assert_eq!(features(with(|id| id.dfr0 = 0xf << 8)).pmu_version, 0);
    assert!(!features(with(|id| id.pfr0 = PLAIN.id.pfr0 | 0xff << 16)).simd);
    assert!(!features(with(|id| id.isar0 = 1 << 56)).tlbi_range);
    assert_eq!(features(with(|id| id.pfr0 = PLAIN.id.pfr0 | 0xf << 56)).csv2, 3);
    assert!(features(with(|id| id.pfr1 = 1 << 16)).mpam);
    assert!(features(with(|id| id.dfr0 = 1 << 40)).trace_filter);
    assert!(features(with(|id| id.dfr0 = 1 << 52)).branch_record);
}
