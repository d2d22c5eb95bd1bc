//! Random guests on random machines, and what must be true of every interrupt.

use super::*;
use alloc::vec;
use proptest::prelude::*;

/// Those that are played with: two SGIs, a PPI, six SPIs, of which three are edge-triggered.
const INTIDS: [u32; 9] = [1, 9, 24, 40, 41, 42, 63, 64, 95];
const VCPUS: usize = 3;

#[derive(Clone, Copy, Debug)]
enum Step {
    Raise(usize, usize),
    Lower(usize, usize),
    Send(usize, usize, u8),
    /// Software makes it pending.
    Pend(usize),
    Enable(usize, bool),
    Priority(usize, u8),
    Route(usize, u8),
    Open(bool),
    Enter(usize),
    Leave(usize),
    Cancel(usize),
    Acknowledge(usize),
    End(usize),
    Mask(usize, u8),
}

fn step() -> impl Strategy<Value = Step> {
    let (intid, vcpu) = (0..INTIDS.len(), 0..VCPUS);
    prop_oneof![
        4 => (intid.clone(), vcpu.clone()).prop_map(|(intid, vcpu)| Step::Raise(intid, vcpu)),
        2 => (intid.clone(), vcpu.clone()).prop_map(|(intid, vcpu)| Step::Lower(intid, vcpu)),
        2 => (0..2_usize, vcpu.clone(), 0..8_u8)
            .prop_map(|(intid, sender, targets)| Step::Send(intid, sender, targets)),
        1 => intid.clone().prop_map(Step::Pend),
        1 => (intid.clone(), any::<bool>()).prop_map(|(intid, on)| Step::Enable(intid, on)),
        1 => (intid.clone(), 0..31_u8).prop_map(|(intid, level)| Step::Priority(intid, level * 8)),
        1 => (intid, 0..5_u8).prop_map(|(intid, route)| Step::Route(intid, route)),
        1 => prop::bool::weighted(0.8).prop_map(Step::Open),
        6 => vcpu.clone().prop_map(Step::Enter),
        3 => vcpu.clone().prop_map(Step::Leave),
        1 => vcpu.clone().prop_map(Step::Cancel),
        8 => vcpu.clone().prop_map(Step::Acknowledge),
        6 => vcpu.clone().prop_map(Step::End),
        1 => (vcpu, prop_oneof![Just(0x80_u8), Just(cpu::IDLE)])
            .prop_map(|(vcpu, mask)| Step::Mask(vcpu, mask)),
    ]
}

/// What is known of an interrupt without a controller. Private ones have one for each vCPU, shared ones one alone.
#[derive(Clone, Debug, Default)]
struct Known {
    /// Edges, sends and writes that may still be delivered: each once at most.
    credit: u32,
    /// There was one since it was last taken: it must be delivered.
    owed: bool,
    line: bool,
    /// The line was high at the last entry of each vCPU, or since.
    was_high: [bool; VCPUS],
    active_on: Option<usize>,
}

#[derive(Debug)]
struct Play {
    bench: Bench,
    inside: [bool; VCPUS],
    /// What each vCPU has in hand, the last on top.
    hands: [Vec<u32>; VCPUS],
    known: Vec<[Known; VCPUS]>,
}

fn is_level(intid: u32) -> bool {
    matches!(intid, 24 | 40 | 63 | 95)
}

impl Play {
    fn new(lists: u8) -> Self {
        let bench = Bench::new(VCPUS, lists);
        for intid in INTIDS.into_iter().filter(|intid| *intid >= 32) {
            bench.set_edge(intid, !is_level(intid));
        }
        Self {
            bench,
            inside: [false; VCPUS],
            hands: Default::default(),
            known: INTIDS.iter().map(|_| Default::default()).collect(),
        }
    }

    fn known(&mut self, intid: u32, vcpu: usize) -> &mut Known {
        let index = INTIDS.iter().position(|known| *known == intid).unwrap();
        &mut self.known[index][if intid < 32 { vcpu } else { 0 }]
    }

    fn edge(&mut self, intid: u32, vcpu: usize) {
        let known = self.known(intid, vcpu);
        known.credit += 1;
        known.owed = true;
    }

    /// Those that must look do so, as far as they are inside.
    fn kick(&mut self, kicks: VcpuSet) {
        for vcpu in kicks.iter().filter(|vcpu| self.inside[*vcpu]).collect::<Vec<_>>() {
            self.leave(vcpu);
            self.enter(vcpu);
        }
    }

    fn enter(&mut self, vcpu: usize) {
        self.bench.enter(vcpu);
        self.inside[vcpu] = true;
        for known in self.known.iter_mut().flatten() {
            known.was_high[vcpu] = known.line;
        }
    }

    fn leave(&mut self, vcpu: usize) {
        // The machine has no timer, and the line of a PPI is not to be touched by an exit.
        self.bench.vgic.set_timer(16).unwrap();
        let kicks = self.bench.leave(vcpu).kicks;
        self.inside[vcpu] = false;
        self.kick(kicks);
    }

    fn acknowledge(&mut self, vcpu: usize) -> Option<u32> {
        let running = self.bench.cpus[vcpu].running();
        let intid = self.bench.acknowledge(vcpu)?;
        assert!(self.bench.cpus[vcpu].running() < running);
        self.hands[vcpu].push(intid);
        let known = self.known(intid, vcpu);
        assert_eq!(known.active_on, None, "{intid} is active already");
        known.active_on = Some(vcpu);
        known.owed = false;
        if known.credit > 0 {
            known.credit -= 1;
        } else {
            // A line can be what it is taken for; an edge is not there twice.
            assert!(
                is_level(intid) && known.was_high[vcpu],
                "{intid} came from nowhere"
            );
        }
        Some(intid)
    }

    fn end(&mut self, vcpu: usize) {
        let Some(intid) = self.hands[vcpu].pop() else {
            return;
        };
        self.bench.end(vcpu, intid);
        self.known(intid, vcpu).active_on = None;
    }

    fn look_after(&mut self, vcpu: usize) {
        if self.inside[vcpu] && self.bench.cpus[vcpu].maintenance() != 0 {
            self.leave(vcpu);
            self.enter(vcpu);
        }
    }

    fn play(&mut self, step: Step) {
        match step {
            Step::Raise(index, vcpu) => {
                let intid = INTIDS[index];
                if intid < 16 {
                    return;
                }
                if is_level(intid) {
                    let known = self.known(intid, vcpu);
                    known.line = true;
                    known.was_high = [true; VCPUS];
                } else {
                    self.edge(intid, vcpu);
                }
                let kicks = self.bench.raise(intid, vcpu);
                self.kick(kicks);
            }
            Step::Lower(index, vcpu) => {
                let intid = INTIDS[index];
                if intid < 16 {
                    return;
                }
                self.known(intid, vcpu).line = false;
                let kicks = self.bench.lower(intid, vcpu);
                self.kick(kicks);
            }
            Step::Send(index, sender, targets) => {
                let intid = INTIDS[index];
                for vcpu in (0..VCPUS).filter(|vcpu| targets >> vcpu & 1 != 0) {
                    self.edge(intid, vcpu);
                }
                let value = u64::from(intid) << 24 | u64::from(targets);
                let kicks = self.bench.vgic.send(sender, SgiRegister::Group1, value);
                self.kick(kicks);
            }
            Step::Pend(index) => {
                self.edge(INTIDS[index], 0);
                let kicks = self.bench.bit(ISPENDR, INTIDS[index]);
                self.kick(kicks);
            }
            Step::Enable(index, on) => {
                let register = if on { ISENABLER } else { ICENABLER };
                let kicks = self.bench.bit(register, INTIDS[index]);
                self.kick(kicks);
            }
            Step::Priority(index, priority) => self.bench.set_priority(INTIDS[index], priority),
            Step::Route(index, route) => {
                let route = if route == 4 { 1 << 31 } else { route.into() };
                let kicks = self.bench.route(INTIDS[index], route);
                self.kick(kicks);
            }
            Step::Open(open) => {
                let kicks = self.bench.write(CTLR, u64::from(open) << 1);
                self.kick(kicks);
            }
            Step::Enter(vcpu) if !self.inside[vcpu] => self.enter(vcpu),
            Step::Leave(vcpu) if self.inside[vcpu] => self.leave(vcpu),
            Step::Cancel(vcpu) if !self.inside[vcpu] => {
                let _ = self.bench.vgic.flush(vcpu);
                let kicks = self.bench.vgic.cancel(vcpu);
                self.kick(kicks);
            }
            Step::Acknowledge(vcpu) if self.inside[vcpu] => {
                self.acknowledge(vcpu);
                self.look_after(vcpu);
            }
            Step::End(vcpu) if self.inside[vcpu] => {
                self.end(vcpu);
                self.look_after(vcpu);
            }
            Step::Mask(vcpu, mask) => self.bench.cpus[vcpu].mask = mask,
            _ => {}
        }
    }

    /// The end: everything is let through to vCPU 0, devices are content once they are served, and nothing is left.
    fn settle(&mut self) {
        for intid in INTIDS {
            self.bench.enable(intid);
            self.bench.route(intid, 0);
        }
        self.bench.write(CTLR, 2);
        for vcpu in 0..VCPUS {
            self.bench.cpus[vcpu].mask = cpu::IDLE;
            // Whoever was to look does so now.
            if self.inside[vcpu] {
                self.leave(vcpu);
            }
        }
        for vcpu in 0..VCPUS {
            self.enter(vcpu);
        }
        for round in 0.. {
            assert!(round < 200, "no end of it");
            let mut idle = true;
            for vcpu in 0..VCPUS {
                self.look_after(vcpu);
                while let Some(intid) = self.acknowledge(vcpu) {
                    idle = false;
                    if is_level(intid) {
                        self.play(Step::Lower(
                            INTIDS.iter().position(|known| *known == intid).unwrap(),
                            vcpu,
                        ));
                    }
                    self.look_after(vcpu);
                }
                while !self.hands[vcpu].is_empty() {
                    idle = false;
                    self.end(vcpu);
                    self.look_after(vcpu);
                }
                self.leave(vcpu);
                self.enter(vcpu);
            }
            if idle {
                break;
            }
        }
        for (index, known) in self.known.iter().enumerate() {
            for (vcpu, known) in known.iter().enumerate() {
                let what = (INTIDS[index], vcpu);
                assert!(!known.owed, "lost: {what:?}");
                assert!(!known.line, "its line is high, and nobody takes it: {what:?}");
                assert_eq!(known.active_on, None);
            }
        }
        for vcpu in 0..VCPUS {
            self.leave(vcpu);
            assert!(!self.bench.vgic.is_pending(vcpu));
        }
        for intid in INTIDS {
            assert!(!self.bench.has_bit(ISACTIVER, intid), "{intid} stays active");
            assert!(!self.bench.has_bit(ISPENDR, intid), "{intid} stays pending");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(150) })]

    #[test]
    fn none_is_lost_and_none_comes_twice(
        lists in prop_oneof![Just(1_u8), Just(2), Just(4), Just(16)],
        steps in prop::collection::vec(step(), 1..300),
    ) {
        let mut play = Play::new(lists);
        for step in steps {
            play.play(step);
        }
        play.settle();
    }

    #[test]
    fn what_is_taken_first_is_the_most_urgent(
        lists in prop_oneof![Just(1_u8), Just(4), Just(16)],
        raised in prop::collection::vec((32..96_u32, 0..31_u8), 1..40),
    ) {
        let mut bench = Bench::new(1, lists);
        for (intid, priority) in &raised {
            bench.set_edge(*intid, true);
            bench.set_priority(*intid, priority * 8);
            bench.raise(*intid, 0);
        }
        let mut taken = bench.drain(0);
        let priorities: Vec<_> = (taken.iter())
            .map(|intid| bench.read(IPRIORITYR + u64::from(intid & !3)) >> (8 * (intid & 3)) & 0xff)
            .collect();
        prop_assert!(priorities.is_sorted());
        taken.sort_unstable();
        let mut all: Vec<_> = raised.iter().map(|(intid, _)| *intid).collect();
        all.sort_unstable();
        all.dedup();
        prop_assert_eq!(taken, all);
    }
}
