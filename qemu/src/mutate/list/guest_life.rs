//! Errors about VMs and vCPUs: their beginning and end, what the host is told of them, and what it may tell them.

use super::{Layer, Mutation};

const CREATE: &str = "hyp/core/src/vm/create.rs";
const STATE: &str = "hyp/core/src/vm/state.rs";
const LAUNCH: &str = "hyp/core/src/vm/launch.rs";
const ABORT: &str = "hyp/core/src/vm/abort.rs";
const VMS: &str = "hyp/core/src/vm/table.rs";
const DESTROY: &str = "hyp/core/src/vm/destroy.rs";
const KEEP: &str = "hyp/core/src/vm/keep.rs";
const ENTRY: &str = "hyp/core/src/vm/entry.rs";
const POWER: &str = "hyp/core/src/vm/psci.rs";

pub(super) const MUTATIONS: &[Mutation] = &[
    // A VM that cannot be created for want of its second page keeps its first ones.
    Mutation {
        name: "refused-vm-keeps-its-root",
        like: Some("create-VM error keeps donated memory"),
        file: CREATE,
        find: "hw.give_root(root, shape.root_pages);
            return Err(lacking);",
        replace: "return Err(lacking);",
        caught_by: Layer::Unit,
    },
    // The same for a vCPU whose run page is no good.
    Mutation {
        name: "refused-vcpu-keeps-its-page",
        like: Some("create-VM error keeps donated memory"),
        file: CREATE,
        find: "hw.free_page(page);
            let own =",
        replace: "let own =",
        caught_by: Layer::Unit,
    },
    // All VMs have one VMID.
    Mutation {
        name: "every-vm-has-the-same-vmid",
        like: Some("missing VMID switch"),
        file: CREATE,
        find: "let regime = Regime::Guest(u16::from(handle.slot));",
        replace: "let regime = Regime::Guest(1);",
        caught_by: Layer::Unit,
    },
    // A VM goes while it still borrows frames.
    Mutation {
        name: "borrowed-frames-forgotten-at-the-end",
        like: None,
        file: STATE,
        find: "self.private + self.shared + self.borrowed + self.in_transit",
        replace: "self.private + self.shared + self.in_transit",
        caught_by: Layer::Unit,
    },
    // Where the boot vCPU begins is not digested.
    Mutation {
        name: "entry-point-not-digested",
        like: None,
        file: LAUNCH,
        find: "start.entry,
            start.argument,
            self.ranges.len() as u64,",
        replace: "start.argument,
            self.ranges.len() as u64,",
        caught_by: Layer::Unit,
    },
    // A VM is launched while frames that the digest lacks are on their way to it.
    Mutation {
        name: "launch-during-a-donation",
        like: None,
        file: LAUNCH,
        find: "if vm.counts.in_transit != 0 {
            return Err(Status::Busy);
            }",
        replace: "",
        caught_by: Layer::Unit,
    },
    // An access to a device runs into the next page, which was never judged.
    Mutation {
        name: "device-access-across-pages",
        like: None,
        file: ABORT,
        find: "!abort.stage1_walk && !abort.cache_maintenance && end <= FRAME_SIZE",
        replace: "!abort.stage1_walk && !abort.cache_maintenance && end <= 2 * FRAME_SIZE",
        caught_by: Layer::Unit,
    },
    // The host is told a whole register where a part of it was stored.
    Mutation {
        name: "whole-register-told-for-a-narrow-store",
        like: None,
        file: ABORT,
        find: "let value = described.stored(&self.context().x, big_endian);",
        replace: "let _ = big_endian;
            let value = self.context().x[usize::from(described.register) % 31];",
        caught_by: Layer::Unit,
    },
    // A handle of a VM that is gone names the next one in its slot.
    Mutation {
        name: "stale-handle-accepted",
        like: None,
        file: VMS,
        find: ".filter(|vm| vm.handle == handle)",
        replace: ".filter(|vm| vm.handle.slot == handle.slot)",
        caught_by: Layer::Unit,
    },
    // A VM goes while a CPU runs one of its vCPUs.
    Mutation {
        name: "vm-ends-under-a-running-vcpu",
        like: None,
        file: DESTROY,
        find: "if vm.running() != 0 {
            return Err(Status::VcpuRunning);
            }",
        replace: "",
        caught_by: Layer::Unit,
    },
    // A VM's handle changes while a CPU runs one of its vCPUs.
    Mutation {
        name: "vm-renamed-under-a-running-vcpu",
        like: None,
        file: KEEP,
        find: "if vm.running() != 0 {
            return Err(Status::VcpuRunning);
            }",
        replace: "",
        caught_by: Layer::Unit,
    },
    // The run page of a vCPU that is gone stays pinned.
    Mutation {
        name: "run-page-stays-pinned",
        like: None,
        file: DESTROY,
        find: "self.unpin(run_page)
                                .expect(\"the run page of a vCPU is shared and pinned, and its region keeps its node\");",
        replace: "let _ = run_page;",
        caught_by: Layer::Unit,
    },
    // The host sets the hardware bit of a list register, and a guest ends a physical interrupt.
    Mutation {
        name: "list-register-not-masked",
        like: None,
        file: ENTRY,
        find: "const LIST_ALLOWED: u64 = 0b11 << 62 | 1 << 60",
        replace: "const LIST_ALLOWED: u64 = 0b111 << 61 | 1 << 60",
        caught_by: Layer::Unit,
    },
    // The host's answer completes an exit that asks for none.
    Mutation {
        name: "answer-not-judged",
        like: None,
        file: ENTRY,
        find: "if !is_an_answer(pending, answer) {
            return Err(Status::InvalidParameter);
            }",
        replace: "",
        caught_by: Layer::Unit,
    },
    // A word of the run page is read twice, and the host writes between.
    Mutation {
        name: "run-page-read-twice",
        like: None,
        file: ENTRY,
        find: "self.count = head[ENTRY_LIST_COUNT];",
        replace: "hw.shared_load(page, ENTRY_LIST_COUNT, core::slice::from_mut(&mut self.count))
            .map_err(|_| Status::Poisoned)?;",
        caught_by: Layer::Unit,
    },
    // More list registers are filled than the CPU has.
    Mutation {
        name: "too-many-list-registers",
        like: None,
        file: ENTRY,
        find: "if self.count > u64::from(hw.guest_support().list_registers) {",
        replace: "if self.count > MAX_LIST_REGISTERS as u64 {",
        caught_by: Layer::Unit,
    },
    // A vCPU is turned on where no address of the VM is.
    Mutation {
        name: "entry-point-not-checked",
        like: None,
        file: POWER,
        find: "if entry & 3 == 0 && entry >> self.regime.ipa_bits == 0 {",
        replace: "if entry & 3 == 0 || entry >> self.regime.ipa_bits == 0 {",
        caught_by: Layer::Unit,
    },
    // A VM that turned itself off runs on.
    Mutation {
        name: "system-off-without-effect",
        like: None,
        file: POWER,
        find: "*off = true;",
        replace: "let _ = off;",
        caught_by: Layer::Unit,
    },
];
