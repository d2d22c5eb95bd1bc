//! A machine with a host, and what every test of it asks at the end.

use crate::account::{Counted, Purpose};
use crate::fake::{FIRST, FRAMES, Fake};
use crate::memfd::{GuestMemfd, MemfdConfig};
use crate::provider::{Allocated, Buddy, Contents, Provider, Source};
use crate::vcpu::{Entry, PinnedPolicy};
use crate::{Block, Error, Exit, Host, Pfn, SlotConfig, Vcpu, Vm, VmConfig};
use alloc::sync::Arc;
use alloc::vec;
use core::ops::RangeInclusive;
use core::sync::atomic::{AtomicI64, Ordering};
use hyp_abi::GuestRange;
use hyp_abi::vm::VmFlags;

/// Bytes in a page.
pub(crate) const P: u64 = 4096;

/// Where the guest's memory begins.
pub(crate) const IPA: u64 = 0x8000_0000;
pub(crate) const GFN: u64 = IPA / P;

/// A buddy whose allocations can be made to fail.
#[derive(Debug)]
pub(crate) struct Flaky {
    pub(crate) buddy: Buddy,
    /// How many more allocations succeed; negative: all.
    left: AtomicI64,
}

impl Provider for Flaky {
    fn orders(&self) -> RangeInclusive<u8> {
        self.buddy.orders()
    }

    fn allocate(&self, order: u8, contents: Contents) -> Option<Allocated> {
        if self.left.load(Ordering::SeqCst) == 0 {
            return None;
        }
        self.left.fetch_sub(1, Ordering::SeqCst);
        self.buddy.allocate(order, contents)
    }

    fn free(&self, block: Block) {
        self.buddy.free(block);
    }
}

#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) fake: Fake,
    pub(crate) host: Arc<Host<Fake>>,
    pub(crate) provider: Arc<Flaky>,
    pub(crate) account: Arc<Counted>,
}

impl Machine {
    pub(crate) fn new() -> Self {
        let fake = Fake::new();
        let buddy = Buddy::new();
        buddy.add(Pfn::new(FIRST).unwrap(), FRAMES);
        let provider = Arc::new(Flaky {
            buddy,
            left: AtomicI64::new(-1),
        });
        let account = Arc::new(Counted::new(u64::MAX));
        let source = Source::new(provider.clone(), account.clone());
        Self {
            host: Host::new(fake.clone(), source),
            fake,
            provider,
            account,
        }
    }

    pub(crate) fn source(&self) -> Source {
        Source::new(self.provider.clone(), self.account.clone())
    }

    /// Lets so many allocations succeed, and then none.
    pub(crate) fn fail_after(&self, allocations: i64) {
        self.provider.left.store(allocations, Ordering::SeqCst);
    }

    pub(crate) fn never_fail(&self) {
        self.fail_after(-1);
    }

    pub(crate) fn vm(&self, flags: VmFlags) -> Vm<Fake> {
        self.try_vm(flags).unwrap()
    }

    pub(crate) fn try_vm(&self, flags: VmFlags) -> Result<Vm<Fake>, Error> {
        let config = VmConfig {
            flags,
            vcpus: 4,
            ipa_bits: 40,
            memory: vec![GuestRange::new(GFN, 4096)],
        };
        Vm::create(&self.host, &config)
    }

    pub(crate) fn protected(&self) -> Vm<Fake> {
        self.vm(VmFlags::PROTECTED)
    }

    pub(crate) fn plain(&self) -> Vm<Fake> {
        self.vm(VmFlags::empty())
    }

    pub(crate) fn file(&self, vm: &Vm<Fake>, pages: u64) -> GuestMemfd<Fake> {
        self.file_with(vm, MemfdConfig::new(pages * P))
    }

    pub(crate) fn file_with(&self, vm: &Vm<Fake>, config: MemfdConfig) -> GuestMemfd<Fake> {
        GuestMemfd::create(vm, config, self.source()).unwrap()
    }

    /// A launched guest with one vCPU and all of a file at [`IPA`].
    pub(crate) fn guest(&self, flags: VmFlags, config: MemfdConfig) -> Guest {
        let vm = self.vm(flags);
        let file = self.file_with(&vm, config);
        vm.add_slot(slot(0, IPA, config.size, &file, 0)).unwrap();
        let vcpu = vm.create_vcpu(0).unwrap();
        vm.launch(IPA, 0).unwrap();
        Guest { vm, file, vcpu }
    }

    /// Asks that everything is the host's again, and nothing is charged, once EL2 gave its pages back.
    pub(crate) fn assert_nothing_left(&self) {
        assert_eq!(self.fake.vms(), 0, "VMs");
        self.host.drain().unwrap();
        assert_eq!(self.fake.taken(), 0, "frames that are not the host's");
        assert_eq!(self.account.charged(Purpose::Guest), 0, "guest memory");
        assert_eq!(self.account.charged(Purpose::RunPage), 0, "run pages");
        assert_eq!(self.account.charged(Purpose::Hypervisor), 0, "EL2's pages");
        assert_eq!(self.provider.buddy.free_frames(), FRAMES, "free frames");
        assert_eq!(self.fake.trespasses(), 0, "the host touched what is not its own");
    }
}

/// A guest with what the host has of it.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) vcpu: Vcpu<Fake>,
    pub(crate) vm: Vm<Fake>,
    pub(crate) file: GuestMemfd<Fake>,
}

pub(crate) const fn slot(
    slot: u32,
    ipa: u64,
    size: u64,
    file: &GuestMemfd<Fake>,
    offset: u64,
) -> SlotConfig<'_, Fake> {
    SlotConfig {
        slot,
        flags: 0,
        ipa,
        size,
        file,
        offset,
    }
}

impl Guest {
    /// Runs the program to its end.
    pub(crate) fn run(&mut self) {
        let exit = self.vcpu.run_on(&Entry::new(), PinnedPolicy::Refuse);
        assert_eq!(exit, Ok(Exit::Interrupt));
    }
}
