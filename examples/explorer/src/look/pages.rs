//! What the descriptors say, page by page: the order of each page, where its head is, what its tails share.

use super::Findings;
use super::description::Described;
use super::walk::LeafRun;
use arch_sim::ReadMemory;
use mm_core::addr::{Order, Pfn, PhysAddr, VirtAddr};
use serde::Serialize;
use std::collections::HashSet;

/// How many descriptors are read at most.
const MOST_DESCRIPTORS: u64 = 1 << 30;

/// Where the heads of pages are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum HeadsAt {
    /// In the vmemmap.
    InPlace,
    /// In an array of their own.
    Packed,
}

/// What the tails of pages share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TailsShare {
    /// Nothing.
    None,
    /// A frame for each page.
    PerCompound,
    /// A frame for all pages of an order.
    PerOrder,
}

/// Pages that follow each other and are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRun {
    /// The first frame of the first page.
    pub start: Pfn,
    /// The order of each.
    pub order: Order,
    /// How many there are.
    pub count: u64,
    /// Where their heads are; `None` for base pages.
    pub heads: Option<HeadsAt>,
    /// What their tails share.
    pub tails: TailsShare,
    /// Frames behind their descriptors; what others share too is counted with each.
    pub frames: u64,
}

impl PageRun {
    /// The first frame behind it; `None` at the end of all frames.
    pub fn end(&self) -> Option<Pfn> {
        self.start
            .checked_add(self.count.checked_mul(self.order.frames())?)
    }
}

/// One page.
#[derive(Clone, Copy)]
struct Page {
    order: Order,
    heads: Option<HeadsAt>,
    tails: TailsShare,
}

/// Reads descriptors.
pub struct Pages<'l, M> {
    memory: &'l M,
    described: &'l Described,
    vmemmap: &'l [LeafRun],
    heads: &'l [LeafRun],
    /// Tail frames of which is known that they are what they should be, with their orders.
    known: HashSet<(u64, u8)>,
    /// Those of the page at hand.
    shared: Vec<u64>,
    /// Those of the run at hand.
    in_run: HashSet<u64>,
    left: u64,
    runs: Vec<PageRun>,
}

impl<M> std::fmt::Debug for Pages<'_, M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pages")
            .field("runs", &self.runs)
            .finish_non_exhaustive()
    }
}

impl<'l, M: ReadMemory> Pages<'l, M> {
    /// The descriptors in what the leaves map.
    pub fn new(
        memory: &'l M,
        described: &'l Described,
        vmemmap: &'l [LeafRun],
        heads: &'l [LeafRun],
    ) -> Self {
        Self {
            memory,
            described,
            vmemmap,
            heads,
            known: HashSet::new(),
            shared: Vec::new(),
            in_run: HashSet::new(),
            left: MOST_DESCRIPTORS,
            runs: Vec::new(),
        }
    }

    /// All pages, by their first frames.
    pub fn read(mut self, findings: &mut Findings) -> Vec<PageRun> {
        let model = &self.described.model;
        let per_page = model.descriptors_per_page();
        let mut next = 0;
        for (index, run) in self.vmemmap.iter().enumerate() {
            let Some(first) = model.frame_of_descriptor(run.at) else {
                continue;
            };
            let end = first.get() + run.pages * per_page;
            let mut frame = next.max(first.get());
            while frame < end {
                let Some(pfn) = Pfn::new(frame) else {
                    break;
                };
                let found = self.page(index, pfn, findings);
                if self.left == 0 {
                    findings.add(format_args!(
                        "more descriptors than are read; the rest from frame {pfn} on was left out"
                    ));
                    return self.runs;
                }
                frame = match found {
                    Some(page) => {
                        self.add(pfn, page);
                        let after = frame + page.order.frames();
                        // Base pages whose descriptors are mapped again and again are no pages.
                        match run.same
                            && page.order == Order::BASE
                            && after.is_multiple_of(per_page)
                        {
                            true => end,
                            false => after,
                        }
                    }
                    None => (frame / per_page + 1) * per_page,
                };
            }
            next = frame;
        }
        self.runs
    }

    /// The page that begins with `pfn`, whose descriptor the leaves number `index` map.
    fn page(&mut self, index: usize, pfn: Pfn, findings: &mut Findings) -> Option<Page> {
        let run = self.vmemmap.get(index)?;
        let Some((word, order)) = self.descriptor(run, pfn) else {
            findings.add(format_args!(
                "the descriptor of frame {pfn} is not in memory"
            ));
            return None;
        };
        let described = self.described;
        let Some(order) = order.filter(|order| *order <= described.model.max_order()) else {
            findings.add(format_args!(
                "frame {pfn} has a descriptor of no order that there is"
            ));
            return None;
        };
        if order == Order::BASE {
            if !described.is_head(word) {
                findings.add(format_args!(
                    "frame {pfn} is a base page, and its word is {word:#x}"
                ));
            }
            return Some(Page {
                order,
                heads: None,
                tails: TailsShare::None,
            });
        }
        if !pfn.is_aligned(order) {
            findings.add(format_args!(
                "a page of order {order} begins at frame {pfn}, which is not aligned to it"
            ));
            return None;
        }
        let heads = match (described.is_stub(word), described.is_head(word)) {
            (true, _) => {
                self.check_packed(pfn, order, findings);
                HeadsAt::Packed
            }
            (_, true) => HeadsAt::InPlace,
            _ => {
                findings.add(format_args!("frame {pfn} begins a page of order {order}, and its word {word:#x} is no head's"));
                HeadsAt::InPlace
            }
        };
        let tails = self.tails(index, pfn, order, heads, findings);
        Some(Page {
            order,
            heads: Some(heads),
            tails,
        })
    }

    /// What the tails of the page of `order` at `pfn` share; whether they are all there and say what they should.
    fn tails(
        &mut self,
        index: usize,
        pfn: Pfn,
        order: Order,
        heads: HeadsAt,
        findings: &mut Findings,
    ) -> TailsShare {
        let (described, model) = (self.described, &self.described.model);
        let per_page = model.descriptors_per_page();
        let pages = model.vmemmap_pages(order);
        let last = pfn.get() + (order.frames() - 1);
        // From the second vmemmap page on; from the first where the head is elsewhere.
        let skipped = u64::from(heads == HeadsAt::InPlace);
        let mut expected = pfn.get() / per_page;
        let (mut seen, mut share) = (0, TailsShare::None);
        let vmemmap = self.vmemmap;
        for run in vmemmap.get(index..).unwrap_or_default() {
            let Some(first) = model.frame_of_descriptor(run.at) else {
                break;
            };
            let first = first.get() / per_page;
            let end = (first + run.pages).min(last / per_page + 1);
            if expected < first || expected >= end {
                break;
            }
            let tails = expected.max(pfn.get() / per_page + skipped);
            if tails < end {
                if run.tail {
                    // What is read-only is not this page's alone.
                    share = match run.writable {
                        true => TailsShare::PerCompound,
                        false => TailsShare::PerOrder,
                    };
                }
                let looked = if run.same {
                    tails..tails + 1
                } else {
                    tails..end
                };
                for page in looked {
                    let Some(of) = Pfn::new(page * per_page) else {
                        break;
                    };
                    self.check_tail(run, of.max(pfn), (pfn, order), findings);
                }
            }
            seen += end - expected;
            expected = end;
        }
        if seen < pages {
            findings.add(format_args!(
                "the page of order {order} at frame {pfn} has {seen} of its {pages} vmemmap pages mapped"
            ));
        }
        // In the page with the head, too.
        if heads == HeadsAt::InPlace
            && let Some(run) = vmemmap.get(index)
            && let Some(second) = pfn.checked_add(1)
            && let Some((word, of)) = self.descriptor(run, second)
            && let Some(at) = model.descriptor_address(pfn)
            && !(described.leads_to(word, at, order) && of == Some(order))
        {
            findings.add(format_args!(
                "frame {second} does not lead to its head at frame {pfn}"
            ));
        }
        share
    }

    /// Whether the descriptor of the frame `of` in `run` is a tail of the page of `order` at `pfn`.
    fn check_tail(
        &mut self,
        run: &LeafRun,
        of: Pfn,
        (pfn, order): (Pfn, Order),
        findings: &mut Findings,
    ) {
        let Some(holder) = self.holder(run, of) else {
            return;
        };
        if run.tail {
            self.shared.push(holder.get());
            if !run.writable && !self.known.insert((holder.get(), order.get())) {
                return;
            }
        }
        let model = &self.described.model;
        let ends = [Some(of), of.checked_add(model.descriptors_per_page() - 1)];
        for frame in ends.into_iter().flatten() {
            let said = self.descriptor(run, frame);
            let at = model.descriptor_address(pfn);
            let good = said.zip(at).is_some_and(|((word, of), at)| {
                self.described.leads_to(word, at, order) && of == Some(order)
            });
            if !good {
                findings.add(format_args!(
                    "frame {frame} is part of the page of order {order} at frame {pfn}, and its descriptor, in frame {holder}, does not say so"
                ));
                return;
            }
        }
    }

    /// Whether the page of `order` at `pfn` has a head in the array.
    fn check_packed(&mut self, pfn: Pfn, order: Order, findings: &mut Findings) {
        let place = self.described.model.packed_head(pfn, order);
        let head = place.and_then(|place| {
            let index = self
                .heads
                .partition_point(|run| run.at <= place)
                .checked_sub(1)?;
            let run = self.heads.get(index)?;
            let offset = place.get() - run.at.get();
            let frame = run.frame_of(offset >> self.described.granule().shift())?;
            (offset >> self.described.granule().shift() < run.pages)
                .then(|| self.read_at(frame, place))?
        });
        match head {
            Some((word, of)) if self.described.is_head(word) && of == Some(order) => {}
            Some(_) => findings.add(format_args!("the place for the packed head of the page of order {order} at frame {pfn} has another")),
            None => findings.add(format_args!("the page of order {order} at frame {pfn} has no head: its place in the array is not mapped")),
        }
    }

    /// The frame that holds the descriptor of `pfn`, mapped by `run`.
    fn holder(&self, run: &LeafRun, pfn: Pfn) -> Option<Pfn> {
        let at = self.described.model.descriptor_address(pfn)?;
        let page = at.get().checked_sub(run.at.get())? >> self.described.granule().shift();
        (page < run.pages).then(|| run.frame_of(page))?
    }

    /// Word and order in the descriptor of `pfn`, mapped by `run`.
    fn descriptor(&mut self, run: &LeafRun, pfn: Pfn) -> Option<(u64, Option<Order>)> {
        let at = self.described.model.descriptor_address(pfn)?;
        let holder = self.holder(run, pfn)?;
        self.read_at(holder, at)
    }

    /// Word and order in the descriptor that `holder` has for the address `at`.
    fn read_at(&mut self, holder: Pfn, at: VirtAddr) -> Option<(u64, Option<Order>)> {
        self.left = self.left.checked_sub(1)?;
        let granule = self.described.granule();
        let offset = at.get() & (granule.bytes() - 1);
        let base = holder.base(granule).get().checked_add(offset)?;
        let word_at = |offset: u64| base.checked_add(offset).map(PhysAddr::new);
        let word = self.memory.read_u64(word_at(self.described.word_offset)?)?;
        let order_offset = self.described.order_offset;
        let around = self.memory.read_u64(word_at(order_offset & !7)?)?;
        let order = (around >> (order_offset % 8 * 8)) as u8;
        Some((word, Order::new(order)))
    }

    /// Adds `page`, which begins with `pfn`, to the run that it goes on, or begins another.
    fn add(&mut self, pfn: Pfn, page: Page) {
        let model = &self.described.model;
        let per_page = model.descriptors_per_page();
        let same = self.runs.last_mut().filter(|run| {
            (run.order, run.heads, run.tails) == (page.order, page.heads, page.tails)
                && run.end() == Some(pfn)
        });
        let new = same.is_none();
        // Frames of their own: all of them, or the first one's.
        let vmemmap = model.vmemmap_pages(page.order);
        let begins = new || pfn.get().is_multiple_of(per_page);
        let own = match (page.heads, page.tails) {
            (Some(HeadsAt::Packed), _) => 0,
            (_, TailsShare::None) if begins => vmemmap,
            (_, TailsShare::None) => 0,
            _ => 1,
        };
        if new {
            self.in_run.clear();
        }
        let in_run = &mut self.in_run;
        let shared = self.shared.drain(..).filter(|frame| in_run.insert(*frame));
        let frames = own + shared.count() as u64;
        match same {
            Some(run) => {
                run.count += 1;
                run.frames += frames;
            }
            None => self.runs.push(PageRun {
                start: pfn,
                order: page.order,
                count: 1,
                heads: page.heads,
                tails: page.tails,
                frames,
            }),
        }
    }
}
