//! The deeds of the host, chapter by chapter.

use super::{Deed, Expected, Who};

/// What Freehold counts when it refuses an access.
const ABORT: &str = "HostAbortsInjected";

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

pub(super) fn arrival(release: &str, cpus: u32) -> Vec<Deed> {
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
            Who::Program,
            "counts the CPUs",
            "echo cpus=$(nproc)",
            format!("cpus={cpus}"),
        ),
        call(
            "asks Freehold for its version",
            "version",
            &format!("status=Success cpus={cpus}"),
        ),
    ]
}

pub(super) fn processors(cpus: u32) -> Vec<Deed> {
    let mut deeds: Vec<_> = (0..cpus)
        .map(|cpu| {
            Deed::new(
                Who::Call,
                format!("CPU {cpu} calls twice; EL2's own data of CPU {cpu} counts it"),
                format!("calls_on {cpu}"),
                format!("CPU {cpu}: counted"),
            )
        })
        .collect();
    if let Some(last) = cpus.checked_sub(1).filter(|last| *last > 0) {
        let restarted = Deed::new(
            Who::Smc,
            format!("CPU {last} is turned off and on again, and comes back through EL2"),
            format!("restart {last}"),
            format!("CPU {last}: counted"),
        );
        deeds.push(restarted.counted("Smcs"));
    }
    deeds
}

pub(super) fn sharing() -> Vec<Deed> {
    vec![
        probe(
            Who::Kernel,
            "writes a word to one of its pages",
            "el1 write $PAGE 0x5ec4e7",
            "outcome=written",
        )
        .on("$PAGE", "Host"),
        call(
            "shares the page with EL2",
            "share $PAGE 1",
            "status=Success done=1",
        )
        .moving("$PAGE", 1, "Host", "HostSharedHyp"),
        probe(
            Who::Kernel,
            "reads its word: shared is not lost",
            "el1 read $PAGE",
            "value=0x5ec4e7",
        )
        .on("$PAGE", "HostSharedHyp"),
        refused_call(
            "shares it a second time",
            "share $PAGE 1",
            "SharedWithHyp",
            "$PAGE",
            "HostSharedHyp",
        ),
        call("ends the sharing", "unshare $PAGE 1", "status=Success done=1").moving(
            "$PAGE",
            1,
            "HostSharedHyp",
            "Host",
        ),
        refused_call(
            "ends it a second time",
            "unshare $PAGE 1",
            "NotShared",
            "$PAGE",
            "Host",
        ),
    ]
}

pub(super) fn giving() -> Vec<Deed> {
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
            "writes to the last page",
            "el1 write $((PAGE+511*4096)) 1",
            "outcome=refused",
            "$((PAGE+511*4096))",
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

pub(super) fn attack() -> Vec<Deed> {
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
        access(Who::Program, "writes to it", "el0 write $FREEHOLD 1", BUS_ERROR),
        access(Who::Program, "jumps to it", "el0 fetch $FREEHOLD", BUS_ERROR),
        access(
            Who::Program,
            "reads across its edge",
            "el0 read $((FREEHOLD-4))",
            BUS_ERROR,
        ),
        access(
            Who::Kernel,
            "reads it with care",
            "el1 read $FREEHOLD",
            "outcome=refused",
        ),
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
        access(
            Who::Kernel,
            "jumps to it: that task alone dies",
            "el1 fetch $FREEHOLD",
            "outcome=died",
        ),
        call("claims it as its own, to share", "share $FREEHOLD 1", "NotOwner"),
        call("claims it as its own, to give", "donate $FREEHOLD 1", "NotOwner"),
        call(
            "wants it back, which it never gave",
            "reclaim $FREEHOLD 1",
            "NotDonated",
        ),
        call(
            "gives it to the pool it belongs to",
            "pool-top-up $FREEHOLD 1",
            "NotOwner",
        ),
    ]
}

pub(super) fn detours() -> Vec<Deed> {
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
            Who::Kernel,
            "reads the ITS, which would do DMA for it",
            "el1 read 0x8080000 --size 4 --map device",
            "outcome=refused",
        )
        .counted(ABORT),
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
        probe(
            Who::Call,
            "makes a call that does not exist",
            "hvc 0xc60046ff --expect status=NotSupported",
            "status=NotSupported",
        ),
    ]
}

pub(super) fn life(cpus: u32) -> Vec<Deed> {
    vec![
        Deed {
            expected: Expected::Success,
            ..Deed::new(
                Who::Everybody,
                format!("{cpus} CPUs copy and compare 4 MiB each while 50 processes come and go"),
                format!(
                    "for n in $(seq {cpus}); do (dd if=/dev/urandom of=/tmp/a$n bs=1M count=4 2>/dev/null; \
                     cp /tmp/a$n /tmp/b$n; cmp /tmp/a$n /tmp/b$n || echo differ > /tmp/bad) & done; \
                     for n in $(seq 50); do /bin/true || echo lost > /tmp/bad; done; wait; [ ! -e /tmp/bad ]"
                ),
                "",
            )
        },
        Deed::new(
            Who::Kernel,
            "has no more to complain of than the tasks that died",
            "echo oopses=$(dmesg | grep -c 'Internal error:') complaints=$(dmesg -r | complaints | wc -l)",
            "oopses=3 complaints=0",
        ),
        Deed::new(
            Who::Call,
            "has Freehold compare its map with its tables for all RAM",
            "audit",
            "call=audit status=Success",
        ),
    ]
}

pub(super) fn end() -> Vec<Deed> {
    vec![
        call(
            "shares 16 pages",
            "share $((PAGE+0x40000)) 16",
            "status=Success done=16",
        )
        .moving("$((PAGE+0x40000))", 16, "Host", "HostSharedHyp"),
        call("gives 2 MiB", "donate $BLOCK 512", "status=Success done=512")
            .moving("$BLOCK", 512, "Host", "NotYours"),
        call(
            "gives 64 pages to EL2's pool",
            "pool-top-up $STOCK 64",
            "status=Success done=64",
        )
        .moving("$STOCK", 64, "Host", "NotYours"),
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
