use super::*;

const BASE: u64 = 0x4000_0000;
const IMAGE: u64 = BASE + 0x20_0000;
const HYP: Range<u64> = IMAGE..IMAGE + 0x20_0000;
/// A page of EL2's pool that the host brought.
const DONATED: Range<u64> = BASE + 0x50_0000..BASE + 0x50_1000;
const SECRET_AT: u64 = 0x3000;
const PAGES_AT: Range<u64> = 0x4000..0x5000;
const HOST: u64 = BASE + 0x45_6000;

const SECRET: Secret = Secret([0x1122_3344_5566_7788, 0x99aa_bbcc_ddee_ff01]);

/// The memory of a machine in which all is well.
struct Memory(Vec<u8>);

impl Memory {
    fn new() -> Self {
        let mut memory = Self(vec![0; 0x60_0000]);
        memory.put(IMAGE + SECRET_AT, &SECRET.bytes());
        let pages = (0..FEWEST as u64).map(|index| IMAGE + 0x10_0000 + 2 * index * FRAME);
        for (index, page) in pages.chain([DONATED.start]).enumerate() {
            memory.put(IMAGE + PAGES_AT.start + 8 * index as u64, &page.to_le_bytes());
            for address in (page..page + FRAME).step_by(8) {
                memory.put(address, &SECRET.word(address).to_le_bytes());
            }
        }
        memory
    }

    fn put(&mut self, address: u64, bytes: &[u8]) {
        let offset = usize::try_from(address - BASE).unwrap();
        self.0[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    fn check(&self, registers: &str) -> Result<Found> {
        let canaries = Canaries {
            secret: SECRET,
            secret_at: SECRET_AT,
            pages_at: PAGES_AT,
        };
        canaries.check(BASE, &self.0, &[HYP, DONATED], registers)
    }
}

const REGISTERS: &str = "CPU#0\n PC=0000000044001234 X00=0000000000000000 X01=00000000deadbeef\n\
                         Q00=0000000000000000:0000000000000000\nCPU#1\n X00=0000000000000001\n";

#[test]
fn nothing_is_found_where_nothing_is() {
    let found = Memory::new().check(REGISTERS).unwrap();
    assert_eq!((found.pages, found.cpus), (FEWEST + 1, 2));
    assert_eq!((found.changed.len(), found.leaks.len()), (0, 0));
    // All words of the canaries, and the secret itself.
    assert_eq!(found.at_home, 512 * (FEWEST as u64 + 1) + 2);
    assert_eq!(found.searched, 0x60_0000 - 0x20_0000 - FRAME);
}

#[test]
fn a_copy_is_found_wherever_it_begins() {
    for shift in 0..16 {
        let mut memory = Memory::new();
        memory.put(HOST + shift, &SECRET.bytes());
        let found = memory.check(REGISTERS).unwrap();
        assert!(!found.leaks.is_empty(), "{shift} bytes off");
        let Place::Memory(address) = found.leaks[0].place else {
            panic!("memory is memory")
        };
        assert_eq!(address, (HOST + shift).next_multiple_of(8));
    }
}

#[test]
fn a_word_that_was_mixed_with_an_address_is_found() {
    for address in [IMAGE + 0x1010, DONATED.start + 0x18, HYP.end - 8] {
        let mut memory = Memory::new();
        memory.put(HOST, &SECRET.word(address).to_le_bytes());
        let found = memory.check(REGISTERS).unwrap();
        let value = SECRET.word(address);
        let place = Place::Memory(HOST);
        assert_eq!(found.leaks, [Leak { place, value }]);
    }
}

#[test]
fn what_is_next_to_the_memory_of_el2_is_not_el2s() {
    for address in [HYP.end, HYP.start - 8, DONATED.end, DONATED.start - 8] {
        let mut memory = Memory::new();
        memory.put(address, &SECRET.0[1].to_le_bytes());
        assert_eq!(memory.check(REGISTERS).unwrap().leaks.len(), 1, "{address:#x}");
    }
}

#[test]
fn a_register_that_holds_it_is_found() {
    for line in [
        "X07=1122334455667788 X08=0000000000000000",
        "Q31=0000000000000000:99aabbccddeeff01",
        "Z03=00000000000000001122334455667788",
    ] {
        let found = Memory::new().check(&format!("{REGISTERS}{line}\n")).unwrap();
        assert_eq!(found.leaks.len(), 1, "{line}");
        assert_eq!(found.leaks[0].place, Place::Register(line.to_owned()));
    }
}

#[test]
fn a_canary_that_was_touched_is_found() {
    let mut memory = Memory::new();
    memory.put(DONATED.start + 0x123, &[0]);
    memory.put(IMAGE + 0x10_0000, &[0xff]);
    let found = memory.check(REGISTERS).unwrap();
    assert_eq!(found.changed, [IMAGE + 0x10_0000, DONATED.start + 0x120]);
}

#[test]
fn many_leaks_are_counted() {
    let mut memory = Memory::new();
    for index in 0..100 {
        memory.put(HOST + 8 * index, &SECRET.0[0].to_le_bytes());
    }
    let found = memory.check(REGISTERS).unwrap();
    assert_eq!((found.leaks.len(), found.more_leaks), (SHOWN, 100 - SHOWN));
}

#[test]
fn a_machine_without_canaries_proves_nothing() {
    let mut memory = Memory::new();
    memory.put(IMAGE + SECRET_AT, &[0; 16]);
    assert!(memory.check(REGISTERS).is_err(), "another machine's memory");

    let mut memory = Memory::new();
    memory.put(IMAGE + PAGES_AT.start, &[0; 8]);
    assert!(memory.check(REGISTERS).is_err(), "no canaries");

    let mut memory = Memory::new();
    memory.put(IMAGE + PAGES_AT.start, &HOST.to_le_bytes());
    assert!(memory.check(REGISTERS).is_err(), "a canary in the host's hands");
}
