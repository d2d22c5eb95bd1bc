//! The MMIO guard: once it is in force, the host emulates what the guest lets it, and nothing else.

use super::faults::ensure_external_abort;
use super::support::{BEHIND, DONE, INVALID, ONE_DONE, PAGE, ensure_returns, running, running_with};
use crate::guest::exit::Exit;
use crate::guest::vcpu::Answer;
use crate::guest::{Plan, Vm, calls, drive};
use crate::registry::{TestResult, case, ensure_eq, succeed};
use hyp_abi::guest_call::GuestCallId;
use hyp_abi::vm::VmFlags;
use hyp_abi::{FRAME_SIZE, VmCall};
use payload_protocol::{Access, Level, layout};

const DEVICE: u64 = layout::DEVICE;

/// An access of the guest to a device at `address` goes to the host.
fn ensure_told(vm: &Vm, address: u64) -> TestResult {
    let exit = vm.begin_order(0, drive::access(Access::Load4, address, 0))?;
    ensure_eq!(
        exit,
        Exit::MmioRead {
            ipa: address,
            bytes: 4
        },
        "exit"
    );
    vm.finish(0, Answer::Done([0; 4])).map(|_| ())
}

/// It does not: the guest gets an exception.
fn ensure_kept(vm: &Vm, address: u64) -> TestResult {
    for access in [Access::Load4, Access::Store8] {
        let report = vm.order(0, drive::access(access, address, 0x5ec))?;
        ensure_external_abort(report, Level::El1, access, address)?;
    }
    Ok(())
}

case!(without_a_guard_every_device_is_the_hosts, {
    let vm = running_with(0)?;
    for address in [0, DEVICE, BEHIND * FRAME_SIZE, 0xffff_f000] {
        ensure_told(&vm, address)?;
    }
    vm.end()
});

case!(an_enrolled_guest_has_no_devices_until_it_maps_them, {
    let vm = running_with(0)?;
    ensure_returns(&vm, GuestCallId::MmioGuardEnroll, [0; 3], DONE)?;
    for address in [0, DEVICE, BEHIND * FRAME_SIZE] {
        ensure_kept(&vm, address)?;
    }
    ensure_returns(&vm, GuestCallId::MmioGuardMap, [DEVICE, 0, 0], DONE)?;
    ensure_told(&vm, DEVICE)?;
    ensure_told(&vm, DEVICE + FRAME_SIZE - 4)?;
    ensure_kept(&vm, DEVICE + FRAME_SIZE)?;
    ensure_kept(&vm, DEVICE - 8)?;
    ensure_returns(&vm, GuestCallId::MmioGuardUnmap, [DEVICE, 0, 0], DONE)?;
    ensure_kept(&vm, DEVICE)?;
    vm.end()
});

case!(the_first_map_puts_the_guard_in_force, {
    let vm = running_with(0)?;
    ensure_told(&vm, DEVICE + FRAME_SIZE)?;
    ensure_returns(&vm, GuestCallId::MmioGuardMap, [DEVICE, 0, 0], DONE)?;
    ensure_told(&vm, DEVICE)?;
    ensure_kept(&vm, DEVICE + FRAME_SIZE)?;
    vm.end()
});

case!(a_guest_that_must_have_a_guard_has_it_from_the_start, {
    let vm = running(Plan {
        flags: VmFlags::PROTECTED | VmFlags::GUARD_REQUIRED,
        ..Plan::protected()
    })?;
    ensure_kept(&vm, DEVICE)?;
    ensure_returns(&vm, GuestCallId::MmioGuardMap, [DEVICE, 0, 0], DONE)?;
    ensure_told(&vm, DEVICE)?;
    vm.end()
});

case!(an_open_guest_has_a_guard_too, {
    let vm = running(Plan::open())?;
    ensure_returns(&vm, GuestCallId::MmioGuardEnroll, [0; 3], DONE)?;
    ensure_kept(&vm, DEVICE)?;
    ensure_returns(&vm, GuestCallId::MmioGuardMap, [DEVICE, 0, 0], DONE)?;
    ensure_told(&vm, DEVICE)?;
    vm.end()
});

case!(the_guard_says_its_granule, {
    let vm = running_with(0)?;
    ensure_returns(&vm, GuestCallId::MmioGuardInfo, [0; 3], [FRAME_SIZE, 0, 0, 0])?;
    vm.end()
});

case!(memory_is_never_mapped_as_a_device, {
    let vm = running_with(1)?;
    for address in [
        layout::MEMORY,
        layout::IMAGE,
        PAGE * FRAME_SIZE,
        (PAGE + 1) * FRAME_SIZE,
        (BEHIND - 1) * FRAME_SIZE,
    ] {
        ensure_returns(&vm, GuestCallId::MmioGuardMap, [address, 0, 0], INVALID)?;
        ensure_returns(&vm, GuestCallId::MmioGuardRangeMap, [address, 1, 0], INVALID)?;
    }
    // Refused, they put no guard in force.
    ensure_told(&vm, DEVICE)?;
    vm.end()
});

case!(a_refused_map_puts_no_guard_in_force_and_enrolling_does, {
    let vm = running_with(0)?;
    // Outside of what the VM declares, where its end would not look for it.
    let page = vm.set_aside(1)?;
    calls::donate(vm.handle(), page, DEVICE / FRAME_SIZE)?;
    ensure_returns(&vm, GuestCallId::MmioGuardMap, [DEVICE, 0, 0], INVALID)?;
    ensure_told(&vm, DEVICE + FRAME_SIZE)?;
    // A guest that wants the guard in any case enrolls.
    ensure_returns(&vm, GuestCallId::MmioGuardEnroll, [0; 3], DONE)?;
    ensure_kept(&vm, DEVICE + FRAME_SIZE)?;
    succeed!(calls::call(VmCall::ForceReclaim { frame: page.base }));
    vm.end()
});

case!(guard_calls_refuse_what_has_no_meaning, {
    let vm = running_with(0)?;
    for (call, arguments) in [
        (GuestCallId::MmioGuardMap, [DEVICE + 1, 0, 0]),
        (GuestCallId::MmioGuardMap, [DEVICE, 1, 0]),
        (GuestCallId::MmioGuardMap, [DEVICE, 0, 1]),
        (GuestCallId::MmioGuardMap, [1 << 32, 0, 0]),
        (GuestCallId::MmioGuardMap, [!0xfff, 0, 0]),
        (GuestCallId::MmioGuardUnmap, [DEVICE, 1, 0]),
        (GuestCallId::MmioGuardUnmap, [DEVICE + 8, 0, 0]),
        (GuestCallId::MmioGuardRangeMap, [DEVICE, 0, 0]),
        (GuestCallId::MmioGuardRangeMap, [DEVICE, 1, 1]),
        (GuestCallId::MmioGuardRangeMap, [DEVICE + 4, 1, 0]),
        (GuestCallId::MmioGuardRangeMap, [1 << 32, 1, 0]),
        (GuestCallId::MmioGuardRangeUnmap, [DEVICE, 0, 0]),
    ] {
        ensure_returns(&vm, call, arguments, INVALID)?;
    }
    vm.end()
});

case!(a_range_of_devices_is_mapped_and_unmapped, {
    let vm = running_with(0)?;
    let (mut done, frames) = (0, 700);
    while done < frames {
        let arguments = [DEVICE + done * FRAME_SIZE, frames - done, 0];
        let [x0, count, ..] = vm.hvc(GuestCallId::MmioGuardRangeMap.into(), arguments)?;
        ensure_eq!(x0, 0, "MMIO_GUARD_RMAP of {arguments:x?}");
        crate::registry::ensure!((1..=frames - done).contains(&count), "{count} granules");
        done += count;
    }
    for page in [0, 1, 511, 512, 699] {
        ensure_told(&vm, DEVICE + page * FRAME_SIZE)?;
    }
    ensure_kept(&vm, DEVICE + frames * FRAME_SIZE)?;
    ensure_returns(
        &vm,
        GuestCallId::MmioGuardRangeUnmap,
        [DEVICE + 5 * FRAME_SIZE, 1, 0],
        ONE_DONE,
    )?;
    ensure_kept(&vm, DEVICE + 5 * FRAME_SIZE)?;
    ensure_told(&vm, DEVICE + 4 * FRAME_SIZE)?;
    ensure_told(&vm, DEVICE + 6 * FRAME_SIZE)?;
    vm.end()
});

case!(a_range_that_runs_into_memory_stops_there, {
    let vm = running_with(0)?;
    let before = layout::MEMORY - 2 * FRAME_SIZE;
    let [x0, count, ..] = vm.hvc(GuestCallId::MmioGuardRangeMap.into(), [before, 4, 0])?;
    ensure_eq!((x0, count), (0, 2), "MMIO_GUARD_RMAP into memory");
    ensure_told(&vm, before)?;
    vm.end()
});

case!(what_one_guest_maps_is_its_own, {
    let (first, second) = (running_with(0)?, running_with(0)?);
    ensure_returns(&first, GuestCallId::MmioGuardMap, [DEVICE, 0, 0], DONE)?;
    ensure_returns(&second, GuestCallId::MmioGuardEnroll, [0; 3], DONE)?;
    ensure_told(&first, DEVICE)?;
    ensure_kept(&second, DEVICE)?;
    first.end()?;
    second.end()
});
