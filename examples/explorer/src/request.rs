//! What is asked for, in the library's terms.

use crate::altmap::PlannedAltmap;
use crate::args::{AltmapSize, Format, HeadsArg, PieceArg, RegionArgs, TablesArg, TailsArg, YesNo};
use crate::failure::Failure;
use crate::geometry::{NoPage, PageSize, natural};
use crate::refusal;
use crate::size::{ByteRange, ByteSize};
use hosted::BackendKind;
use mm_core::addr::{Granule, NodeId, PfnRange, PhysAddr};
use mm_core::error::ErrorKind;
use mm_core::frame::Altmap;
use mm_core::model::MemoryModel;
use mm_core::pagemap::{DevPagemap, Geometry, Heads, Piece, Tables, Tails};

/// Where the memory is if nothing is said.
const DEFAULT_RANGE: ByteRange = ByteRange {
    start: 24 << 30,
    size: 16 << 30,
};

/// A region to bring online, and how. Not checked yet.
#[derive(Clone, Debug)]
pub struct Request {
    /// The page tables.
    pub backend: BackendKind,
    /// The memory, in the order in which it was named.
    pub ranges: Vec<ByteRange>,
    /// The size of the pages that it is used in, in bytes.
    pub align: ByteSize,
    /// Where heads are.
    pub heads: Heads,
    /// What tails share; what the library does by itself if nothing was said.
    pub tails: Option<Tails>,
    /// What tables share.
    pub tables: Tables,
    /// How much is populated at a time.
    pub piece: Piece,
    /// Whether huge leaves map base pages.
    pub huge_leaves: bool,
    /// How much of the first range is reserved for descriptors.
    pub altmap: Option<AltmapSize>,
    /// The node.
    pub node: NodeId,
    /// How many allocations of RAM succeed.
    pub fail_after: Option<u64>,
}

impl Request {
    /// What the command line asks for, and how to print what comes of it.
    ///
    /// # Errors
    ///
    /// [`NoPage`] where the backend has no pages of the size of `--align`.
    pub fn from_args(args: RegionArgs) -> Result<(Self, Format), NoPage> {
        let backend = args.backend;
        let (align, ranges) = memory(backend, args.align, args.ranges)?;
        let request = Self {
            backend,
            ranges,
            align,
            heads: args.heads.into(),
            tails: args.tails.map(Tails::from),
            tables: args.tables.into(),
            piece: match args.piece {
                PieceArg::Subsection => Piece::Subsection,
                PieceArg::Section => Piece::Section,
                PieceArg::Range => Piece::Range,
            },
            huge_leaves: args.huge_leaves == YesNo::Yes,
            altmap: args.altmap,
            node: NodeId::new(args.node),
            fail_after: args.fail_after,
        };
        Ok((request, args.format))
    }

    /// The same in frames of `granule`.
    ///
    /// # Errors
    ///
    /// A [`Failure`] that names the range that is none, or says why there cannot be such an altmap.
    pub fn in_frames(&self, granule: Granule) -> Result<FrameRequest<'_>, Failure> {
        let geometry = Geometry::from_bytes(self.align.0, granule).ok_or_else(|| {
            let align = self.align;
            Failure::new(
                ErrorKind::UnsupportedOrder,
                format_args!("pages of {align} are larger than any that can be named"),
            )
        })?;
        let frames = |range: &ByteRange| {
            PfnRange::from_bytes(PhysAddr::new(range.start), range.size, granule)
                .map_err(|error| refusal::no_range(format_args!("range {range}"), error, granule))
        };
        let ranges = self
            .ranges
            .iter()
            .map(frames)
            .collect::<Result<Vec<_>, _>>()?;
        let altmap = match (self.altmap, self.ranges.first(), ranges.first()) {
            (Some(AltmapSize::Bytes(size)), Some(bytes), Some(&first)) => Some(
                FrameAltmap::Reserved(reserve(size, *bytes, first, granule)?),
            ),
            (Some(AltmapSize::Auto), ..) => Some(FrameAltmap::Auto),
            _ => None,
        };
        Ok(FrameRequest {
            request: self,
            ranges,
            altmap,
            geometry,
        })
    }
}

/// [`DEFAULT_RANGE`], or the next page after its start where it is not whole pages.
pub(crate) fn default_range(ByteSize(align): ByteSize) -> ByteRange {
    let ByteRange { start, size } = DEFAULT_RANGE;
    ByteRange {
        start: start.checked_next_multiple_of(align).unwrap_or(start),
        size: size.max(align),
    }
}

/// The first `size` bytes of `bytes`, which are the frames `first`.
fn reserve(
    ByteSize(size): ByteSize,
    bytes: ByteRange,
    first: PfnRange,
    granule: Granule,
) -> Result<PfnRange, Failure> {
    let altmap = ByteRange {
        start: bytes.start,
        size,
    };
    let reserved = PfnRange::from_bytes(PhysAddr::new(altmap.start), size, granule)
        .map_err(|error| refusal::no_range(format_args!("altmap {altmap}"), error, granule))?;
    if first.contains_range(reserved) {
        return Ok(reserved);
    }
    Err(Failure::new(
        ErrorKind::OutOfRange,
        format_args!("altmap {altmap} is larger than the range that it is the start of, {bytes}"),
    ))
}

/// A [`Request`] in frames.
#[derive(Clone, Debug)]
pub struct FrameRequest<'r> {
    request: &'r Request,
    /// The memory, in the order in which it was named.
    pub ranges: Vec<PfnRange>,
    altmap: Option<FrameAltmap>,
    geometry: Geometry,
}

/// What the altmap has.
#[derive(Clone, Copy, Debug)]
enum FrameAltmap {
    Auto,
    Reserved(PfnRange),
}

impl FrameRequest<'_> {
    /// The node.
    pub fn node(&self) -> NodeId {
        self.request.node
    }

    /// How less memory can be asked for. A range has no less than a page.
    pub fn less(&self) -> String {
        let Request { align, ranges, .. } = self.request;
        let [small, large] = natural(self.request.backend.model().granule());
        let smaller = if large < align.0 { large } else { small };
        match ranges.iter().all(|range| range.size == align.0) && smaller < align.0 {
            true => format!(
                "no range is smaller than a page, so take a smaller --align, like {}, and with it a smaller --range if one was named",
                ByteSize(smaller)
            ),
            false => "bring a smaller --range online".to_owned(),
        }
    }

    /// What is reserved for the altmap.
    ///
    /// # Errors
    ///
    /// The library's, as a [`Failure`], where it has to say how much suffices.
    pub fn reserved(&self, model: &MemoryModel) -> Result<Option<PfnRange>, Failure> {
        self.reserved_or(|| self.altmap_needed(model))
    }

    /// The smallest altmap that holds all descriptor frames, whatever was asked for.
    ///
    /// # Errors
    ///
    /// The library's, as a [`Failure`], where none in the first range does.
    pub fn altmap_needed(&self, model: &MemoryModel) -> Result<PfnRange, Failure> {
        let needed = self.pagemap(model, None)?.altmap_needed();
        needed.map_err(|error| refusal::of_pagemap(error, model.granule()))
    }

    /// What is reserved for the altmap: what was said, or what `auto` finds.
    ///
    /// # Errors
    ///
    /// Those of `auto`.
    pub fn reserved_or(
        &self,
        auto: impl FnOnce() -> Result<PfnRange, Failure>,
    ) -> Result<Option<PfnRange>, Failure> {
        match self.altmap {
            Some(FrameAltmap::Auto) => auto().map(Some),
            Some(FrameAltmap::Reserved(reserved)) => Ok(Some(reserved)),
            None => Ok(None),
        }
    }

    /// The altmap, as far as a plan needs it.
    ///
    /// # Errors
    ///
    /// A [`Failure`] where there cannot be such an altmap.
    pub fn planned_altmap(&self, model: &MemoryModel) -> Result<Option<PlannedAltmap>, Failure> {
        self.reserved(model)?
            .map(|reserved| PlannedAltmap::new(reserved, model, self.request.node))
            .transpose()
    }

    /// The pagemap, checked against `model`.
    ///
    /// # Errors
    ///
    /// The library's, as a [`Failure`].
    pub fn pagemap<'p>(
        &'p self,
        model: &MemoryModel,
        altmap: Option<&'p dyn Altmap>,
    ) -> Result<DevPagemap<'p>, Failure> {
        let pagemap = self
            .used_in(self.geometry, model, altmap)?
            .with_heads(self.request.heads)
            .with_tables(self.request.tables);
        Ok(match self.request.tails {
            Some(tails) => pagemap.with_tails(tails),
            None => pagemap,
        })
    }

    /// The pagemap of the same memory, used in base pages.
    ///
    /// # Errors
    ///
    /// The library's, as a [`Failure`].
    pub fn base_pagemap<'p>(
        &'p self,
        model: &MemoryModel,
        altmap: Option<&'p dyn Altmap>,
    ) -> Result<DevPagemap<'p>, Failure> {
        self.used_in(Geometry::BASE_PAGES, model, altmap)
    }

    /// The pagemap with all but what is shared.
    fn used_in<'p>(
        &'p self,
        geometry: Geometry,
        model: &MemoryModel,
        altmap: Option<&'p dyn Altmap>,
    ) -> Result<DevPagemap<'p>, Failure> {
        let pagemap = DevPagemap::new(model, &self.ranges, geometry)
            .map_err(|error| refusal::of_pagemap(error, model.granule()))?
            .with_huge_leaves(self.request.huge_leaves)
            .with_piece(self.request.piece)
            .with_node(self.request.node);
        Ok(match altmap {
            Some(altmap) => pagemap
                .with_altmap(altmap)
                .map_err(|error| refusal::of_pagemap(error, model.granule()))?,
            None => pagemap,
        })
    }
}

/// The size of the pages that memory is used in, and the memory, as they are where nothing is said.
///
/// # Errors
///
/// [`NoPage`] where the backend has no pages of the size of `align`.
pub fn memory(
    backend: BackendKind,
    align: Option<PageSize>,
    mut ranges: Vec<ByteRange>,
) -> Result<(ByteSize, Vec<ByteRange>), NoPage> {
    let align = match align {
        Some(size) => size.on(backend)?,
        None => ByteSize(natural(backend.model().granule())[0]),
    };
    if ranges.is_empty() {
        ranges.push(default_range(align));
    }
    Ok((align, ranges))
}

impl From<HeadsArg> for Heads {
    fn from(heads: HeadsArg) -> Self {
        match heads {
            HeadsArg::InPlace => Self::InPlace,
            HeadsArg::Packed => Self::Packed,
        }
    }
}

impl From<TailsArg> for Tails {
    fn from(tails: TailsArg) -> Self {
        match tails {
            TailsArg::None => Self::None,
            TailsArg::PerCompound => Self::PerCompound,
            TailsArg::PerOrder => Self::PerOrder,
        }
    }
}

impl From<TablesArg> for Tables {
    fn from(tables: TablesArg) -> Self {
        match tables {
            TablesArg::Private => Self::Private,
            TablesArg::Shared => Self::Shared,
        }
    }
}

/// A policy's name on the command line and in output.
pub const fn heads_name(heads: Heads) -> &'static str {
    match heads {
        Heads::InPlace => "in-place",
        Heads::Packed => "packed",
        _ => "other",
    }
}

/// A policy's name on the command line and in output.
pub const fn tails_name(tails: Tails) -> &'static str {
    match tails {
        Tails::None => "none",
        Tails::PerCompound => "per-compound",
        Tails::PerOrder => "per-order",
        _ => "other",
    }
}

/// A policy's name on the command line and in output.
pub const fn tables_name(tables: Tables) -> &'static str {
    match tables {
        Tables::Private => "private",
        Tables::Shared => "shared",
        _ => "other",
    }
}

/// The policies in a line. Where heads are in place is not said, as that is how compound pages usually are.
pub fn policies(heads: Option<&str>, tails: &str, tables: &str) -> String {
    match heads {
        Some(heads) if heads != heads_name(Heads::InPlace) => {
            format!("heads: {heads}, tails: {tails}, tables: {tables}")
        }
        _ => format!("tails: {tails}, tables: {tables}"),
    }
}

/// A piece's name on the command line and in output.
pub const fn piece_name(piece: Piece) -> &'static str {
    match piece {
        Piece::Subsection => "subsection",
        Piece::Section => "section",
        Piece::Range => "range",
    }
}
