//! Writes a flattened device tree, token by token (Devicetree Specification 0.4, chapter 5).
//!
//! Names of properties are offsets into a block of strings that follows the nodes. The output's block is the
//! input's, whole, followed by the names in [`Added`]: so the offset of a copied property stays what it was, and no
//! name is ever searched for.

use super::EditError;
use crate::machine::refusal::RefusalReason;
use dtoolkit::Property;
use dtoolkit::fdt::{Fdt, FdtProperty};

const MAGIC: u32 = 0xd00d_feed;
const VERSION: u32 = 17;
const LAST_COMPATIBLE_VERSION: u32 = 16;
const HEADER_SIZE: usize = 40;
const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROPERTY: u32 = 3;
const END: u32 = 9;

/// The names of the properties that an edited tree may have gained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Added {
    AddressCells,
    SizeCells,
    Ranges,
    Reg,
    NoMap,
    Bootargs,
    InitrdStart,
    InitrdEnd,
    RngSeed,
    KaslrSeed,
}

/// The names, in the order of [`Added`], as the string block has them.
const ADDED_NAMES: &[u8] = b"#address-cells\0#size-cells\0ranges\0reg\0no-map\0bootargs\0\
    linux,initrd-start\0linux,initrd-end\0rng-seed\0kaslr-seed\0";

impl Added {
    /// Where the name begins in [`ADDED_NAMES`].
    fn offset(self) -> usize {
        ADDED_NAMES
            .split_inclusive(|byte| *byte == 0)
            .take(self as usize)
            .map(<[u8]>::len)
            .sum()
    }
}

/// A tree on its way into `output`.
pub(super) struct Writer<'a, 'o> {
    output: &'o mut [u8],
    end: usize,
    nodes_start: usize,
    strings: &'a [u8],
    boot_cpu: u32,
}

impl<'a, 'o> Writer<'a, 'o> {
    /// A tree with the string block, the reserved memory block and the boot CPU of `input`, and no node yet.
    pub(super) fn new(input: Fdt<'a>, output: &'o mut [u8]) -> Result<Self, EditError> {
        let strings = string_block(input).ok_or(RefusalReason::bad("the header", "off_dt_strings"))?;
        let mut writer = Self {
            output,
            end: HEADER_SIZE,
            nodes_start: 0,
            strings,
            boot_cpu: input.boot_cpuid_phys(),
        };
        for reservation in input.memory_reservations() {
            writer.put(&reservation.address().to_be_bytes())?;
            writer.put(&reservation.size().to_be_bytes())?;
        }
        writer.put(&[0; 16])?;
        writer.nodes_start = writer.end;
        Ok(writer)
    }

    /// Begins a node inside the one begun last and not ended.
    pub(super) fn begin_node(&mut self, name: &str) -> Result<(), EditError> {
        self.put_word(BEGIN_NODE)?;
        self.put(name.as_bytes())?;
        self.put(&[0])?;
        self.pad()
    }

    /// Ends the node begun last and not ended.
    pub(super) fn end_node(&mut self) -> Result<(), EditError> {
        self.put_word(END_NODE)
    }

    /// Writes a property of the input as it is.
    pub(super) fn copy_property(&mut self, property: &FdtProperty<'a>) -> Result<(), EditError> {
        self.copy_property_as(property, &[property.value()])
    }

    /// Writes a property of the input with another value: the `parts`, one after the other.
    pub(super) fn copy_property_as(
        &mut self,
        property: &FdtProperty<'a>,
        parts: &[&[u8]],
    ) -> Result<(), EditError> {
        let name = property.name();
        let offset = self
            .name_offset(name)
            .ok_or(RefusalReason::bad("a node", "nameoff"))?;
        self.put_property(offset, parts)
    }

    /// Writes a property that the input's node had not.
    pub(super) fn add_property(&mut self, name: Added, value: &[u8]) -> Result<(), EditError> {
        self.add_parts(name, &[value])
    }

    /// Like [`Writer::add_property`], with the value in parts.
    pub(super) fn add_parts(&mut self, name: Added, parts: &[&[u8]]) -> Result<(), EditError> {
        self.put_property(self.strings.len() + name.offset(), parts)
    }

    /// Writes a property that holds a number of cells.
    pub(super) fn add_cells(&mut self, name: Added, cells: usize) -> Result<(), EditError> {
        let cells = self.word(cells)?;
        self.add_property(name, &cells.to_be_bytes())
    }

    /// Ends the tree, and says how many bytes it has.
    pub(super) fn finish(mut self) -> Result<usize, EditError> {
        self.put_word(END)?;
        let strings_start = self.end;
        self.put(self.strings)?;
        self.put(ADDED_NAMES)?;
        let size = self.end;
        let header = [
            MAGIC,
            self.word(size)?,
            self.word(self.nodes_start)?,
            self.word(strings_start)?,
            self.word(HEADER_SIZE)?,
            VERSION,
            LAST_COMPATIBLE_VERSION,
            self.boot_cpu,
            self.word(size - strings_start)?,
            self.word(strings_start - self.nodes_start)?,
        ];
        self.end = 0;
        for word in header {
            self.put_word(word)?;
        }
        Ok(size)
    }

    /// Where `name`, a name of the input's, begins in its string block: found by where it lies in memory, since it
    /// is a part of that block.
    fn name_offset(&self, name: &str) -> Option<usize> {
        let offset = name.as_ptr().addr().checked_sub(self.strings.as_ptr().addr())?;
        self.strings
            .get(offset..)?
            .starts_with(name.as_bytes())
            .then_some(offset)
    }

    fn put_property(&mut self, name: usize, parts: &[&[u8]]) -> Result<(), EditError> {
        let size = parts
            .iter()
            .fold(0_usize, |sum, part| sum.saturating_add(part.len()));
        self.put_word(PROPERTY)?;
        self.put_word(self.word(size)?)?;
        self.put_word(self.word(name)?)?;
        for part in parts {
            self.put(part)?;
        }
        self.pad()
    }

    /// Tokens begin at multiples of 4 bytes.
    fn pad(&mut self) -> Result<(), EditError> {
        let missing = self.end.next_multiple_of(4) - self.end;
        self.put([0; 4].get(..missing).unwrap_or_default())
    }

    fn put_word(&mut self, word: u32) -> Result<(), EditError> {
        self.put(&word.to_be_bytes())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), EditError> {
        let too_small = EditError::OutputTooSmall(self.output.len());
        let end = self.end.checked_add(bytes.len()).ok_or(too_small.clone())?;
        self.output
            .get_mut(self.end..end)
            .ok_or(too_small)?
            .copy_from_slice(bytes);
        self.end = end;
        Ok(())
    }

    fn word(&self, number: usize) -> Result<u32, EditError> {
        u32::try_from(number).map_err(|_| EditError::OutputTooSmall(self.output.len()))
    }
}

/// The string block of a tree that has been validated.
fn string_block(tree: Fdt<'_>) -> Option<&[u8]> {
    const OFFSET_FIELD: usize = 12;
    const SIZE_FIELD: usize = 32;
    let data = tree.data();
    let field = |at: usize| -> Option<usize> {
        usize::try_from(u32::from_be_bytes(*data.get(at..)?.first_chunk()?)).ok()
    };
    let start = field(OFFSET_FIELD)?;
    data.get(start..start.checked_add(field(SIZE_FIELD)?)?)
}
