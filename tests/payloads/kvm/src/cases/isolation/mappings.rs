//! What a process can have the kernel do with a mapping of a protected guest's memory: nothing of it brings a page
//! there that the guest has not lent, or takes one from the guest.

use super::super::{bus_error, cases, ends, refused, same, succeed};
use super::{LENT_OFFSET, OFFSET, SECRET, WORD, in_vain_but_for_what_is_lent, only_what_is_lent};
use crate::Outcome;
use crate::device::Mapping;
use crate::guest::{DATA, Do, Guest, P, PAGES};
use crate::process::Ended;

cases![
    isolation_from_protections_of_a_mapping,
    isolation_from_a_mapping_that_is_moved,
    isolation_from_advice_about_a_mapping,
    isolation_from_a_mapping_that_is_kept_or_watched,
];

/// Advice since Linux 5.18 and 6.1.
const MADV_DONTNEED_LOCKED: i32 = 24;
const MADV_COLLAPSE: i32 = 25;

fn mapping(guest: &Guest) -> Result<Mapping, String> {
    succeed("a mapping", Mapping::of(&guest.file, 0, PAGES * P))
}

fn isolation_from_protections_of_a_mapping() -> Outcome {
    let (fine, segv) = (Ended::Exited(0), Ended::Killed(libc::SIGSEGV));
    let bus = Ended::Killed(libc::SIGBUS);
    in_vain_but_for_what_is_lent(|guest| {
        let memory = mapping(guest)?;
        for (protection, private, lent) in [
            (libc::PROT_NONE, [segv, segv], [segv, segv]),
            (libc::PROT_READ, [bus, segv], [fine, segv]),
            (libc::PROT_READ | libc::PROT_WRITE, [bus, bus], [fine, fine]),
        ] {
            memory.protect(0, PAGES * P, protection);
            for (offset, [load, store]) in [(OFFSET, private), (LENT_OFFSET, lent)] {
                let what = |how| format!("a {how} at {offset:#x}, protection {protection}");
                ends(&what("load"), load, || _ = memory.read::<u64>(offset))?;
                ends(&what("store"), store, || memory.write(offset, WORD))?;
            }
        }
        // Nobody runs a program of the guest's.
        let runs = memory.try_to_protect(0, PAGES * P, libc::PROT_READ | libc::PROT_EXEC);
        refused("a mapping to fetch from", runs, libc::EACCES)?;
        only_what_is_lent(&memory)
    })
}

fn isolation_from_a_mapping_that_is_moved() -> Outcome {
    in_vain_but_for_what_is_lent(|guest| {
        let memory = mapping(guest)?;
        let may_move = libc::MREMAP_MAYMOVE;
        for (what, old, new, flags, errno) in [
            ("a longer one", P, 2 * P, may_move, libc::EFAULT),
            ("a second one", 0, P, may_move, libc::EFAULT),
            (
                "what is left",
                P,
                P,
                may_move | libc::MREMAP_DONTUNMAP,
                libc::EINVAL,
            ),
        ] {
            refused(what, memory.resize(OFFSET, old, new, flags), errno)?;
        }
        only_what_is_lent(&memory)?;
        let memory = succeed("moving it", memory.moved())?;
        only_what_is_lent(&memory)?;
        // One page at the place of another.
        succeed("a page elsewhere", memory.show(0, LENT_OFFSET / P))?;
        same("the lent page elsewhere", memory.read::<u64>(0), WORD)?;
        succeed("a page elsewhere", memory.show(LENT_OFFSET, OFFSET / P))?;
        bus_error("a load of the secret elsewhere", || {
            _ = memory.read::<u64>(LENT_OFFSET);
        })
    })
}

/// Advice, and how it is refused.
const ADVICE: [(&str, i32, i32); 11] = [
    ("MADV_DONTNEED", libc::MADV_DONTNEED, libc::EINVAL),
    ("MADV_DONTNEED_LOCKED", MADV_DONTNEED_LOCKED, libc::EINVAL),
    ("MADV_FREE", libc::MADV_FREE, libc::EINVAL),
    ("MADV_REMOVE", libc::MADV_REMOVE, libc::EBUSY),
    ("MADV_COLD", libc::MADV_COLD, libc::EINVAL),
    ("MADV_PAGEOUT", libc::MADV_PAGEOUT, libc::EINVAL),
    ("MADV_COLLAPSE", MADV_COLLAPSE, libc::EINVAL),
    ("MADV_WIPEONFORK", libc::MADV_WIPEONFORK, libc::EINVAL),
    // What is in a core file would be read by the kernel.
    ("MADV_DODUMP", libc::MADV_DODUMP, libc::EINVAL),
    ("MADV_HWPOISON", libc::MADV_HWPOISON, libc::EFAULT),
    ("MADV_SOFT_OFFLINE", libc::MADV_SOFT_OFFLINE, libc::EFAULT),
];

fn isolation_from_advice_about_a_mapping() -> Outcome {
    in_vain_but_for_what_is_lent(|guest| {
        let memory = mapping(guest)?;
        for (name, advice, errno) in ADVICE {
            for offset in [OFFSET, LENT_OFFSET] {
                let what = format!("{name} at {offset:#x}");
                refused(&what, memory.advise(offset, P, advice), errno)?;
            }
        }
        // This is taken, and means nothing.
        for advice in [libc::MADV_WILLNEED, libc::MADV_MERGEABLE, libc::MADV_HUGEPAGE] {
            let taken = memory.advise(0, PAGES * P, advice);
            succeed(&format!("advice {advice}"), taken)?;
        }
        only_what_is_lent(&memory)
    })?;
    // What no guest keeps to itself can be removed.
    let guest = Guest::new(
        0,
        &[&[Do::Store(8, DATA, SECRET), Do::Report(1), Do::Load(8, DATA)]],
    )?;
    guest.vcpu().reports("the guest", 1)?;
    same("what it stored", guest.memory.read::<u64>(OFFSET), SECRET)?;
    let removed = guest.memory.advise(OFFSET, P, libc::MADV_REMOVE);
    succeed("MADV_REMOVE", removed)?;
    guest.vcpu().reports("what is removed", 0)
}

fn isolation_from_a_mapping_that_is_kept_or_watched() -> Outcome {
    in_vain_but_for_what_is_lent(|guest| {
        let memory = mapping(guest)?;
        succeed("mlock(2)", memory.lock(0, PAGES * P))?;
        only_what_is_lent(&memory)?;
        refused("msync(2)", memory.sync(0, PAGES * P), libc::EINVAL)?;
        // Whoever watches for missing pages can put in pages of his own.
        let own = succeed("memory", Mapping::anonymous(P, P))?;
        succeed("watching memory", own.watch_faults())?;
        refused("watching it", memory.watch_faults(), libc::EINVAL)?;
        only_what_is_lent(&memory)
    })
}
