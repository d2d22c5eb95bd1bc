//! Which register stands at an offset of a frame, for an access of a width. Source: IHI 0069, 12.8 to 12.11.
//!
//! As under KVM: an access that is misaligned or has a width that the register does not allow reads zero and does
//! nothing, like one to a place where no register is.

/// The registers that have a bit for each interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bits {
    /// IGROUPR.
    Group,
    /// ISENABLER.
    SetEnable,
    /// ICENABLER.
    ClearEnable,
    /// ISPENDR.
    SetPending,
    /// ICPENDR.
    ClearPending,
    /// ISACTIVER.
    SetActive,
    /// ICACTIVER.
    ClearActive,
}

/// What of a bank of 32 interrupts a register shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Bits(Bits),
    /// IPRIORITYR: a byte for each of `count` interrupts from `at` on.
    Priority {
        at: usize,
        count: usize,
    },
    /// ICFGR: two bits for each of the lower or upper 16.
    Config {
        upper: bool,
    },
    /// ITARGETSR and IGRPMODR, which read zero with one Security state and affinity routing.
    Zero,
}

/// A part of a 64-bit register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Low,
    High,
    Whole,
}

impl Part {
    const fn of(offset: u32, bytes: u64) -> Option<Self> {
        match (offset & 7, bytes) {
            (0, 8) => Some(Self::Whole),
            (0, 4) => Some(Self::Low),
            (4, 4) => Some(Self::High),
            _ => None,
        }
    }

    /// This part of a register's value.
    pub(super) const fn take(self, value: u64) -> u64 {
        match self {
            Self::Low => value & 0xffff_ffff,
            Self::High => value >> 32,
            Self::Whole => value,
        }
    }
}

/// A register of the distributor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Distributor {
    /// GICD_CTLR.
    Control,
    /// GICD_TYPER.
    Type,
    /// GICD_IIDR.
    Identification,
    /// GICD_TYPER2.
    Type2,
    /// GICD_STATUSR.
    Status,
    /// GICD_PIDR2.
    Architecture,
    /// Another that identifies, or one of interrupts that are not shared: reads zero.
    Zero,
    /// 32 interrupts, of which the first has the number `32 * bank`.
    Bank { bank: usize, field: Field },
    /// GICD_IROUTER.
    Router { intid: usize, part: Part },
}

/// A register of a redistributor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Redistributor {
    /// GICR_CTLR.
    Control,
    /// GICR_IIDR.
    Identification,
    /// GICR_TYPER.
    Type(Part),
    /// GICR_PIDR2.
    Architecture,
    /// One that reads zero: GICR_STATUSR, GICR_WAKER, what is about LPIs, and others that identify.
    Zero,
    /// The vCPU's own 32 interrupts.
    Bank(Field),
}

/// The registers that are alike in the distributor and in SGI_base, there for the first bank alone.
fn bank(offset: u32, bytes: u64) -> Option<(usize, Field)> {
    let word = bytes == 4 && offset.is_multiple_of(4);
    let byte = bytes == 1;
    let bits = |start, bits| word.then_some(((offset - start) as usize / 4, Field::Bits(bits)));
    let in_bytes = |start, field| (word || byte).then_some(((offset - start) as usize / 32, field));
    match offset {
        0x080..0x100 => bits(0x080, Bits::Group),
        0x100..0x180 => bits(0x100, Bits::SetEnable),
        0x180..0x200 => bits(0x180, Bits::ClearEnable),
        0x200..0x280 => bits(0x200, Bits::SetPending),
        0x280..0x300 => bits(0x280, Bits::ClearPending),
        0x300..0x380 => bits(0x300, Bits::SetActive),
        0x380..0x400 => bits(0x380, Bits::ClearActive),
        0x400..0x800 => {
            let at = (offset as usize - 0x400) % 32;
            let count = bytes as usize;
            in_bytes(0x400, Field::Priority { at, count })
        }
        0x800..0xc00 => in_bytes(0x800, Field::Zero),
        0xc00..0xd00 => word.then(|| {
            let index = (offset as usize - 0xc00) / 4;
            let upper = !index.is_multiple_of(2);
            (index / 2, Field::Config { upper })
        }),
        0xd00..0xd80 => word.then_some(((offset as usize - 0xd00) / 4, Field::Zero)),
        _ => None,
    }
}

impl Distributor {
    /// The register at `offset`, with `interrupts` interrupts.
    pub(super) fn at(offset: u32, bytes: u64, interrupts: usize) -> Option<Self> {
        let word = bytes == 4 && offset.is_multiple_of(4);
        match offset {
            0x00 if word => Some(Self::Control),
            0x04 if word => Some(Self::Type),
            0x08 if word => Some(Self::Identification),
            0x0c if word => Some(Self::Type2),
            0x10 if word => Some(Self::Status),
            0x6000..0x8000 => {
                let part = Part::of(offset, bytes)?;
                let intid = (offset as usize - 0x6000) / 8;
                match intid {
                    0..32 => Some(Self::Zero),
                    _ if intid < interrupts => Some(Self::Router { intid, part }),
                    _ => None,
                }
            }
            0xffe8 if word => Some(Self::Architecture),
            0xffd0..0x1_0000 if word => Some(Self::Zero),
            _ => {
                let (bank, field) = bank(offset, bytes)?;
                match bank {
                    0 => Some(Self::Zero),
                    _ if bank < interrupts.div_ceil(32) => Some(Self::Bank { bank, field }),
                    _ => None,
                }
            }
        }
    }
}

impl Redistributor {
    /// Where SGI_base begins.
    const SGI_BASE: u32 = 0x1_0000;

    /// The register at `offset` from RD_base.
    pub(super) fn at(offset: u32, bytes: u64) -> Option<Self> {
        let word = bytes == 4 && offset.is_multiple_of(4);
        if let Some(offset) = offset.checked_sub(Self::SGI_BASE) {
            return match offset {
                // GICR_NSACR.
                0xe00 if word => Some(Self::Zero),
                // A redistributor says nothing of targets.
                0x800..0xc00 => None,
                _ => match bank(offset, bytes)? {
                    (0, field) => Some(Self::Bank(field)),
                    _ => None,
                },
            };
        }
        match offset {
            0x00 if word => Some(Self::Control),
            0x04 if word => Some(Self::Identification),
            0x08..0x10 => Part::of(offset, bytes).map(Self::Type),
            // GICR_STATUSR, GICR_WAKER.
            0x10 | 0x14 if word => Some(Self::Zero),
            // GICR_PROPBASER, GICR_PENDBASER; GICR_INVLPIR, GICR_INVALLR.
            0x70..0x80 | 0xa0..0xa8 | 0xb0..0xb8 => Part::of(offset, bytes).map(|_| Self::Zero),
            // GICR_SYNCR.
            0xc0 if word => Some(Self::Zero),
            0xffe8 if word => Some(Self::Architecture),
            0xffd0..0x1_0000 if word => Some(Self::Zero),
            _ => None,
        }
    }
}
