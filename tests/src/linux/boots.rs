//! The boots beside the matrix: every kind of access and call, sizes at their limits, memory in several pieces, the
//! image at other addresses, and work for longer.

use super::{Change, Script, Session, matrix, tree};
use anyhow::{Context as _, Result, bail};
use freehold_runner::linux::{Linux, Prepared};
use freehold_runner::machine::{Boot, Memory, layout};
use freehold_runner::{debian::Suite, images};
use std::time::Duration;

const MIB: u64 = 1 << 20;

/// Every kind of access, and every call that must be refused, on each of Debian's kernels. Each model of CPU that
/// takes part has another way to hold attributes and tables.
///
/// # Errors
/// If a kernel cannot be fetched.
pub fn attacks() -> Result<Vec<Session>> {
    let models = ["cortex-a72", "max"];
    let sessions = matrix::kernels()
        .into_iter()
        .zip(models)
        .map(|((kernel, suite), model)| {
            let linux = Linux {
                cpu: model.to_owned(),
                ..Linux::new(suite, "")
            };
            Session::new(
                format!("attack::{kernel}"),
                linux,
                &[],
                &[Script::ABORTS, Script::REFUSALS],
            )
        });
    Ok(sessions.collect())
}

/// A boot whose every case must be seen to fail.
#[must_use]
pub fn ill() -> Session {
    let linux = Linux::new(Suite::bookworm(), "");
    Session::new("ill", linux, &[], &[Script::ILL])
}

/// Ordinary work for so many seconds, on each of Debian's kernels.
#[must_use]
pub fn loads(seconds: u64) -> Vec<Session> {
    let sessions = matrix::kernels().into_iter().map(|(kernel, suite)| {
        let linux = Linux {
            smp: 4,
            limit: Duration::from_secs(300 + 4 * seconds),
            ..Linux::new(suite, "")
        };
        let variables = [format!("LOAD_SECONDS={seconds}")];
        Session::new(format!("life::{kernel}"), linux, &variables, &[Script::LIFE])
    });
    sessions.collect()
}

/// Machines at the limits, and otherwise unlike those of the matrix.
///
/// # Errors
/// If the kernel cannot be fetched.
pub fn shapes() -> Result<Vec<Session>> {
    let with = |smp, memory| Linux {
        smp,
        memory,
        ..Linux::new(Suite::bookworm(), "")
    };
    let gib = Memory::gib(1);
    let mut many = with(64, Memory::gib(2));
    many.cpu = "neoverse-n1".to_owned();
    many.limit = Duration::from_secs(600);
    let mut small = with(1, Memory::mib(256));
    small.cpu = "cortex-a53".to_owned();
    let wide = with(2, Memory::gib(64));

    let mut sessions = vec![
        booted("256-mib", small, None)?,
        booted("64-gib", wide, None)?,
        booted("64-cpus", many, Some(count_time))?,
        booted(
            "two-numa-nodes",
            with(2, gib),
            Some(|prepared| nodes(prepared, 2)),
        )?,
        booted(
            "four-memory-regions",
            with(4, gib),
            Some(|prepared| nodes(prepared, 4)),
        )?,
    ];
    // The tree describes half a node less than the machine has.
    let mut holed = with(2, gib);
    holed.memory = Memory::mib(1024);
    sessions.push(booted_with(
        "hole-between-regions",
        holed,
        1024 - 128,
        Some(hole),
    )?);
    let places: [(&str, Change); 3] = [
        ("at-4-mib", |prepared| {
            place(prepared, layout::RAM + 4 * MIB, |_| Ok(()))
        }),
        ("at-118-mib", |prepared| {
            place(prepared, layout::RAM + 118 * MIB, |_| Ok(()))
        }),
        ("at-the-end-of-memory", |prepared| {
            place(prepared, layout::RAM + 1022 * MIB, |_| Ok(()))
        }),
    ];
    for (name, change) in places {
        sessions.push(booted(name, with(2, gib), Some(change))?);
    }
    Ok(sessions)
}

fn booted(name: &str, linux: Linux, change: Option<Change>) -> Result<Session> {
    let mib = linux.memory.bytes() / MIB;
    booted_with(name, linux, mib, change)
}

fn booted_with(name: &str, linux: Linux, mib: u64, change: Option<Change>) -> Result<Session> {
    let mut variables = matrix::expectations(&linux)?;
    variables.push(format!("EXPECT_MIB={mib}"));
    let session = Session::new(format!("shape::{name}"), linux, &variables, &[Script::BOOT]);
    Ok(match change {
        Some(change) => session.changed(change),
        None => session,
    })
}

/// Time that goes by instructions, in one thread: 64 CPUs that share two real ones would find each other stuck.
#[expect(
    clippy::unnecessary_wraps,
    reason = "it stands where changes stand that can fail"
)]
fn count_time(prepared: &mut Prepared) -> Result<()> {
    prepared.machine.icount = true;
    Ok(())
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "it stands where changes stand that can fail"
)]
fn nodes(prepared: &mut Prepared, number: u32) -> Result<()> {
    prepared.machine.nodes = number;
    Ok(())
}

/// Two regions of 512 MiB, of which the first is described 128 MiB short.
fn hole(prepared: &mut Prepared) -> Result<()> {
    prepared.machine.nodes = 2;
    place(prepared, layout::RAM + 2 * MIB, |bytes| {
        tree::shrink_memory(bytes, layout::RAM, 512 * MIB, 384 * MIB)
    })
}

/// Has the machine start Freehold's image at an address of our choice, with a device tree that was edited.
fn place(prepared: &mut Prepared, address: u64, edit: impl Fn(&mut [u8]) -> Result<()>) -> Result<()> {
    let hypervisor = prepared.hypervisor.as_ref().context("Freehold takes no part")?;
    let mut tree = prepared.machine.device_tree()?;
    edit(&mut tree)?;
    let size = images::image_size(&hypervisor.flat)?;
    if address + size > layout::RAM + prepared.machine.memory.bytes() {
        bail!("an image of {size} bytes does not fit at {address:#x}");
    }
    prepared.machine.boot = Boot::Placed {
        image: hypervisor.flat.clone(),
        address,
        tree,
    };
    Ok(())
}
