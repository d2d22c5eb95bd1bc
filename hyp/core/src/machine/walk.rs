//! A walk over every node of a device tree, with what is asked of a node read in one go.
//!
//! `dtoolkit` parses and validates; this adds what both readers of the tree need: a depth-first order without
//! recursion, the way from a bus address to a physical one (Devicetree Specification 0.4, 2.3.8 `ranges`), and a
//! limit on depth, so that no tree makes EL2 run out of stack.

use super::range::PhysRange;
use super::refusal::RefusalReason;
use arrayvec::ArrayVec;
use dtoolkit::fdt::{Fdt, FdtNode, FdtProperty};
use dtoolkit::{Node, Property, ToCellInt};

/// How deep nodes may be nested, the root included. A CPU map with threads needs 6.
pub const MAX_DEPTH: usize = 16;

/// The largest tree of the arm64 boot protocol, in bytes.
pub const MAX_TREE_SIZE: u32 = 2 * 1024 * 1024;

/// Bytes of a tree's header that [`tree_size`] needs.
pub const TREE_SIZE_PREFIX: usize = 8;

/// How many bytes the device tree has whose first [`TREE_SIZE_PREFIX`] bytes these are; so that a caller knows how
/// much to map before it reads on.
///
/// # Errors
/// If the bytes do not begin a tree, or the tree is larger than the boot protocol allows.
pub fn tree_size(prefix: &[u8]) -> Result<usize, RefusalReason> {
    const MAGIC: u32 = 0xd00d_feed;
    let word = |at: usize| -> Option<u32> { Some(u32::from_be_bytes(*prefix.get(at..)?.first_chunk()?)) };
    let missing = RefusalReason::bad("the header", "magic");
    if word(0).ok_or(missing.clone())? != MAGIC {
        return Err(missing);
    }
    let size = word(4).ok_or(missing)?;
    if size > MAX_TREE_SIZE {
        return Err(RefusalReason::TreeTooLarge(size));
    }
    usize::try_from(size).map_err(|_| RefusalReason::TreeTooLarge(size))
}

/// Reads `dtb` as a device tree. Bytes after the tree are ignored.
pub(super) fn parse(dtb: &[u8]) -> Result<Fdt<'_>, RefusalReason> {
    let size = tree_size(dtb)?;
    Ok(Fdt::new(dtb.get(..size).unwrap_or(dtb))?)
}

/// The properties of a node that anything here asks for, found in one pass.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Facts<'a> {
    pub(super) compatible: Option<FdtProperty<'a>>,
    pub(super) device_type: Option<FdtProperty<'a>>,
    pub(super) status: Option<FdtProperty<'a>>,
    pub(super) reg: Option<FdtProperty<'a>>,
    pub(super) ranges: Option<FdtProperty<'a>>,
    pub(super) phandle: Option<u32>,
    pub(super) method: Option<FdtProperty<'a>>,
    pub(super) enable_method: Option<FdtProperty<'a>>,
    pub(super) interrupts: Option<FdtProperty<'a>>,
    pub(super) interrupt_names: Option<FdtProperty<'a>>,
    pub(super) interrupt_cells: Option<u32>,
    pub(super) redistributor_regions: Option<u32>,
    pub(super) redistributor_stride: Option<FdtProperty<'a>>,
    pub(super) bootargs: Option<FdtProperty<'a>>,
    pub(super) no_map: bool,
    pub(super) is_interrupt_controller: bool,
    address_cells: Option<u32>,
    size_cells: Option<u32>,
}

impl<'a> Facts<'a> {
    fn of(node: FdtNode<'a>) -> Self {
        let mut facts = Self::default();
        for property in node.properties() {
            let number = || property.value_as::<u32>().ok();
            match property.name() {
                "compatible" => facts.compatible = Some(property),
                "device_type" => facts.device_type = Some(property),
                "status" => facts.status = Some(property),
                "reg" => facts.reg = Some(property),
                "ranges" => facts.ranges = Some(property),
                "phandle" => facts.phandle = number(),
                "method" => facts.method = Some(property),
                "enable-method" => facts.enable_method = Some(property),
                "interrupts" => facts.interrupts = Some(property),
                "interrupt-names" => facts.interrupt_names = Some(property),
                "interrupt-controller" => facts.is_interrupt_controller = true,
                "#interrupt-cells" => facts.interrupt_cells = number(),
                "#redistributor-regions" => facts.redistributor_regions = number(),
                "redistributor-stride" => facts.redistributor_stride = Some(property),
                "bootargs" => facts.bootargs = Some(property),
                "no-map" => facts.no_map = true,
                "#address-cells" => facts.address_cells = number(),
                "#size-cells" => facts.size_cells = number(),
                _ => {}
            }
        }
        facts
    }

    /// The strings of `compatible`, most specific first.
    pub(super) fn compatibles(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        strings(self.compatible)
    }

    /// Whether `compatible` names one of `any`.
    pub(super) fn is_compatible(&self, any: &[&str]) -> bool {
        self.compatibles().any(|name| any.contains(&name))
    }

    /// Whether the device may be used: no `status`, or `okay` (`ok` in old trees).
    pub(super) fn is_enabled(&self) -> bool {
        strings(self.status)
            .next()
            .is_none_or(|status| matches!(status, "okay" | "ok"))
    }

    /// The cells of an address on the bus that the node is: `#address-cells`, or 2 (Devicetree Specification 2.3.5).
    pub(super) fn address_cells(&self) -> usize {
        cell_count(self.address_cells.unwrap_or(2))
    }

    /// The cells of a size on the bus that the node is: `#size-cells`, or 1.
    pub(super) fn size_cells(&self) -> usize {
        cell_count(self.size_cells.unwrap_or(1))
    }
}

/// A number of cells. One that is absurd stays absurd and fits no property.
fn cell_count(cells: u32) -> usize {
    usize::try_from(cells).unwrap_or(usize::MAX / 64)
}

/// The strings of a property that holds a list of them; none if there is no property.
pub(super) fn strings<'a>(property: Option<FdtProperty<'a>>) -> impl Iterator<Item = &'a str> + use<'a> {
    property
        .and_then(|property| property.value_as::<dtoolkit::FdtStringListIterator<'a>>().ok())
        .into_iter()
        .flatten()
}

/// A node on the way from the root to where a walk is: what its children need of it.
#[derive(Clone, Debug)]
pub(super) struct Ancestor<'a> {
    node: FdtNode<'a>,
    children: <FdtNode<'a> as Node>::Children<'a>,
    ranges: Option<FdtProperty<'a>>,
    address_cells: usize,
    size_cells: usize,
}

/// What the walk came upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A node, before its children. [`Walk::facts`], [`Walk::name`] and the like speak of it.
    Enter,
    /// The end of a node, after its children.
    Leave,
}

/// A depth-first walk.
#[derive(Clone, Debug)]
pub(super) struct Walk<'a> {
    root: Option<FdtNode<'a>>,
    path: ArrayVec<Ancestor<'a>, MAX_DEPTH>,
    facts: Facts<'a>,
    skip: bool,
}

impl<'a> Walk<'a> {
    pub(super) fn new(tree: Fdt<'a>) -> Self {
        Self {
            root: Some(tree.root()),
            path: ArrayVec::new(),
            facts: Facts::default(),
            skip: false,
        }
    }

    /// The next step, `None` at the end.
    pub(super) fn step(&mut self) -> Result<Option<Step>, RefusalReason> {
        if let Some(root) = self.root.take() {
            return self.enter(root).map(Some);
        }
        let skip = core::mem::take(&mut self.skip);
        let Some(top) = self.path.last_mut() else {
            return Ok(None);
        };
        let child = if skip { None } else { top.children.next() };
        match child {
            Some(child) => self.enter(child).map(Some),
            None => {
                self.path.pop();
                Ok(Some(Step::Leave))
            }
        }
    }

    /// Goes to the next node; false at the end. For those who do not care where a node ends.
    pub(super) fn next_node(&mut self) -> Result<bool, RefusalReason> {
        while let Some(step) = self.step()? {
            if step == Step::Enter {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Leaves out the children of the node just entered.
    pub(super) fn skip_children(&mut self) {
        self.skip = true;
    }

    fn enter(&mut self, node: FdtNode<'a>) -> Result<Step, RefusalReason> {
        let facts = Facts::of(node);
        let ancestor = Ancestor {
            node,
            children: node.children(),
            ranges: facts.ranges,
            address_cells: facts.address_cells(),
            size_cells: facts.size_cells(),
        };
        self.path
            .try_push(ancestor)
            .map_err(|_| RefusalReason::TreeTooDeep(MAX_DEPTH))?;
        self.facts = facts;
        Ok(Step::Enter)
    }

    /// The properties of the node just entered.
    pub(super) fn facts(&self) -> &Facts<'a> {
        &self.facts
    }

    /// The node just entered.
    pub(super) fn node(&self) -> Option<FdtNode<'a>> {
        self.path.last().map(|ancestor| ancestor.node)
    }

    /// The name of the node just entered, with its unit address; empty for the root.
    pub(super) fn name(&self) -> &'a str {
        self.path.last().map_or("", |ancestor| ancestor.node.name())
    }

    /// How many nodes lie between the root and where the walk is, it included: 1 at a child of the root.
    pub(super) fn depth(&self) -> usize {
        self.path.len().saturating_sub(1)
    }

    /// Whether the node just entered is a child of the root's child `name`.
    pub(super) fn is_child_of(&self, name: &str) -> bool {
        self.depth() == 2 && self.path.get(1).is_some_and(|parent| parent.node.name() == name)
    }

    /// Whether the node just entered is the one that the absolute path `path` names. A part without unit address
    /// names a node with any (Devicetree Specification 2.2.3).
    pub(super) fn is_at(&self, path: &str) -> bool {
        let mut parts = path.split('/').filter(|part| !part.is_empty());
        path.starts_with('/')
            && self
                .path
                .iter()
                .skip(1)
                .all(|step| parts.next().is_some_and(|part| names(part, step.node)))
            && parts.next().is_none()
    }

    /// The entries of the `reg` of the node just entered, on its parent's bus: address and size. `None` if the
    /// property is missing, malformed, or of a bus whose addresses do not fit 64 bits.
    pub(super) fn reg(&self) -> Option<impl Iterator<Item = [u64; 2]> + use<'a>> {
        let parent = self.path.iter().nth_back(1)?;
        pairs(self.facts.reg?, parent.address_cells, parent.size_cells)
    }

    /// Like [`Walk::reg`], but with the cells of the root's bus, which children of `/chosen` and of
    /// `/reserved-memory` are written in.
    pub(super) fn reg_in_root_cells(&self) -> Option<impl Iterator<Item = [u64; 2]> + use<'a>> {
        let root = self.path.first()?;
        pairs(self.facts.reg?, root.address_cells, root.size_cells)
    }

    /// The physical bytes behind `size` bytes from `address` on the bus that the node at depth `bus` of the path is
    /// (0 is the root, whose bus is physical memory). `None` if the CPU cannot reach that bus.
    fn translate(&self, bus: usize, address: u64, size: u64) -> Option<PhysRange> {
        let mut address = address;
        for depth in (1..=bus).rev() {
            let (node, parent) = (self.path.get(depth)?, self.path.get(depth - 1)?);
            let ranges = node.ranges?;
            if ranges.value().is_empty() {
                continue;
            }
            let mut windows = windows(ranges, node.address_cells, parent.address_cells, node.size_cells)?;
            address = windows.find_map(|[child, parent, length]| {
                let offset = address.checked_sub(child?)?;
                let inside = offset.checked_add(size)? <= length?;
                parent?.checked_add(offset).filter(|_| inside)
            })?;
        }
        PhysRange::new(address, size)
    }

    /// The physical ranges of the `reg` of the node just entered: what the CPU reads and writes of the device.
    pub(super) fn physical_reg(&self) -> impl Iterator<Item = PhysRange> {
        let bus = self.path.len().saturating_sub(2);
        self.reg()
            .into_iter()
            .flatten()
            .filter_map(move |[address, size]| self.translate(bus, address, size))
    }

    /// The physical windows of the bus that the node just entered is, as its `ranges` names them: what devices
    /// behind it may answer to, though no node names them (PCI).
    pub(super) fn physical_windows(&self) -> impl Iterator<Item = PhysRange> {
        let bus = self.path.len().saturating_sub(2);
        let windows = self
            .path
            .last()
            .zip(self.path.iter().nth_back(1))
            .and_then(|(node, parent)| {
                windows(
                    node.ranges?,
                    node.address_cells,
                    parent.address_cells,
                    node.size_cells,
                )
            });
        windows
            .into_iter()
            .flatten()
            .filter_map(move |[_, parent, length]| self.translate(bus, parent?, length?))
    }
}

/// Whether the part `part` of a path names `node`.
fn names(part: &str, node: FdtNode<'_>) -> bool {
    if part.contains('@') {
        node.name() == part
    } else {
        node.name_without_address() == part
    }
}

/// The value of a property as pairs of numbers of so many cells. `None` if it is no such list.
fn pairs<'a>(
    property: FdtProperty<'a>,
    first: usize,
    second: usize,
) -> Option<impl Iterator<Item = [u64; 2]> + use<'a>> {
    if first > 2 || second > 2 {
        return None;
    }
    let entries = property.as_prop_encoded_array([first, second]).ok()?;
    Some(entries.filter_map(|[first, second]| Some([first.to_int().ok()?, second.to_int().ok()?])))
}

/// The entries of a `ranges` property: child address, parent address, length. What does not fit 64 bits (the
/// three cells of a PCI address) is `None`.
fn windows<'a>(
    ranges: FdtProperty<'a>,
    child: usize,
    parent: usize,
    length: usize,
) -> Option<impl Iterator<Item = [Option<u64>; 3]> + use<'a>> {
    let entries = ranges.as_prop_encoded_array([child, parent, length]).ok()?;
    Some(entries.map(|entry| entry.map(|cells| cells.to_int().ok())))
}
