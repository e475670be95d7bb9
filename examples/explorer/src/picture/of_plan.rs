//! The picture of a plan: which pages of the vmemmap would lead to which frames.

use super::{Array, Cell, Frame, Kind, Panel, Picture, Strip};
use crate::notes::counted;
use crate::size::ByteRange;
use mm_core::addr::{Order, Pfn, PfnRange};
use mm_core::pagemap::{DevPagemap, Tails};
use mm_core::vmemmap::{Plan, PlannedFrames, PlannedRun};

/// How many ranges are drawn.
const MOST_RANGES: usize = 2;

/// How many pages of each are: two small ones, or a large one.
const PAGES: [u64; 2] = [2, 1];

/// How many cells that lead to the same, or to frames of their own, are drawn.
const FEW: u64 = 7;

/// The picture of the first pages of `pagemap` on a page table with this huge leaf.
pub fn picture(pagemap: &DevPagemap<'_>, huge_leaf: Option<Order>) -> Picture {
    let ranges = pagemap.ranges();
    let parts = ranges.iter().take(MOST_RANGES).flat_map(|range| {
        let base = pagemap
            .base_pages()
            .filter(|base| range.contains_range(*base));
        let (first, rest) = match base {
            Some(base) => (Some((base, Order::BASE)), range.split_at(base.frames()).1),
            None => (None, Some(*range)),
        };
        let rest = rest.map(|rest| (rest, pagemap.geometry().order()));
        first.into_iter().chain(rest)
    });
    let mut panels: Vec<Panel> = parts
        .map(|(part, order)| panel(pagemap, part, order, huge_leaf))
        .collect();
    if let Some(more) = ranges
        .len()
        .checked_sub(MOST_RANGES)
        .filter(|more| *more > 0)
    {
        panels.push(Panel {
            title: format!("and {}", counted(more as u64, "more range")),
            arrays: Vec::new(),
        });
    }
    Picture {
        title: String::new(),
        subtitle: String::new(),
        panels,
        legend: Vec::new(),
        total: String::new(),
    }
}

/// The first runs of `part`, which has pages of `order`.
fn panel(
    pagemap: &DevPagemap<'_>,
    part: PfnRange,
    order: Order,
    huge_leaf: Option<Order>,
) -> Panel {
    let model = pagemap.model();
    let unit = order.frames().max(model.descriptors_per_page());
    let [small, large] = PAGES;
    let first = match model.vmemmap_pages(order) > FEW + 1 {
        true => large,
        false => small,
    };
    let shown = part.take_first(first.saturating_mul(unit)).0;
    let shown = if order == Order::BASE { part } else { shown };
    let pieces = pagemap
        .pieces()
        .skip_while(|piece| piece.last() < shown.start());
    let pieces = pieces.take_while(|piece| piece.start() <= shown.last());
    // A few pieces tell what the rest of base pages is.
    let runs = pieces.take(if order == Order::BASE { 1 } else { usize::MAX });
    let runs = runs
        .filter_map(|piece| Plan::new(pagemap, piece, huge_leaf).ok())
        .flatten();
    let mut cells = Cells::default();
    for run in runs {
        if let Some(describes) = run.describes.intersection(shown) {
            let pages = (describes.frames() / model.descriptors_per_page()).max(1);
            cells.run(&run, pages, kind(pagemap, &run));
        }
    }
    let (mut strip, frames, drawn) = cells.finish();
    let per_page = model.descriptors_per_page();
    match order {
        Order::BASE => {
            let left = (part.frames() / per_page).saturating_sub(drawn);
            if left > 0 {
                strip.push(Cell::Gap {
                    text: counted(left, "more vmemmap page"),
                });
            }
        }
        _ => {
            let left = (part.frames() / unit).saturating_sub(first);
            if left > 0 {
                strip.push(Cell::Gap {
                    text: counted(left, "more page"),
                });
            }
        }
    }
    Panel {
        title: ByteRange::of(part, model.granule()).to_string(),
        arrays: vec![Array {
            strips: vec![Strip {
                kind: Kind::Table,
                label: "vmemmap".to_owned(),
                cells: strip,
            }],
            frames,
            ..Array::default()
        }],
    }
}

fn kind(pagemap: &DevPagemap<'_>, run: &PlannedRun) -> Kind {
    let shares = pagemap.tails().0 != Tails::None;
    match run.frames {
        PlannedFrames::Own if run.order != Order::BASE && shares => Kind::Head,
        PlannedFrames::Own => Kind::Own,
        PlannedFrames::Tail { .. } if pagemap.tails().0 == Tails::PerOrder => Kind::OrderTail,
        PlannedFrames::Tail { .. } => Kind::Tail,
        PlannedFrames::Stubs => Kind::Stub,
        PlannedFrames::HugeLeaves { .. } => Kind::Block,
    }
}

/// Runs that lead to the same are put together, then drawn.
#[derive(Default)]
struct Cells {
    cells: Vec<Cell>,
    frames: Vec<Frame>,
    /// The run at hand: what it leads to, for which page, and how many vmemmap pages it has.
    at_hand: Option<(Kind, Option<Pfn>, u64)>,
    drawn: u64,
}

impl Cells {
    fn run(&mut self, run: &PlannedRun, pages: u64, kind: Kind) {
        let pages = match run.frames {
            PlannedFrames::HugeLeaves { order } => (pages / order.frames()).max(1),
            _ => pages,
        };
        let head = match run.frames {
            PlannedFrames::Tail { head } => Some(head),
            _ => None,
        };
        match &mut self.at_hand {
            Some((of, of_head, count)) if *of == kind && *of_head == head => *count += pages,
            _ => {
                self.flush();
                self.at_hand = Some((kind, head, pages));
            }
        }
    }

    fn frame(&mut self, kind: Kind) -> usize {
        self.frames.push(Frame {
            kind,
            label: String::new(),
        });
        self.frames.len() - 1
    }

    /// Draws the run at hand.
    fn flush(&mut self) {
        let Some((kind, _, pages)) = self.at_hand.take() else {
            return;
        };
        if kind == Kind::Head && !self.cells.is_empty() {
            self.cells.push(Cell::Space);
        }
        let shown = if pages > FEW + 1 { 3 } else { pages };
        // Tails lead to one frame, and all of an order to the same.
        let one = match kind {
            Kind::Tail => Some(self.frame(kind)),
            Kind::OrderTail | Kind::Stub => {
                let known = self.frames.iter().position(|frame| frame.kind == kind);
                Some(known.unwrap_or_else(|| self.frame(kind)))
            }
            _ => None,
        };
        let cell = |cells: &mut Self| {
            let to = one.unwrap_or_else(|| cells.frame(kind));
            cells.cells.push(Cell::One { kind, to: Some(to) });
        };
        (0..shown).for_each(|_| cell(self));
        if pages > shown {
            self.cells.push(Cell::Gap {
                text: format!("{} more", crate::table::number(Some(pages - shown - 1))),
            });
            cell(self);
        }
        self.drawn += pages;
    }

    fn finish(mut self) -> (Vec<Cell>, Vec<Frame>, u64) {
        self.flush();
        (self.cells, self.frames, self.drawn)
    }
}
