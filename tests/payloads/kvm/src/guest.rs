//! Guests: a VM with memory and vCPUs, and a program that does what a list says.
#![expect(
    unsafe_code,
    reason = "the program is in assembly, and is copied from where it lies"
)]

mod own;

pub(crate) use own::{OwnGuest, own_slot, set_own_slot};

use crate::device::{
    ARM_VCPU_INIT, CREATE_GUEST_MEMFD, CREATE_VCPU, Errno, Fd, GET_MP_STATE, GET_ONE_REG, GET_REG_LIST, Kvm,
    Mapping, PROTECTED, RUN, SET_MP_STATE, SET_ONE_REG, SET_SIGNAL_MASK, SET_USER_MEMORY_REGION2,
};
use kvm_bindings::{
    KVM_MEM_GUEST_MEMFD, kvm_create_guest_memfd, kvm_mp_state, kvm_one_reg, kvm_userspace_memory_region2,
    kvm_vcpu_init,
};

core::arch::global_asm!(include_str!("guest.S"));

unsafe extern "C" {
    static guest_start: u8;
    static guest_end: u8;
}

/// Bytes in a page.
pub(crate) const P: u64 = 4096;
/// Where the guest's memory begins: its program, the lists of two vCPUs, and what it works with.
pub(crate) const BASE: u64 = 0x8000_0000;
/// Where its lists lie.
const LISTS: u64 = P;
/// Where what it works with lies.
pub(crate) const DATA: u64 = BASE + 4 * P;
/// The device that it reports to.
pub(crate) const REPORT: u64 = 0x0900_0000;
/// Pages of its memory.
pub(crate) const PAGES: u64 = 16;

/// Names of registers.
const X0: u64 = 0x6030_0000_0010_0000;
const PC: u64 = 0x6030_0000_0010_0040;

/// Calls.
pub(crate) const SHARE: u64 = 0xc600_0003;
pub(crate) const UNSHARE: u64 = 0xc600_0004;
pub(crate) const RELINQUISH: u64 = 0xc600_0009;
pub(crate) const CPU_OFF: u64 = 0x8400_0002;
pub(crate) const CPU_ON: u64 = 0xc400_0003;
pub(crate) const SYSTEM_RESET: u64 = 0x8400_0009;

/// What the guest does. See `guest.S`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Do {
    Off,
    Load(u64, u64),
    Store(u64, u64, u64),
    Call(u64, u64, u64, u64),
    Report(u64),
    Wait,
    Timer(u64),
    TimerState,
    Spin,
    Fill(u64, u64, u64),
    Check(u64, u64, u64),
    /// On with the list of a vCPU.
    Go(u64),
    LoadSigned(u64),
    /// Interrupts come from now on.
    Interrupts,
    /// Takes an interrupt, ends it, and reports it. It waits for it, or looks all the time.
    Take {
        waits: bool,
    },
    /// Sends one: see ICC_SGI1R_EL1.
    Send(u64),
    /// Gives its registers values that begin with a number.
    FillRegisters(u64),
    /// Reports how many have another.
    CheckRegisters(u64),
    /// Reports its time.
    Time,
    /// Takes an interrupt and reports it, and does not end it.
    Acknowledge,
    /// Ends one.
    End(u64),
    /// Reports its interface to the controller: priority mask, binary point, whether group 1 is on, running priority; a
    /// byte each, the mask the lowest.
    Interface,
    /// Reports how many ticks a call takes, and then what it answers.
    CountCall(u64, u64, u64, u64),
    /// Reports how many a store takes.
    CountStore(u64, u64),
    /// Reports how many take the reads of the time alone.
    CountNothing,
}

impl Do {
    fn words(self) -> [u64; 5] {
        match self {
            Self::Off => [0; 5],
            Self::Load(bytes, address) => [1, bytes, address, 0, 0],
            Self::Store(bytes, address, value) => [2, bytes, address, value, 0],
            Self::Call(x0, x1, x2, x3) => [3, x0, x1, x2, x3],
            Self::Report(value) => [4, value, 0, 0, 0],
            Self::Wait => [5, 0, 0, 0, 0],
            Self::Timer(ticks) => [6, ticks, 0, 0, 0],
            Self::TimerState => [7, 0, 0, 0, 0],
            Self::Spin => [8, 0, 0, 0, 0],
            Self::Fill(address, bytes, value) => [9, address, bytes, value, 0],
            Self::Check(address, bytes, value) => [10, address, bytes, value, 0],
            Self::Go(vcpu) => [11, list_of(vcpu), 0, 0, 0],
            Self::LoadSigned(address) => [12, address, 0, 0, 0],
            Self::Interrupts => [13, 0, 0, 0, 0],
            Self::Take { waits } => [14, waits.into(), 0, 0, 0],
            Self::Send(value) => [15, value, 0, 0, 0],
            Self::FillRegisters(value) => [16, value, 0, 0, 0],
            Self::CheckRegisters(value) => [17, value, 0, 0, 0],
            Self::Time => [18, 0, 0, 0, 0],
            Self::Acknowledge => [19, 0, 0, 0, 0],
            Self::End(interrupt) => [20, interrupt, 0, 0, 0],
            Self::CountCall(x0, x1, x2, x3) => [21, x0, x1, x2, x3],
            Self::CountStore(address, value) => [22, address, value, 0, 0],
            Self::CountNothing => [23, 0, 0, 0, 0],
            Self::Interface => [24, 0, 0, 0, 0],
        }
    }
}

/// Where the list of a vCPU lies.
pub(crate) const fn list_of(vcpu: u64) -> u64 {
    BASE + LISTS + vcpu * P
}

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Load(u64, u32),
    Store(u64, u32, u64),
    Signal,
    Event(u32),
    /// The flags, the address, the size.
    MemoryFault([u64; 3]),
    Other(u32),
}

/// A vCPU with its page.
#[derive(Debug)]
pub(crate) struct Vcpu {
    pub(crate) fd: Fd,
    pub(crate) page: Mapping,
}

impl Vcpu {
    pub(crate) fn create(vm: &Fd, index: u64) -> Result<Self, Errno> {
        let fd = vm.make(CREATE_VCPU, index)?;
        let page = Mapping::of(&fd, 0, P)?;
        Ok(Self { fd, page })
    }

    pub(crate) fn init(&self, features: u32) -> Result<(), Errno> {
        let mut init = kvm_vcpu_init {
            target: 5,
            ..Default::default()
        };
        init.features[0] = features;
        self.fd.pass(ARM_VCPU_INIT, &mut init).map(drop)
    }

    pub(crate) fn set(&self, id: u64, value: u64) -> Result<(), Errno> {
        let mut register = kvm_one_reg {
            id,
            addr: (&raw const value) as u64,
        };
        self.fd.pass(SET_ONE_REG, &mut register).map(drop)
    }

    pub(crate) fn get(&self, id: u64) -> Result<u64, Errno> {
        let mut value = [0_u64; 2];
        self.get_whole(id, &mut value)?;
        Ok(value[0])
    }

    pub(crate) fn get_whole(&self, id: u64, value: &mut [u64; 2]) -> Result<(), Errno> {
        let mut register = kvm_one_reg {
            id,
            addr: (&raw mut *value).expose_provenance() as u64,
        };
        self.fd.pass(GET_ONE_REG, &mut register).map(drop)
    }

    pub(crate) fn set_whole(&self, id: u64, value: &[u64; 2]) -> Result<(), Errno> {
        let mut register = kvm_one_reg {
            id,
            addr: (&raw const *value).expose_provenance() as u64,
        };
        self.fd.pass(SET_ONE_REG, &mut register).map(drop)
    }

    /// The names of all registers.
    pub(crate) fn list(&self) -> Result<Vec<u64>, Errno> {
        let mut list = vec![0_u64; 512];
        list[0] = 511;
        let address = list.as_mut_ptr().expose_provenance() as u64;
        self.fd.ioctl(GET_REG_LIST, address)?;
        let count = list[0] as usize;
        Ok(list.drain(1..=count).collect())
    }

    pub(crate) fn state(&self) -> Result<u32, Errno> {
        let mut state = kvm_mp_state::default();
        self.fd.pass(GET_MP_STATE, &mut state)?;
        Ok(state.mp_state)
    }

    pub(crate) fn set_state(&self, mp_state: u32) -> Result<(), Errno> {
        self.fd
            .pass(SET_MP_STATE, &mut kvm_mp_state { mp_state })
            .map(drop)
    }

    /// Which signals wait while it runs: those of the bits, or those that the thread has blocked.
    pub(crate) fn set_signals(&self, signals: Option<u64>) -> Result<(), Errno> {
        let Some(signals) = signals else {
            return self.fd.ioctl(SET_SIGNAL_MASK, 0).map(drop);
        };
        let [low, high] = [signals as u32, (signals >> 32) as u32];
        let mask = [8, low, high];
        let address = mask.as_ptr().expose_provenance() as u64;
        self.fd.ioctl(SET_SIGNAL_MASK, address).map(drop)
    }

    /// Brings to an end what user space has done for the guest, which does not go on.
    pub(crate) fn settle(&self) -> Result<(), Errno> {
        self.want_exit(true);
        let done = self.run();
        self.want_exit(false);
        match done {
            Err(Errno(libc::EINTR)) => Ok(()),
            Ok(exit) => panic!("it goes on to {exit:x?}"),
            Err(error) => Err(error),
        }
    }

    /// Where it begins, and with what in x0.
    pub(crate) fn begin_at(&self, pc: u64, x0: u64) -> Result<(), Errno> {
        self.set(PC, pc)?;
        self.set(X0, x0)
    }

    pub(crate) fn want_exit(&self, wanted: bool) {
        self.page.write::<u8>(1, wanted.into());
    }

    /// Why the last run ended.
    pub(crate) fn exit(&self) -> Exit {
        let word = |offset| self.page.read::<u64>(offset);
        match self.page.read::<u32>(8) {
            6 if self.page.read::<u8>(52) == 0 => Exit::Load(word(32), self.page.read(48)),
            6 => Exit::Store(word(32), self.page.read(48), word(40)),
            10 => Exit::Signal,
            24 => Exit::Event(self.page.read(32)),
            39 => Exit::MemoryFault([word(32), word(40), word(48)]),
            other => Exit::Other(other),
        }
    }

    pub(crate) fn run(&self) -> Result<Exit, Errno> {
        self.fd.ioctl(RUN, 0).map(|_| self.exit())
    }

    /// Answers a load.
    pub(crate) fn answer(&self, value: u64) {
        self.page.write(40, value);
    }

    /// Runs, and expects a report.
    pub(crate) fn reported(&self) -> Result<u64, String> {
        match self.run() {
            Ok(Exit::Store(REPORT, 8, value)) => Ok(value),
            other => Err(format!("no report but {other:x?}")),
        }
    }

    /// Runs, and expects that report.
    pub(crate) fn reports(&self, what: &str, value: u64) -> Result<(), String> {
        let got = self.reported().map_err(|error| format!("{what}: {error}"))?;
        if got == value {
            Ok(())
        } else {
            Err(format!("{what}: {got:#x}, not {value:#x}"))
        }
    }

    /// Runs, and expects that the guest turns itself off.
    pub(crate) fn turns_off(&self) -> Result<(), String> {
        match self.run() {
            Ok(Exit::Event(1)) => Ok(()),
            other => Err(format!("it does not turn itself off but {other:x?}")),
        }
    }
}

/// Both kinds of VMs.
pub(crate) const KINDS: [u64; 2] = [0, PROTECTED];

/// Makes a file.
pub(crate) fn memfd(vm: &Fd, size: u64, flags: u64) -> Result<Fd, Errno> {
    let mut asked = kvm_create_guest_memfd {
        size,
        flags,
        ..Default::default()
    };
    vm.make_by(CREATE_GUEST_MEMFD, &mut asked)
}

/// A slot of a file.
pub(crate) fn slot(slot: u32, gpa: u64, size: u64, file: i32, offset: u64) -> kvm_userspace_memory_region2 {
    kvm_userspace_memory_region2 {
        slot,
        flags: KVM_MEM_GUEST_MEMFD,
        guest_phys_addr: gpa,
        memory_size: size,
        guest_memfd: file as u32,
        guest_memfd_offset: offset,
        ..Default::default()
    }
}

/// Adds a slot, or deletes it.
pub(crate) fn set_slot(vm: &Fd, mut slot: kvm_userspace_memory_region2) -> Result<(), Errno> {
    vm.pass(SET_USER_MEMORY_REGION2, &mut slot).map(drop)
}

/// Maps a file that can be, and is shared from the start.
pub(crate) const MMAP_SHARED: u64 = 3;

/// A VM with the program in its memory, which is mapped, and vCPUs. Secondary ones are off.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) vm: Fd,
    pub(crate) file: Fd,
    pub(crate) memory: Mapping,
    pub(crate) vcpus: Vec<Vcpu>,
}

impl Guest {
    pub(crate) fn new(kind: u64, lists: &[&[Do]]) -> Result<Self, String> {
        Self::try_new(kind, lists).map_err(|error| format!("a guest: {error:?}"))
    }

    fn try_new(kind: u64, lists: &[&[Do]]) -> Result<Self, Errno> {
        let vm = Kvm::open()?.create_vm(kind)?;
        let file = memfd(&vm, PAGES * P, MMAP_SHARED)?;
        set_slot(&vm, slot(0, BASE, PAGES * P, file.raw(), 0))?;
        let memory = Mapping::of(&file, 0, PAGES * P)?;
        write_program(&memory, 0);
        let vcpus = make_vcpus(&vm, &memory, lists)?;
        Ok(Self {
            vm,
            file,
            memory,
            vcpus,
        })
    }

    /// The only vCPU, or the first.
    pub(crate) fn vcpu(&self) -> &Vcpu {
        &self.vcpus[0]
    }
}

/// Copies the program to a place in memory.
fn write_program(memory: &Mapping, at: u64) {
    let program = (&raw const guest_start).addr()..(&raw const guest_end).addr();
    for (offset, address) in (at..).zip(program) {
        // SAFETY: the program lies there.
        let byte = unsafe { core::ptr::with_exposed_provenance::<u8>(address).read() };
        memory.write(offset, byte);
    }
}

/// Writes the list of a vCPU, and returns where the guest finds it.
fn write_list(memory: &Mapping, vcpu: u64, list: &[Do]) -> u64 {
    for (index, entry) in list.iter().chain([&Do::Off]).enumerate() {
        for (word, value) in entry.words().into_iter().enumerate() {
            let offset = LISTS + vcpu * P + index as u64 * 64 + word as u64 * 8;
            memory.write(offset, value);
        }
    }
    list_of(vcpu)
}

/// Makes a vCPU for each list. The first begins with the program at [`BASE`], the others are off.
fn make_vcpus(vm: &Fd, memory: &Mapping, lists: &[&[Do]]) -> Result<Vec<Vcpu>, Errno> {
    let mut vcpus = Vec::new();
    for (index, list) in (0..).zip(lists) {
        let guest_list = write_list(memory, index, list);
        let vcpu = Vcpu::create(vm, index)?;
        vcpu.init(if index == 0 { 4 } else { 5 })?;
        if index == 0 {
            vcpu.begin_at(BASE, guest_list)?;
        }
        vcpus.push(vcpu);
    }
    Ok(vcpus)
}
