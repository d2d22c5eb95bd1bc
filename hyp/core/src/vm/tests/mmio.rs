//! Accesses to devices that the host emulates, and those that are refused.

use super::*;
use hyp_abi::run_page::AccessFlags;

const DATA: u64 = 0x24 << 26 | IL;
const ISV: u64 = 1 << 24;
const WNR: u64 = 1 << 6;
const TRANSLATION: u64 = 0b111;
/// A place that is not memory of the VM.
const DEVICE: u64 = 0x900_0000;

/// The syndrome of a load or store: size (SAS), sign extension, register, 64 bits.
const fn access(size: u64, sign: u64, register: u64, wide: u64) -> u64 {
    DATA | ISV | size << 22 | sign << 21 | register << 16 | wide << 15 | TRANSLATION
}

fn touch(esr: u64, address: u64) -> Act {
    act(move |_| aborts(esr, address, address))
}

/// Checks that an access was refused: the guest is in its handler of synchronous exceptions, told of an external abort.
fn refused(bench: Bench, esr: u64, far: u64) -> Act {
    look(move |context| {
        assert_eq!(context.pc, 0x200);
        bench.hw().with_guest_registers(|system| {
            assert_eq!(system.elr_el1, ENTRY);
            assert_eq!((system.esr_el1, system.far_el1), (esr, far));
        });
    })
}

#[test]
fn a_load_gets_what_the_host_says() {
    const MEMORY: u64 = 0x8899_aabb_ccdd_eeff;
    for (syndrome, bytes, expected) in [
        (access(0, 0, 9, 0), 1, 0xff),
        (access(0, 1, 9, 0), 1, 0xffff_ffff),
        (access(1, 1, 9, 1), 2, 0xffff_ffff_ffff_eeff),
        (access(2, 0, 9, 0), 4, 0xccdd_eeff),
        (access(3, 0, 9, 1), 8, MEMORY),
    ] {
        let bench = Bench::new();
        let vm = bench.guest();
        bench.plays([
            touch(syndrome, DEVICE + 8),
            look(move |context| {
                assert_eq!((context.x[9], context.pc), (expected, ENTRY + 4));
            }),
        ]);
        bench.runs_to(vm, ExitReason::MmioRead, [DEVICE + 8, bytes]);
        bench.answers(Answer::Done, [MEMORY, 1, 2, 3]);
        bench.runs_to(vm, ExitReason::Interrupt, []);
    }
}

#[test]
fn a_store_gives_the_host_its_bytes_alone() {
    for (size, bytes, expected) in [
        (0, 1, 0x88),
        (1, 2, 0x7788),
        (2, 4, 0x5566_7788),
        (3, 8, 0x1122_3344_5566_7788),
    ] {
        let bench = Bench::new();
        let vm = bench.guest();
        bench.plays([
            act(move |context| {
                context.x[30] = 0x1122_3344_5566_7788;
                aborts(access(size, 0, 30, 1) | WNR, DEVICE, DEVICE)
            }),
            look(|context| assert_eq!(context.pc, ENTRY + 4)),
        ]);
        bench.runs_to(vm, ExitReason::MmioWrite, [DEVICE, bytes, expected]);
        bench.answers(Answer::Done, [0; 4]);
        bench.runs_to(vm, ExitReason::Interrupt, []);
    }
}

#[test]
fn the_zero_register_stores_zero_and_loads_nothing() {
    let bench = Bench::new();
    let vm = bench.guest();
    bench.plays([
        touch(access(3, 0, 31, 1) | WNR, DEVICE),
        touch(access(3, 0, 31, 1), DEVICE),
        look(|context| {
            assert_eq!(context.x[0], 77);
            assert!(context.x[1..].iter().all(|x| *x == 0));
            assert_eq!(context.pc, ENTRY + 8);
        }),
    ]);
    bench.runs_to(vm, ExitReason::MmioWrite, [DEVICE, 8, 0]);
    bench.answers(Answer::Done, [0; 4]);
    bench.runs_to(vm, ExitReason::MmioRead, [DEVICE, 8]);
    bench.answers(Answer::Done, [u64::MAX; 4]);
    bench.runs_to(vm, ExitReason::Interrupt, []);
}

#[test]
fn a_big_endian_guest_is_understood() {
    let bench = Bench::new();
    let vm = bench.guest();
    bench.plays([
        act(move |context| {
            bench
                .hw()
                .with_guest_registers(|system| system.sctlr_el1 |= 1 << 25);
            context.x[1] = 0x1122_3344;
            aborts(access(2, 0, 1, 0) | WNR, DEVICE, DEVICE)
        }),
        touch(access(1, 0, 2, 0), DEVICE),
        look(|context| assert_eq!(context.x[2], 0x0201)),
    ]);
    bench.runs_to(vm, ExitReason::MmioWrite, [DEVICE, 4, 0x4433_2211]);
    bench.answers(Answer::Done, [0; 4]);
    bench.runs_to(vm, ExitReason::MmioRead, [DEVICE, 2]);
    bench.answers(Answer::Done, [0x0102, 0, 0, 0]);
    bench.runs_to(vm, ExitReason::Interrupt, []);
}

#[test]
fn an_access_that_no_answer_completes_is_made_again() {
    let bench = Bench::new();
    let vm = bench.guest();
    bench.plays([
        touch(access(0, 0, 1, 0), DEVICE),
        act(|context| {
            assert_eq!(context.pc, ENTRY);
            aborts(access(0, 0, 1, 0), DEVICE, DEVICE)
        }),
    ]);
    bench.runs_to(vm, ExitReason::MmioRead, [DEVICE, 1]);
    bench.says_nothing();
    bench.runs_to(vm, ExitReason::MmioRead, [DEVICE, 1]);
    bench.answers(Answer::Retry, [0; 4]);
    bench.runs_to(vm, ExitReason::Interrupt, []);
}

#[test]
fn a_device_that_the_host_refuses_does_not_answer() {
    for (syndrome, esr) in [
        (access(0, 0, 1, 0), 0x9600_0010),
        (access(0, 0, 1, 0) | WNR, 0x9600_0050),
    ] {
        let bench = Bench::new();
        let vm = bench.guest();
        bench.plays([touch(syndrome, DEVICE + 4), refused(bench, esr, DEVICE + 4)]);
        bench.run(vm, 0);
        bench.answers(Answer::Refuse, [0; 4]);
        bench.runs_to(vm, ExitReason::Interrupt, []);
    }
}

/// Accesses that no syndrome describes: where, how the host is told of them, and what the guest is if they are refused.
const UNDESCRIBED: [(u64, u64, AccessFlags, u64); 5] = {
    let crossing = DEVICE + 0xffc;
    [
        // A pair, or one with a writeback: no valid syndrome.
        (DATA | TRANSLATION, DEVICE, AccessFlags::empty(), 0x9600_0010),
        // Cache maintenance.
        (
            DATA | 1 << 8 | WNR | TRANSLATION,
            DEVICE,
            AccessFlags::WRITE,
            0x9600_0150,
        ),
        // A walk of the guest's own tables.
        (
            DATA | 1 << 7 | TRANSLATION,
            DEVICE,
            AccessFlags::WALK,
            0x9600_0010,
        ),
        // A fetch.
        (
            0x20 << 26 | IL | TRANSLATION,
            DEVICE,
            AccessFlags::FETCH,
            0x8600_0010,
        ),
        // An access whose second half is in another page.
        (access(3, 0, 1, 1), crossing, AccessFlags::empty(), 0x9600_0010),
    ]
};

#[test]
fn an_access_that_the_syndrome_does_not_describe_is_refused() {
    for (syndrome, address, _, esr) in UNDESCRIBED {
        let bench = Bench::new();
        let vm = bench.guest();
        bench.plays([touch(syndrome, address), refused(bench, esr, address)]);
        bench.runs_to(vm, ExitReason::Interrupt, []);
    }
    let crossing = DEVICE + 0xffc;
    let bench = Bench::new();
    let vm = bench.guest();
    bench.plays([touch(access(2, 0, 1, 1), crossing)]);
    bench.runs_to(vm, ExitReason::MmioRead, [crossing, 4]);
}

#[test]
fn the_host_of_an_open_vm_may_have_memory_where_such_an_access_goes() {
    for (syndrome, address, access, esr) in UNDESCRIBED {
        let bench = Bench::new();
        let vm = bench.launched(VmFlags::empty(), 1);
        bench.plays([touch(syndrome, address), refused(bench, esr, address)]);
        let exit = [address >> 12, access.bits()];
        bench.runs_to(vm, ExitReason::MemoryFault, exit);
        bench.answers(Answer::Refuse, [0; 4]);
        bench.runs_to(vm, ExitReason::Interrupt, []);
    }
}

#[test]
fn what_is_not_a_fault_of_stage_2_is_the_guests_own() {
    // External aborts, parity errors, alignment, tags, and codes that are reserved.
    for code in [0x10, 0x14, 0x18, 0x1c, 0x11, 0x21, 0x28, 0x31, 0x34, 0x3f] {
        let bench = Bench::new();
        let vm = bench.guest();
        bench.plays([touch(DATA | code, ENTRY), refused(bench, 0x9600_0010, ENTRY)]);
        bench.runs_to(vm, ExitReason::Interrupt, []);
    }
}

#[test]
fn an_address_beyond_the_vms_is_refused() {
    for address in [1 << 40, 1 << 47] {
        let bench = Bench::new();
        let vm = bench.launched(VmFlags::PROTECTED | VmFlags::GUARD_REQUIRED, 1);
        bench.plays([
            touch(access(0, 0, 1, 0), address),
            refused(bench, 0x9600_0010, address),
        ]);
        bench.runs_to(vm, ExitReason::Interrupt, []);
    }
}

#[test]
fn a_permission_fault_is_found_by_a_translation() {
    let bench = Bench::new();
    let vm = bench.guest();
    let permission = DATA | WNR | 0b1111;
    let write = AccessFlags::WRITE.bits();
    // HPFAR_EL2 is not to be believed.
    bench.plays([act(move |_| aborts(permission, ENTRY + 0x1234, 0x7777_7000))]);
    bench.runs_to(vm, ExitReason::MemoryFault, [(ENTRY >> 12) + 1, write]);
    // Stage 1 does not map it any more: the guest finds out by itself.
    bench.hw().set_untranslatable(true);
    bench.plays([
        act(move |_| aborts(permission, ENTRY, 0)),
        look(|context| assert_eq!(context.pc, ENTRY)),
    ]);
    bench.runs_to(vm, ExitReason::Interrupt, []);
    // But an interrupt goes first.
    bench.hw().interrupt_after(Some(0));
    bench.plays([
        act(move |_| aborts(permission, ENTRY, 0)),
        act(|_| panic!("the vCPU has exited")),
    ]);
    bench.runs_to(vm, ExitReason::Interrupt, []);
}

#[test]
fn a_memory_fault_that_the_host_refuses_is_an_external_abort() {
    let bench = Bench::new();
    let vm = bench.guest();
    bench.plays([
        touch(access(3, 0, 1, 1), ENTRY + 8),
        refused(bench, 0x9600_0010, ENTRY + 8),
    ]);
    bench.runs_to(vm, ExitReason::MemoryFault, [ENTRY >> 12]);
    bench.answers(Answer::Refuse, [0; 4]);
    bench.runs_to(vm, ExitReason::Interrupt, []);
}
