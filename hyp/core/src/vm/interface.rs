//! What the virtual CPU interfaces of the GIC are, as the host is told.
//!
//! A guest runs on whichever CPU the host likes, so the host is told what all have: of each number the least, of each
//! property whether all have it. Source: ICH_VTR_EL2, Arm IHI 0069, 12.4.

/// PRIbits, PREbits, IDbits, ListRegs: lowest bit and width.
const NUMBERS: [(u32, u32); 4] = [(29, 3), (26, 3), (23, 3), (0, 5)];
/// SEIS, A3V, TDS. Those of direct injection (nV4, DVIM) are left out: no guest has any.
const PROPERTIES: u64 = 1 << 22 | 1 << 21 | 1 << 19;

/// What two interfaces have in common. All ones stands for the interfaces of no CPU at all: what it and another have in
/// common is the other.
#[must_use]
pub const fn common(one: u64, other: u64) -> u64 {
    let mut shared = one & other & PROPERTIES;
    let mut at = 0;
    while at < NUMBERS.len() {
        let (shift, width) = NUMBERS[at];
        let mask = (1 << width) - 1;
        let (first, second) = (one >> shift & mask, other >> shift & mask);
        shared |= (if first < second { first } else { second }) << shift;
        at += 1;
    }
    shared
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_each_number_the_least_is_common() {
        // 32 priorities and 16 list registers, and 128 and 4.
        let (one, other) = (0x9000_000f, 0xd800_0003);
        assert_eq!(common(one, other), 0x9000_0003);
        assert_eq!(common(other, one), 0x9000_0003);
    }

    #[test]
    fn properties_are_common_if_both_have_them() {
        let (serrors, affinity3, direct) = (1 << 22, 1 << 21, 1 << 20);
        assert_eq!(common(serrors | affinity3, affinity3), affinity3);
        assert_eq!(common(direct, direct), 0);
    }

    #[test]
    fn the_first_cpu_has_in_common_with_none_what_it_has() {
        for interface in [0x9008_0003, 0x9060_000f, 0] {
            assert_eq!(common(u64::MAX, interface), interface);
            assert_eq!(common(interface, interface), interface);
        }
    }
}
