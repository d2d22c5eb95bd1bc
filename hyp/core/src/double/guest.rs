//! A guest on the double: a program of the test's that is called where a CPU would run the guest's instructions.

use super::{Machine, held};
use crate::addr::Ipa;
use crate::geometry::Geometry;
use crate::hardware::{StreamingMode, TablePage};
use crate::sync::thread::{self, ThreadId};
use crate::trap::id::IdRegisters;
use crate::trap::inject::{Entry, Source};
use crate::vm::context::SystemRegisters;
use crate::vm::{GuestRegime, Trap, VcpuContext};
use core::fmt;
use core::ops::{Deref, DerefMut};
use std::boxed::Box;
use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;

/// The CPU that booted the double: Armv8.0 with a GICv3 and 48 bits of physical addresses.
pub(super) const CPU: IdRegisters = IdRegisters {
    pfr0: 0x0100_0022,
    mmfr0: 0x0000_0005,
    ..IdRegisters::NONE
};

/// What a test has a guest do: it is called for each run, and answers with what traps to EL2.
pub type Program = Box<dyn FnMut(&GuestRegime, &mut VcpuContext) -> Trap + Send>;

/// A value in a page of its own.
#[derive(Debug)]
pub struct Home<T> {
    page: TablePage,
    value: Box<T>,
}

impl<T> Home<T> {
    pub(crate) fn new(page: TablePage, value: T) -> Self {
        Self {
            page,
            value: Box::new(value),
        }
    }

    pub(super) fn into_page(self) -> TablePage {
        self.page
    }

    /// The page in which the value lives.
    #[must_use]
    pub const fn page(&self) -> TablePage {
        self.page
    }
}

impl<T> Deref for Home<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Home<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

/// What the double knows of guests. Each thread of a test is a CPU of its own.
#[derive(Default)]
pub(super) struct Guests {
    /// What all vCPUs do that have no program of their own.
    program: Mutex<Option<Program>>,
    /// What the vCPU of an index does.
    programs: Mutex<BTreeMap<u8, Program>>,
    loaded: Mutex<HashMap<ThreadId, Loaded>>,
    state: Mutex<State>,
}

impl fmt::Debug for Guests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guests").field("state", &self.state).finish()
    }
}

/// What a CPU has loaded of a guest.
#[derive(Clone, Copy, Debug)]
struct Loaded {
    guest: GuestRegime,
    system: SystemRegisters,
}

/// The machine, as far as guests are concerned.
#[derive(Debug, Default)]
struct State {
    streaming: bool,
    untranslatable: bool,
    entropy: Option<u64>,
}

impl<G: Geometry> Machine<G> {
    /// From now on guests do what `program` does. Without a program they are interrupted at once, and so is a guest
    /// that runs while another one has the program.
    pub fn play_guest(&self, program: Option<Program>) {
        *held(&self.guests.program) = program;
    }

    /// From now on the vCPU of this index does what `program` does, in every VM.
    pub fn play_vcpu(&self, index: u8, program: Program) {
        held(&self.guests.programs).insert(index, program);
    }

    /// Whether the host is in streaming SVE mode from now on.
    pub fn set_streaming(&self, on: bool) {
        held(&self.guests.state).streaming = on;
    }

    /// Whether stage 1 of guests translates nothing from now on. Else it translates every address to itself.
    pub fn set_untranslatable(&self, on: bool) {
        held(&self.guests.state).untranslatable = on;
    }

    /// What there is of entropy from now on: a number to which one is added each time.
    pub fn set_entropy(&self, seed: Option<u64>) {
        held(&self.guests.state).entropy = seed;
    }

    /// The guest that this thread has loaded.
    #[must_use]
    pub fn loaded_guest(&self) -> Option<GuestRegime> {
        held(&self.guests.loaded)
            .get(&thread::current().id())
            .map(|loaded| loaded.guest)
    }

    /// Looks at the system registers of the guest that this thread has loaded, or changes them.
    ///
    /// # Panics
    /// If it has loaded none.
    pub fn with_guest_registers<T>(&self, action: impl FnOnce(&mut SystemRegisters) -> T) -> T {
        let mut loaded = held(&self.guests.loaded);
        let loaded = loaded
            .get_mut(&thread::current().id())
            .expect("a guest is loaded");
        action(&mut loaded.system)
    }

    pub(super) fn guest_load(
        &self,
        guest: &GuestRegime,
        vcpu: &mut VcpuContext,
    ) -> Result<(), StreamingMode> {
        assert_eq!(self.loaded_guest(), None, "a guest is loaded already");
        if held(&self.guests.state).streaming {
            return Err(StreamingMode);
        }
        let loaded = Loaded {
            guest: *guest,
            system: vcpu.system,
        };
        held(&self.guests.loaded).insert(thread::current().id(), loaded);
        Ok(())
    }

    pub(super) fn guest_run(&self, vcpu: &mut VcpuContext) -> Trap {
        let regime = self.loaded_guest().expect("a guest that runs is loaded");
        // Taken out meanwhile, so that a program may use the machine.
        let own = held(&self.guests.programs).remove(&regime.vcpu);
        if let Some(mut program) = own {
            let trap = program(&regime, vcpu);
            held(&self.guests.programs).entry(regime.vcpu).or_insert(program);
            return trap;
        }
        let Some(mut program) = held(&self.guests.program).take() else {
            return Trap {
                kind: crate::vm::TrapKind::Interrupt,
                registers: crate::trap::syndrome::FaultRegisters::default(),
            };
        };
        let trap = program(&regime, vcpu);
        held(&self.guests.program).get_or_insert(program);
        trap
    }

    pub(super) fn guest_put(&self, guest: &GuestRegime, vcpu: &mut VcpuContext) {
        let loaded = held(&self.guests.loaded).remove(&thread::current().id());
        assert_eq!(
            loaded.map(|loaded| loaded.guest),
            Some(*guest),
            "the guest that is put is loaded"
        );
        if let Some(loaded) = loaded {
            vcpu.system = loaded.system;
        }
    }

    pub(super) fn guest_translate(&self, far: u64) -> Option<Ipa> {
        let untranslatable = held(&self.guests.state).untranslatable;
        (!untranslatable).then(|| Ipa::new(far)).flatten()
    }

    pub(super) fn guest_exception(&self, entry: &Entry) {
        self.with_guest_registers(|system| {
            system.elr_el1 = entry.elr_el1;
            system.spsr_el1 = entry.spsr_el1;
            system.esr_el1 = entry.esr_el1;
            if let Some(far) = entry.far_el1 {
                system.far_el1 = far;
            }
        });
    }

    pub(super) fn guest_source(&self, vcpu: &VcpuContext) -> Source {
        self.with_guest_registers(|system| Source {
            spsr: vcpu.pstate,
            elr: vcpu.pc,
            sctlr_el1: system.sctlr_el1,
            vbar_el1: system.vbar_el1,
            gcscr_el1: 0,
        })
    }

    pub(super) fn take_entropy(&self) -> Option<u64> {
        let mut state = held(&self.guests.state);
        state.entropy = state.entropy.map(|number| number.wrapping_add(1));
        state.entropy
    }
}
