//! The story of a protected guest under Debian. What is done, chapter by chapter.

use super::{ABORT, Chapter, Deed, Expected, Who, boot, host};

/// A frame of the guest's.
const FRAME: &str = "$(cat /tmp/frame)";

/// The story with a host's kernel of that release on so many CPUs.
pub(in crate::story) fn plan(release: &str, cpus: u32) -> Vec<Chapter> {
    let mut plan = boot(cpus);
    plan.extend([
        host(
            "Debian reaches user space, and loads the module",
            arrival(release, cpus),
        ),
        host("It starts a protected guest", start()),
        host("The guest lives", life()),
        host("The guest has a secret, and Debian wants it", attack()),
        host("Who owns what", owners()),
        host("The guest ends, and every page is accounted for", end()),
    ]);
    plan
}

/// A deed that judges itself, and has found something.
fn finding(who: Who, tells: &str, command: &str) -> Deed {
    Deed {
        expected: Expected::Finding,
        ..Deed::new(who, tells, command, "")
    }
}

fn arrival(release: &str, cpus: u32) -> Vec<Deed> {
    vec![
        Deed::new(
            Who::Program,
            "asks the kernel which one it is",
            "uname -r",
            release,
        ),
        Deed::new(
            Who::Kernel,
            "says where it runs",
            "dmesg | grep 'CPU(s) started'",
            "started at EL1",
        ),
        Deed::new(
            Who::Call,
            "asks Freehold for its version",
            "$probe call version",
            format!("status=Success cpus={cpus}"),
        ),
        Deed::new(
            Who::Program,
            "loads freehold.ko: there is KVM's device, and nothing in the books",
            "load",
            "vms=0 frames_guest=0",
        ),
    ]
}

fn start() -> Vec<Deed> {
    vec![
        Deed::new(
            Who::Program,
            "starts freehold-vmm with a kernel, 128 MiB, a disk and a balloon",
            "start",
            "kind=protected vcpus=2",
        ),
        Deed::new(
            Who::Guest,
            "reaches user space, with both CPUs",
            "hear release",
            "guest cpus=2",
        ),
    ]
}

fn life() -> Vec<Deed> {
    vec![
        Deed::new(
            Who::Guest,
            "computes how many numbers up to 1000 are prime",
            "hear primes",
            "primes=168",
        ),
        Deed::new(
            Who::Guest,
            "writes 1 MiB to its virtio disk, and reads it back",
            "hear disk",
            "guest",
        ),
        finding(
            Who::Program,
            "makes the same sum of the file that is the disk",
            "disk",
        ),
        finding(
            Who::Program,
            "asks how many pages the guest lends: the pool that devices reach",
            "lent",
        ),
        Deed::new(
            Who::GuestCall,
            "gives up what its balloon takes, 32 MiB in pages",
            "hear relinquished",
            "relinquished=8192",
        ),
        finding(
            Who::Call,
            "asks EL2 how often the guest has called: once for each page, at least",
            "guest_calls",
        ),
    ]
}

fn attack() -> Vec<Deed> {
    let access = |who, tells: &str, arguments: &str, words: &str| {
        Deed::new(who, tells, format!("$probe {arguments} {FRAME}"), words)
            .on(FRAME, "NotYours")
            .counted(ABORT)
    };
    vec![
        Deed::new(
            Who::Guest,
            "fills 8 MiB of its memory with a secret",
            "hear secret=kept",
            "pages=2048",
        ),
        finding(
            Who::Program,
            "takes the guest's memory from the VMM, and maps it: SIGBUS but for what is lent",
            "spy load",
        ),
        finding(
            Who::Program,
            "has write(2) read all of it: EFAULT but for what is lent",
            "spy write",
        ),
        finding(
            Who::Program,
            "looks in /proc/kcore for what it has in 256 pages of its own, and finds it",
            "scan_own",
        ),
        Deed::new(
            Who::Program,
            "looks there for the guest's secret",
            "scan \"a guest's secret\"",
            "found=0",
        ),
        finding(
            Who::Call,
            "asks for every frame's state, and picks one: all that is not its own is the guest's",
            "still pick",
        ),
        access(
            Who::Program,
            "maps that frame by its address, and reads it",
            "el0 read",
            "outcome=signal signal=SIGBUS",
        ),
        access(Who::Kernel, "reads it", "el1 read", "outcome=refused"),
        Deed::new(
            Who::Call,
            "claims it, to give it to EL2",
            format!("$probe call donate {FRAME} 1"),
            "status=NotOwner",
        )
        .on(FRAME, "NotYours"),
    ]
}

fn owners() -> Vec<Deed> {
    vec![
        Deed::new(
            Who::Program,
            "reads the statistics",
            "accounts; cat $debug/vms",
            "vms=1",
        ),
        Deed {
            expected: Expected::Guests { secret: true },
            ..Deed::new(
                Who::Runner,
                "stops the machine and looks into its memory: where the secret is, and whose",
                "still show",
                "",
            )
        },
    ]
}

fn end() -> Vec<Deed> {
    vec![
        Deed::new(
            Who::Guest,
            "is told that it may go, and finds its secret as it was",
            "go",
            "secret=intact",
        ),
        Deed::new(
            Who::Guest,
            "powers off, and the VMM ends: the frame is the host's again",
            "ended",
            "status=0 freehold-guest exit 0",
        )
        .moving(FRAME, 1, "NotYours", "Host"),
        Deed::new(
            Who::Program,
            "reads the VMM's report: as many pages as the guest says",
            "report",
            "balloon given=8192 failures=0",
        ),
        Deed::new(
            Who::Program,
            "looks for the secret in what has come back",
            "scan \"a guest's secret\"",
            "found=0",
        ),
        Deed::new(
            Who::Program,
            "reads the statistics: nothing is left of the guest",
            "accounts",
            "vms=0 frames_guest=0 frames_el2=0 frames_run=0 el2_pages_given=0",
        ),
        Deed::new(
            Who::Program,
            "unloads the module: EL2 and the host have as many pages as before",
            "unload",
            "as-before",
        ),
        Deed::new(
            Who::Kernel,
            "has nothing to complain of",
            "echo oopses=$(dmesg | grep -c 'Internal error:') complaints=$(dmesg -r | complaints | wc -l)",
            "oopses=0 complaints=0",
        ),
        Deed::new(
            Who::Call,
            "has Freehold compare its map with its tables for all RAM",
            "audit",
            "call=audit status=Success",
        ),
    ]
}
