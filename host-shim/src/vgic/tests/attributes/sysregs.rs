//! The registers of a CPU interface.

use super::*;

#[test]
fn system_registers_are_in_the_virtual_interface() {
    let mut user = User::ready(1);
    let table = [
        // ICC_PMR_EL1, ICC_BPR0_EL1, ICC_BPR1_EL1, ICC_IGRPEN0_EL1, ICC_IGRPEN1_EL1.
        (0xc230, 0x1f0, 0xf0, 0xf0 << 24),
        (0xc643, 5, 5, 5 << 21),
        (0xc663, 6, 6, 6 << 18),
        (0xc666, 1, 1, 1),
        (0xc667, 3, 1, 2),
    ];
    for (number, value, read, control) in table {
        user.vm.control = 0;
        user.set(CPU_SYSREGS, number, value).unwrap();
        assert_eq!(user.vm.control, control | 1 << 3, "{number:#x}");
        assert_eq!(user.get(CPU_SYSREGS, number), Ok(read), "{number:#x}");
    }
    // ICC_CTLR_EL1: 5 bits of priority; CBPR and EOImode.
    user.vm.control = 0;
    assert_eq!(user.get(CPU_SYSREGS, 0xc664), Ok(4 << 8));
    user.set(CPU_SYSREGS, 0xc664, 4 << 8 | 3).unwrap();
    assert_eq!(user.vm.control, 1 << 4 | 1 << 9 | 1 << 3);
    assert_eq!(user.get(CPU_SYSREGS, 0xc664), Ok(4 << 8 | 3));
    for bad in [5 << 8, 4 << 8 | 1 << 11, 4 << 8 | 1 << 14, 4 << 8 | 1 << 15] {
        assert_eq!(
            user.set(CPU_SYSREGS, 0xc664, bad),
            Err(Errno::Invalid),
            "{bad:#x}"
        );
    }
    // With CBPR, ICC_BPR1_EL1 is what ICC_BPR0_EL1 is, and one more.
    user.vm.control |= 3 << 21 | 7 << 18;
    user.set(CPU_SYSREGS, 0xc663, 0).unwrap();
    assert_eq!(user.get(CPU_SYSREGS, 0xc663), Ok(4));
    // ICC_AP1R0_EL1, and one that is not there with 5 bits.
    user.set(CPU_SYSREGS, 0xc648, 0x8000_0001).unwrap();
    assert_eq!(user.vm.priorities[1][0], 0x8000_0001);
    assert_eq!(user.get(CPU_SYSREGS, 0xc648), Ok(0x8000_0001));
    assert_eq!(user.get(CPU_SYSREGS, 0xc649), Err(Errno::NoSuchAddress));
    // ICC_SRE_EL1 is fixed.
    assert_eq!(user.get(CPU_SYSREGS, 0xc665), Ok(7));
    assert_eq!(user.set(CPU_SYSREGS, 0xc665, 0), Err(Errno::Invalid));
    user.set(CPU_SYSREGS, 0xc665, 1).unwrap();
    assert_eq!(user.get(CPU_SYSREGS, 0xc65d), Err(Errno::NoSuchAddress));
    // Of a protected VM there are none.
    user.vm.protected = true;
    assert_eq!(user.get(CPU_SYSREGS, 0xc230), Err(Errno::NoSuchAddress));
    assert_eq!(user.set(CPU_SYSREGS, 0xc230, 0), Err(Errno::NoSuchAddress));
}

#[test]
fn an_encoding_names_one_register_at_most() {
    let decoded: Vec<_> = (0..=u16::MAX).filter_map(SystemRegister::decode).collect();
    assert_eq!(decoded.len(), 15);
    for (index, register) in decoded.iter().enumerate() {
        assert!(!decoded[..index].contains(register));
    }
    assert_eq!(SystemRegister::decode(0xc230), Some(SystemRegister::Mask));
}
