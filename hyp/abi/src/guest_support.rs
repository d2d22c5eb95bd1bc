//! What guests can be on this machine: the answers of [`crate::HostCall::GuestSupport`] and
//! [`crate::HostCall::GuestRegister`].

/// What guests can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestSupport {
    /// The virtual CPU interfaces of the GIC, in the layout of ICH_VTR_EL2 (Arm IHI 0069, 12.4): PRIbits (31:29), PREbits
    /// (28:26), IDbits (25:23), SEIS (22), A3V (21), TDS (19), ListRegs (4:0); all other bits are zero. It is what the CPUs
    /// that have come in so far have in common.
    pub interface: u64,
    /// The fewest bits that a guest's IPAs can have.
    pub min_ipa_bits: u8,
    /// The most.
    pub max_ipa_bits: u8,
    /// How many VMs there can be at once.
    pub vms: u32,
    /// How many vCPUs a VM can have.
    pub vcpus: u32,
}

impl GuestSupport {
    /// The three results of the call: the interface; the fewest bits (7:0) and the most (15:8); VMs (31:0) and vCPUs
    /// (63:32).
    #[must_use]
    pub const fn to_registers(self) -> [u64; 3] {
        let bits = (self.max_ipa_bits as u64) << 8 | self.min_ipa_bits as u64;
        [self.interface, bits, (self.vcpus as u64) << 32 | self.vms as u64]
    }

    /// What the results say.
    #[must_use]
    pub const fn from_registers([interface, bits, limits]: [u64; 3]) -> Self {
        Self {
            interface,
            min_ipa_bits: bits as u8,
            max_ipa_bits: (bits >> 8) as u8,
            vms: limits as u32,
            vcpus: (limits >> 32) as u32,
        }
    }
}

/// The name of an AArch64 system register, as [`crate::HostCall::GuestRegister`] takes it: op0 (15:14), op1 (13:11),
/// CRn (10:7), CRm (6:3), op2 (2:0). That is where KVM's register names have them, too.
#[must_use]
pub const fn system_register(op0: u8, op1: u8, crn: u8, crm: u8, op2: u8) -> u64 {
    (op0 as u64 & 0b11) << 14
        | (op1 as u64 & 0b111) << 11
        | (crn as u64 & 0b1111) << 7
        | (crm as u64 & 0b1111) << 3
        | op2 as u64 & 0b111
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn support_survives_its_registers() {
        let support = GuestSupport {
            interface: 0x9080_0003,
            min_ipa_bits: 32,
            max_ipa_bits: 44,
            vms: 255,
            vcpus: 64,
        };
        let registers = support.to_registers();
        assert_eq!(registers, [0x9080_0003, 0x2c20, 0x40_0000_00ff]);
        assert_eq!(GuestSupport::from_registers(registers), support);
    }

    #[test]
    fn a_register_has_the_name_that_kvm_gives_it() {
        // ID_AA64PFR0_EL1 is S3_0_C0_C4_0, and CNTVCT_EL0 S3_3_C14_C0_2.
        assert_eq!(system_register(3, 0, 0, 4, 0), 0xc020);
        assert_eq!(system_register(3, 3, 14, 0, 2), 0xdf02);
        assert_eq!(system_register(0xff, 0xff, 0xff, 0xff, 0xff), 0xffff);
    }
}
