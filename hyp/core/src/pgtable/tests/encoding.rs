//! Bits, written down from the Arm ARM once more and by hand.

use super::*;
use crate::pgtable::descriptor::{leaf_descriptor, table_descriptor};

#[test]
fn host_memory_is_write_back_inner_shareable_with_all_access() {
    // MemAttr 0b1111 at 5:2, S2AP 0b11 at 7:6, SH 0b11 at 9:8, AF at 10.
    assert_eq!(RAM.to_bits(), 0x7fc);
    assert_eq!(leaf_descriptor(pa(0x4020_0000), 2, RAM.to_bits()), 0x4020_07fd);
    assert_eq!(leaf_descriptor(pa(0x4020_3000), 3, RAM.to_bits()), 0x4020_37ff);
}

#[test]
fn host_devices_are_ngnre_and_never_executed() {
    // MemAttr 0b0001, S2AP 0b11, SH 0b10, AF, XN 0b10 at 54:53.
    assert_eq!(
        Stage2Attributes::HOST_DEVICE.to_bits(),
        (0b10 << 53) | 0x4 | 0xc0 | 0x200 | 0x400
    );
}

#[test]
fn every_stage_2_attribute_survives_its_bits() {
    let memories = [
        (Stage2Memory::WriteBack, 0b1111),
        (Stage2Memory::ForcedWriteBack, 0b0110),
        (Stage2Memory::NonCacheable, 0b0101),
        (Stage2Memory::DeviceNGnRE, 0b0001),
        (Stage2Memory::DeviceNGnRnE, 0b0000),
    ];
    let executes = [
        (Execute::All, 0b00_u64),
        (Execute::El0(Xnx::found()), 0b01),
        (Execute::Never, 0b10),
        (Execute::El1(Xnx::found()), 0b11),
    ];
    let shares = [
        (Shareability::Non, 0b00),
        (Shareability::Outer, 0b10),
        (Shareability::Inner, 0b11),
    ];
    for (memory, memory_bits) in memories {
        for (execute, execute_bits) in executes {
            for (share, share_bits) in shares {
                for access in (0..4).map(Stage2Access::from_bits_truncate) {
                    let attributes = Stage2Attributes::new(memory, access, execute, share).with_software(0xa);
                    assert_eq!(
                        attributes.to_bits(),
                        (memory_bits << 2)
                            | (access.bits() << 6)
                            | (share_bits << 8)
                            | (1 << 10)
                            | (execute_bits << 53)
                            | (0xa << 55)
                    );
                    let read = Stage2Attributes::from_bits(leaf_descriptor(
                        pa(0xffff_ffff_f000),
                        3,
                        attributes.to_bits(),
                    ));
                    assert_eq!(
                        (read.memory(), read.access(), read.execute(), read.shareability()),
                        (memory, access, execute, share)
                    );
                    assert_eq!((read.accessed(), read.software()), (true, 0xa));
                    assert!(!read.not_accessed().accessed());
                }
            }
        }
    }
}

#[test]
fn hyp_attributes_keep_writing_and_executing_apart() {
    // AttrIndx 0, AP[1] RES1, SH 0b11, AF; then AP[2] at 7 and XN at 54.
    let common = (1 << 6) | 0x300 | 0x400;
    let cases = [
        (HypAccess::ReadOnly, (1 << 7) | (1 << 54)),
        (HypAccess::ReadWrite, 1 << 54),
        (HypAccess::ReadExecute, 1 << 7),
    ];
    for (access, bits) in cases {
        let attributes = HypAttributes::memory(access);
        assert_eq!(attributes.to_bits(), common | bits);
        assert_eq!(attributes.access(), Some(access));
        assert_eq!(attributes.memory_type(), Some(HypMemory::WriteBack));
    }
    assert_eq!(
        HypAttributes::from_bits(common).access(),
        None,
        "written and executed"
    );
    let device = HypAttributes::device();
    assert_eq!(device.memory_type(), Some(HypMemory::DeviceNGnRE));
    assert_eq!(device.shareability(), Shareability::Outer);
    assert_eq!(MAIR >> (8 * HypMemory::WriteBack as u32) & 0xff, 0xff);
    assert_eq!(MAIR >> (8 * HypMemory::DeviceNGnRE as u32) & 0xff, 0x04);
    assert_eq!(MAIR >> (8 * HypMemory::NonCacheable as u32) & 0xff, 0x44);
}

#[test]
fn descriptors_read_as_the_hardware_reads_them() {
    let page = TablePage::new(frame(0x1_2345_6000));
    let table = table_descriptor(page);
    assert_eq!(table, 0x1_2345_6003);
    for level in 0..3 {
        assert_eq!(
            Descriptor::<Stage2>::decode(table, level),
            Descriptor::Table(page)
        );
    }
    assert!(matches!(
        Descriptor::<Stage2>::decode(table, 3),
        Descriptor::Leaf { .. }
    ));
    // 0b01 is a block at levels 1 and 2, and reserved at 0 and 3.
    let is_valid = |level| Descriptor::<Stage2>::decode(0x7fd, level).is_valid();
    assert_eq!([0, 1, 2, 3].map(is_valid), [false, true, true, false]);
}

#[test]
fn an_annotation_never_makes_a_descriptor_valid() {
    for value in [0, 1, 2, u64::MAX >> 1] {
        let annotation = Annotation::new(value).unwrap();
        for level in 0..4 {
            let read = Descriptor::<Stage2>::decode(annotation.descriptor(), level);
            assert_eq!(read, Descriptor::Invalid(annotation));
        }
        assert_eq!(annotation.value(), value);
    }
    assert_eq!(Annotation::new(1 << 63), None);
}

#[test]
fn updates_touch_only_what_they_name() {
    let raw = leaf_descriptor(pa(0x4000_0000), 2, RAM.with_software(3).to_bits());
    let after = |update: Update<Stage2>| Stage2Attributes::from_bits(update.apply(raw));
    let protected = after(Update::write_protect());
    assert_eq!(protected.access(), Stage2Access::READ);
    assert_eq!(protected.software(), 3);
    assert_eq!(after(Update::software(4)), RAM.with_software(4));
    assert_eq!(after(Update::execute(Execute::Never)).execute(), Execute::Never);
    assert_eq!(
        after(Update::write_protect().then(Update::allow(Stage2Access::WRITE))),
        RAM.with_software(3)
    );
    assert_eq!(
        after(Update::allow(Stage2Access::WRITE).then(Update::write_protect())),
        protected
    );
    assert_eq!(
        after(Update::replace(Stage2Attributes::HOST_DEVICE)),
        Stage2Attributes::HOST_DEVICE
    );
    for update in [
        Update::write_protect(),
        Update::replace(Stage2Attributes::HOST_DEVICE),
    ] {
        assert_eq!(
            update.apply(raw) & 0x0000_ffff_ffff_f003,
            raw & 0x0000_ffff_ffff_f003
        );
    }
}
