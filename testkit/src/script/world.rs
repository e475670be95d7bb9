//! What goes on besides: memory that runs out, somebody else's mappings, CPUs.

use super::interpreter::Interpreter;
use super::op::{Fault, One};
use super::readers::ScriptReaders;
use mm_core::addr::{Block, NodeId, Order, Pfn};
use mm_core::descriptor::TailEncoding;
use mm_core::paging::{Leaf, Role};

/// A frame that nobody has, for foreign leaves: they are never followed.
const FOREIGN_FRAME: u64 = 1 << 30;

impl<'s, E: TailEncoding, R: ScriptReaders<'s, E>> Interpreter<'s, E, R> {
    /// Makes allocations fail.
    pub(super) fn arm(&mut self, fault: Fault) {
        let frames = self.parts.machine.frames();
        frames.no_more_faults();
        self.armed = fault != Fault::None;
        match fault {
            Fault::None => {}
            Fault::After(n) => frames.fail_after(n),
            Fault::Nth(n) => frames.fail_nth(n),
            Fault::Blocks => frames.fail_blocks(true),
            Fault::Node(node) => frames.fill_node(NodeId::new(node)),
            Fault::BothNodes => {
                frames.fill_node(NodeId::new(0));
                frames.fill_node(NodeId::new(1));
            }
        }
    }

    /// Maps something foreign, where nothing is mapped.
    pub(super) fn map_foreign(&mut self, page: u64, huge: bool) -> Result<(), String> {
        let count = if huge { self.scale().per_table } else { 1 };
        let number = self.number(page);
        let first = number - number % count;
        let all = self.model.all_pages();
        let pages = first..first + count;
        let outside = pages.start < all.start || pages.end > all.end;
        if outside || self.model.mapped_in(pages).next().is_some() {
            return Ok(());
        }
        let order = match huge {
            true => self
                .parts
                .machine
                .facts()
                .huge_leaf
                .ok_or("there are no huge leaves")?,
            false => Order::BASE,
        };
        let frame = Pfn::new(FOREIGN_FRAME + first);
        let block = frame.and_then(|frame| Block::new(frame, order));
        let leaf = Leaf {
            block: block.ok_or("no foreign block")?,
            role: Role::Foreign,
            writable: true,
        };
        let at = self.scale().address(first);
        let planted = self.table.map_foreign(at, leaf);
        let place = !huge || self.model.tables.leaf_table(first).is_none();
        if planted != place {
            return Err(format!(
                "planted: {planted}, though there is place: {place}"
            ));
        }
        if !planted {
            return Ok(());
        }
        if let Some(oracle) = &mut self.oracle {
            let entered = oracle.table.map_foreign(at, leaf);
            entered.map_err(|error| format!("the oracle has no place for it: {error}"))?;
        }
        self.model.map_foreign(first, count, FOREIGN_FRAME + first);
        self.planted.push(first);
        self.tally.planted += 1;
        Ok(())
    }

    /// Links foreign tables, with nothing in them.
    pub(super) fn link_foreign_tables(&mut self, page: u64) -> Result<(), String> {
        let number = self.number(page);
        if self.model.page(number).is_some() {
            return Ok(());
        }
        let planted = self.table.link_foreign_tables(self.scale().address(number));
        match planted == self.model.tables.map_foreign(number) {
            true => Ok(()),
            false => Err(format!("foreign tables are linked: {planted}")),
        }
    }

    /// Takes a foreign leaf away.
    pub(super) fn unmap_foreign(&mut self, index: usize) {
        if self.planted.is_empty() {
            return;
        }
        let first = self.planted.remove(index % self.planted.len());
        let at = self.scale().address(first);
        self.table.unmap_foreign(at);
        if let Some(oracle) = &mut self.oracle {
            oracle.table.unmap_foreign(at);
        }
        self.model.unmap_foreign(first);
    }

    /// Takes foreign tables away in which there is nothing.
    pub(super) fn prune(&mut self) {
        self.table.prune();
        self.model.tables.prune();
    }

    /// A CPU reads or writes the descriptor of a frame.
    pub(super) fn access(&mut self, one: One, cpu: usize, store: bool) -> Result<(), String> {
        let (number, frame) = self.frame(one)?;
        let at = self
            .parts
            .machine
            .model()
            .descriptor_address(frame)
            .ok_or("no such descriptor")?;
        let cpus = self.parts.machine.cpus();
        let Some(done) = cpus.access(cpu, at, store).map(|done| done.is_ok()) else {
            return Ok(());
        };
        self.tally.accessed += u64::from(done);
        let page = self.model.page(number);
        let right = page.is_some_and(|page| !store || page.is_writable());
        match done == right {
            true => Ok(()),
            false => Err(format!("an access is done: {done}, expected {right}")),
        }
    }
}
