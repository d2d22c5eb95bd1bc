//! `KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS`: the registers of a CPU interface (ICC_*), in terms of the virtual one that has
//! them (ICH_VMCR_EL2, ICH_AP0R and ICH_AP1R). Source: IHI 0069, 12.2 and 12.4.

use super::Errno;
use crate::vgic::InterfaceShape;

/// A vCPU's virtual CPU interface, at rest.
pub trait CpuInterface {
    /// ICH_VMCR_EL2.
    ///
    /// # Errors
    /// What user space is to get.
    fn control(&self) -> Result<u64, Errno>;

    /// Writes ICH_VMCR_EL2.
    ///
    /// # Errors
    /// What user space is to get.
    fn set_control(&mut self, value: u64) -> Result<(), Errno>;

    /// `ICH_AP0R<index>_EL2` or `ICH_AP1R<index>_EL2`, as `group` says.
    ///
    /// # Errors
    /// What user space is to get.
    fn active_priorities(&self, group: usize, index: usize) -> Result<u32, Errno>;

    /// Writes `ICH_AP0R<index>_EL2` or `ICH_AP1R<index>_EL2`.
    ///
    /// # Errors
    /// What user space is to get.
    fn set_active_priorities(&mut self, group: usize, index: usize, value: u32) -> Result<(), Errno>;
}

/// A register of the CPU interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the register of its name")]
pub enum SystemRegister {
    /// ICC_PMR_EL1.
    Mask,
    /// ICC_BPR0_EL1.
    BinaryPoint0,
    /// ICC_BPR1_EL1.
    BinaryPoint1,
    /// ICC_AP0R<index>_EL1, ICC_AP1R<index>_EL1.
    ActivePriorities { group: usize, index: usize },
    /// ICC_CTLR_EL1.
    Control,
    /// ICC_SRE_EL1.
    Enable,
    /// ICC_IGRPEN0_EL1.
    Group0,
    /// ICC_IGRPEN1_EL1.
    Group1,
}

/// A field of a register: its lowest bit, and its width.
#[derive(Clone, Copy, Debug)]
struct Bits(u32, u32);

impl Bits {
    const fn mask(self) -> u64 {
        ((1 << self.1) - 1) << self.0
    }

    const fn get(self, register: u64) -> u64 {
        (register & self.mask()) >> self.0
    }

    const fn with(self, register: u64, value: u64) -> u64 {
        register & !self.mask() | value << self.0 & self.mask()
    }
}

// ICH_VMCR_EL2. VFIQEn is one, since there is no way but by system registers.
const VENG0: Bits = Bits(0, 1);
const VENG1: Bits = Bits(1, 1);
const VFIQEN: Bits = Bits(3, 1);
const VCBPR: Bits = Bits(4, 1);
const VEOIM: Bits = Bits(9, 1);
const VBPR1: Bits = Bits(18, 3);
const VBPR0: Bits = Bits(21, 3);
const VPMR: Bits = Bits(24, 8);

// ICC_CTLR_EL1.
const CBPR: Bits = Bits(0, 1);
const EOI_MODE: Bits = Bits(1, 1);
const PRIORITY_BITS: Bits = Bits(8, 3);
const ID_BITS: Bits = Bits(11, 3);
const SERRORS: Bits = Bits(14, 1);
const AFFINITY3: Bits = Bits(15, 1);

/// ICC_SRE_EL1: SRE, DFB, DIB.
const SYSTEM_REGISTERS_ALONE: u64 = 0b111;
const SRE: u64 = 1 << 0;

impl SystemRegister {
    /// The register with an encoding: op0 (15:14), op1 (13:11), CRn (10:7), CRm (6:3), op2 (2:0).
    #[must_use]
    pub const fn decode(instruction: u16) -> Option<Self> {
        let (crm, op2) = (instruction >> 3 & 0xf, instruction & 7);
        // op0 3, op1 0.
        Some(match (instruction >> 11, instruction >> 7 & 0xf, crm, op2) {
            (0b11_000, 4, 6, 0) => Self::Mask,
            (0b11_000, 12, 8, 3) => Self::BinaryPoint0,
            (0b11_000, 12, 8, 4..=7) => Self::ActivePriorities {
                group: 0,
                index: op2 as usize - 4,
            },
            (0b11_000, 12, 9, 0..=3) => Self::ActivePriorities {
                group: 1,
                index: op2 as usize,
            },
            (0b11_000, 12, 12, 3) => Self::BinaryPoint1,
            (0b11_000, 12, 12, 4) => Self::Control,
            (0b11_000, 12, 12, 5) => Self::Enable,
            (0b11_000, 12, 12, 6) => Self::Group0,
            (0b11_000, 12, 12, 7) => Self::Group1,
            _ => return None,
        })
    }

    /// Whether the machine has it: each register of active priorities has 32 of them.
    pub(super) const fn exists(self, shape: &InterfaceShape) -> bool {
        let Self::ActivePriorities { index, .. } = self else {
            return true;
        };
        index
            < match shape.priority_bits {
                ..=5 => 1,
                6 => 2,
                _ => 4,
            }
    }

    pub(super) fn read(self, shape: &InterfaceShape, interface: &mut dyn CpuInterface) -> Result<u64, Errno> {
        if !self.exists(shape) {
            return Err(Errno::NoSuchAddress);
        }
        let control = interface.control()?;
        Ok(match self {
            Self::Mask => VPMR.get(control),
            Self::BinaryPoint0 => VBPR0.get(control),
            // With one binary point for both, that of group 1 reads as one more.
            Self::BinaryPoint1 if VCBPR.get(control) != 0 => (VBPR0.get(control) + 1).min(7),
            Self::BinaryPoint1 => VBPR1.get(control),
            Self::ActivePriorities { group, index } => interface.active_priorities(group, index)?.into(),
            Self::Control => {
                let fixed = Self::fixed_control(shape);
                let value = CBPR.with(fixed, VCBPR.get(control));
                EOI_MODE.with(value, VEOIM.get(control))
            }
            Self::Enable => SYSTEM_REGISTERS_ALONE,
            Self::Group0 => VENG0.get(control),
            Self::Group1 => VENG1.get(control),
        })
    }

    pub(super) fn write(
        self,
        shape: &InterfaceShape,
        interface: &mut dyn CpuInterface,
        value: u64,
    ) -> Result<(), Errno> {
        if !self.exists(shape) {
            return Err(Errno::NoSuchAddress);
        }
        let control = VFIQEN.with(interface.control()?, 1);
        let control = match self {
            Self::Mask => VPMR.with(control, value),
            Self::BinaryPoint0 => VBPR0.with(control, value),
            Self::BinaryPoint1 if VCBPR.get(control) != 0 => return Ok(()),
            Self::BinaryPoint1 => VBPR1.with(control, value),
            Self::ActivePriorities { group, index } => {
                return interface.set_active_priorities(group, index, value as u32);
            }
            Self::Control => {
                Self::check_control(shape, value)?;
                let control = VCBPR.with(control, CBPR.get(value));
                VEOIM.with(control, EOI_MODE.get(value))
            }
            Self::Enable if value & SRE == 0 => return Err(Errno::Invalid),
            Self::Enable => return Ok(()),
            Self::Group0 => VENG0.with(control, value),
            Self::Group1 => VENG1.with(control, value),
        };
        interface.set_control(control)
    }

    fn fixed_control(shape: &InterfaceShape) -> u64 {
        let value = PRIORITY_BITS.with(0, u64::from(shape.priority_bits) - 1);
        let value = ID_BITS.with(value, shape.id_bits.into());
        let value = SERRORS.with(value, shape.serrors.into());
        AFFINITY3.with(value, shape.affinity3.into())
    }

    /// A machine that cannot do what another one could, does not take over its state.
    fn check_control(shape: &InterfaceShape, value: u64) -> Result<(), Errno> {
        let fits = PRIORITY_BITS.get(value) < shape.priority_bits.into()
            && ID_BITS.get(value) <= shape.id_bits.into()
            && SERRORS.get(value) == shape.serrors.into()
            && AFFINITY3.get(value) == shape.affinity3.into();
        fits.then_some(()).ok_or(Errno::Invalid)
    }
}
