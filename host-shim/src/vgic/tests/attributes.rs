//! KVM's device, as its documentation has it.

mod placement;
mod sysregs;

use super::*;
use crate::vgic::attributes::{Attribute, CpuInterface, Errno, Located, Machine, SystemRegister, VgicDevice};

const ADDR: u32 = 0;
const DIST_REGS: u32 = 1;
const NR_IRQS: u32 = 3;
const CTRL: u32 = 4;
const REDIST_REGS: u32 = 5;
const CPU_SYSREGS: u32 = 6;
const LEVEL_INFO: u32 = 7;
const MAINT_IRQ: u32 = 9;

const DIST: u64 = 2;
const REDIST: u64 = 3;
const REGION: u64 = 5;
const INIT: u64 = 0;
const SAVE: u64 = 3;

const IPA_BITS: u32 = 40;
const LIMIT: u64 = 1 << IPA_BITS;

/// A VM that can be at rest or not, protected or not.
#[derive(Debug)]
struct Vm {
    runs: bool,
    protected: bool,
    control: u64,
    priorities: [[u32; 4]; 2],
}

impl Vm {
    fn new() -> Self {
        Self {
            runs: false,
            protected: false,
            control: 0,
            priorities: [[0; 4]; 2],
        }
    }
}

impl Machine for Vm {
    fn rest(&mut self) -> bool {
        !self.runs
    }

    fn cpu_interface(&mut self, _: usize) -> Option<&mut dyn CpuInterface> {
        if self.protected { None } else { Some(self) }
    }
}

impl CpuInterface for Vm {
    fn control(&self) -> Result<u64, Errno> {
        Ok(self.control)
    }

    fn set_control(&mut self, value: u64) -> Result<(), Errno> {
        self.control = value;
        Ok(())
    }

    fn active_priorities(&self, group: usize, index: usize) -> Result<u32, Errno> {
        Ok(self.priorities[group][index])
    }

    fn set_active_priorities(&mut self, group: usize, index: usize, value: u32) -> Result<(), Errno> {
        self.priorities[group][index] = value;
        Ok(())
    }
}

#[derive(Debug)]
struct User {
    device: VgicDevice,
    vm: Vm,
}

impl User {
    /// A VM with so many vCPUs, and nothing set.
    fn new(vcpus: usize) -> Self {
        let device = VgicDevice::new(InterfaceShape::new(4, 5), IPA_BITS);
        for vcpu in 0..vcpus {
            device.add_vcpu(vcpu).unwrap();
        }
        Self {
            device,
            vm: Vm::new(),
        }
    }

    /// One that can run.
    fn ready(vcpus: usize) -> Self {
        let mut user = Self::new(vcpus);
        user.set(ADDR, DIST, 0x0800_0000).unwrap();
        user.set(ADDR, REDIST, 0x080a_0000).unwrap();
        user.set(CTRL, INIT, 0).unwrap();
        user
    }

    fn set(&mut self, group: u32, number: u64, value: u64) -> Result<(), Errno> {
        let attribute = self.device.attribute(group, number)?;
        self.device.set(attribute, value, &mut self.vm).map(|_| ())
    }

    fn get(&mut self, group: u32, number: u64) -> Result<u64, Errno> {
        self.get_at(group, number, 0)
    }

    fn get_at(&mut self, group: u32, number: u64, index: u64) -> Result<u64, Errno> {
        let attribute = self.device.attribute(group, number)?;
        self.device.get(attribute, index, &mut self.vm)
    }

    fn has(&mut self, group: u32, number: u64) -> Result<(), Errno> {
        self.device.has(group, number, &mut self.vm)
    }
}

#[test]
fn errors_have_linuxs_numbers() {
    let numbers = [
        (Errno::NotFound, 2),
        (Errno::NoSuchAddress, 6),
        (Errno::TooBig, 7),
        (Errno::NoMemory, 12),
        (Errno::Busy, 16),
        (Errno::Exists, 17),
        (Errno::NoDevice, 19),
        (Errno::Invalid, 22),
    ];
    for (errno, number) in numbers {
        assert_eq!(errno.number(), number);
    }
}

#[test]
fn what_exists_is_what_is_documented() {
    let mut user = User::ready(2);
    let yes = Ok(());
    let no = Err(Errno::NoSuchAddress);
    let table = [
        (ADDR, DIST, yes),
        (ADDR, REDIST, yes),
        (ADDR, REGION, yes),
        // GICv2's, and the ITS's.
        (ADDR, 0, no),
        (ADDR, 1, no),
        (ADDR, 4, no),
        (2, 0, no),
        (8, 0, no),
        (10, 0, no),
        (NR_IRQS, 0, yes),
        (CTRL, INIT, yes),
        (CTRL, SAVE, yes),
        (CTRL, 1, no),
        (DIST_REGS, 0, yes),
        (DIST_REGS, 1, no),
        (DIST_REGS, ISENABLER + 4, yes),
        (DIST_REGS, ISENABLER + 32, no),
        (DIST_REGS, IROUTER + 40 * 8 + 4, yes),
        (DIST_REGS, 0x2000, no),
        (REDIST_REGS, 1 << 32 | 8, yes),
        (REDIST_REGS, 1 << 32 | 0xc, yes),
        (REDIST_REGS, SGI_BASE + ISENABLER, yes),
        (REDIST_REGS, SGI_BASE + ISENABLER + 4, no),
        (REDIST_REGS, 2 << 32, Err(Errno::Invalid)),
        (LEVEL_INFO, 32, yes),
        (LEVEL_INFO, 1 << 10, no),
        (MAINT_IRQ, 0, yes),
        // ICC_PMR_EL1, ICC_AP0R0_EL1, ICC_AP0R1_EL1, ICC_SGI1R_EL1.
        (CPU_SYSREGS, 0xc230, yes),
        (CPU_SYSREGS, 0xc644, yes),
        (CPU_SYSREGS, 0xc645, no),
        (CPU_SYSREGS, 0xc65d, no),
        (CPU_SYSREGS, 7 << 32 | 0xc230, Err(Errno::Invalid)),
    ];
    for (group, number, answer) in table {
        assert_eq!(user.has(group, number), answer, "{group} {number:#x}");
    }
    user.vm.protected = true;
    assert_eq!(user.has(CPU_SYSREGS, 0xc230), no);
}

#[test]
fn what_user_space_passes_has_the_documented_width() {
    let device = User::ready(1).device;
    for (group, number, bytes) in [
        (ADDR, DIST, 8),
        (ADDR, REDIST, 8),
        (ADDR, REGION, 8),
        (NR_IRQS, 0, 4),
        (CTRL, INIT, 0),
        (CTRL, SAVE, 0),
        (DIST_REGS, 0, 4),
        (REDIST_REGS, 0, 4),
        (CPU_SYSREGS, 0xc230, 8),
        (LEVEL_INFO, 0, 4),
        (MAINT_IRQ, 0, 4),
    ] {
        let attribute = device.attribute(group, number).unwrap();
        assert_eq!(attribute.bytes(), bytes, "{attribute:?}");
        assert_eq!(attribute.is_read_by_index(), (group, number) == (ADDR, REGION));
    }
}

#[test]
fn the_number_of_interrupts_is_set_once_and_before() {
    let mut user = User::new(1);
    assert_eq!(user.get(NR_IRQS, 0), Ok(32));
    for bad in [0, 32, 63, 65, 1025, 1056] {
        assert_eq!(user.set(NR_IRQS, 0, bad), Err(Errno::Invalid), "{bad}");
    }
    user.set(NR_IRQS, 0, 96).unwrap();
    assert_eq!(user.set(NR_IRQS, 0, 128), Err(Errno::Busy));
    user.set(CTRL, INIT, 0).unwrap();
    assert_eq!(user.get(NR_IRQS, 0), Ok(96));
    assert_eq!(user.device.vgic().unwrap().interrupts(), 96);
    let mut user = User::ready(1);
    assert_eq!(user.get(NR_IRQS, 0), Ok(256));
    assert_eq!(user.set(NR_IRQS, 0, 64), Err(Errno::Busy));
}

#[test]
fn a_controller_is_made_of_vcpus_and_once() {
    let mut user = User::new(0);
    assert_eq!(user.set(CTRL, INIT, 0), Err(Errno::NoDevice));
    assert_eq!(user.set(CTRL, SAVE, 0), Err(Errno::NoSuchAddress));
    user.device.add_vcpu(0).unwrap();
    user.set(CTRL, INIT, 0).unwrap();
    user.set(CTRL, INIT, 0).unwrap();
    assert_eq!(user.set(CTRL, SAVE, 0), Ok(()));
    user.vm.runs = true;
    assert_eq!(user.set(CTRL, SAVE, 0), Err(Errno::Busy));
    for number in [INIT, SAVE] {
        assert_eq!(user.get(CTRL, number), Err(Errno::NoSuchAddress));
    }
}

#[test]
fn registers_are_for_a_controller_at_rest() {
    let mut user = User::new(1);
    let register = ISENABLER + 4;
    for (group, number) in [(DIST_REGS, register), (REDIST_REGS, 8), (LEVEL_INFO, 32)] {
        assert_eq!(user.get(group, number), Err(Errno::Busy));
        assert_eq!(user.set(group, number, 0), Err(Errno::Busy));
    }
    assert_eq!(user.get(CPU_SYSREGS, 0xc230), Err(Errno::Busy));
    // What a VMM chooses before.
    assert_eq!(user.get(DIST_REGS, 8), Ok(0x4b00_343b));
    assert_eq!(user.set(DIST_REGS, 8, 0x4b00_143b), Err(Errno::Invalid));
    user.set(DIST_REGS, 8, 0x4b00_243b).unwrap();
    assert_eq!(user.get(DIST_REGS, 0xc), Ok(0));
    assert_eq!(user.set(DIST_REGS, 0xc, 0x100), Err(Errno::Invalid));
    user.set(DIST_REGS, 0xc, 0).unwrap();
    user.set(CTRL, INIT, 0).unwrap();
    assert_eq!(user.get(DIST_REGS, 8), Ok(0x4b00_243b));
    user.set(DIST_REGS, register, 5).unwrap();
    assert_eq!(user.get(DIST_REGS, register), Ok(5));
    assert_eq!(user.get(REDIST_REGS, SGI_BASE + ISENABLER), Ok(0xffff));
    assert_eq!(user.get(REDIST_REGS, 1 << 32 | 8), Err(Errno::Invalid));
    assert_eq!(user.get(DIST_REGS, 0x2000), Err(Errno::NoSuchAddress));
    assert_eq!(user.set(DIST_REGS, 2, 0), Err(Errno::NoSuchAddress));
    user.vm.runs = true;
    for (group, number) in [
        (DIST_REGS, register),
        (REDIST_REGS, 8),
        (LEVEL_INFO, 32),
        (CPU_SYSREGS, 0xc230),
    ] {
        assert_eq!(user.get(group, number), Err(Errno::Busy));
        assert_eq!(user.set(group, number, 0), Err(Errno::Busy));
    }
    assert_eq!(User::new(0).get(DIST_REGS, 0), Err(Errno::Invalid));
}

#[test]
fn lines_come_32_at_once() {
    let mut user = User::ready(2);
    user.set(LEVEL_INFO, 1 << 32, u64::from(u32::MAX)).unwrap();
    assert_eq!(user.get(LEVEL_INFO, 1 << 32), Ok(0xffff_0000));
    assert_eq!(user.get(LEVEL_INFO, 0), Ok(0));
    user.set(LEVEL_INFO, 64, 0x11).unwrap();
    assert_eq!(user.get(LEVEL_INFO, 1 << 32 | 64), Ok(0x11));
    user.set(LEVEL_INFO, 992, 0x11).unwrap();
    assert_eq!(user.get(LEVEL_INFO, 992), Ok(0));
    for bad in [1, 33, 1 << 10, 2 << 32] {
        assert_eq!(user.get(LEVEL_INFO, bad), Err(Errno::Invalid), "{bad:#x}");
    }
}

#[test]
fn the_maintenance_interrupt_is_a_ppi_and_set_before() {
    let mut user = User::new(1);
    assert_eq!(user.get(MAINT_IRQ, 0), Ok(25));
    for bad in [0, 15, 32, 1 << 20] {
        assert_eq!(user.set(MAINT_IRQ, 0, bad), Err(Errno::Invalid));
    }
    user.set(MAINT_IRQ, 0, 20).unwrap();
    user.set(CTRL, INIT, 0).unwrap();
    assert_eq!(user.set(MAINT_IRQ, 0, 21), Err(Errno::Busy));
    assert_eq!(user.get(MAINT_IRQ, 0), Ok(20));
}

#[test]
fn only_what_reads_state_needs_rest() {
    let device = User::ready(1).device;
    let needs = |group, number| device.attribute(group, number).map(Attribute::needs_rest);
    assert_eq!(needs(DIST_REGS, 0), Ok(true));
    assert_eq!(needs(ADDR, DIST), Ok(false));
    assert_eq!(needs(CTRL, INIT), Ok(false));
}
