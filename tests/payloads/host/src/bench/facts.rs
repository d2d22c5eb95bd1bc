//! What the runner wants to know beside the figures: EL2's memory as the host sees it, and the sizes of cache lines.

use crate::console::println;
use crate::hypercall::HYPERVISOR;
use crate::machine::machine;
use crate::sysreg;
use hyp_abi::FRAME_SIZE;
use hyp_abi::host_call::Statistic;

/// Prints the facts, each as `F <name> <value>`; sizes are in bytes.
pub(crate) fn tell() {
    let machine = machine();
    println!("F ram {}", machine.memory_size());
    // What the tree forbids to map: nothing but a hypervisor's own memory on these machines.
    let reserved: u64 = machine.no_map.iter().map(|range| range.end - range.start).sum();
    println!("F reserved {reserved}");
    // CTR_EL0.DminLine is the log2 of the words in the smallest data cache line (Arm ARM DDI 0487, D24.2.34).
    println!("F cache_line {}", 4_u64 << (sysreg::cache_type() >> 16 & 0xf));
    // DCZID_EL0: the log2 of the words that DC ZVA zeroes (D24.2.37); bit 4 forbids it.
    println!("F zero_block {}", 4_u64 << (sysreg::zero_block_id() & 0xf));
    for (name, statistic) in [
        ("el2_bytes", Statistic::FramesHyp),
        ("pool_bytes", Statistic::PoolTotal),
        ("pool_free_bytes", Statistic::PoolFree),
    ] {
        // Without Freehold below there is nothing to tell.
        if let Ok(frames) = HYPERVISOR.statistic(statistic) {
            println!("F {name} {}", frames * FRAME_SIZE);
        }
    }
}
