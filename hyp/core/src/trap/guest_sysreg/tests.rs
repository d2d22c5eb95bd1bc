use super::*;
use crate::trap::id::IdRegisters;

const CPU: IdRegisters = IdRegisters {
    pfr0: 0x0100_0222,
    ..IdRegisters::NONE
};

fn answer_to(register: SystemRegister, read: bool, from_el1: bool) -> GuestSysreg {
    let access = SystemAccess {
        register,
        rt: 5,
        read,
    };
    let cpu = GuestCpu {
        id: &CPU,
        ipa_bits: 40,
    };
    answer(access, from_el1, &cpu)
}

fn read(register: SystemRegister) -> GuestSysreg {
    answer_to(register, true, true)
}

fn write(register: SystemRegister) -> GuestSysreg {
    answer_to(register, false, true)
}

fn every_register() -> impl Iterator<Item = SystemRegister> {
    (0..1 << 16).map(|n: u32| {
        SystemRegister::new(
            (n >> 14) as u8,
            (n >> 11) as u8,
            (n >> 7) as u8,
            (n >> 3) as u8,
            n as u8,
        )
    })
}

#[test]
fn a_guest_reads_the_list_of_features() {
    assert_eq!(
        read(SystemRegister::new(3, 0, 0, 4, 0)),
        GuestSysreg::Read(0x0100_0011)
    );
    // AArch32's, and reserved encodings.
    for crm in 1..8 {
        for op2 in 0..8 {
            let register = SystemRegister::new(3, 0, 0, crm, op2);
            assert!(matches!(read(register), GuestSysreg::Read(_)));
            assert_eq!(write(register), GuestSysreg::Undefined);
            assert_eq!(answer_to(register, true, false), GuestSysreg::Undefined);
        }
    }
}

#[test]
fn interrupts_to_other_vcpus_are_the_hosts_to_send() {
    for (op2, sgi, number) in [
        (5, SgiRegister::Group1, 0),
        (6, SgiRegister::OtherGroup1, 1),
        (7, SgiRegister::Group0, 2),
    ] {
        let register = SystemRegister::new(3, 0, 12, 11, op2);
        assert_eq!(write(register), GuestSysreg::SendInterrupt(sgi));
        assert_eq!(u64::from(sgi), number);
        assert_eq!(read(register), GuestSysreg::Undefined);
        assert_eq!(answer_to(register, false, false), GuestSysreg::Undefined);
    }
}

#[test]
fn the_gic_is_used_through_its_system_registers() {
    let register = SystemRegister::new(3, 0, 12, 12, 5);
    assert_eq!(read(register), GuestSysreg::Read(7));
    assert_eq!(write(register), GuestSysreg::Ignore);
}

#[test]
fn the_core_is_named_but_not_changed() {
    // REVIDR_EL1, AIDR_EL1, ACTLR_EL1.
    for (register, written) in [
        (SystemRegister::new(3, 0, 0, 0, 6), GuestSysreg::Undefined),
        (SystemRegister::new(3, 1, 0, 0, 7), GuestSysreg::Undefined),
        (SystemRegister::new(3, 0, 1, 0, 1), GuestSysreg::Ignore),
    ] {
        assert_eq!(read(register), GuestSysreg::Read(0));
        assert_eq!(write(register), written);
    }
}

#[test]
fn a_kernel_that_turns_the_physical_timer_off_lives() {
    for op2 in 0..3 {
        let register = SystemRegister::new(3, 3, 14, 2, op2);
        for from_el1 in [true, false] {
            assert_eq!(answer_to(register, true, from_el1), GuestSysreg::Read(0));
            assert_eq!(answer_to(register, false, from_el1), GuestSysreg::Ignore);
        }
    }
}

#[test]
fn the_os_lock_is_open() {
    let [lock, status, double_lock] = [(0, 4), (1, 4), (3, 4)].map(|(crm, op2)| {
        let register = SystemRegister::new(2, 0, 1, crm, op2);
        (read(register), write(register))
    });
    assert_eq!(lock, (GuestSysreg::Undefined, GuestSysreg::Ignore));
    assert_eq!(status, (GuestSysreg::Read(0b1000), GuestSysreg::Undefined));
    assert_eq!(double_lock, (GuestSysreg::Read(0), GuestSysreg::Ignore));
}

#[test]
fn there_are_as_many_breakpoints_as_a_guest_is_shown() {
    let dfr0 = match read(SystemRegister::new(3, 0, 0, 5, 0)) {
        GuestSysreg::Read(value) => value,
        other => panic!("{other:?}"),
    };
    let (breakpoints, watchpoints) = ((dfr0 >> 12 & 0xf) + 1, (dfr0 >> 20 & 0xf) + 1);
    for n in 0..16 {
        for (op2, count) in [
            (4, breakpoints),
            (5, breakpoints),
            (6, watchpoints),
            (7, watchpoints),
        ] {
            let register = SystemRegister::new(2, 0, 0, n, op2);
            let expected = if u64::from(n) < count {
                (GuestSysreg::Read(0), GuestSysreg::Ignore)
            } else {
                (GuestSysreg::Undefined, GuestSysreg::Undefined)
            };
            assert_eq!((read(register), write(register)), expected, "{n} {op2}");
        }
    }
}

#[test]
fn nobody_listens_at_the_debug_channel() {
    for from_el1 in [true, false] {
        let status = SystemRegister::new(2, 3, 0, 1, 0);
        assert_eq!(answer_to(status, true, from_el1), GuestSysreg::Read(0));
        assert_eq!(answer_to(status, false, from_el1), GuestSysreg::Undefined);
        for crm in [4, 5] {
            let data = SystemRegister::new(2, 3, 0, crm, 0);
            assert_eq!(answer_to(data, true, from_el1), GuestSysreg::Read(0));
            assert_eq!(answer_to(data, false, from_el1), GuestSysreg::Ignore);
        }
    }
}

#[test]
fn what_is_hidden_is_undefined() {
    for (register, name) in [
        (SystemRegister::new(3, 3, 9, 12, 0), "PMCR_EL0"),
        (SystemRegister::new(3, 3, 9, 14, 0), "PMUSERENR_EL0"),
        (SystemRegister::new(3, 3, 14, 8, 0), "PMEVCNTR0_EL0"),
        (SystemRegister::new(3, 0, 9, 9, 0), "PMSCR_EL1"),
        (SystemRegister::new(3, 0, 9, 10, 0), "PMBLIMITR_EL1"),
        (SystemRegister::new(3, 0, 1, 2, 1), "TRFCR_EL1"),
        (SystemRegister::new(2, 1, 0, 1, 0), "TRCPRGCTLR"),
        (SystemRegister::new(2, 1, 9, 0, 0), "BRBCR_EL1"),
        (SystemRegister::new(3, 3, 13, 2, 0), "AMCR_EL0"),
        (SystemRegister::new(3, 0, 5, 3, 0), "ERRIDR_EL1"),
        (SystemRegister::new(3, 0, 5, 4, 2), "ERXSTATUS_EL1"),
        (SystemRegister::new(3, 0, 10, 4, 0), "LORSA_EL1"),
        (SystemRegister::new(3, 0, 10, 4, 4), "MPAMIDR_EL1"),
        (SystemRegister::new(3, 0, 10, 5, 0), "MPAM1_EL1"),
        (SystemRegister::new(3, 0, 13, 0, 7), "SCXTNUM_EL1"),
        (SystemRegister::new(3, 3, 13, 0, 7), "SCXTNUM_EL0"),
        (SystemRegister::new(3, 1, 0, 0, 4), "GMID_EL1"),
        (SystemRegister::new(3, 1, 0, 0, 6), "SMIDR_EL1"),
        (SystemRegister::new(3, 0, 1, 0, 6), "GCR_EL1"),
        (SystemRegister::new(3, 0, 1, 2, 0), "ZCR_EL1"),
        (SystemRegister::new(3, 3, 13, 0, 5), "TPIDR2_EL0"),
        (SystemRegister::new(3, 0, 2, 0, 3), "TCR2_EL1"),
        (SystemRegister::new(3, 0, 10, 2, 3), "PIR_EL1"),
        (SystemRegister::new(3, 0, 15, 0, 0), "IMPLEMENTATION DEFINED"),
        (SystemRegister::new(1, 0, 7, 6, 2), "DC ISW"),
        (SystemRegister::new(1, 0, 7, 10, 2), "DC CSW"),
        (SystemRegister::new(1, 0, 7, 14, 2), "DC CISW"),
        (SystemRegister::new(3, 4, 1, 1, 0), "HCR_EL2"),
    ] {
        for read in [true, false] {
            for from_el1 in [true, false] {
                assert_eq!(
                    answer_to(register, read, from_el1),
                    GuestSysreg::Undefined,
                    "{name}"
                );
            }
        }
    }
}

#[test]
fn every_encoding_has_an_answer_and_few_are_not_undefined() {
    let mut answered = (0, 0, 0);
    for register in every_register() {
        match read(register) {
            GuestSysreg::Read(_) => answered.0 += 1,
            GuestSysreg::Undefined => {}
            other => panic!("{register:?} reads as {other:?}"),
        }
        match write(register) {
            GuestSysreg::Ignore => answered.1 += 1,
            GuestSysreg::SendInterrupt(_) => answered.2 += 1,
            GuestSysreg::Undefined => {}
            other => panic!("a write of {register:?} is {other:?}"),
        }
    }
    // Reads: 56 of features; REVIDR, AIDR, ACTLR, ICC_SRE; 3 of the timer; 5 of debug's control, 8 of break- and
    // watchpoints, MDRAR, OSLSR, OSDLR, DBGPRCR, 3 of claims and rights, 3 of the channel.
    assert_eq!(
        answered,
        (56 + 4 + 3 + 5 + 8 + 4 + 3 + 3, 2 + 3 + 5 + 8 + 3 + 2 + 2, 3)
    );
}

#[test]
fn el0_has_no_more_than_el1() {
    for register in every_register() {
        for read in [true, false] {
            let (el0, el1) = (answer_to(register, read, false), answer_to(register, read, true));
            if register.op1 == 3 {
                assert_eq!(el0, el1);
            } else {
                assert_eq!(el0, GuestSysreg::Undefined);
            }
        }
    }
}
