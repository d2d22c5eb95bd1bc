//! Deeds of this program itself, at EL0.
#![expect(
    unsafe_code,
    reason = "loads, stores and jumps that may kill the process are its purpose"
)]

use crate::deed::{Deed, Map, Place};
use crate::device::{Device, Memory, Protection};
use crate::instructions::PLANTED;
use crate::machine::{self, Size};
use std::io::{Error, Result};

/// Does the deed in this process, which may die of it. Answers the value that it gave.
///
/// # Errors
/// If the address cannot be mapped, or this architecture cannot do it.
pub(crate) fn perform(device: &Device, place: Place, deed: Deed) -> Result<Option<u64>> {
    let memory = match place.map {
        Map::Auto | Map::Normal => Memory::Normal,
        Map::Device => Memory::Device,
        Map::Linear => return Err(Error::from_raw_os_error(libc::EINVAL)),
        Map::Virtual => {
            let address =
                usize::try_from(place.address).map_err(|_| Error::from_raw_os_error(libc::ERANGE))?;
            return perform_at(std::ptr::with_exposed_provenance_mut(address), deed);
        }
    };
    let (size, protection) = match deed {
        Deed::Read(size) => (size.bytes(), Protection::Read),
        Deed::Write(size, _) => (size.bytes(), Protection::Write),
        Deed::Fetch { plant: false } => (4, Protection::Execute),
        Deed::Fetch { plant: true } => (size_of_val(&PLANTED) as u32, Protection::All),
    };
    let mapping = device.map(place.address, size.into(), protection, memory)?;
    perform_at(mapping.pointer(), deed)
}

fn perform_at(pointer: *mut u8, deed: Deed) -> Result<Option<u64>> {
    match deed {
        // SAFETY: a sacrificial process: nothing of Rust's lives in a mapping of the device.
        Deed::Read(size) => Ok(Some(unsafe { machine::load(pointer, size) })),
        Deed::Write(size, value) => {
            // SAFETY: as above.
            unsafe { machine::store(pointer, size, value) };
            Ok(Some(value))
        }
        Deed::Fetch { plant } => {
            if plant {
                plant_at(pointer);
            }
            // SAFETY: as above; what the code does, it does to this process alone.
            let value = unsafe { machine::call(pointer) };
            value
                .map(Some)
                .ok_or_else(|| Error::from_raw_os_error(libc::ENOSYS))
        }
    }
}

fn plant_at(pointer: *mut u8) {
    for (word, offset) in PLANTED.into_iter().zip((0..).step_by(size_of::<u32>())) {
        // SAFETY: a sacrificial process, as in `perform_at`.
        unsafe { machine::store(pointer.wrapping_add(offset), Size::Word, word.into()) };
    }
    // SAFETY: the stores have just shown that the bytes are mapped.
    unsafe { machine::sync_code(pointer, size_of_val(&PLANTED)) };
}
