//! Devices that EL2 keeps: fw_cfg and its DMA, the ITS, the redistributors' LPI registers.

use super::attacker::Attacker;
use super::tally::{self, Kind};
use crate::frames::Frames;
use crate::probe::{self, Access, Level};
use hyp_abi::{FRAME_SIZE, FrameRange};

/// QEMU virt's firmware configuration device (hw/arm/virt.c, base_memmap), and its DMA address register
/// (docs/specs/fw_cfg of QEMU).
const FW_CFG: u64 = 0x0902_0000;
const FW_CFG_DMA: u64 = FW_CFG + 0x10;
/// What a DMA command is told: select item 0 (the signature), and read it to memory.
const DMA_SELECT_AND_READ: u32 = 1 << 3 | 1 << 1;
const DMA_LENGTH: u32 = 4;

/// The ITS: its control frame, and the frame that interrupts are written to (IHI 0069, 12.18).
const ITS: u64 = 0x0808_0000;
const ITS_REGISTERS: [u64; 8] = [0x0, 0x8, 0x80, 0x88, 0x90, 0x100, 0x108, 0x1_0040];

/// Registers of a redistributor's RD frame that have to do with LPIs, or that are none (IHI 0069, 12.10).
const CTLR: u64 = 0x0;
const TYPER: u64 = 0x8;
const PROPBASER: u64 = 0x70;
const PENDBASER: u64 = 0x78;
const LPI_REGISTERS: [u64; 10] = [
    CTLR, TYPER, 0x40, 0x48, PROPBASER, PENDBASER, 0xa0, 0xb0, 0xc0, 0x8000,
];

impl Attacker<'_> {
    /// One attack by way of a device.
    pub(super) fn device(&mut self) {
        match self.random.below(8) {
            0 => self.fw_cfg(),
            1 | 2 => self.fw_cfg_dma(),
            3 | 4 => self.its(),
            _ => self.lpi(),
        }
    }

    fn fw_cfg(&mut self) {
        let offset = self.random.pick(&[0, 2, 8, 0x10, 0x14, 0x18, 0xff8]);
        self.register_refused(Kind::FwCfg, FW_CFG + offset);
    }

    fn its(&mut self) {
        let register = self.random.pick(&ITS_REGISTERS);
        self.register_refused(Kind::Its, ITS + register);
    }

    fn register_refused(&mut self, kind: Kind, address: u64) {
        let level = self.any_level();
        let access = self.random.pick(&[
            Access::Load1,
            Access::Load4,
            Access::Load8,
            Access::LoadPair,
            Access::Store1,
            Access::Store4,
            Access::Store8,
            Access::StorePair,
            Access::StoreWriteBack,
        ]);
        let result = probe::access(level, access, level.address(address), self.random.next());
        tally::attack(kind, result.is_ok());
        self.must_be_refused(
            format_args!("{access:?} by {level:?} of register {address:#x}"),
            level,
            result,
        );
    }

    /// A command that would have the device write to EL2's memory, or to the host's: neither may happen.
    fn fw_cfg_dma(&mut self) {
        let command = self.scratch.base;
        let witness = self.scratch.base + FRAME_SIZE;
        let marked = Frames::adopt(FrameRange::new(witness, 1));
        let value = self.random.next();
        marked.fill(value);
        let target = if self.random.one_in(2) {
            witness
        } else {
            self.forbidden()
        };
        // FWCfgDmaAccess: control, length, address, all big-endian.
        let head = (
            u64::from(DMA_SELECT_AND_READ.to_be()),
            u64::from(DMA_LENGTH.to_be()),
        );
        let _ = probe::access(Level::El1, Access::Store8, command, head.0 | head.1 << 32);
        let _ = probe::access(Level::El1, Access::Store8, command + 8, target.to_be());
        crate::sysreg::barrier();
        let level = self.any_level();
        let results = if self.random.one_in(2) {
            [(Access::Store8, FW_CFG_DMA, command.to_be()); 2]
        } else {
            let [high, low] = [(command >> 32) as u32, command as u32].map(|half| u64::from(half.to_be()));
            [
                (Access::Store4, FW_CFG_DMA, high),
                (Access::Store4, FW_CFG_DMA + 4, low),
            ]
        };
        for (access, register, data) in results {
            let result = probe::access(level, access, level.address(register), data);
            tally::attack(Kind::FwCfgDma, result.is_ok());
            self.must_be_refused(
                format_args!("{access:?} by {level:?} to start a DMA"),
                level,
                result,
            );
        }
        if let Some((address, found)) = marked.find_wrong(|address| value ^ address) {
            self.fail(format_args!("fw_cfg wrote {found:#x} to {address:#x}"));
        }
    }

    /// LPI tables in EL2's memory: the writes may be ignored or refused, and must leave no trace.
    fn lpi(&mut self) {
        let Some(base) = self.redistributor() else { return };
        let level = self.any_level();
        let register = self.random.pick(&LPI_REGISTERS);
        let access = self.random.pick(&[
            Access::Load4,
            Access::Load8,
            Access::Store4,
            Access::Store8,
            Access::StorePair,
            Access::StoreWriteBack,
            Access::Store1,
            Access::Store2,
        ]);
        let enabled = probe::access(Level::El1, Access::Load4, base + CTLR, 0);
        let value = match register {
            // Bit 0 enables LPIs. The others stay as they are, and bits of DPG leave this machine's alone.
            CTLR => enabled.unwrap_or(0) | 1,
            _ => self.forbidden() & !(FRAME_SIZE - 1) | 0xf,
        };
        let result = probe::access(level, access, level.address(base + register), value);
        tally::attack(Kind::Lpi, result.is_ok());
        if let Err(fault) = result
            && fault.class() != level.data_abort()
        {
            self.fail(format_args!(
                "{access:?} of GICR register {register:#x} ended in {fault:?}"
            ));
        }
        for (name, offset, mask) in [
            ("CTLR", CTLR, 1),
            ("PROPBASER", PROPBASER, u64::MAX),
            ("PENDBASER", PENDBASER, u64::MAX),
        ] {
            let wide = if offset == CTLR {
                Access::Load4
            } else {
                Access::Load8
            };
            match probe::access(Level::El1, wide, base + offset, 0) {
                Ok(value) if value & mask == 0 => {}
                other => self.fail(format_args!(
                    "after {access:?} of register {register:#x}, GICR_{name} reads {other:x?}"
                )),
            }
        }
    }
}
