//! What the machine's CPU interfaces are.

/// The virtual CPU interfaces of the machine, as ICH_VTR_EL2 describes them (IHI 0069, 12.4). All CPUs have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterfaceShape {
    /// How many list registers: 1 to 16.
    pub list_registers: u8,
    /// How many bits a priority has: 4 to 8. The lower bits of its byte are zero.
    pub priority_bits: u8,
    /// IDbits: what ICC_CTLR_EL1.IDbits says.
    pub id_bits: u8,
    /// SEIS: the interface makes SErrors.
    pub serrors: bool,
    /// A3V: affinities have Aff3.
    pub affinity3: bool,
}

impl InterfaceShape {
    /// A shape of so many list registers and bits of a priority, with 16-bit numbers, no SErrors, no Aff3.
    #[must_use]
    pub const fn new(list_registers: u8, priority_bits: u8) -> Self {
        Self {
            list_registers: if list_registers == 0 {
                1
            } else if list_registers > 16 {
                16
            } else {
                list_registers
            },
            priority_bits: if priority_bits < 4 {
                4
            } else if priority_bits > 8 {
                8
            } else {
                priority_bits
            },
            id_bits: 0,
            serrors: false,
            affinity3: false,
        }
    }

    /// What an ICH_VTR_EL2 says: ListRegs (4:0), A3V (21), SEIS (22), IDbits (25:23), PRIbits (31:29).
    #[must_use]
    pub const fn from_vtr(vtr: u64) -> Self {
        Self {
            id_bits: (vtr >> 23 & 7) as u8,
            serrors: vtr >> 22 & 1 != 0,
            affinity3: vtr >> 21 & 1 != 0,
            ..Self::new((vtr & 0x1f) as u8 + 1, (vtr >> 29 & 7) as u8 + 1)
        }
    }

    /// The bits of a priority's byte that there are.
    pub(super) const fn priority_mask(&self) -> u8 {
        (0xff00_u16 >> self.priority_bits) as u8
    }
}
