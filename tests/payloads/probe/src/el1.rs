//! Deeds of the module, at EL1.

use crate::deed::{Deed, Map, Place};
use crate::device::Device;
use crate::instructions::PLANTED;
use crate::interface::{Access, Run};
use std::io::{Error, Result};

/// What the kernel does where the deed ends in a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fixup {
    /// The exception table has an entry that tells of it.
    Error,
    /// The exception table has an entry that reads zeros for what lies in the next page. Only for loads of 8 bytes.
    Zeros,
    /// There is no entry: it is an oops of this process.
    None,
}

/// Has the module do the deed. Answers the value that it gave, or `None` if the exception table was used.
///
/// # Errors
/// What the module says.
pub(crate) fn perform(device: &Device, place: Place, deed: Deed, fixup: Fixup) -> Result<Option<u64>> {
    let (size, store, value) = match deed {
        Deed::Read(size) => (size, false, 0),
        Deed::Write(size, value) => (size, true, value),
        Deed::Fetch { plant } => return fetch(device, place, plant).map(Some),
    };
    let mut access = Access {
        address: place.address,
        value,
        size: size.bytes(),
        mapping: mapping(place.map),
        store: store.into(),
        bare: (fixup == Fixup::None).into(),
        padded: (fixup == Fixup::Zeros).into(),
        ..Access::default()
    };
    device.access(&mut access)?;
    Ok((access.refused == 0).then_some(access.value))
}

/// `enum fhp_mapping` of the module.
const fn mapping(map: Map) -> u32 {
    match map {
        Map::Auto => 0,
        Map::Linear => 1,
        Map::Normal => 2,
        Map::Device => 3,
        Map::Virtual => 4,
    }
}

/// Only a window is executable, so other ways to reach the address make no sense.
///
/// The report of an oops reads the code around it, guarded by the exception table. Where that read ends in an external
/// abort, as in a hole of the machine when nobody at EL2 takes it first, Linux 6.12 hangs in its own report.
fn fetch(device: &Device, place: Place, plant: bool) -> Result<u64> {
    if !matches!(place.map, Map::Auto | Map::Normal) {
        return Err(Error::from_raw_os_error(libc::EINVAL));
    }
    let mut run = Run {
        address: place.address,
        ..Run::default()
    };
    if plant {
        for (place, word) in run.code.iter_mut().zip(PLANTED) {
            *place = word;
        }
        run.words = PLANTED.len() as u32;
    }
    device.run(&mut run)?;
    Ok(run.x[0])
}
