//! Which accesses to a GICv3 redistributor are let through.
//!
//! LPIs live in tables in memory that the redistributor reads and writes by physical address, past stage 2. So
//! the frames that can name such a table are EL2's: RD_base of every redistributor, and with GICv4 VLPI_base
//! too. The host's accesses to them trap; here each is let through, changed, or answered. To the host, LPIs are
//! not implemented. SGI_base (the private interrupts) is mapped for the host and never comes here.
//!
//! The layout stays visible: TYPER.VLPIS is how a kernel finds the next redistributor, so it is shown as it is.
//!
//! Source: GIC architecture specification, Arm IHI 0069, 12.10 and 12.11.

use super::access::Width;

/// Bytes in a frame of a redistributor.
pub const FRAME_BYTES: u64 = 0x1_0000;
/// Bytes from one redistributor to the next without virtual LPIs: RD_base and SGI_base.
pub const STRIDE_GICV3: u64 = 2 * FRAME_BYTES;
/// With virtual LPIs: also VLPI_base and a reserved frame.
pub const STRIDE_GICV4: u64 = 4 * FRAME_BYTES;

/// A run of redistributors, as the device tree names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Physical address of the first frame.
    pub base: u64,
    /// Bytes.
    pub size: u64,
}

/// Which frame of a redistributor an address lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// RD_base. Trapped.
    Rd,
    /// SGI_base. The host's.
    Sgi,
    /// VLPI_base, or a frame past it. Trapped, and nothing of it is let through.
    Other,
}

/// Where in which redistributor an address lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The number of the redistributor in its region, from 0.
    pub index: u64,
    /// Its frame.
    pub frame: FrameKind,
    /// The byte offset in the frame.
    pub offset: u64,
}

impl Region {
    /// Where `address` lies, or `None` if not in this region. `stride` is that of the device tree, or
    /// [`STRIDE_GICV4`] if GICR_TYPER.VLPIS is 1, else [`STRIDE_GICV3`].
    #[must_use]
    pub const fn locate(&self, stride: u64, address: u64) -> Option<Place> {
        let Some(offset) = address.checked_sub(self.base) else {
            return None;
        };
        if offset >= self.size || stride < STRIDE_GICV3 {
            return None;
        }
        let within = offset % stride;
        Some(Place {
            index: offset / stride,
            frame: match within / FRAME_BYTES {
                0 => FrameKind::Rd,
                1 => FrameKind::Sgi,
                _ => FrameKind::Other,
            },
            offset: within % FRAME_BYTES,
        })
    }

    /// The runs of addresses that must not be in the host's table, as (physical address, bytes), in order: all
    /// but the SGI_base frames. Adjacent runs are not joined.
    pub fn trapped(self, stride: u64) -> impl Iterator<Item = (u64, u64)> {
        (0..self.size / FRAME_BYTES)
            .map_while(move |number| self.base.checked_add(number.checked_mul(FRAME_BYTES)?))
            .filter(move |address| {
                self.locate(stride, *address)
                    .is_some_and(|place| place.frame != FrameKind::Sgi)
            })
            .map(|address| (address, FRAME_BYTES))
    }
}

/// An access to a trapped frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// The byte offset in the frame.
    pub offset: u64,
    /// How wide.
    pub width: Width,
    /// The value of a write, or `None` for a read.
    pub write: Option<u64>,
}

/// What is done about an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Read the register with the width of the access; the host gets it without the bits `hidden`.
    Read {
        /// The bits that read as zero.
        hidden: u64,
    },
    /// Write this value with the width of the access.
    Write {
        /// The value, already cut.
        value: u64,
    },
    /// Touch nothing; a read gives zero.
    Ignore,
    /// The access is none that the architecture has: inject an abort.
    Refuse,
}

/// GICR_CTLR.EnableLPIs: the redistributor uses the tables that PROPBASER and PENDBASER name.
pub const CTLR_ENABLE_LPIS: u32 = 1 << 0;
/// GICR_CTLR.RWP: a write of it has not taken effect everywhere yet.
pub const CTLR_RWP: u32 = 1 << 3;

/// GICR_CTLR: EnableLPIs.
const CTLR_WRITE_HIDDEN: u64 = CTLR_ENABLE_LPIS as u64;
/// On reads also CES 1 (EnableLPIs can be cleared) and IR 2 (the invalidation registers work).
const CTLR_READ_HIDDEN: u64 = 0b111;
/// GICR_TYPER: PLPIS 0, Dirty 2, DirectLPI 3, RVPEID 7, CommonLPIAff 25:24, VSGI 26. VLPIS (1) stays.
const TYPER_HIDDEN: u64 = 1 << 0 | 1 << 2 | 1 << 3 | 1 << 7 | 0b11 << 24 | 1 << 26;

/// What a run of offsets in RD_base holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Register {
    /// 32 bits, let through without these bits.
    Word { read_hidden: u64, write_hidden: u64 },
    /// 64 bits, read-only, shown without these bits.
    Identity { hidden: u64 },
    /// 64 bits, part of LPI support.
    Lpi64,
    /// 32 bits, part of LPI support.
    Lpi32,
    /// Reserved or IMPLEMENTATION DEFINED. EL2 cannot tell what such a register would do, so nothing is done.
    Nothing,
}

const PLAIN: Register = Register::Word {
    read_hidden: 0,
    write_hidden: 0,
};

/// The register at an offset that is a multiple of 4.
const fn register(offset: u64) -> Register {
    match offset {
        // GICR_CTLR.
        0x0000 => Register::Word {
            read_hidden: CTLR_READ_HIDDEN,
            write_hidden: CTLR_WRITE_HIDDEN,
        },
        // GICR_IIDR; GICR_STATUSR, GICR_WAKER, GICR_MPAMIDR, GICR_PARTIDR; the identification registers.
        0x0004 | 0x0010..=0x001c | 0xffd0..=0xfffc => PLAIN,
        // GICR_TYPER.
        0x0008 | 0x000c => Register::Identity { hidden: TYPER_HIDDEN },
        // GICR_SETLPIR, GICR_CLRLPIR; GICR_PROPBASER, GICR_PENDBASER; GICR_INVLPIR; GICR_INVALLR.
        0x0040..=0x004c | 0x0070..=0x007c | 0x00a0 | 0x00a4 | 0x00b0 | 0x00b4 => Register::Lpi64,
        // GICR_SYNCR: reads as "not busy".
        0x00c0 => Register::Lpi32,
        _ => Register::Nothing,
    }
}

/// Judges an access to the RD_base frame.
///
/// Widths follow IHI 0069, 12.1.3: a 64-bit register may be accessed by 64 bits or by either half, a 32-bit one by
/// 32 bits, and none of this frame by less.
#[must_use]
pub const fn judge(request: Request) -> Decision {
    let double = match request.width {
        Width::Byte | Width::Half => return Decision::Refuse,
        Width::Word => false,
        Width::Double => true,
    };
    if request.offset >= FRAME_BYTES || !request.offset.is_multiple_of(request.width.bytes()) {
        return Decision::Refuse;
    }
    match (register(request.offset), double) {
        (Register::Word { .. } | Register::Lpi32, true) => Decision::Refuse,
        (Register::Lpi64 | Register::Lpi32 | Register::Nothing, _) => Decision::Ignore,
        (
            Register::Word {
                read_hidden,
                write_hidden,
            },
            false,
        ) => match request.write {
            None => Decision::Read { hidden: read_hidden },
            Some(value) => Decision::Write {
                value: Width::Word.cut(value) & !write_hidden,
            },
        },
        (Register::Identity { hidden }, _) => match request.write {
            // Read-only: a write has no effect.
            Some(_) => Decision::Ignore,
            None => Decision::Read {
                // The upper half is bits 63:32 of the register.
                hidden: if request.offset & 4 != 0 {
                    hidden >> 32
                } else {
                    hidden
                },
            },
        },
    }
}

/// Judges an access to any frame of a redistributor.
#[must_use]
pub const fn judge_at(place: Place, width: Width, write: Option<u64>) -> Decision {
    match place.frame {
        FrameKind::Rd => judge(Request {
            offset: place.offset,
            width,
            write,
        }),
        // Nothing is known of a virtual LPI: the host gets no GICv4.
        FrameKind::Other => Decision::Ignore,
        // The host's own; it comes here only if its mapping is just being made, and then it is tried again.
        FrameKind::Sgi => Decision::Refuse,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(offset: u64, width: Width) -> Decision {
        judge(Request {
            offset,
            width,
            write: None,
        })
    }

    fn write(offset: u64, width: Width, value: u64) -> Decision {
        judge(Request {
            offset,
            width,
            write: Some(value),
        })
    }

    #[test]
    fn lpis_cannot_be_enabled_and_never_seem_so() {
        assert_eq!(
            write(0, Width::Word, 0xffff_ffff),
            Decision::Write { value: 0xffff_fffe }
        );
        assert_eq!(
            write(0, Width::Word, 0x0700_0001),
            Decision::Write { value: 0x0700_0000 }
        );
        assert_eq!(read(0, Width::Word), Decision::Read { hidden: 0b111 });
    }

    #[test]
    fn typer_shows_no_lpis_in_either_width() {
        // CPU 3 of 4, last, with physical, virtual and direct LPIs, RVPEID, VSGI and a common table.
        const TYPER: u64 = 0x0000_0003_0700_0399 | 1 << 1 | 1 << 2;
        let shown = |decision, raw: u64| match decision {
            Decision::Read { hidden } => raw & !hidden,
            _ => panic!("TYPER can be read"),
        };
        assert_eq!(shown(read(0x8, Width::Double), TYPER), 0x0000_0003_0000_0312);
        assert_eq!(shown(read(0x8, Width::Word), TYPER & 0xffff_ffff), 0x312);
        // The affinity is not touched, not even where the lower half hides bits.
        assert_eq!(shown(read(0xc, Width::Word), 0xffff_ffff), 0xffff_ffff);
        assert_eq!(write(0x8, Width::Double, u64::MAX), Decision::Ignore);
        assert_eq!(write(0xc, Width::Word, u64::MAX), Decision::Ignore);
    }

    #[test]
    fn table_registers_take_nothing() {
        for offset in [0x40, 0x48, 0x70, 0x78, 0xa0, 0xb0] {
            assert_eq!(write(offset, Width::Double, u64::MAX), Decision::Ignore);
            assert_eq!(read(offset, Width::Double), Decision::Ignore);
            for half in [offset, offset + 4] {
                assert_eq!(write(half, Width::Word, u64::MAX), Decision::Ignore);
                assert_eq!(read(half, Width::Word), Decision::Ignore);
            }
        }
        assert_eq!(read(0xc0, Width::Word), Decision::Ignore);
        assert_eq!(read(0xc0, Width::Double), Decision::Refuse);
    }

    #[test]
    fn what_a_kernel_needs_passes() {
        for offset in [0x4, 0x10, 0x14, 0x18, 0x1c, 0xffd0, 0xffe8, 0xfffc] {
            assert_eq!(read(offset, Width::Word), Decision::Read { hidden: 0 });
            assert_eq!(
                write(offset, Width::Word, 0xffff_ffff_0000_0002),
                Decision::Write { value: 2 }
            );
            assert_eq!(read(offset & !7, Width::Double), Decision::Refuse);
        }
    }

    #[test]
    fn no_width_or_alignment_slips_through() {
        for offset in 0..FRAME_BYTES {
            for (width, bytes) in [
                (Width::Byte, 1),
                (Width::Half, 2),
                (Width::Word, 4),
                (Width::Double, 8),
            ] {
                let decision = write(offset, width, u64::MAX);
                if bytes < 4 || offset % bytes != 0 {
                    assert_eq!(decision, Decision::Refuse, "{offset:#x} {width:?}");
                }
                if let Decision::Write { value } = decision {
                    assert_eq!(width, Width::Word);
                    assert!(value <= u64::from(u32::MAX));
                    assert!(offset != 0 || value & 1 == 0);
                    // Nothing that holds an address is written.
                    assert!(!(0x20..0xffd0).contains(&offset), "{offset:#x}");
                }
            }
        }
        assert_eq!(read(FRAME_BYTES, Width::Word), Decision::Refuse);
    }

    #[test]
    fn frames_are_found_by_their_stride() {
        let region = Region {
            base: 0x080a_0000,
            size: 0x00f6_0000,
        };
        let at = |stride, address| region.locate(stride, address);
        assert_eq!(
            at(STRIDE_GICV3, 0x080a_0070),
            Some(Place {
                index: 0,
                frame: FrameKind::Rd,
                offset: 0x70
            })
        );
        assert_eq!(
            at(STRIDE_GICV3, 0x080e_0008),
            Some(Place {
                index: 2,
                frame: FrameKind::Rd,
                offset: 8
            })
        );
        assert_eq!(
            at(STRIDE_GICV3, 0x080b_0000).map(|place| place.frame),
            Some(FrameKind::Sgi)
        );
        assert_eq!(
            at(STRIDE_GICV4, 0x080c_0000).map(|place| place.frame),
            Some(FrameKind::Other)
        );
        assert_eq!(
            at(STRIDE_GICV4, 0x080e_0000),
            Some(Place {
                index: 1,
                frame: FrameKind::Rd,
                offset: 0
            })
        );
        assert_eq!(at(STRIDE_GICV3, 0x0809_ffff), None);
        assert_eq!(at(STRIDE_GICV3, 0x0900_0000), None);
        assert_eq!(at(0, 0x080a_0000), None);
        assert_eq!(at(STRIDE_GICV3, u64::MAX), None);
    }

    #[test]
    fn only_sgi_frames_are_left_to_the_host() {
        let region = Region {
            base: 0x1000_0000,
            size: 2 * STRIDE_GICV4,
        };
        let frames = |stride| {
            region
                .trapped(stride)
                .map(|(address, bytes)| {
                    assert_eq!(bytes, FRAME_BYTES);
                    (address - region.base) / FRAME_BYTES
                })
                .collect::<std::vec::Vec<_>>()
        };
        assert_eq!(frames(STRIDE_GICV3), [0, 2, 4, 6]);
        assert_eq!(frames(STRIDE_GICV4), [0, 2, 3, 4, 6, 7]);
    }

    #[test]
    fn a_region_at_the_end_of_the_address_space_is_no_trouble() {
        let region = Region {
            base: u64::MAX - FRAME_BYTES,
            size: u64::MAX,
        };
        assert_eq!(region.trapped(STRIDE_GICV3).take(10).count(), 1);
    }
}
