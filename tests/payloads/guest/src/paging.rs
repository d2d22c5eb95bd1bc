//! Stage 1 of the guest: IPAs one to one, and three aliases of them, in one constant table.
//!
//! 39-bit addresses, 4 KiB granule, 128 GiB of IPAs. See [`payload_protocol::layout`] for the aliases.

use payload_protocol::layout::{DEVICE_ALIAS, MEMORY, NON_CACHEABLE_ALIAS, USER_ALIAS};

const GIB: u64 = 1 << 30;

// Descriptors of the VMSAv8-64 4 KiB granule (Arm ARM DDI 0487, D8.3).
const VALID: u64 = 1;
const ATTRIBUTE_DEVICE: u64 = 0 << 2;
const ATTRIBUTE_NORMAL: u64 = 1 << 2;
const ATTRIBUTE_NON_CACHEABLE: u64 = 2 << 2;
const USER: u64 = 1 << 6;
const INNER_SHAREABLE: u64 = 0b11 << 8;
const ACCESSED: u64 = 1 << 10;
const PRIVILEGED_NEVER: u64 = 1 << 53;
const USER_NEVER: u64 = 1 << 54;

const DEVICE: u64 = VALID | ATTRIBUTE_DEVICE | ACCESSED;
const NORMAL: u64 = VALID | ATTRIBUTE_NORMAL | INNER_SHAREABLE | ACCESSED;
const NON_CACHEABLE: u64 = VALID | ATTRIBUTE_NON_CACHEABLE | ACCESSED;

/// Device-nGnRnE; normal write-back; normal non-cacheable.
pub(crate) const MAIR: u64 = 0x0044_ff00;
/// T0SZ 25, write-back inner-shareable walks, 4 KiB granule, no TTBR1 walks. The entry code adds IPS.
pub(crate) const TCR: u64 = 25 | 0b01 << 8 | 0b01 << 10 | 0b11 << 12 | 1 << 23 | 0b10 << 30;
/// M, C, SA, SA0, I, and for EL0: DZE, UCT, UCI; nTWI, nTWE; ITD, SED; the RES1 bits of an implementation without the
/// features that use them (EOS, EIS, TSCXT, SPAN, LSMAOE, nTLSMD).
pub(crate) const SCTLR: u64 = 1 << 0
    | 1 << 2
    | 1 << 3
    | 1 << 4
    | 1 << 7
    | 1 << 8
    | 1 << 11
    | 1 << 12
    | 1 << 14
    | 1 << 15
    | 1 << 16
    | 1 << 18
    | 1 << 20
    | 1 << 22
    | 1 << 23
    | 1 << 26
    | 1 << 28
    | 1 << 29;

/// A translation table that nobody changes.
#[derive(Debug)]
#[repr(C, align(4096))]
pub(crate) struct Table([u64; 512]);

/// The level-1 table of all vCPUs.
pub(crate) static TABLE: Table = Table(descriptors());

const fn descriptors() -> [u64; 512] {
    let mut table = [0; 512];
    let mut gib = 0;
    while gib < table.len() {
        let address = gib as u64 * GIB;
        table[gib] = if address >= DEVICE_ALIAS {
            DEVICE | PRIVILEGED_NEVER | USER_NEVER | (address - DEVICE_ALIAS)
        } else if address >= USER_ALIAS {
            let below = address - USER_ALIAS;
            USER | PRIVILEGED_NEVER
                | below
                | if below < MEMORY {
                    DEVICE | USER_NEVER
                } else {
                    NORMAL
                }
        } else if address >= NON_CACHEABLE_ALIAS {
            NON_CACHEABLE | USER_NEVER | (address - NON_CACHEABLE_ALIAS)
        } else if address < MEMORY {
            // A fetch from a device is for stage 2 to judge, so stage 1 lets it through.
            DEVICE | USER_NEVER | address
        } else {
            NORMAL | USER_NEVER | address
        };
        gib += 1;
    }
    table
}
