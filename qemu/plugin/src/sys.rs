#![expect(
    unsafe_code,
    reason = "QEMU's plugin interface is C functions and opaque pointers"
)]
//! QEMU's plugin interface, as much of it as this plugin uses, made safe.
//!
//! The functions are looked up by name in the running QEMU instead of being declared `extern`: so the library also
//! links into programs that are not QEMU (the runner, its tests), and one build serves the versions of the interface
//! that differ. Version 1 (QEMU 7.2) to 5 (10.x); what differs is said at [`Instruction::word`] and
//! [`Instruction::add_on_execute`].
//!
//! [`Block`] and [`Instruction`] are handles that live during the translation of a block; on them the modes register
//! callbacks for the block's execution. Callbacks get the CPU and a [`Token`], a number that the mode chose.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::marker::PhantomData;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;

/// What a mode attaches to a callback. On the C side it is the `userdata` pointer, which QEMU hands back untouched;
/// it is never followed.
pub(crate) type Token = *mut c_void;

/// Called before an instruction executes.
pub(crate) type OnExecute = extern "C" fn(cpu: c_uint, token: Token);

/// Called after an instruction accessed memory.
pub(crate) type OnAccess = extern "C" fn(cpu: c_uint, info: u32, address: u64, token: Token);

type OnTranslate = extern "C" fn(id: u64, block: *mut c_void);
type OnEnd = extern "C" fn(id: u64, token: Token);

/// `QEMU_PLUGIN_CB_NO_REGS`: the callback does not touch the CPU's registers.
const NO_REGISTERS: c_int = 0;
/// `QEMU_PLUGIN_MEM_W`: stores only.
const STORES: c_int = 2;
/// `QEMU_PLUGIN_INLINE_ADD_U64`.
const INLINE_ADD: c_int = 0;

/// What QEMU says of itself when it loads a plugin: `qemu_info_t`.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Info {
    target: *const c_char,
    oldest: c_int,
    current: c_int,
    system: bool,
    cpus: c_int,
    most_cpus: c_int,
}

impl Info {
    /// The version of the interface that this QEMU speaks.
    pub(crate) const fn version(&self) -> i32 {
        self.current
    }

    /// How many CPUs the machine starts with, if this is an arm64 machine.
    pub(crate) fn cpus(&self) -> Option<usize> {
        // SAFETY: QEMU points `target` to a string of its own that ends with zero.
        let target = unsafe { CStr::from_ptr(self.target) };
        if self.system && target == c"aarch64" {
            usize::try_from(self.cpus).ok()
        } else {
            None
        }
    }
}

unsafe extern "C" {
    fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
}

/// The address of a symbol of the program that loaded us.
fn symbol(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: a null handle is RTLD_DEFAULT on Linux, and `name` ends with zero.
    let address = unsafe { dlsym(ptr::null_mut(), name.as_ptr()) };
    if address.is_null() { None } else { Some(address) }
}

/// Whether the running program has the interface of version 2 or later, which begins with scoreboards (QEMU 9.0).
pub(crate) fn has_scoreboards() -> bool {
    symbol(c"qemu_plugin_scoreboard_new").is_some()
}

macro_rules! interface {
    ($($(#[$doc:meta])* $field:ident = $name:literal : fn($($argument:ty),*) $(-> $result:ty)?;)*) => {
        struct Interface {
            version: i32,
            $($(#[$doc])* $field: Option<unsafe extern "C" fn($($argument),*) $(-> $result)?>,)*
        }

        impl Interface {
            fn find(version: i32) -> Self {
                $(let $field = symbol($name).map(|address| {
                    // SAFETY: QEMU's function of this name has this signature, in every version that is used.
                    unsafe {
                        std::mem::transmute::<
                            *mut c_void,
                            unsafe extern "C" fn($($argument),*) $(-> $result)?,
                        >(address)
                    }
                });)*
                Self { version, $($field,)* }
            }
        }
    };
}

interface! {
    on_translate = c"qemu_plugin_register_vcpu_tb_trans_cb": fn(u64, OnTranslate);
    on_end = c"qemu_plugin_register_atexit_cb": fn(u64, OnEnd, Token);
    instructions = c"qemu_plugin_tb_n_insns": fn(*mut c_void) -> usize;
    instruction = c"qemu_plugin_tb_get_insn": fn(*mut c_void, usize) -> *mut c_void;
    address = c"qemu_plugin_insn_vaddr": fn(*mut c_void) -> u64;
    size = c"qemu_plugin_insn_size": fn(*mut c_void) -> usize;
    /// Until version 2: a pointer to the bytes of the instruction.
    bytes = c"qemu_plugin_insn_data": fn(*mut c_void) -> *const u8;
    /// Since version 3: copies at most so many bytes of the instruction, and returns how many.
    copy = c"qemu_plugin_insn_data": fn(*mut c_void, *mut u8, usize) -> usize;
    on_execute = c"qemu_plugin_register_vcpu_insn_exec_cb": fn(*mut c_void, OnExecute, c_int, Token);
    /// Until version 1.
    add_on_execute = c"qemu_plugin_register_vcpu_insn_exec_inline": fn(*mut c_void, c_int, *mut u64, u64);
    on_access = c"qemu_plugin_register_vcpu_mem_cb": fn(*mut c_void, OnAccess, c_int, c_int, Token);
    size_shift = c"qemu_plugin_mem_size_shift": fn(u32) -> c_uint;
    is_store = c"qemu_plugin_mem_is_store": fn(u32) -> bool;
}

static INTERFACE: OnceLock<Interface> = OnceLock::new();

/// A function of the interface that every QEMU since 7.2 has.
macro_rules! always {
    ($interface:expr, $field:ident) => {
        $interface.$field.expect(concat!(
            "every QEMU since 7.2 has a function to ",
            stringify!($field)
        ))
    };
}

fn interface() -> &'static Interface {
    INTERFACE.get().expect("callbacks run only after `connect`")
}

/// What the plugin wants to hear of.
#[derive(Debug)]
pub(crate) struct Hooks {
    /// A block of instructions is being translated: called once or more often for the same code.
    pub(crate) translate: fn(&Block<'_>),
    /// QEMU ends.
    pub(crate) end: fn(),
}

static HOOKS: OnceLock<Hooks> = OnceLock::new();

/// Registers the plugin with this `id` and its hooks with QEMU. Once.
pub(crate) fn connect(id: u64, version: i32, hooks: Hooks) {
    extern "C" fn translate(_: u64, block: *mut c_void) {
        if let Some(hooks) = HOOKS.get() {
            (hooks.translate)(&Block {
                raw: block,
                lifetime: PhantomData,
            });
        }
    }
    extern "C" fn end(_: u64, _: Token) {
        if let Some(hooks) = HOOKS.get() {
            (hooks.end)();
        }
    }
    let interface = INTERFACE.get_or_init(|| Interface::find(version));
    let _ = HOOKS.set(hooks);
    // SAFETY: `id` is ours, and `translate` lives as long as the process.
    unsafe { always!(interface, on_translate)(id, translate) };
    // SAFETY: `id` is ours, and `end` lives as long as the process.
    unsafe { always!(interface, on_end)(id, end, ptr::null_mut()) };
}

/// The bytes of the store that an [`OnAccess`] callback was called for with this `info`.
pub(crate) fn access_size(info: u32) -> u32 {
    // SAFETY: `info` is what QEMU handed to the callback.
    let shift = unsafe { always!(interface(), size_shift)(info) };
    1_u32.checked_shl(shift).unwrap_or(0)
}

/// Whether it was called for a store. QEMU 7.2 calls back for loads too, whatever it was asked.
pub(crate) fn is_store(info: u32) -> bool {
    // SAFETY: `info` is what QEMU handed to the callback.
    unsafe { always!(interface(), is_store)(info) }
}

/// Whether [`Instruction::add_on_execute`] can be used.
pub(crate) fn can_add() -> bool {
    interface().add_on_execute.is_some()
}

/// A token with this number in it.
pub(crate) fn token(number: u64) -> Token {
    // Only 64-bit hosts, so that the number is whole.
    const { assert!(size_of::<usize>() == size_of::<u64>()) };
    #[expect(
        clippy::cast_possible_truncation,
        reason = "usize has 64 bits, asserted above"
    )]
    ptr::without_provenance_mut(number as usize)
}

/// The number in a token.
pub(crate) fn number(token: Token) -> u64 {
    token.addr() as u64
}

/// A block of instructions that is being translated.
#[derive(Debug)]
pub(crate) struct Block<'translation> {
    raw: *mut c_void,
    lifetime: PhantomData<&'translation ()>,
}

impl Block<'_> {
    /// Its instructions, in order.
    pub(crate) fn instructions(&self) -> impl Iterator<Item = Instruction<'_>> {
        // SAFETY: the handle is valid during the translation, which is as long as `self` lives.
        let count = unsafe { always!(interface(), instructions)(self.raw) };
        (0..count).map(|index| {
            // SAFETY: the handle is valid, and the block has `count` instructions.
            let raw = unsafe { always!(interface(), instruction)(self.raw, index) };
            Instruction {
                raw,
                lifetime: PhantomData,
            }
        })
    }
}

/// An instruction of a block that is being translated.
#[derive(Debug)]
pub(crate) struct Instruction<'block> {
    raw: *mut c_void,
    lifetime: PhantomData<&'block ()>,
}

impl Instruction<'_> {
    /// Its virtual address.
    pub(crate) fn address(&self) -> u64 {
        // SAFETY: the handle is valid during the translation.
        unsafe { always!(interface(), address)(self.raw) }
    }

    /// Its instruction word. (Of an A32 or T32 instruction: its bytes; those are not told apart.)
    pub(crate) fn word(&self) -> u32 {
        let mut word = [0_u8; 4];
        if interface().version >= 3 {
            // SAFETY: the handle is valid, and `word` takes four bytes.
            unsafe { always!(interface(), copy)(self.raw, word.as_mut_ptr(), word.len()) };
        } else {
            // SAFETY: the handle is valid.
            let bytes = unsafe { always!(interface(), bytes)(self.raw) };
            // SAFETY: the handle is valid.
            let size = unsafe { always!(interface(), size)(self.raw) };
            // SAFETY: QEMU has `size` bytes of the instruction at `bytes`, and `word` takes four.
            unsafe { ptr::copy_nonoverlapping(bytes, word.as_mut_ptr(), size.min(word.len())) };
        }
        u32::from_le_bytes(word)
    }

    /// Asks for `callback` before each execution.
    pub(crate) fn on_execute(&self, callback: OnExecute, token: Token) {
        // SAFETY: the handle is valid, the callback lives as long as the process and follows no pointer.
        unsafe { always!(interface(), on_execute)(self.raw, callback, NO_REGISTERS, token) };
    }

    /// Asks for `callback` after each store; see [`is_store`]. Only for an instruction of the loads and stores.
    pub(crate) fn on_store(&self, callback: OnAccess, token: Token) {
        // SAFETY: the handle is valid, the callback lives as long as the process and follows no pointer.
        unsafe { always!(interface(), on_access)(self.raw, callback, NO_REGISTERS, STORES, token) };
    }

    /// Asks QEMU to add one to `counter` at each execution, in the translated code itself. The addition is not
    /// atomic: only for a machine with one CPU. Only if [`can_add`]: version 2 of the interface replaced this.
    pub(crate) fn add_on_execute(&self, counter: &'static AtomicU64) {
        if let Some(add) = interface().add_on_execute {
            // SAFETY: the handle is valid, and the counter lives as long as the process and may be written through
            // a shared reference; the one CPU's thread is its only writer.
            unsafe { add(self.raw, INLINE_ADD, counter.as_ptr(), 1) };
        }
    }
}
