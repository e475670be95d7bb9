//! The picture of what was seen: of a simulated machine, or of a dump.

use super::fold::{Part, fold};
use super::{Array, Cell, Counted, Frame, Kind, Panel, Picture, Strip};
use crate::look::Look;
use crate::look::pages::{HeadsAt, PageRun, TailsShare};
use crate::look::walk::{LeafRun, Link};
use crate::notes::counted;
use crate::report::saved_percent;
use crate::size::{ByteRange, ByteSize, rounded};
use crate::table::number;
use mm_core::addr::{PfnRange, VirtRange};
use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

/// How many runs of pages are drawn; of more, how many there are.
const MOST_PANELS: usize = 12;

/// How many leaf tables are drawn for a run of pages.
const MOST_STRIPS: usize = 4;

/// How many cells of pages that are alike are drawn before the rest is left out.
const FEW: u64 = 8;

/// The picture of `look`, which shows `what`, brought online so.
pub fn picture(look: &Look, what: String, how: &str) -> Picture {
    let mut drawn: Vec<Panel> = look
        .pages
        .iter()
        .take(MOST_PANELS)
        .map(|run| panel(look, run))
        .collect();
    let more = look.pages.len().saturating_sub(MOST_PANELS) as u64;
    if more > 0 {
        drawn.push(Panel {
            title: format!("and {} of pages", counted(more, "more run")),
            arrays: Vec::new(),
        });
    }
    let total = look.frames.total;
    let bytes = |frames: u64| rounded((frames * look.described.granule().bytes()) as f64);
    let total = match (total, saved_percent(total, Some(look.mapped_pages))) {
        (Some(total), Some(saved)) => format!(
            "{} in all, {}; a flat array has {}, {}: {saved:.2} % saved",
            counted(total, "frame"),
            bytes(total),
            counted(look.mapped_pages, "frame"),
            bytes(look.mapped_pages),
        ),
        _ => "nothing is online".to_owned(),
    };
    let marks = match look.marked.frames {
        0 => String::new(),
        frames => format!("; {} marked", counted(frames, "frame")),
    };
    let findings = match look.findings.len() as u64 {
        0 => "nothing is wrong".to_owned(),
        found => counted(found, "finding"),
    };
    Picture {
        title: what,
        subtitle: format!(
            "{how}{}{marks}; {findings}",
            counted(look.pages.iter().map(|run| run.count).sum(), "page")
        ),
        panels: drawn,
        legend: legend(look),
        total,
    }
}

/// What a page's first vmemmap page leads to.
const fn first_kind(run: &PageRun) -> Kind {
    match (run.heads, run.tails) {
        (Some(HeadsAt::Packed), _) => Kind::Stub,
        (_, TailsShare::None) => Kind::Own,
        _ => Kind::Head,
    }
}

/// What leaves of a page lead to.
fn kind_of(leaf: &LeafRun, run: &PageRun) -> Kind {
    match leaf {
        _ if run.heads == Some(HeadsAt::Packed) => Kind::Stub,
        LeafRun { level: 2.., .. } => Kind::Block,
        LeafRun {
            tail: true,
            writable: true,
            ..
        } => Kind::Tail,
        LeafRun { tail: true, .. } => Kind::OrderTail,
        _ => first_kind(run),
    }
}

fn legend(look: &Look) -> Vec<Counted> {
    let mut counts: BTreeMap<Kind, u64> = BTreeMap::new();
    let mut shared: BTreeMap<u64, Kind> = BTreeMap::new();
    let model = &look.described.model;
    let huge = model.granule().entries_per_table() as u64;
    for leaf in look.vmemmap() {
        let pfn = model.frame_of_descriptor(leaf.at);
        let index = pfn.and_then(|pfn| {
            look.pages
                .partition_point(|run| run.start <= pfn)
                .checked_sub(1)
        });
        let Some(run) = index.and_then(|index| look.pages.get(index)) else {
            continue;
        };
        let kind = kind_of(leaf, run);
        match leaf.same {
            true => {
                shared.insert(leaf.frame.get(), kind);
            }
            false if leaf.tail => {
                shared.insert(leaf.frame.get(), kind);
            }
            false => {
                let each = if kind == Kind::Block { huge } else { 1 };
                *counts.entry(kind).or_default() += leaf.pages / each;
            }
        }
    }
    for kind in shared.values() {
        *counts.entry(*kind).or_default() += 1;
    }
    let packed: u64 = look.heads().iter().map(|leaf| leaf.frames()).sum();
    counts.insert(Kind::Packed, packed);
    for table in look.tables.values() {
        let kind = match (table.level, table.shared) {
            (1, 0) => Kind::Table,
            (1, _) => Kind::SharedTable,
            _ => Kind::Upper,
        };
        *counts.entry(kind).or_default() += 1;
    }
    let some = counts.into_iter().filter(|(_, count)| *count > 0);
    some.map(|(kind, count)| Counted {
        kind,
        count: Some(count),
    })
    .collect()
}

fn panel(look: &Look, run: &PageRun) -> Panel {
    let (described, model) = (&look.described, &look.described.model);
    let granule = described.granule();
    let frames = PfnRange::new(run.start, run.count.saturating_mul(run.order.frames()));
    let Ok(frames) = frames else {
        return Panel {
            title: String::new(),
            arrays: Vec::new(),
        };
    };
    let bytes = ByteRange::of(frames, granule);
    let size = ByteSize(run.order.frames().saturating_mul(granule.bytes()));
    let tails = match (run.heads, run.tails) {
        (None, _) => String::new(),
        (Some(HeadsAt::Packed), _) => ", heads packed".to_owned(),
        (_, TailsShare::None) => ", tails not shared".to_owned(),
        (_, TailsShare::PerCompound) => ", a tail frame for each page".to_owned(),
        (_, TailsShare::PerOrder) => ", a tail frame for all of the size".to_owned(),
    };
    let mut arrays = Vec::new();
    if let Some(span) = model.descriptors(frames) {
        let drawing = Drawing {
            look,
            span,
            leaves: look.vmemmap(),
            kind: &|leaf| kind_of(leaf, run),
        };
        let pages = span.pages(granule).max(1);
        arrays.push(drawing.array(format!(
            "vmemmap: {} at {}",
            counted(pages, "page"),
            span.start()
        )));
    }
    if run.heads == Some(HeadsAt::Packed)
        && let Some(first) = model.packed_head(frames.start(), run.order)
        && let Some(last) = model.packed_head(frames.last(), run.order)
        && let Some(span) = VirtRange::between(first, last)
    {
        let drawing = Drawing {
            look,
            span,
            leaves: look.heads(),
            kind: &|_| Kind::Packed,
        };
        arrays.push(drawing.array(format!(
            "packed heads: {} at {}",
            counted(run.count, "head"),
            span.start()
        )));
    }
    Panel {
        title: format!("{bytes}: {} of {size}{tails}", counted(run.count, "page")),
        arrays,
    }
}

/// An array that is drawn.
struct Drawing<'d> {
    look: &'d Look,
    /// The addresses.
    span: VirtRange,
    leaves: &'d [LeafRun],
    kind: &'d dyn Fn(&LeafRun) -> Kind,
}

/// What an entry of a table above leaf tables is.
#[derive(Clone, Copy)]
enum Entry<'d> {
    Link(&'d Link),
    Block(&'d LeafRun, u64),
}

impl<'d> Drawing<'d> {
    fn array(&self, title: String) -> Array {
        let mut array = Array {
            title,
            way: self.way(),
            ..Array::default()
        };
        let leaves = self.leaves_within();
        let links = self.links_within(1);
        let mut frames = Frames::default();
        // The entries above, by the tables that they are in.
        let mut entries: Vec<Entry<'_>> = links.iter().map(|link| Entry::Link(link)).collect();
        let huge = self.huge_pages();
        for leaf in leaves.iter().filter(|leaf| leaf.level > 1) {
            entries.extend((0..leaf.pages / huge.max(1)).map(|index| Entry::Block(leaf, index)));
        }
        entries.sort_by_key(|entry| match entry {
            Entry::Link(link) => link.span.start().get(),
            Entry::Block(leaf, index) => leaf.at.get() + index * huge * self.granule(),
        });
        let shapes: HashMap<u64, u64> = self.shapes(&links, &leaves);
        let shape = |entry: &Entry<'_>| match entry {
            Entry::Block(..) => (0, 0),
            // A shared table is like itself only.
            Entry::Link(link) if link.shared => (1, link.frame.get()),
            Entry::Link(link) => (2, shapes.get(&link.frame.get()).copied().unwrap_or(0)),
        };
        // Alike entries that follow each other are one item, so that a pattern of them shows.
        let mut runs: Vec<((u64, u64), Vec<Entry<'_>>)> = Vec::new();
        for entry in entries {
            let shape = shape(&entry);
            match runs.last_mut().filter(|(of, _)| *of == shape) {
                Some((_, run)) => run.push(entry),
                None => runs.push((shape, vec![entry])),
            }
        }
        let patterns: Vec<_> = runs
            .iter()
            .map(|(shape, run)| (pattern(*shape), run.len()))
            .collect();
        let mut strip = Strip {
            kind: Kind::Upper,
            label: "level 2".to_owned(),
            cells: Vec::new(),
        };
        let mut places: HashMap<u64, usize> = HashMap::new();
        for part in fold(&patterns, 2) {
            match part {
                Part::Item(index) => {
                    if let Some((_, run)) = runs.get(index) {
                        self.upper_cells(
                            run,
                            &mut strip,
                            &mut array.strips,
                            &mut places,
                            (&leaves, &mut frames),
                        );
                    }
                }
                Part::Repeats { period, times, .. } => strip.cells.push(Cell::Gap {
                    text: match period {
                        1 => format!("{} more", number(Some(times as u64))),
                        _ => format!("{} × the same", number(Some(times as u64))),
                    },
                }),
            }
        }
        if !strip.cells.is_empty() {
            array.upper.push(strip);
        }
        array.frames = frames.list;
        array
    }

    /// The tables from the root down to those whose entries are drawn.
    fn way(&self) -> Vec<String> {
        let levels = self.look.described.levels;
        let mut way = vec!["root".to_owned()];
        for level in (2..levels).rev() {
            let mut tables: Vec<u64> = self
                .links_within(level as u8)
                .iter()
                .map(|link| link.frame.get())
                .collect();
            tables.sort_unstable();
            tables.dedup();
            way.push(match tables.as_slice() {
                [] => continue,
                [table] => format!("frame {table:#x}"),
                many => format!("{} tables", many.len()),
            });
        }
        way
    }

    fn granule(&self) -> u64 {
        self.look.described.granule().bytes()
    }

    /// How many base pages a huge leaf of level 2 maps.
    fn huge_pages(&self) -> u64 {
        self.look.described.granule().entries_per_table() as u64
    }

    fn links_within(&self, level: u8) -> Vec<&'d Link> {
        let links = self.look.links.iter();
        links
            .filter(|link| link.level == level && overlap(link.span, self.span))
            .collect()
    }

    /// The leaves for the addresses, cut to them.
    fn leaves_within(&self) -> Vec<LeafRun> {
        let granule = self.look.described.granule();
        let from = self.leaves.partition_point(|leaf| {
            leaf.end(granule)
                .is_some_and(|end| end <= self.span.start())
        });
        let rest = self.leaves.get(from..).unwrap_or_default();
        let within = rest.iter().take_while(|leaf| leaf.at <= self.span.last());
        within
            .filter_map(|leaf| self.cut(leaf, self.span))
            .collect()
    }

    /// The part of `leaf` that maps pages of `span`.
    fn cut(&self, leaf: &LeafRun, span: VirtRange) -> Option<LeafRun> {
        if leaf
            .end(self.look.described.granule())
            .is_some_and(|end| end <= span.start())
        {
            return None;
        }
        let page = self.granule();
        let first = span.start().get() & !(page - 1);
        let skipped = first.saturating_sub(leaf.at.get()) / page;
        let at = leaf.at.checked_add(skipped.checked_mul(page)?)?;
        let most = span.last().get().checked_sub(at.get())? / page + 1;
        let pages = leaf.pages.checked_sub(skipped)?.min(most);
        (pages > 0).then_some(LeafRun {
            at,
            frame: leaf.frame_of(skipped)?,
            pages,
            ..*leaf
        })
    }

    /// What is in each table, as a number that is the same where that looks the same.
    fn shapes(&self, links: &[&Link], leaves: &[LeafRun]) -> HashMap<u64, u64> {
        let mut hashers: HashMap<u64, DefaultHasher> = HashMap::new();
        for leaf in leaves.iter().filter(|leaf| leaf.level == 1) {
            let hasher = hashers.entry(leaf.table.get()).or_default();
            ((self.kind)(leaf), leaf.pages).hash(hasher);
        }
        links
            .iter()
            .filter_map(|link| Some((link.frame.get(), hashers.get(&link.frame.get())?.finish())))
            .collect()
    }

    /// Cells for alike entries `run`, and the tables and frames that they lead to.
    fn upper_cells(
        &self,
        run: &[Entry<'_>],
        strip: &mut Strip,
        strips: &mut Vec<Strip>,
        places: &mut HashMap<u64, usize>,
        (leaves, frames): (&[LeafRun], &mut Frames),
    ) {
        let distinct = matches!(run.first(), Some(Entry::Link(link)) if !link.shared);
        // Of tables of their own the first is drawn, of links to one table all, if they are few.
        let few = if distinct { 1 } else { FEW as usize };
        let shown = if run.len() > few + 1 || distinct {
            few.min(run.len())
        } else {
            run.len()
        };
        for entry in run.iter().take(shown) {
            match entry {
                Entry::Block(leaf, index) => {
                    let frame = leaf.frame_of(index * self.huge_pages());
                    let to = frame.map(|frame| frames.place(Kind::Block, frame.get()));
                    strip.cells.push(Cell::One {
                        kind: Kind::Block,
                        to,
                    });
                }
                Entry::Link(link) => {
                    let kind = if link.shared {
                        Kind::SharedTable
                    } else {
                        Kind::Table
                    };
                    let frame = link.frame.get();
                    let to = match places.get(&frame) {
                        Some(place) => Some(*place),
                        None if strips.len() < MOST_STRIPS => {
                            let leaves = leaves.iter().filter(|leaf| leaf.level == 1);
                            let within: Vec<LeafRun> = leaves
                                .filter_map(|leaf| self.cut(leaf, link.span))
                                .collect();
                            strips.push(Strip {
                                kind,
                                label: self.label(link),
                                cells: self.leaf_cells(&within, frames),
                            });
                            places.insert(frame, strips.len() - 1);
                            Some(strips.len() - 1)
                        }
                        None => None,
                    };
                    strip.cells.push(Cell::One { kind, to });
                }
            }
        }
        if run.len() > shown {
            strip.cells.push(Cell::Gap {
                text: format!("{} more alike", number(Some((run.len() - shown) as u64))),
            });
        }
    }

    fn label(&self, link: &Link) -> String {
        let frame = link.frame;
        let links = self
            .look
            .tables
            .get(&frame.get())
            .map_or(1, |table| table.links);
        match link.shared {
            true => format!(
                "shared leaf table, frame {frame}, {}",
                counted(links, "link")
            ),
            false => format!("leaf table, frame {frame}"),
        }
    }

    /// Cells for what a table maps.
    fn leaf_cells(&self, leaves: &[LeafRun], frames: &mut Frames) -> Vec<Cell> {
        let shapes: Vec<_> = leaves
            .iter()
            .map(|leaf| ((self.kind)(leaf), leaf.pages))
            .collect();
        let mut cells = Vec::new();
        for part in fold(&shapes, 2) {
            match part {
                Part::Item(index) => {
                    let Some(leaf) = leaves.get(index) else {
                        continue;
                    };
                    let kind = (self.kind)(leaf);
                    if kind == Kind::Head && !cells.is_empty() {
                        cells.push(Cell::Space);
                    }
                    let mut cell = |cells: &mut Vec<Cell>, page| {
                        let frame = leaf.frame_of(page);
                        let to = frame.map(|frame| frames.place(kind, frame.get()));
                        cells.push(Cell::One { kind, to });
                    };
                    if leaf.pages <= FEW {
                        (0..leaf.pages).for_each(|page| cell(&mut cells, page));
                        continue;
                    }
                    (0..3).for_each(|page| cell(&mut cells, page));
                    cells.push(Cell::Gap {
                        text: format!("{} more", number(Some(leaf.pages - 4))),
                    });
                    cell(&mut cells, leaf.pages - 1);
                }
                Part::Repeats { times, period, .. } => {
                    cells.push(Cell::Gap {
                        text: match period {
                            1 => format!("{} more", number(Some(times as u64))),
                            _ => counted(times as u64, "more page"),
                        },
                    });
                }
            }
        }
        cells
    }
}

/// Whether some address is in both.
fn overlap(a: VirtRange, b: VirtRange) -> bool {
    a.start() <= b.last() && b.start() <= a.last()
}

/// A shape without what tells one shared table from another.
const fn pattern((kind, shape): (u64, u64)) -> (u64, u64) {
    (kind, if kind == 1 { 0 } else { shape })
}

/// Frames that are drawn, in the order in which they were come to.
#[derive(Default)]
struct Frames {
    list: Vec<Frame>,
    places: HashMap<(Kind, u64), usize>,
}

impl Frames {
    fn place(&mut self, kind: Kind, frame: u64) -> usize {
        let list = &mut self.list;
        *self.places.entry((kind, frame)).or_insert_with(|| {
            list.push(Frame {
                kind,
                label: format!("{frame:#x}"),
            });
            list.len() - 1
        })
    }
}
