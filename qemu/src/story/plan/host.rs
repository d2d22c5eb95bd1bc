//! The first act: Debian is the host. What it does, chapter by chapter.

use super::{ABORT, Chapter, Deed, Expected, Who, boot, host};

/// The act with a kernel of that release on so many CPUs.
pub(in crate::story) fn plan(release: &str, cpus: u32) -> Vec<Chapter> {
    let mut plan = boot(cpus);
    plan.extend([
        host("Debian reaches user space", arrival(release, cpus)),
        host(
            "2 MiB are given to EL2, out of the host's reach, and taken back",
            giving(),
        ),
        host("Debian attacks Freehold's own memory", attack()),
        host("Debian tries the ways around", detours()),
        host("Debian lives on", life(cpus)),
        host("Who owns what", end()),
    ]);
    plan
}

fn probe(who: Who, tells: &str, arguments: &str, words: &str) -> Deed {
    Deed::new(who, tells, format!("$probe {arguments}"), words)
}

fn call(tells: &str, arguments: &str, words: &str) -> Deed {
    probe(Who::Call, tells, &format!("call {arguments}"), words)
}

/// An access that must be refused: Freehold counts it, and the state stays.
fn refused_access(
    who: Who,
    tells: &str,
    arguments: &str,
    words: &str,
    frame: &'static str,
    state: &'static str,
) -> Deed {
    probe(who, tells, arguments, words)
        .on(frame, state)
        .counted(ABORT)
}

/// A call that must be refused, and the state stays.
fn refused_call(
    tells: &str,
    arguments: &str,
    status: &str,
    frame: &'static str,
    state: &'static str,
) -> Deed {
    call(tells, arguments, &format!("status={status}")).on(frame, state)
}

fn arrival(release: &str, cpus: u32) -> Vec<Deed> {
    let last = cpus - 1;
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
        call(
            "asks Freehold for its version",
            "version",
            &format!("status=Success cpus={cpus}"),
        ),
        Deed::new(
            Who::Call,
            "calls twice from each CPU: EL2's own data of that CPU counts it",
            "all_call",
            format!("cpus={cpus} counted={cpus}"),
        ),
        Deed::new(
            Who::Smc,
            format!("CPU {last} is turned off and on again, and comes back through EL2"),
            format!("restart {last}"),
            format!("CPU {last}: counted"),
        )
        .counted("Smcs"),
    ]
}

fn giving() -> Vec<Deed> {
    vec![
        call(
            "gives a block of 512 pages",
            "donate $PAGE 512",
            "status=Success done=512",
        )
        .moving("$PAGE", 512, "Host", "NotYours"),
        refused_access(
            Who::Program,
            "reads the first page",
            "el0 read $PAGE",
            "outcome=signal signal=SIGBUS",
            "$PAGE",
            "NotYours",
        ),
        refused_access(
            Who::Kernel,
            "reads 8 bytes of which the last 4 are its own",
            "el1 read $((PAGE+0x1ffffc))",
            "outcome=refused",
            "$((PAGE+0x1ff000))",
            "NotYours",
        ),
        refused_call(
            "gives it a second time",
            "donate $PAGE 512",
            "NotOwner",
            "$PAGE",
            "NotYours",
        ),
        call(
            "takes the block back",
            "reclaim $PAGE 512",
            "status=Success done=512",
        )
        .moving("$PAGE", 512, "NotYours", "Host"),
        probe(
            Who::Kernel,
            "looks for its word: it was scrubbed",
            "el1 read $PAGE",
            "value=0x0",
        )
        .on("$PAGE", "Host"),
    ]
}

fn attack() -> Vec<Deed> {
    const HERE: &str = "$FREEHOLD";
    const STATE: &str = "NotYours";
    const BUS_ERROR: &str = "outcome=signal signal=SIGBUS";
    let access = |who, tells: &str, arguments: &str, words: &str| {
        refused_access(who, tells, arguments, words, HERE, STATE)
    };
    let call =
        |tells: &str, arguments: &str, status: &str| refused_call(tells, arguments, status, HERE, STATE);
    vec![
        access(Who::Program, "reads it", "el0 read $FREEHOLD", BUS_ERROR),
        access(Who::Program, "jumps to it", "el0 fetch $FREEHOLD", BUS_ERROR),
        access(
            Who::Kernel,
            "writes to it with care",
            "el1 write $FREEHOLD 1",
            "outcome=refused",
        ),
        access(
            Who::Kernel,
            "reads it without: that task alone dies",
            "el1 read --bare $FREEHOLD",
            "outcome=died",
        ),
        call("claims it as its own, to give", "donate $FREEHOLD 1", "NotOwner"),
        call(
            "wants it back, which it never gave",
            "reclaim $FREEHOLD 1",
            "NotDonated",
        ),
    ]
}

fn detours() -> Vec<Deed> {
    vec![
        Deed::new(
            Who::Device,
            "is to write over Freehold: its register is EL2's",
            "dma $FREEHOLD",
            "outcome=refused",
        )
        .on("$FREEHOLD", "NotYours")
        .counted(ABORT),
        probe(
            Who::Kernel,
            "looks at its request: no device has taken it up",
            "el1 read $PAGE",
            "value=0x1000000a000000",
        )
        .on("$PAGE", "Host"),
        probe(
            Who::Register,
            "reads HCR_EL2: undefined, that task alone dies",
            "sysreg read HCR_EL2",
            "outcome=died",
        ),
        probe(
            Who::Smc,
            "asks the secure world to share Freehold's memory",
            "smc 0x84000073 --expect status=NotSupported",
            "status=NotSupported",
        )
        .counted("SmcsRefused"),
    ]
}

fn life(cpus: u32) -> Vec<Deed> {
    vec![
        Deed {
            expected: Expected::Success,
            ..Deed::new(
                Who::Everybody,
                format!("{cpus} CPUs copy and compare 2 MiB while 30 processes come and go"),
                format!(
                    "for n in $(seq {cpus}); do (dd if=/dev/urandom of=/tmp/a$n bs=1M count=2 2>/dev/null; \
                     cp /tmp/a$n /tmp/b$n; cmp /tmp/a$n /tmp/b$n || echo differ > /tmp/bad) & done; \
                     for n in $(seq 30); do /bin/true || echo lost > /tmp/bad; done; wait; [ ! -e /tmp/bad ]"
                ),
                "",
            )
        },
        Deed::new(
            Who::Kernel,
            "has no more to complain of than the tasks that died",
            "echo oopses=$(dmesg | grep -c 'Internal error:') complaints=$(dmesg -r | complaints | wc -l)",
            "oopses=2 complaints=0",
        ),
        Deed::new(
            Who::Call,
            "has Freehold compare its map with its tables for all RAM",
            "audit",
            "call=audit status=Success",
        ),
    ]
}

fn end() -> Vec<Deed> {
    vec![
        call(
            "shares 16 pages with EL2",
            "share $((PAGE+0x40000)) 16",
            "status=Success done=16",
        )
        .moving("$((PAGE+0x40000))", 16, "Host", "HostSharedHyp"),
        call(
            "gives 2 MiB to EL2",
            "donate $BLOCK 512",
            "status=Success done=512",
        )
        .moving("$BLOCK", 512, "Host", "NotYours"),
        Deed {
            expected: Expected::Map,
            ..Deed::new(
                Who::Call,
                "asks for every frame's state",
                "$probe map --frames",
                "",
            )
        },
    ]
}
