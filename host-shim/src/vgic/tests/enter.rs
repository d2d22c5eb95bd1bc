//! With a vCPU.

use super::*;
use crate::MemfdConfig;
use crate::tests::support::{Machine, P};
use crate::vcpu::Entry;
use hyp_abi::vm::VmFlags;

#[test]
fn an_interrupt_goes_to_a_vcpu_with_its_entry_and_comes_back_with_its_exit() {
    let machine = Machine::new();
    let mut guest = machine.guest(VmFlags::PROTECTED, MemfdConfig::new(4 * P));
    let bench = Bench::new(1, 4);
    bench.raise(40, 0);
    let entry = bench.vgic.enter(0, Entry::new().stored());
    let list = [1 << 62 | 1 << 60 | 0xa0 << 48 | 1 << 41 | 40]
        .into_iter()
        .collect();
    assert_eq!(entry, Entry::new().stored().interrupts(0, &list));
    guest.vcpu.run(&bench.vgic.enter(0, Entry::new())).unwrap();
    assert_eq!(guest.vcpu.interrupts().unwrap().list, list);
    assert_eq!(bench.vgic.leave(&guest.vcpu).unwrap(), Synced::default());
    assert!(bench.has_bit(ISPENDR, 40));
    // Nothing is left of it once there is nothing more.
    bench.lower(40, 0);
    guest.vcpu.run(&bench.vgic.enter(0, Entry::new())).unwrap();
    assert!(guest.vcpu.interrupts().unwrap().list.is_empty());
    bench.vgic.leave(&guest.vcpu).unwrap();
    assert_eq!(bench.vgic.enter(0, Entry::new()), Entry::new());
}
