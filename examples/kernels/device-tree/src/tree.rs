//! Reading a flattened device tree (*Devicetree Specification*, release 0.4, chapter 5), as far as a kernel's first minute needs it.

const MAGIC: u32 = 0xd00d_feed;

/// The format that later ones have to be readable by.
const VERSION: u32 = 16;

const HEADER_BYTES: usize = 40;

/// Structure block tokens.
const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROPERTY: u32 = 3;
const NOP: u32 = 4;

/// A device tree.
#[derive(Clone, Copy, Debug)]
pub struct DeviceTree<'t> {
    structure: &'t [u8],
    strings: &'t [u8],
}

/// A property, and where it was found.
#[derive(Clone, Copy, Debug)]
pub struct Property<'t> {
    /// How many nodes it is below the root: 0 for one of the root's own.
    pub depth: u32,
    /// The name of its node, with the address.
    pub node: &'t [u8],
    /// Its own name.
    pub name: &'t [u8],
    /// What it says.
    pub value: &'t [u8],
}

impl<'t> DeviceTree<'t> {
    /// How many bytes the tree has whose first [`HEADER_BYTES`](Self::HEADER_BYTES) bytes are `header`; `None` where it is none.
    pub fn total_bytes(header: &[u8]) -> Option<u64> {
        let is_tree = u32_at(header, 0)? == MAGIC && u32_at(header, 24)? <= VERSION;
        is_tree.then_some(u64::from(u32_at(header, 4)?))
    }

    /// How many bytes a header has.
    pub const HEADER_BYTES: u64 = HEADER_BYTES as u64;

    /// The tree that `bytes` are; `None` where they are none.
    pub fn new(bytes: &'t [u8]) -> Option<Self> {
        Self::total_bytes(bytes)?;
        let block = |offset: usize, size: usize| {
            let start = u32_at(bytes, offset)? as usize;
            let size = u32_at(bytes, size)? as usize;
            bytes.get(start..start.checked_add(size)?)
        };
        Some(Self {
            structure: block(8, 36)?,
            strings: block(12, 32)?,
        })
    }

    /// All properties, in order.
    pub fn properties(&self) -> Properties<'t> {
        Properties {
            tree: *self,
            rest: self.structure,
            depth: 0,
            node: &[],
        }
    }

    /// The value of the property `name` of the node `node` right below the root, or of the root itself for an empty name.
    pub fn find(&self, node: &[u8], name: &[u8]) -> Option<&'t [u8]> {
        let depth = if node.is_empty() { 0 } else { 1 };
        self.properties()
            .find(|found| found.depth == depth && found.node == node && found.name == name)
            .map(|found| found.value)
    }
}

/// The properties of a tree.
#[derive(Clone, Debug)]
pub struct Properties<'t> {
    tree: DeviceTree<'t>,
    rest: &'t [u8],
    /// How many nodes are open.
    depth: u32,
    /// The one that was opened last. Properties of a node come before the nodes in it.
    node: &'t [u8],
}

impl<'t> Properties<'t> {
    fn take(&mut self, bytes: usize) -> Option<&'t [u8]> {
        let taken = self.rest.get(..bytes)?;
        // Tokens are aligned; the last value may lack its padding.
        self.rest = self
            .rest
            .get(bytes.next_multiple_of(4)..)
            .unwrap_or_default();
        Some(taken)
    }
}

impl<'t> Iterator for Properties<'t> {
    type Item = Property<'t>;

    fn next(&mut self) -> Option<Property<'t>> {
        loop {
            match u32_at(self.take(4)?, 0)? {
                BEGIN_NODE => {
                    let name = text(self.rest)?;
                    self.take(name.len() + 1)?;
                    self.node = name;
                    self.depth += 1;
                }
                END_NODE => self.depth = self.depth.checked_sub(1)?,
                PROPERTY => {
                    let header = self.take(8)?;
                    let value = self.take(u32_at(header, 0)? as usize)?;
                    let name = self.tree.strings.get(u32_at(header, 4)? as usize..)?;
                    return Some(Property {
                        depth: self.depth.checked_sub(1)?,
                        node: self.node,
                        name: text(name)?,
                        value,
                    });
                }
                NOP => {}
                _ => return None,
            }
        }
    }
}

/// The bytes before the first zero.
pub fn text(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    bytes.get(..end)
}

/// A big-endian number of one or two cells of four bytes at `offset`.
pub fn number_at(bytes: &[u8], offset: usize, cells: u32) -> Option<u64> {
    match cells {
        1 => u32_at(bytes, offset).map(u64::from),
        2 => {
            let high = u64::from(u32_at(bytes, offset)?);
            Some(high << 32 | u64::from(u32_at(bytes, offset.checked_add(4)?)?))
        }
        _ => None,
    }
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    let field = bytes.get(offset..offset.checked_add(4)?)?;
    field.try_into().ok().map(u32::from_be_bytes)
}
