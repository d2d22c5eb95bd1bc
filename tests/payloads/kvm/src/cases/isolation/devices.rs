//! What a VMM can do by the devices that it gives a guest: nothing with the guest's memory, wherever they are said to
//! be, nor with what its CPUs have of the interrupt controller.

use super::super::devices::guests::setup;
use super::super::devices::{
    DISTRIBUTOR, Gic, INTERFACE, INTERFACE_REGISTERS, PRIORITY_MASK, REDISTRIBUTOR, bell,
};
use super::super::{cases, refused, same, succeed};
use super::SECRET;
use crate::Outcome;
use crate::device::{Eventfd, PROTECTED};
use crate::guest::{BASE, DATA, Do, Guest, KINDS, MMAP_SHARED, P, memfd, set_slot, slot};

cases![
    isolation_from_its_interrupt_controller,
    isolation_from_devices_where_its_memory_is,
];

/// The controller's own registers for interrupts up to 63: groups, enables, pending, active, priorities. The enables
/// and what follows have one to set bits, and one to clear them. Priorities last, the lowest there is.
fn overwrite(gic: &Gic) -> Outcome {
    let set = |group, offset, value| {
        succeed(
            &format!("register {offset:#x} of group {group}"),
            gic.set(group, offset, value),
        )
    };
    for (group, first) in [(DISTRIBUTOR, 4), (REDISTRIBUTOR, 0x1_0000)] {
        for offset in [0x80, 0x100, 0x180, 0x300, 0x380, 0x200, 0x280] {
            set(group, first + offset, 0xffff_ffff)?;
        }
        set(group, first + 0x80, 0)?;
        let bank = if group == DISTRIBUTOR { 32 } else { 0x1_0000 };
        for word in 0..8 {
            set(group, bank + 0x400 + 4 * word, 0xf8f8_f8f8)?;
        }
    }
    set(DISTRIBUTOR, 0, 0)
}

fn isolation_from_its_interrupt_controller() -> Outcome {
    let mut list = setup();
    list.extend([
        Do::Fill(DATA, P, SECRET),
        // To itself; it is served until the end.
        Do::Send(5 << 24 | 1),
        Do::Acknowledge,
        Do::Interface,
        Do::Interface,
        Do::Interface,
        Do::End(5),
        Do::Check(DATA, P, SECRET),
        Do::Load(8, DATA),
    ]);
    for kind in KINDS {
        let guest = Guest::new(kind, &[&list])?;
        let gic = succeed("a controller", Gic::of(&guest.vm))?;
        succeed("its place", gic.make())?;
        let vcpu = guest.vcpu();
        vcpu.reports("its interrupt", 5)?;
        let interface = vcpu.reported()?;
        overwrite(&gic)?;
        vcpu.reports("its interface after the controller was written to", interface)?;
        if kind == PROTECTED {
            for register in INTERFACE_REGISTERS {
                let what = format!("register {register:#x} of its interface");
                refused(&what, gic.get(INTERFACE, register), libc::ENXIO)?;
                refused(&what, gic.set(INTERFACE, register, 0), libc::ENXIO)?;
            }
            vcpu.reports("its interface", interface)?;
        } else {
            // One that is not protected finds what is written there.
            succeed("its interface", gic.set(INTERFACE, PRIORITY_MASK, 0x50))?;
            vcpu.reports("its interface", interface & !0xff | 0x50)?;
        }
        vcpu.reports("words of the secret that are otherwise", 0)?;
        vcpu.reports("the secret", SECRET)?;
    }
    Ok(())
}

fn isolation_from_devices_where_its_memory_is() -> Outcome {
    const DEVICE: u64 = 0x0a00_0000;
    // Of a slot that comes late, so that the guest's stores there are told as those to a device.
    const LATE: u64 = 1 << 33;
    // A page that the guest has, one that it has not yet, and two that come late.
    let places = [DATA, DATA + 8 * P, LATE, LATE + P];
    let mut list = vec![Do::Store(8, DATA, SECRET), Do::Report(1)];
    list.extend(places.iter().flat_map(|place| {
        [
            Do::Store(8, *place, SECRET),
            Do::Store(4, *place + 8, 1),
            Do::Load(8, *place),
            Do::Load(4, *place + 8),
        ]
    }));
    list.extend([Do::Store(8, DEVICE, 1), Do::Report(2)]);
    for kind in KINDS {
        let guest = Guest::new(kind, &[&list])?;
        // All of its memory is where the distributor is said to be, and what comes late where the redistributors are.
        let gic = succeed("a controller", Gic::of(&guest.vm))?;
        succeed("the distributor's place", gic.set(0, 2, BASE))?;
        succeed("the redistributors'", gic.set(0, 3, LATE))?;
        succeed("the controller", gic.set(4, 0, 0))?;
        guest.vcpu().reports("the guest", 1)?;
        let file = succeed("a file", memfd(&guest.vm, 2 * P, MMAP_SHARED))?;
        let late = set_slot(&guest.vm, slot(1, LATE, 2 * P, file.raw(), 0));
        succeed("a slot", late)?;
        let there = succeed("an eventfd", Eventfd::new())?;
        for place in places {
            let set = bell(&guest.vm, there.raw(), place, 0, 0, 0);
            succeed("a doorbell where memory is", set)?;
        }
        let device = succeed("an eventfd", Eventfd::new())?;
        let set = bell(&guest.vm, device.raw(), DEVICE, 0, 0, 0);
        succeed("a doorbell where none is", set)?;
        for place in places {
            let what = format!("what is at {place:#x}");
            guest.vcpu().reports(&what, SECRET)?;
            guest.vcpu().reports(&what, 1)?;
        }
        guest.vcpu().reports("the guest", 2)?;
        same("signals", (there.count(), device.count()), (0, 1))?;
        guest.vcpu().turns_off()?;
    }
    Ok(())
}
