//! A virtual machine and its memory.
#![expect(
    unsafe_code,
    reason = "the interface takes addresses of this process and hands out descriptors"
)]

use super::{Vcpu, gic};
use crate::{layout, memory::Ram, options::Options};
use anyhow::{Context as _, Result, ensure};
use kvm_bindings::{
    KVM_MEM_GUEST_MEMFD, kvm_create_guest_memfd, kvm_userspace_memory_region, kvm_userspace_memory_region2,
    kvm_vcpu_init,
};
use kvm_ioctls::{Cap, DeviceFd, IoEventAddress, Kvm, VmFd};
use std::{
    ffi::CString,
    fs::File,
    os::{fd::FromRawFd as _, unix::ffi::OsStrExt as _},
};
use vmm_sys_util::eventfd::EventFd;

/// KVM_VM_TYPE_ARM_PROTECTED: nobody but the guest reaches its memory unless the guest lends it.
const PROTECTED: u64 = 1 << 31;

/// GUEST_MEMFD_FLAG_MMAP and GUEST_MEMFD_FLAG_INIT_SHARED: this process may map the file, and may reach what no guest
/// has made private.
const MMAP: u64 = 1 << 0;
const INIT_SHARED: u64 = 1 << 1;

/// The version of the interface that has been the only one since Linux 2.6.22.
const API_VERSION: i32 = 12;

/// How many bits of address a guest has if nothing larger is needed, and the host has as many.
const ADDRESS_BITS: u32 = 40;

/// A virtual machine.
#[derive(Debug)]
pub(crate) struct Vm {
    vm: VmFd,
    /// Kept for as long as the machine: closing it takes the controller away.
    gic: Option<DeviceFd>,
}

impl Vm {
    /// Makes a virtual machine and its RAM.
    ///
    /// # Errors
    /// If there is no KVM, or it cannot do what is asked for.
    pub(crate) fn new(options: &Options) -> Result<(Self, Ram)> {
        let path = CString::new(options.kvm.as_os_str().as_bytes()).context("the name has a zero byte")?;
        let kvm =
            Kvm::new_with_path(path).with_context(|| format!("cannot open {}", options.kvm.display()))?;
        let version = kvm.get_api_version();
        ensure!(version == API_VERSION, "KVM's interface has version {version}");
        let vm = kvm
            .create_vm_with_type(machine_type(&kvm, options)?)
            .with_context(|| match options.protected {
                true => "this host cannot make a protected virtual machine",
                false => "cannot make a virtual machine",
            })?;
        let vm = Self { vm, gic: None };
        let ram = vm.memory(options)?;
        Ok((vm, ram))
    }

    fn memory(&self, options: &Options) -> Result<Ram> {
        let size = options.memory.0;
        if !options.protected && !options.guest_memfd {
            let ram = Ram::anonymous(size)?;
            let region = kvm_userspace_memory_region {
                slot: 0,
                flags: 0,
                guest_phys_addr: layout::RAM,
                memory_size: size,
                userspace_addr: ram.mapping(),
            };
            // SAFETY: the mapping stays as long as the machine runs: the caller drops it last.
            unsafe { self.vm.set_user_memory_region(region) }
                .context("cannot give the virtual machine its memory")?;
            return Ok(ram);
        }
        ensure!(
            self.vm.check_extension(Cap::GuestMemfd) && self.vm.check_extension(Cap::UserMemory2),
            "this host has no guest_memfd"
        );
        let request = kvm_create_guest_memfd {
            size,
            flags: MMAP | INIT_SHARED,
            ..kvm_create_guest_memfd::default()
        };
        let descriptor = self
            .vm
            .create_guest_memfd(request)
            .context("cannot make a guest_memfd that can be mapped")?;
        // SAFETY: the kernel has just made it for us.
        let file = unsafe { File::from_raw_fd(descriptor) };
        let ram = Ram::of_file(file, size)?;
        let region = kvm_userspace_memory_region2 {
            slot: 0,
            flags: KVM_MEM_GUEST_MEMFD,
            guest_phys_addr: layout::RAM,
            memory_size: size,
            userspace_addr: ram.mapping(),
            guest_memfd_offset: 0,
            guest_memfd: descriptor as u32,
            pad1: 0,
            pad2: [0; 14],
        };
        // SAFETY: as above.
        unsafe { self.vm.set_user_memory_region2(region) }
            .context("cannot give the virtual machine its memory")?;
        Ok(if options.protected { ram.protected() } else { ram })
    }

    /// Makes the CPUs and then their interrupt controller.
    ///
    /// # Errors
    /// If the system refuses.
    pub(crate) fn cpus(&mut self, number: u32) -> Result<Vec<Vcpu>> {
        let mut target = kvm_vcpu_init::default();
        self.vm
            .get_preferred_target(&mut target)
            .context("cannot tell what CPUs there can be")?;
        let cpus = (0..number)
            .map(|index| Vcpu::new(&self.vm, index, target))
            .collect::<Result<Vec<_>>>()?;
        self.gic = Some(gic::create(&self.vm)?);
        Ok(cpus)
    }

    /// Has `event` raise a shared peripheral interrupt. KVM counts them from 0, without the 32 private ones.
    ///
    /// # Errors
    /// If the system refuses.
    pub(crate) fn connect_interrupt(&self, event: &EventFd, number: u32) -> Result<()> {
        self.vm
            .register_irqfd(event, number)
            .with_context(|| format!("cannot connect interrupt {number}"))
    }

    /// Has a store of `value` at `address` write to `event`, without a detour by way of this process.
    ///
    /// # Errors
    /// If the system cannot do that: then the store arrives as any other.
    pub(crate) fn connect_notification(&self, event: &EventFd, address: u64, value: u32) -> Result<()> {
        self.vm
            .register_ioevent(event, &IoEventAddress::Mmio(address), value)
            .context("cannot connect a notification")
    }
}

fn machine_type(kvm: &Kvm, options: &Options) -> Result<u64> {
    let needed = u64::BITS - (layout::RAM + options.memory.0 - 1).leading_zeros();
    let limit = match kvm.check_extension_int(Cap::ArmVmIPASize) {
        // An old kernel, or one that does not tell, has 40 and no choice.
        bits if bits <= 0 => ADDRESS_BITS,
        bits => bits as u32,
    };
    ensure!(
        needed <= limit,
        "the host's guests have at most {limit} bits of address"
    );
    let bits = match needed.max(ADDRESS_BITS.min(limit)) {
        // The default is spelt as zero.
        ADDRESS_BITS => 0,
        bits => bits,
    };
    let protected = if options.protected { PROTECTED } else { 0 };
    Ok(u64::from(bits) | protected)
}
