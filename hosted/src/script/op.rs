//! Operations, and how bytes become operations.

use mm_core::addr::{Order, Pfn, PfnRange};
use mm_core::model::MemoryModel;
use mm_core::pagemap::{Piece, Tables, Tails};

/// The bytes of an operation.
pub const OP_BYTES: usize = 12;

/// How much memory a script is about.
pub const WINDOW_FRAMES: u64 = 1 << 19;

/// A subsection of the models here.
pub(super) const SUBSECTION: u64 = 512;

/// The most memory that base pages or small compound pages are brought online for at a time.
const MOST_SMALL: u64 = 128 * SUBSECTION;

/// The orders that are asked for. The last is too large.
const ORDERS: [u8; 12] = [0, 0, 0, 9, 9, 18, 18, 7, 8, 10, 15, 29];

/// What a pagemap is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The ranges.
    pub ranges: Vec<PfnRange>,
    /// The order of compound pages.
    pub order: Order,
    /// How tails are shared, where they can be.
    pub tails: Tails,
    /// How tables are shared, where they can be.
    pub tables: Tables,
    /// Whether huge leaves are used.
    pub huge_leaves: bool,
    /// How much at a time.
    pub piece: Piece,
    /// The node: 0 or 1.
    pub node: u32,
    /// How many subsections at the start of the first range are an altmap, if it comes online as a
    /// whole; 0 for none.
    pub altmap: u64,
}

/// Which allocations fail from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// None.
    None,
    /// All after so many.
    After(u64),
    /// One after so many.
    Nth(u64),
    /// Those of blocks.
    Blocks,
    /// Those of a node, which is full.
    Node(u32),
    /// All, of both nodes.
    BothNodes,
}

/// One step of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Brings a pagemap online.
    Online(Request),
    /// Brings a piece online.
    Populate(Request, PfnRange),
    /// Takes a piece offline.
    Depopulate(Request, PfnRange),
    /// Takes a piece of a region offline: the one with this number, of those that are left.
    Shrink {
        /// The region.
        region: usize,
        /// Where in its first range the piece starts and how long it is, as for a random piece.
        piece: [u8; 2],
    },
    /// Takes a region offline: the one with this number, of those that are left.
    Offline(usize),
    /// Makes allocations fail.
    Fault(Fault),
    /// Maps something foreign at a page of the vmemmap: a page, or a block of 512 pages.
    Plant {
        /// The page, counted from the window's first.
        page: u64,
        /// Whether it is a block.
        huge: bool,
    },
    /// Links foreign tables, with nothing in them, for a page of the vmemmap.
    PlantTables {
        /// The page.
        page: u64,
    },
    /// Takes a foreign leaf away: the one with this number, of those that are left.
    Uproot(usize),
    /// Reads or writes a page of the vmemmap on one of the CPUs.
    Access {
        /// The page.
        page: u64,
        /// The CPU.
        cpu: usize,
        /// Whether it is a store.
        store: bool,
    },
    /// Makes all CPUs cache all that is mapped.
    Speculate,
}

/// A script: where its memory lies, and what is done with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// The memory.
    pub window: PfnRange,
    /// What is done.
    pub ops: Vec<Op>,
}

impl Script {
    /// The script that `bytes` stand for; any bytes do. At most `most` operations.
    pub fn decode(model: &MemoryModel, bytes: &[u8], most: usize) -> Self {
        let (place, rest) = bytes.split_first().unwrap_or((&1, &[]));
        let last = model.all_frames().last().get();
        let start = match place % 4 {
            0 => 0,
            1 => (last + 1).saturating_sub(WINDOW_FRAMES),
            2 => 1 << 24,
            // Starts in the middle of a compound page of 1 GiB.
            _ => (1 << 24) + (1 << 17),
        };
        let start = Pfn::new(start).unwrap_or(Pfn::ZERO);
        let window = PfnRange::new(start, WINDOW_FRAMES).unwrap_or(PfnRange::single(start));
        let (ops, _) = rest.as_chunks::<OP_BYTES>();
        let ops = ops.iter().take(most);
        Self {
            window,
            ops: ops.map(|bytes| Op::decode(bytes, window)).collect(),
        }
    }
}

impl Op {
    fn decode(bytes: &[u8; OP_BYTES], window: PfnRange) -> Self {
        let [kind, a, b, c, d, e, f, g, h, i, j, k] = *bytes;
        // Most of what is online lies at the front.
        let page = u64::from(u16::from_le_bytes([a, b]));
        let page = if c < 192 {
            page % 1536
        } else {
            page % (WINDOW_FRAMES / 64)
        };
        let request = || Request::decode([a, b, c, d, e, f, g, h, i], window);
        let piece = || {
            let request = request();
            let range = request.ranges.first().copied().unwrap_or(window);
            let piece = piece_of(range, j, k);
            (request, piece)
        };
        match kind % 32 {
            0..=4 | 9 => Self::Online(request()),
            5..=8 => Self::Offline(a.into()),
            10..=15 => {
                let (request, piece) = piece();
                Self::Populate(request, piece)
            }
            16..=18 => Self::Shrink {
                region: a.into(),
                piece: [b, c],
            },
            19 => {
                let (request, piece) = piece();
                Self::Depopulate(request, piece)
            }
            20 => Self::Offline(a.into()),
            21..=23 => Self::Fault(match a % 8 {
                0 | 1 => Fault::After(u64::from(b) * u64::from(c % 8) / 8),
                2 | 3 => Fault::Nth(u64::from(b) * u64::from(c % 8) / 8),
                4 => Fault::Blocks,
                5 => Fault::Node(u32::from(b % 2)),
                6 => Fault::BothNodes,
                _ => Fault::None,
            }),
            24 | 25 => Self::Plant {
                page,
                huge: d % 4 == 1,
            },
            26 => Self::PlantTables { page },
            27 => Self::Uproot(a.into()),
            28..=30 => Self::Access {
                page,
                cpu: e.into(),
                store: d % 2 == 1,
            },
            _ => Self::Speculate,
        }
    }
}

impl Request {
    /// What is an altmap.
    pub(super) fn reserved(&self) -> Option<PfnRange> {
        let first = self.ranges.first()?;
        PfnRange::new(first.start(), self.altmap * SUBSECTION).ok()
    }

    /// What is used in base pages because there is an altmap.
    pub(super) fn base_pages(&self) -> Option<PfnRange> {
        let reserved = self.reserved()?;
        let frames = reserved.frames().next_multiple_of(self.order.frames());
        PfnRange::new(reserved.start(), frames).ok()
    }

    fn decode(bytes: [u8; 9], window: PfnRange) -> Self {
        let [order, flags, piece, ranges @ ..] = bytes;
        let order = ORDERS.get(usize::from(order) % ORDERS.len());
        let order = order.and_then(|order| Order::new(*order));
        let order = order.unwrap_or(Order::BASE);
        let (pairs, _) = ranges.as_chunks::<2>();
        let count = 1 + usize::from(flags >> 6) % 3;
        let ranges = pairs.iter().take(count);
        Self {
            ranges: ranges
                .filter_map(|pair| range_of(*pair, order, flags, window))
                .collect(),
            order,
            tails: match piece / 3 % 8 {
                0 => Tails::None,
                1..=4 => Tails::PerCompound,
                _ => Tails::PerOrder,
            },
            tables: match flags & 1 {
                0 => Tables::Private,
                _ => Tables::Shared,
            },
            huge_leaves: flags & 2 == 0,
            piece: match piece % 3 {
                0 => Piece::Section,
                1 => Piece::Range,
                _ => Piece::Subsection,
            },
            node: u32::from(flags & 4 != 0),
            altmap: match (flags & 0x18 == 0x18, piece / 24 % 4) {
                (false, _) => 0,
                (true, 0 | 1) => 1,
                (true, 2) => 2,
                (true, _) => 4,
            },
        }
    }
}

/// A range of whole compound pages, or nearly so.
fn range_of(
    [start, length]: [u8; 2],
    order: Order,
    flags: u8,
    window: PfnRange,
) -> Option<PfnRange> {
    let unit = order.frames().clamp(SUBSECTION, 1 << 18);
    let most = (MOST_SMALL / unit).max(2);
    let aligned = window.start().get().next_multiple_of(unit);
    let units = (WINDOW_FRAMES / unit).min(128);
    let in_section = ((1 << 15) / unit).max(1);
    // Few starts and few lengths, so that ranges meet.
    let first = match start {
        0..=95 => u64::from(start % 3) * in_section,
        96..=159 => u64::from(start % 8) * in_section / 4,
        _ => u64::from(start),
    };
    let mut start = aligned + first % units * unit;
    let units = match length {
        0..=95 => u64::from(1 + length % 2) * in_section,
        96..=159 => u64::from(1 + length % 8) * in_section / 4,
        _ => u64::from(length),
    };
    let mut frames = units.clamp(1, most) * unit;
    if flags & 0x20 != 0 && length % 8 == 7 {
        match length / 8 % 4 {
            0 => start += SUBSECTION,
            1 => frames += SUBSECTION,
            2 => frames += 1,
            _ => start += 1,
        }
    }
    let range = PfnRange::new(Pfn::new(start)?, frames).ok()?;
    let room = u64::from(length % 16 == 15) * frames;
    // What lies outside the window is asked for only where it lies outside the model too.
    match window.contains_range(range) {
        true => Some(range),
        false if room != 0 => Some(range).filter(|range| range.last().get() >= 1 << 34),
        false => range.intersection(window),
    }
}

/// A piece of `range`, mostly whole subsections within it.
pub(super) fn piece_of(range: PfnRange, skip: u8, length: u8) -> PfnRange {
    let subsections = (range.frames() / SUBSECTION).max(1);
    let skip = u64::from(skip) * 4 % subsections;
    let left = subsections - skip;
    let length = match length {
        0..=31 => left,
        32..=63 => left + 1,
        64..=127 => 64,
        _ => 1 + u64::from(length) % 16,
    };
    let start = range.start().saturating_add(skip * SUBSECTION);
    let odd = u64::from(length == 13);
    PfnRange::new(start, length * SUBSECTION + odd).unwrap_or(range)
}
