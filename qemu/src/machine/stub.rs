//! A few instructions that start an Image where QEMU would not put it.
//!
//! QEMU chooses the address of the kernel it boots and rewrites the memory nodes of any device tree it is given.
//! To boot at another address, or with memory regions of our own making, the Image and the tree are put into
//! memory as plain data, and CPU 0 begins at this stub, which does what QEMU's own would: the tree's address in
//! x0, zero in x1 to x3, and a jump (`Documentation/arch/arm64/booting.rst`).

/// Where the stub lies. With no kernel of its own to boot, QEMU puts its tree into the first MiB of RAM.
pub(super) const ADDRESS: u64 = super::layout::RAM + (1 << 20);

/// The stub that starts the Image at `entry` with the device tree at `tree`.
pub(super) fn code(entry: u64, tree: u64) -> Vec<u8> {
    const INSTRUCTIONS: [u32; 6] = [
        0x5800_00c0, // ldr x0, [pc, #24]: the tree's address
        0xd280_0001, // mov x1, #0
        0xd280_0002, // mov x2, #0
        0xd280_0003, // mov x3, #0
        0x5800_0084, // ldr x4, [pc, #16]: the entry
        0xd61f_0080, // br x4
    ];
    let mut code: Vec<u8> = INSTRUCTIONS.iter().flat_map(|word| word.to_le_bytes()).collect();
    code.extend(tree.to_le_bytes());
    code.extend(entry.to_le_bytes());
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loads_reach_the_words_behind_the_code() {
        let code = code(0x1122, 0x3344);
        let word = |at: usize| u32::from_le_bytes(code[at..at + 4].try_into().unwrap());
        // LDR (literal): imm19 counts words from the instruction itself (Arm ARM DDI 0487, C6.2).
        let target = |at: usize| at + 4 * (word(at) >> 5 & 0x7_ffff) as usize;
        let literal = |at: usize| u64::from_le_bytes(code[at..at + 8].try_into().unwrap());
        assert_eq!(literal(target(0)), 0x3344);
        assert_eq!(literal(target(16)), 0x1122);
    }
}
