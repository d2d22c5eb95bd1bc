//! Devices, routes and vCPUs at the same time: whoever sleeps is woken, and nothing waits for ever.

use super::*;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use core::time::Duration;
use std::thread;
use std::time::Instant;

const VCPUS: usize = 3;
const DEVICES: u32 = 4;
const ROUNDS: u32 = 2000;
/// What takes longer, does not come any more.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Machine {
    vgic: Vgic,
    /// Somebody wants the vCPU to look.
    requests: [AtomicBool; VCPUS],
    /// How often each device's interrupt was taken.
    taken: [AtomicU32; DEVICES as usize],
    stop: AtomicBool,
}

impl Machine {
    fn kick(&self, kicks: VcpuSet) {
        for vcpu in kicks.iter() {
            self.requests[vcpu].store(true, Ordering::SeqCst);
        }
    }

    fn stops(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    fn is_wanted(&self, vcpu: usize) -> bool {
        self.requests[vcpu].load(Ordering::SeqCst)
    }

    /// A vCPU, until the machine stops: it sleeps if nothing is pending, and otherwise is in the guest until it is wanted.
    fn run(&self, vcpu: usize) {
        let mut cpu = Cpu::new(2);
        while !self.stops() {
            if !self.vgic.is_pending(vcpu) {
                while !self.is_wanted(vcpu) && !self.stops() {
                    thread::yield_now();
                }
            }
            self.requests[vcpu].store(false, Ordering::SeqCst);
            if let Some(load) = self.vgic.flush(vcpu) {
                cpu.load(&load);
            }
            while !self.is_wanted(vcpu) && cpu.maintenance() == 0 {
                let Some(intid) = cpu.acknowledge() else { break };
                if let Some(taken) = self.taken.get((intid.wrapping_sub(40)) as usize) {
                    taken.fetch_add(1, Ordering::SeqCst);
                }
                cpu.end(intid);
            }
            self.kick(self.vgic.sync(vcpu, &cpu.save()).kicks);
        }
    }

    /// A device: an edge, and another when the one before was taken.
    fn serve(&self, device: u32) {
        for round in 0..ROUNDS {
            let intid = 40 + device;
            self.kick(self.vgic.set_level(intid, 0, true).unwrap());
            let begin = Instant::now();
            while self.taken[device as usize].load(Ordering::SeqCst) <= round {
                assert!(begin.elapsed() < PATIENCE, "{intid} is lost in round {round}");
                thread::yield_now();
            }
        }
    }

    /// Something that sends the interrupts elsewhere all the time.
    fn reroute(&self) {
        let routes = [0, 1, 2, 1 << 31];
        for (step, route) in (0..DEVICES).cycle().zip(routes.into_iter().cycle().step_by(3)) {
            if self.stops() {
                break;
            }
            let offset = IROUTER + u64::from(40 + step) * 8;
            self.kick(self.vgic.write(Frame::Distributor, offset, 8, route));
            thread::yield_now();
        }
    }
}

#[test]
fn devices_and_routes_and_vcpus_lose_nothing_to_each_other() {
    let bench = Bench::new(VCPUS, 2);
    for device in 0..DEVICES {
        bench.set_edge(40 + device, true);
    }
    let machine = Machine {
        vgic: bench.vgic,
        requests: Default::default(),
        taken: Default::default(),
        stop: AtomicBool::new(false),
    };
    let machine = &machine;
    thread::scope(|scope| {
        for vcpu in 0..VCPUS {
            scope.spawn(move || machine.run(vcpu));
        }
        scope.spawn(|| machine.reroute());
        let devices: Vec<_> = (0..DEVICES)
            .map(|device| scope.spawn(move || machine.serve(device)))
            .collect();
        let results: Vec<_> = devices.into_iter().map(|device| device.join()).collect();
        machine.stop.store(true, Ordering::SeqCst);
        assert!(results.iter().all(Result::is_ok));
    });
    for taken in &machine.taken {
        assert_eq!(taken.load(Ordering::SeqCst), ROUNDS);
    }
}
