//! How bytes become operations. Any bytes do.

use super::op::{
    Change, Ending, Fault, Fold, Frozen, How, Odd, One, Op, Reorder, Request, Script, Target,
};
use super::scale::Scale;
use mm_core::addr::{Order, Pfn, PfnRange};
use mm_core::pagemap::{Piece, Tables, Tails};
use mm_core::vmemmap::Reserve;

/// The bytes of an operation.
pub const OP_BYTES: usize = 12;

impl Script {
    /// The script that `bytes` stand for: the first says where, with its highest bit that there are
    /// readers, and with the next one that some heads are packed; the others what. At most `most` operations.
    pub(super) fn decode(scale: &Scale, bytes: &[u8], most: usize) -> Self {
        let (place, rest) = bytes.split_first().unwrap_or((&1, &[]));
        let window = scale.window(*place);
        let (ops, _) = rest.as_chunks::<OP_BYTES>();
        let packs = place & 0x40 != 0;
        let decode = Decode {
            scale,
            window,
            packs,
        };
        Self {
            has_readers: place & 0x80 != 0,
            packs,
            window,
            ops: ops.iter().take(most).map(|op| decode.op(op)).collect(),
        }
    }
}

struct Decode<'d> {
    scale: &'d Scale,
    window: PfnRange,
    packs: bool,
}

impl Decode<'_> {
    fn op(&self, bytes: &[u8; OP_BYTES]) -> Op {
        let [kind, a, b, c, d, e, f, g, h, i, j, k] = *bytes;
        let page = self.page(u16::from_le_bytes([a, b]).into(), c < 192);
        let one = One {
            page,
            index: self.index(d),
            aims: g % 4 != 0,
        };
        let request = || self.request([a, b, c, d, e, f, g, h, i]);
        let with_piece = || {
            let request = request();
            let range = request.ranges.first().copied().unwrap_or(self.window);
            let piece = piece_of(self.scale, range, j, k);
            (request, piece, i % 4 != 3)
        };
        match kind % 80 {
            0..=9 => Op::Online(request()),
            10..=13 => Op::Offline(a.into()),
            14..=20 => {
                let (request, piece, by_region) = with_piece();
                Op::Populate(request, piece, by_region)
            }
            21..=24 => Op::Shrink {
                region: a.into(),
                piece: [b, c],
            },
            25 | 26 => {
                let (request, piece, by_region) = with_piece();
                Op::Depopulate(request, piece, by_region)
            }
            27..=34 => Op::Fold(self.fold(Change::Fold, bytes)),
            35..=40 => Op::Fold(self.fold(Change::Unfold, bytes)),
            41 | 42 => Op::Fold(self.fold(Change::Reshape, bytes)),
            43..=45 => Op::Mark(one, u32::from(e % 2)),
            46 => Op::Unmark(one),
            47..=49 => Op::Write(one, u64::from(e) + 1),
            50 | 51 => Op::Fault(self.fault([a, b, c])),
            52 => Op::Plant {
                page,
                huge: d % 8 == 1,
            },
            53 => Op::PlantTables { page },
            54 | 55 => Op::Uproot(a.into()),
            56 => Op::Prune,
            57..=60 => Op::Access {
                one,
                cpu: e.into(),
                store: f % 2 == 1,
            },
            61..=63 => Op::Speculate,
            64..=66 => Op::Fill(u32::from(a % 2), self.reserve([b, c, d])),
            67 => Op::EmptyReserve,
            68..=74 => Op::Reorder(self.reorder(one, bytes)),
            75 | 76 => Op::Hold(one),
            77 => Op::GiveBack(a.into()),
            _ => Op::Freeze {
                at: one,
                pages: 1 + u64::from(e % 16),
                ending: ending_of(f % 4),
            },
        }
    }

    /// A page of the window, counted from its first: where most is done, or anywhere.
    fn page(&self, number: u64, usual: bool) -> u64 {
        match usual {
            true => self.scale.origin() + number % self.scale.usual_pages(),
            false => number % self.scale.window_pages(),
        }
    }

    /// One of the frames that a page describes: often the first or the last.
    fn index(&self, byte: u8) -> u64 {
        let per_page = self.scale.per_page;
        match byte % 8 {
            0 | 1 => 0,
            2 => 1,
            3 => per_page - 1,
            _ => u64::from(byte) * (per_page / 64) % per_page,
        }
    }

    fn fault(&self, [kind, count, share]: [u8; 3]) -> Fault {
        let count = match self.scale.is_wide() {
            true => u64::from(count) * u64::from(share % 8) / 8,
            false => u64::from(count % 16) * u64::from(share % 8) / 4,
        };
        match kind % 8 {
            0 | 1 => Fault::After(count),
            2 | 3 => Fault::Nth(count),
            4 => Fault::Blocks,
            5 => Fault::Node((count % 2) as u32),
            6 => Fault::BothNodes,
            _ => Fault::None,
        }
    }

    fn fold(&self, change: Change, bytes: &[u8; OP_BYTES]) -> Fold {
        let [_, a, b, c, d, e, f, g, h, i, j, k] = *bytes;
        // Unfolding something else than what is there is refused.
        let guesses = match change {
            Change::Fold => b >= 64,
            Change::Unfold => b >= 240,
            Change::Reshape => b >= 96,
        };
        let order = match (change, self.scale.order(c)) {
            // Of most others there is nothing to share.
            (Change::Fold, order) if self.scale.unit(order.get()) < 2 && i % 8 != 0 => {
                Order::new(self.scale.small()).unwrap_or(order)
            }
            (_, order) => order,
        };
        let target = match d % 4 {
            0 => self.range_of([e, f], order, 0).map(Target::Range),
            _ => None,
        };
        let packed = self.packs && h & 0xe0 == 0x20;
        Fold {
            change,
            target: target.unwrap_or(Target::Region(a.into())),
            order: guesses.then_some(order),
            tails: tails_of(g),
            tables: match h & 3 {
                0 => Tables::Private,
                _ => Tables::Shared,
            },
            huge_leaves: h & 12 != 0,
            node: u32::from(h & 16 != 0),
            altmap: h & 0xe0 != 0 && !packed,
            packed,
            part: [j, k],
            aims: d % 16 < 13,
            odd: match i {
                0..=4 => Odd::Start,
                5..=9 => Odd::End,
                10..=14 => Odd::Beyond,
                _ => Odd::Not,
            },
            frozen: (g & 0x18 == 0x18).then(|| Frozen {
                references: 1 + u32::from(g / 32) % 3,
                ending: ending_of(g / 32),
            }),
        }
    }

    fn reserve(&self, [frames, tables, huge_leaves]: [u8; 3]) -> Reserve {
        let frames = u64::from(frames);
        Reserve {
            frames: if self.scale.is_wide() {
                frames
            } else {
                frames % 32
            },
            tables: u64::from(tables % 4),
            huge_leaves: u64::from(huge_leaves == 0),
        }
    }

    fn reorder(&self, one: One, bytes: &[u8; OP_BYTES]) -> Reorder {
        let [_, _, _, _, _, e, f, _, h, i, j, k] = *bytes;
        let order = match e {
            0..=31 => None,
            32..=191 => Some(self.scale.order(e - 32)),
            _ => Order::new((e - 192) % (self.scale.large() + 1)),
        };
        let tails = tails_of(f);
        let packed = self.packs && i & 0x40 != 0;
        Reorder {
            at: one,
            count: match h % 8 {
                0..=4 => 1,
                5 => 2,
                6 => 1 + u64::from(h / 8) % 8,
                _ => 8 + u64::from(h),
            },
            whole: i % 4 == 0,
            order,
            tails,
            tables: match f & 0x18 {
                0 => Tables::Private,
                _ => Tables::Shared,
            },
            huge_leaves: f & 0x60 != 0,
            much: k % 8 == 3,
            // No more tails are known without a frame for that than those of one node.
            node: u32::from(f & 0x80 != 0 && tails != Tails::PerOrder),
            altmap: i & 0x30 != 0 && !packed,
            packed,
            how: match j % 8 {
                0..=3 => How::Prepared,
                4 | 5 => How::Unprepared,
                _ => How::Frozen(Frozen {
                    references: 1 + u32::from(j / 8) % 3,
                    ending: ending_of(j / 32),
                }),
            },
            steps: match k {
                0..=63 => 1 + u64::from(k % 3),
                _ => u64::MAX,
            },
        }
    }

    fn request(&self, bytes: [u8; 9]) -> Request {
        let [order, flags, piece, ranges @ ..] = bytes;
        let packed = self.packs && order / 16 % 4 != 0;
        let order = self.scale.order(order);
        let (pairs, _) = ranges.as_chunks::<2>();
        let count = 1 + usize::from(flags >> 6) % 3;
        let ranges = pairs.iter().take(count);
        // What is too large is only used with shared tails.
        let bytes = self.scale.unit(order.get()) * self.scale.page_bytes();
        let tails = match tails_of(piece / 3) {
            Tails::None if bytes > self.scale.most_bytes() => Tails::PerCompound,
            tails => tails,
        };
        Request {
            ranges: ranges
                .filter_map(|pair| self.range_of(*pair, order, flags))
                .collect(),
            order,
            tails,
            insists: piece >= 250,
            packed,
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
            reserved: match (flags & 0x18 == 0x18 && !packed, piece / 24 % 4) {
                (false, _) => 0,
                (true, 0 | 1) => self.scale.subsection,
                (true, 2) => 2 * self.scale.subsection,
                (true, _) => 4 * self.scale.subsection,
            },
        }
    }

    /// A range of whole compound pages, or nearly so.
    fn range_of(&self, [start, length]: [u8; 2], order: Order, flags: u8) -> Option<PfnRange> {
        let scale = self.scale;
        let large = 1 << scale.large();
        let unit = order.frames().clamp(scale.subsection, large);
        let origin = self.window.start().get() + scale.origin() * scale.per_page;
        // A huge leaf's worth, which takes time by the bytes of its descriptors.
        let table = scale.per_table * scale.per_page;
        let bytes = scale.per_table * scale.page_bytes();
        let rarely = (bytes >> 18).max(if scale.is_wide() { 8 } else { 32 });
        let whole = length % 8 == 6 && u64::from(start) % rarely == 1;
        if whole && unit <= table && bytes <= scale.most_bytes() {
            let start = Pfn::new(origin.next_multiple_of(table))?;
            return PfnRange::new(start, table).ok();
        }
        let aligned = origin.next_multiple_of(unit);
        let (units, strides) = (scale.window_frames() / unit, (scale.stride() / unit).max(1));
        let most = (scale.most_own() * scale.per_page / unit).max(2);
        // Few starts and few lengths, so that ranges meet.
        let often = if scale.is_wide() { 3 } else { 8 };
        let first = match start {
            0..=95 => u64::from(start % often) * strides,
            96..=159 => u64::from(start % 8) * strides / 4,
            _ => u64::from(start) % (4 * strides),
        };
        let mut start = aligned + first % units.min(128) * unit;
        let units = match length {
            0..=95 => u64::from(1 + length % 2) * strides,
            96..=159 => u64::from(1 + length % 8) * strides / 4,
            _ => u64::from(length),
        };
        let mut frames = units.clamp(1, most) * unit;
        if flags & 0x20 != 0 && length % 8 == 7 {
            match length / 8 % 4 {
                0 => start += scale.subsection,
                1 => frames += scale.subsection,
                2 => frames += 1,
                _ => start += 1,
            }
        }
        let range = PfnRange::new(Pfn::new(start)?, frames).ok()?;
        // What lies outside the window is asked for only where it lies outside the model too.
        let beyond = length % 16 == 15 && self.window.last().get() + 1 == scale.end();
        match self.window.contains_range(range) {
            true => Some(range),
            false if beyond => Some(range),
            false => range.intersection(self.window),
        }
    }
}

/// A piece of `range`, mostly whole subsections within it.
pub(super) fn piece_of(scale: &Scale, range: PfnRange, skip: u8, length: u8) -> PfnRange {
    let subsection = scale.subsection;
    let subsections = (range.frames() / subsection).max(1);
    let step = if scale.is_wide() { 4 } else { 1 };
    let skip = u64::from(skip) * (subsections / 256).max(step) % subsections;
    let left = subsections - skip;
    let length = match length {
        0..=31 => left,
        32..=47 => left + 1,
        48..=127 if scale.is_wide() => 64.min(left),
        _ => (1 + u64::from(length) % 16).min(left),
    };
    let start = range.start().saturating_add(skip * subsection);
    let odd = u64::from(length == 13);
    PfnRange::new(start, length * subsection + odd).unwrap_or(range)
}

fn ending_of(byte: u8) -> Ending {
    match byte {
        0 => Ending::Dropped,
        1 | 4 => Ending::AtOnce,
        _ => Ending::Committed,
    }
}

fn tails_of(byte: u8) -> Tails {
    match byte % 8 {
        0 => Tails::None,
        1..=4 => Tails::PerCompound,
        _ => Tails::PerOrder,
    }
}
