//! To which vCPU an SPI goes.

use super::*;

#[test]
fn an_spi_goes_where_its_route_says() {
    let mut bench = Bench::new(3, 4);
    assert_eq!(bench.route(40, 2), VcpuSet::EMPTY);
    assert_eq!(bench.raise(40, 0), set(&[2]));
    assert!(bench.drain(0).is_empty());
    // It follows its route as long as it is not active.
    assert_eq!(bench.route(40, 1), set(&[1]));
    assert!(bench.drain(2).is_empty());
    bench.enter(1);
    assert_eq!(bench.acknowledge(1), Some(40));
    bench.leave(1);
    bench.route(40, 0);
    assert!(bench.drain(0).is_empty());
    bench.enter(1);
    bench.end(1, 40);
    // Ended, and the line still high: now it is the other's.
    assert_eq!(bench.leave(1).kicks, set(&[0]));
    bench.enter(0);
    assert_eq!(bench.acknowledge(0), Some(40));
}

#[test]
fn a_route_to_nobody_keeps_it_until_there_is_somebody() {
    let mut bench = Bench::new(2, 4);
    bench.route(40, 0x0100);
    assert_eq!(bench.raise(40, 0), VcpuSet::EMPTY);
    for vcpu in 0..2 {
        assert!(bench.drain(vcpu).is_empty());
    }
    assert_eq!(bench.route(40, 1), set(&[1]));
    assert!(bench.vgic.is_pending(1));
}

#[test]
fn a_rerouted_interrupt_leaves_the_list_register_that_it_is_in() {
    let mut bench = Bench::new(2, 4);
    bench.raise(40, 0);
    bench.enter(0);
    // It must come out of the one before the other can have it.
    assert_eq!(bench.route(40, 1), set(&[0]));
    assert!(bench.drain(1).is_empty());
    assert_eq!(bench.leave(0).kicks, set(&[1]));
    bench.enter(0);
    assert_eq!(bench.acknowledge(0), None);
    bench.enter(1);
    assert_eq!(bench.acknowledge(1), Some(40));
}

#[test]
fn one_of_all_takes_an_interrupt_that_is_for_any() {
    let mut bench = Bench::new(3, 4);
    bench.set_edge(40, true);
    bench.route(40, 1 << 31);
    assert_eq!(bench.raise(40, 0), set(&[0, 1, 2]));
    bench.enter(2);
    bench.enter(0);
    bench.enter(1);
    let taken: Vec<_> = (0..3).map(|vcpu| bench.acknowledge(vcpu)).collect();
    assert_eq!(taken, [None, None, Some(40)]);
    bench.end(2, 40);
    for vcpu in 0..3 {
        bench.leave(vcpu);
        assert!(!bench.vgic.is_pending(vcpu));
    }
}

#[test]
fn one_that_any_may_take_and_that_is_given_back_wakes_the_others() {
    let mut bench = Bench::new(2, 4);
    bench.route(40, 1 << 31);
    bench.raise(40, 0);
    bench.enter(0);
    assert_eq!(bench.leave(0).kicks, set(&[1]));
    bench.enter(0);
    assert_eq!(bench.vgic.cancel(0), set(&[1]));
    assert_eq!(bench.vgic.cancel(0), VcpuSet::EMPTY);
}

#[test]
fn vcpus_need_not_be_numbered_without_gaps() {
    let vgic = Vgic::new(&VgicConfig {
        vcpus: set(&[1, 63]),
        interrupts: 64,
        interface: InterfaceShape::new(4, 5),
    })
    .unwrap();
    vgic.write(Frame::Distributor, CTLR, 4, 2);
    vgic.write(Frame::Distributor, ISENABLER + 4, 4, 1);
    assert_eq!(vgic.set_level(32, 0, true), Ok(VcpuSet::EMPTY));
    let kicks = vgic.write(Frame::Distributor, IROUTER + 32 * 8, 8, 0x030f);
    assert_eq!(kicks, set(&[63]));
    assert!(vgic.is_pending(63) && !vgic.is_pending(0));
    assert_eq!(vgic.send(63, SgiRegister::Group1, 1 << 40), set(&[1]));
}
