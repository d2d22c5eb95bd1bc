#![expect(
    unsafe_code,
    reason = "the symbols that QEMU looks for have C's names and calling convention"
)]
//! The two symbols by which QEMU knows a plugin.

use crate::sys::{self, Info};
use std::ffi::{CStr, c_char, c_int};
use std::sync::atomic::{AtomicI32, Ordering};

/// The version of the interface that we say we are made for. QEMU reads it after loading us and before calling us.
///
/// QEMU 7.2 and 8 take 0 and 1, QEMU 9.0 and later 2 and above. We are made for both, so [`CHOOSE`] decides.
#[unsafe(no_mangle)]
static qemu_plugin_version: AtomicI32 = AtomicI32::new(1);

/// Runs when we are loaded, which is before QEMU reads the version: `.init_array` is a list of functions, called in
/// turn by the dynamic linker.
#[unsafe(link_section = ".init_array")]
#[used]
static CHOOSE: extern "C" fn() = {
    extern "C" fn choose() {
        if sys::has_scoreboards() {
            qemu_plugin_version.store(2, Ordering::Relaxed);
        }
    }
    choose
};

/// QEMU loads us: reads the options, opens the file, registers. Returns 0, or 1 after saying why not.
///
/// # Safety
/// Only for QEMU: `info` and the `count` strings at `arguments` must be valid during the call.
#[unsafe(no_mangle)]
unsafe extern "C" fn qemu_plugin_install(
    id: u64,
    info: *const Info,
    count: c_int,
    arguments: *const *const c_char,
) -> c_int {
    // SAFETY: the caller says so.
    let info = unsafe { &*info };
    let arguments = (0..usize::try_from(count).unwrap_or(0)).map(|index| {
        // SAFETY: the caller says that there are `count` of them.
        let argument = unsafe { arguments.add(index) };
        // SAFETY: it is one of the pointers of the caller.
        let argument = unsafe { *argument };
        // SAFETY: the caller says that each is a string that ends with zero.
        unsafe { CStr::from_ptr(argument) }.to_str()
    });
    let installed = arguments
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| "an option is not UTF-8".to_owned())
        .and_then(|arguments| crate::install(id, info, arguments).map_err(|error| error.to_string()));
    match installed {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("freehold-plugin: {error}");
            1
        }
    }
}
