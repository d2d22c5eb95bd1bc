//! Eventfds as lines.

use super::devices::{Ground, to};
use crate::Errno;
use crate::kvm::Controller as _;
use crate::kvm::abi::devices::{IRQFD, IRQFD_DEASSIGN, IRQFD_RESAMPLE, Irqfd, ROUTING_IRQCHIP, ROUTING_MSI};
use host_shim::vcpu::Interrupts;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

impl Ground {
    fn irqfd(&self, fd: i32, gsi: u32, flags: u32, resamplefd: i32) -> Result<u64, Errno> {
        let asked = Irqfd {
            fd: fd.cast_unsigned(),
            gsi,
            flags,
            resamplefd: resamplefd.cast_unsigned(),
            pad: [0; 16],
        };
        self.command(IRQFD, &asked)
    }

    /// vCPU 0 runs, takes what pends, and ends it. Answers the interrupts.
    fn serve(&self) -> Vec<u32> {
        let interrupts = self.vm.wires().interrupts();
        let load = interrupts.vgic().unwrap().flush(0).unwrap_or_default();
        let taken = load.list.iter().map(|register| *register as u32).collect();
        let mut exited = Interrupts::default();
        for register in &load.list {
            exited.list.push(register & !(0b11 << 62));
        }
        self.vm.tell(interrupts.leave(0, &exited));
        taken
    }
}

#[test]
fn a_signal_is_an_edge() {
    let (ground, device) = Ground::with_controller();
    let fd = ground.machine.make_eventfd();
    ground.enable(32 + 8, false);
    assert_eq!(ground.irqfd(fd, 8, 0, 0), Ok(0));
    assert!(!ground.is_pending(0));
    for _ in 0..3 {
        ground.machine.write_eventfd(fd);
        ground.machine.write_eventfd(fd);
        assert!(ground.is_pending(0));
        assert_eq!(ground.machine.read_eventfd(fd), 0);
        assert_eq!(ground.serve(), [40]);
        assert!(!ground.is_pending(0));
    }
    ground.end(device);
}

#[test]
fn a_signal_before_it_was_a_line_is_not_lost() {
    let (ground, device) = Ground::with_controller();
    let fd = ground.machine.make_eventfd();
    ground.enable(40, false);
    ground.machine.write_eventfd(fd);
    assert_eq!(ground.irqfd(fd, 8, 0, 0), Ok(0));
    assert!(ground.is_pending(0));
    ground.end(device);
}

#[test]
fn routes_say_which_interrupt_a_line_is() {
    let (ground, device) = Ground::with_controller();
    let fd = ground.machine.make_eventfd();
    for spi in [40, 41] {
        ground.enable(spi, false);
    }
    ground.irqfd(fd, 3, 0, 0).unwrap();
    for (route, taken) in [
        (to(3, ROUTING_IRQCHIP, 0, 9), &[41][..]),
        (to(3, ROUTING_IRQCHIP, 0, 8), &[40]),
        (to(3, ROUTING_MSI, 0, 0), &[]),
        (to(4, ROUTING_IRQCHIP, 0, 8), &[]),
        // There is a pin, and no such interrupt.
        (to(3, ROUTING_IRQCHIP, 0, 900), &[]),
    ] {
        ground.route(&[route]).unwrap();
        ground.machine.write_eventfd(fd);
        assert_eq!(ground.serve(), taken, "{route:?}");
    }
    ground.end(device);
}

#[test]
fn a_line_that_resamples_stays_high_until_it_is_served() {
    let (ground, device) = Ground::with_controller();
    let machine = &ground.machine;
    let (fd, again) = (machine.make_eventfd(), machine.make_eventfd());
    ground.enable(40, true);
    ground.irqfd(fd, 8, IRQFD_RESAMPLE, again).unwrap();
    machine.write_eventfd(fd);
    assert!(ground.is_pending(0));
    assert_eq!(machine.read_eventfd(again), 0);
    assert_eq!(ground.serve(), [40]);
    assert_eq!(machine.read_eventfd(again), 1);
    assert!(!ground.is_pending(0));
    assert_eq!(ground.serve(), []);
    assert_eq!(machine.read_eventfd(again), 0);
    ground.end(device);
}

#[test]
fn all_that_share_a_line_are_asked_to_look_again() {
    let (ground, device) = Ground::with_controller();
    let machine = &ground.machine;
    ground.enable(40, true);
    let fds: Vec<_> = (0..3)
        .map(|_| (machine.make_eventfd(), machine.make_eventfd()))
        .collect();
    for (fd, again) in &fds {
        ground.irqfd(*fd, 8, IRQFD_RESAMPLE, *again).unwrap();
    }
    machine.write_eventfd(fds[1].0);
    assert_eq!(ground.serve(), [40]);
    for (_, again) in &fds {
        assert_eq!(machine.read_eventfd(*again), 1);
    }
    // A device that has more to say at once is not forgotten.
    ground.irqfd(fds[0].0, 8, IRQFD_DEASSIGN, 0).unwrap();
    ground.irqfd(fds[2].0, 8, IRQFD_RESAMPLE, fds[2].0).unwrap_err();
    machine.write_eventfd(fds[1].0);
    assert_eq!(ground.serve(), [40]);
    assert_eq!(machine.read_eventfd(fds[0].1), 0);
    assert_eq!(machine.read_eventfd(fds[1].1), 1);
    ground.end(device);
}

#[test]
fn there_are_only_so_many_lines() {
    let (ground, device) = Ground::with_controller();
    let again = ground.machine.make_eventfd();
    let fds: Vec<_> = (0..1000).map(|_| ground.machine.make_eventfd()).collect();
    for fd in &fds {
        assert_eq!(ground.irqfd(*fd, 8, IRQFD_RESAMPLE, again), Ok(0));
    }
    let one_more = ground.machine.make_eventfd();
    assert_eq!(ground.irqfd(one_more, 8, 0, 0), Err(Errno::NOSPC));
    ground.irqfd(fds[500], 8, IRQFD_DEASSIGN, 0).unwrap();
    assert_eq!(ground.irqfd(one_more, 8, 0, 0), Ok(0));
    ground.end(device);
}

#[test]
fn a_device_that_asks_itself_is_heard_each_time() {
    let (ground, device) = Ground::with_controller();
    let machine = &ground.machine;
    ground.enable(40, true);
    let fd = machine.make_eventfd();
    ground.irqfd(fd, 8, IRQFD_RESAMPLE, fd).unwrap();
    machine.write_eventfd(fd);
    for _ in 0..3 {
        assert_eq!(ground.serve(), [40]);
        assert!(ground.is_pending(0));
    }
    ground.end(device);
}

#[test]
fn a_line_that_goes_does_not_stay_high() {
    let (ground, device) = Ground::with_controller();
    let machine = &ground.machine;
    let (fd, again) = (machine.make_eventfd(), machine.make_eventfd());
    ground.enable(40, true);
    ground.irqfd(fd, 8, IRQFD_RESAMPLE, again).unwrap();
    machine.write_eventfd(fd);
    // Neither of these is it.
    ground.irqfd(again, 8, IRQFD_DEASSIGN, 0).unwrap();
    ground.irqfd(fd, 9, IRQFD_DEASSIGN, 0).unwrap();
    assert!(ground.is_pending(0));
    ground.irqfd(fd, 8, IRQFD_DEASSIGN, 0).unwrap();
    assert!(!ground.is_pending(0));
    machine.write_eventfd(fd);
    assert!(!ground.is_pending(0));
    assert_eq!(machine.read_eventfd(fd), 1);
    ground.end(device);
}

#[test]
fn an_eventfd_is_one_line_at_a_time() {
    let (ground, device) = Ground::with_controller();
    let fd = ground.machine.make_eventfd();
    ground.irqfd(fd, 8, 0, 0).unwrap();
    assert_eq!(ground.irqfd(fd, 8, 0, 0), Err(Errno::BUSY));
    assert_eq!(ground.irqfd(fd, 9, 0, 0), Err(Errno::BUSY));
    ground.irqfd(fd, 8, IRQFD_DEASSIGN, 0).unwrap();
    assert_eq!(ground.irqfd(fd, 9, 0, 0), Ok(0));
    assert_eq!(ground.machine.listeners(fd), 1);
    ground.end(device);
}

#[test]
fn what_is_no_eventfd_is_no_line() {
    let ground = Ground::new();
    let fd = ground.machine.make_eventfd();
    assert_eq!(ground.irqfd(fd, 8, 0, 0), Err(Errno::AGAIN));
    assert_eq!(ground.irqfd(fd, 8, IRQFD_DEASSIGN, 0), Ok(0));
    assert_eq!(ground.irqfd(fd, 8, 4, 0), Err(Errno::INVAL));
    assert_eq!(
        crate::Descriptor::ioctl(Arc::clone(&ground.vm), IRQFD, 0x10),
        Err(Errno::FAULT)
    );
    let (ground, device) = Ground::with_controller();
    let fd = ground.machine.make_eventfd();
    for flags in [0, IRQFD_DEASSIGN] {
        assert_eq!(ground.irqfd(99, 8, flags, 0), Err(Errno::BADF));
        assert_eq!(ground.irqfd(device as i32, 8, flags, 0), Err(Errno::INVAL));
    }
    assert_eq!(ground.irqfd(fd, 8, IRQFD_RESAMPLE, 99), Err(Errno::BADF));
    assert_eq!(ground.machine.listeners(fd), 0);
    assert_eq!(ground.irqfd(fd, 8, 0, 99), Ok(0));
    ground.end(device);
}

#[test]
fn an_eventfd_that_nobody_has_any_more_is_forgotten() {
    let (ground, device) = Ground::with_controller();
    let machine = &ground.machine;
    ground.enable(40, true);
    let (fd, again) = (machine.make_eventfd(), machine.make_eventfd());
    ground.irqfd(fd, 8, IRQFD_RESAMPLE, again).unwrap();
    machine.write_eventfd(fd);
    machine.close_eventfd(fd);
    assert!(ground.is_pending(0));
    ground.system.sweep();
    // Nobody would ever let the line go low.
    assert!(!ground.is_pending(0));
    ground.end(device);
}

#[test]
fn the_end_of_a_vm_is_the_end_of_its_lines() {
    let (ground, device) = Ground::with_controller();
    let machine = ground.machine.clone();
    let fd = machine.make_eventfd();
    ground.irqfd(fd, 8, 0, 0).unwrap();
    assert_eq!(machine.listeners(fd), 1);
    ground.end(device);
    assert_eq!(machine.listeners(fd), 0);
    machine.write_eventfd(fd);
    assert_eq!(machine.read_eventfd(fd), 1);
}

/// Known bug: whoever looked for closed eventfds kept the VM, so that it could end after its VMM had.
#[test]
fn a_vm_ends_while_its_eventfds_are_looked_through() {
    let (ground, device) = Ground::with_controller();
    let (machine, system) = (ground.machine.clone(), Arc::clone(&ground.system));
    let fd = machine.make_eventfd();
    ground.irqfd(fd, 8, 0, 0).unwrap();
    let (sender, receiver) = mpsc::channel();
    machine.clone().meanwhile(fd, move || {
        let el2 = ground.machine.el2.clone();
        sender.send(thread::spawn(move || ground.end(device))).unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while el2.vms() > 0 {
            assert!(Instant::now() < deadline, "the VM does not end");
            thread::yield_now();
        }
    });
    system.sweep();
    receiver.recv().unwrap().join().unwrap();
    assert_eq!(machine.listeners(fd), 0);
}
