//! What is told of descriptors, in bytes.

use super::{cases, same};
use crate::Outcome;
use crate::device::{Fd, PROTECTED};
use crate::guest::{DATA, Do, Guest, OwnGuest, P, RELINQUISH, SHARE, UNSHARE};

cases![
    figures_of_a_protected_guest_are_what_it_does,
    figures_of_a_guest_are_what_it_borrows,
];

/// A figure of a descriptor's.
fn figure(fd: &Fd, name: &str) -> Result<u64, String> {
    let all = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.raw()))
        .map_err(|error| error.to_string())?;
    let line = all.lines().find_map(|line| {
        line.strip_prefix("freehold-")?
            .strip_prefix(name)?
            .strip_prefix(":\t")
    });
    line.and_then(|value| value.parse().ok())
        .ok_or_else(|| format!("there is no {name} in {all:?}"))
}

/// Whether figures are so many pages.
fn are(fd: &Fd, pages: &[(&str, u64)]) -> Outcome {
    pages
        .iter()
        .try_for_each(|(name, pages)| same(name, figure(fd, name)?, pages * P))
}

fn figures_of_a_protected_guest_are_what_it_does() -> Outcome {
    let list = [
        Do::Store(8, DATA, 1),
        Do::Store(8, DATA + P, 1),
        Do::Report(1),
        Do::Call(SHARE, DATA, 0, 0),
        Do::Call(UNSHARE, DATA, 0, 0),
        Do::Call(RELINQUISH, DATA, 0, 0),
    ];
    let guest = Guest::new(PROTECTED, &[&list])?;
    let (vm, vcpu) = (&guest.vm, guest.vcpu());
    // Its program and its list are there.
    are(
        vm,
        &[("private", 0), ("shared", 0), ("files", 2), ("run-pages", 1)],
    )?;
    are(&guest.file, &[("resident", 2)])?;
    vcpu.reports("the guest", 1)?;
    are(
        vm,
        &[("private", 4), ("shared", 0), ("borrowed", 0), ("files", 4)],
    )?;
    are(&guest.file, &[("resident", 4)])?;
    vcpu.reports("sharing", 0)?;
    are(vm, &[("private", 3), ("shared", 1), ("files", 4)])?;
    vcpu.reports("taking it back", 0)?;
    are(vm, &[("private", 4), ("shared", 0), ("relinquished", 0)])?;
    vcpu.reports("giving it up", 0)?;
    are(
        vm,
        &[
            ("private", 3),
            ("shared", 0),
            ("relinquished", 1),
            ("files", 3),
            ("lost", 0),
        ],
    )?;
    are(&guest.file, &[("resident", 3)])?;
    // It has a root, a page of its own and one for its vCPU at least, and what is in reserve is a part of it.
    let (all, reserve) = (figure(vm, "el2")?, figure(vm, "el2-reserve")?);
    let is_sound = all.is_multiple_of(P) && reserve.is_multiple_of(P) && all >= reserve + 3 * P;
    same(
        &format!("{all} bytes at EL2, {reserve} in reserve"),
        is_sound,
        true,
    )?;
    // A vCPU has no figures.
    same("a vCPU's", figure(&vcpu.fd, "private").is_err(), true)
}

fn figures_of_a_guest_are_what_it_borrows() -> Outcome {
    let list = [Do::Fill(DATA, 3 * P, 1), Do::Report(1), Do::Report(2)];
    let guest = OwnGuest::new(4, &[&list])?;
    are(&guest.vm, &[("borrowed", 0), ("files", 0), ("run-pages", 1)])?;
    guest.vcpu().reports("the guest", 1)?;
    are(
        &guest.vm,
        &[("borrowed", 5), ("private", 0), ("shared", 0), ("files", 0)],
    )?;
    guest.memory.unmap(OwnGuest::offset(DATA), 2 * P);
    are(&guest.vm, &[("borrowed", 3)])?;
    guest.vcpu().reports("the guest", 2)
}
