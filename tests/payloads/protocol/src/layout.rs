//! Where a guest lies, and how it is started.

/// Where the guest's memory begins: an IPA. All of it below is for devices.
pub const MEMORY: u64 = 0x4000_0000;

/// The IPA that the guest is linked at. QEMU puts a kernel there too, so the same image runs without a host.
pub const IMAGE: u64 = 0x4020_0000;

/// The IPA from which on vCPUs keep pages of a secret: [`KEPT_PAGES`] for each, in the order of their indices.
pub const KEPT: u64 = 0x4010_0000;

/// How many pages each vCPU keeps.
pub const KEPT_PAGES: u64 = 2;

/// The guest touches nothing of its own from here on: memory for the cases, as is what lies before [`IMAGE`].
pub const FREE: u64 = 0x4060_0000;

/// The IPA of a device for the host to emulate.
pub const DEVICE: u64 = 0x0900_0000;

/// How far above its IPA EL0 sees a byte.
pub const USER_ALIAS: u64 = 256 << 30;

/// How far above its IPA EL1 sees a byte as memory that is not cacheable.
pub const NON_CACHEABLE_ALIAS: u64 = 128 << 30;

/// How far above its IPA EL1 sees a byte as a device's.
pub const DEVICE_ALIAS: u64 = 384 << 30;

/// What a vCPU finds in x0 when it begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Start {
    /// Its index.
    pub index: u8,
    /// Whether it leaves its MMU off.
    pub mmu_off: bool,
    /// Something to tell it by: 48 bits, which its first report repeats.
    pub tag: u64,
}

impl Start {
    const MMU_OFF: u64 = 1 << 0;

    /// In one register: bit 0 for the MMU, the index in bits 15:8, the tag in bits 63:16.
    #[must_use]
    pub const fn to_register(self) -> u64 {
        let mode = if self.mmu_off { Self::MMU_OFF } else { 0 };
        self.tag << 16 | (self.index as u64) << 8 | mode
    }

    /// What a register says. The address of a device tree, which QEMU passes, says: index 0, MMU on.
    #[must_use]
    pub const fn from_register(value: u64) -> Self {
        Self {
            index: (value >> 8) as u8,
            mmu_off: value & Self::MMU_OFF != 0,
            tag: value >> 16,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_survives_its_register() {
        for start in [
            Start::default(),
            Start {
                index: 63,
                mmu_off: true,
                tag: 0xffff_ffff_ffff,
            },
        ] {
            assert_eq!(Start::from_register(start.to_register()), start);
        }
    }
}
