//! Which tables there are below the root, and whose they are.
//!
//! A table of the library's is there from its first entry on, and goes with its last one; one that
//! became empty because somebody else took his entry out stays, *hollow*, until something comes and
//! goes there.

use super::Page;
use std::collections::BTreeMap;
use std::ops::Range;

/// Whose a table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::script) enum Table {
    /// The library's.
    Ours,
    /// The library's, linked from every place that needs nothing but this tail frame.
    Shared(u64),
    /// Somebody else's.
    Foreign,
}

/// What maps the pages of one leaf table.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    table: Option<Table>,
    /// How many pages are mapped by base pages, and how many by a huge leaf.
    small: u64,
    huge: u64,
}

/// Tables of one level above the leaf tables.
#[derive(Clone, Debug)]
struct Level {
    /// How many pages each maps, a power of two: its exponent.
    shift: u32,
    tables: BTreeMap<u64, Table>,
}

/// All tables.
#[derive(Clone, Debug)]
pub(in crate::script) struct Tables {
    /// Whether tables cost frames.
    exist: bool,
    per_table: u64,
    spans: BTreeMap<u64, Span>,
    /// From those that link leaf tables up to those that the root links.
    levels: Vec<Level>,
}

impl Tables {
    /// No tables yet, of levels that map 2^`spans` pages each, leaf tables first.
    pub(in crate::script) fn new(exist: bool, spans: &[u32]) -> Self {
        let (leaf, upper) = spans.split_first().unwrap_or((&0, &[]));
        Self {
            exist,
            per_table: 1 << leaf,
            spans: BTreeMap::new(),
            levels: upper
                .iter()
                .map(|shift| Level {
                    shift: *shift,
                    tables: BTreeMap::new(),
                })
                .collect(),
        }
    }

    fn span(&mut self, page: u64) -> &mut Span {
        self.spans.entry(page / self.per_table).or_default()
    }

    /// Counts what maps a page.
    pub(super) fn count(&mut self, page: u64, old: Option<&Page>, new: Option<&Page>) {
        let span = self.span(page);
        let count = |of: Option<&Page>| match of {
            Some(page) if page.is_huge() => (0, 1),
            Some(_) => (1, 0),
            None => (0, 0),
        };
        let ((old_small, old_huge), (small, huge)) = (count(old), count(new));
        span.small = span.small + small - old_small;
        span.huge = span.huge + huge - old_huge;
    }

    /// The leaf table that has `page`.
    pub(in crate::script) fn leaf_table(&self, page: u64) -> Option<Table> {
        self.spans.get(&(page / self.per_table))?.table
    }

    /// Makes the tables for `page` that are not there, down to the leaf table if it has one.
    pub(super) fn make(&mut self, page: u64, leaf_table: bool, table: Table) {
        if !self.exist {
            return;
        }
        for level in &mut self.levels {
            level.tables.entry(page >> level.shift).or_insert(table);
        }
        let span = self.span(page);
        if leaf_table && span.table.is_none() {
            span.table = Some(table);
        }
    }

    /// Says what the leaf table of `page` is.
    pub(super) fn set_leaf_table(&mut self, page: u64, table: Option<Table>) {
        if self.exist {
            self.span(page).table = table;
        }
    }

    /// Somebody else links tables for `page`, which nothing is mapped at. Says whether there is a
    /// place for them.
    pub(in crate::script) fn map_foreign(&mut self, page: u64) -> bool {
        let place = self.exist && self.span(page).huge == 0;
        if place {
            self.make(page, true, Table::Foreign);
        }
        place
    }

    /// Tables of the library's for `pages`, which something was taken out of, that nothing is in
    /// any more are gone.
    pub(super) fn sweep(&mut self, pages: &Range<u64>) {
        self.remove_empty(pages, Table::Ours);
    }

    /// Somebody else takes away his tables that nothing is in.
    pub(in crate::script) fn prune(&mut self) {
        self.remove_empty(&(0..u64::MAX), Table::Foreign);
    }

    fn remove_empty(&mut self, pages: &Range<u64>, whose: Table) {
        let per_table = self.per_table;
        let last = pages.end - 1;
        for (_, span) in self
            .spans
            .range_mut(pages.start / per_table..=last / per_table)
        {
            if span.table == Some(whose) && span.small == 0 {
                span.table = None;
            }
        }
        let mut below = per_table.trailing_zeros();
        let mut full: Vec<u64> = self
            .spans
            .iter()
            .filter(|(_, span)| span.table.is_some() || span.huge > 0)
            .map(|(index, _)| *index)
            .collect();
        for level in &mut self.levels {
            let up = level.shift - below;
            full = full.iter().map(|index| index >> up).collect();
            let touched = pages.start >> level.shift..=last >> level.shift;
            level.tables.retain(|index, table| {
                *table != whose || !touched.contains(index) || full.binary_search(index).is_ok()
            });
            full = level.tables.keys().copied().collect();
            below = level.shift;
        }
    }

    /// Of the tables on the way to `page`, only so many are left, from the root on: those of the
    /// library's that nothing was in may be gone.
    pub(in crate::script) fn keep(&mut self, page: u64, count: usize) {
        let levels = self.levels.len();
        let span = self.span(page);
        if count <= levels && span.table == Some(Table::Ours) && span.small == 0 {
            span.table = None;
        }
        for (index, level) in self.levels.iter_mut().enumerate() {
            let place = page >> level.shift;
            if count < levels - index && level.tables.get(&place) == Some(&Table::Ours) {
                level.tables.remove(&place);
            }
        }
    }

    /// How many tables lie on the way to `page`.
    pub(in crate::script) fn on_the_way(&self, page: u64) -> usize {
        let upper = self.levels.iter();
        let upper = upper.filter(|level| level.tables.contains_key(&(page >> level.shift)));
        upper.count() + usize::from(self.leaf_table(page).is_some())
    }

    /// Whether there is a shared table.
    pub(in crate::script) fn shared(&self) -> u64 {
        let mut shared: Vec<u64> = self
            .spans
            .values()
            .filter_map(|span| span.shared())
            .collect();
        shared.sort_unstable();
        shared.dedup();
        shared.len() as u64
    }

    /// How many leaf tables the library has made.
    pub(in crate::script) fn leaf_tables(&self) -> u64 {
        let own = self.spans.values();
        let own = own.filter(|span| span.table == Some(Table::Ours)).count() as u64;
        own + self.shared()
    }

    /// How many tables above those.
    pub(in crate::script) fn upper_tables(&self) -> u64 {
        let all = self.levels.iter().flat_map(|level| level.tables.values());
        all.filter(|table| **table == Table::Ours).count() as u64
    }
}

impl Span {
    /// The tail frame of which there is a shared table.
    fn shared(&self) -> Option<u64> {
        match self.table {
            Some(Table::Shared(tail)) => Some(tail),
            _ => None,
        }
    }
}
