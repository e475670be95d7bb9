//! What happens around the library: faults, foreign mappings, CPUs.

use super::Interpreter;
use crate::script::model::Cell;
use crate::script::op::Fault;
use crate::{RadixBackend, SimCpus};
use mm_core::addr::{Block, NodeId, Order, Pfn};
use mm_core::descriptor::TailEncoding;
use mm_core::paging::{Leaf, Role};

/// A frame that nobody has, for foreign leaves: they are never followed.
const FOREIGN_FRAME: u64 = 1 << 30;

impl<'s, B: RadixBackend, E: TailEncoding> Interpreter<'s, B, E> {
    pub(super) fn arm(&mut self, fault: Fault) {
        let frames = self.ground.machine.frames();
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

    pub(super) fn plant(&mut self, page: u64, huge: bool) -> Result<(), String> {
        let count = if huge { 512 } else { 1 };
        let first = self.number(page) / count * count;
        if self
            .model
            .pages
            .range(first..first + count)
            .next()
            .is_some()
        {
            return Ok(());
        }
        let at = self.address(first);
        let order = Order::new(if huge { 9 } else { 0 }).unwrap_or(Order::BASE);
        let frame = Pfn::new(FOREIGN_FRAME + first / count * count);
        let Some(block) = frame.and_then(|frame| Block::new(frame, order)) else {
            return Err("no foreign block".into());
        };
        if !self.foreign.map(at, block.first(), order) {
            return Ok(());
        }
        let leaf = Leaf {
            block,
            role: Role::Foreign,
            writable: true,
        };
        let entered = self.oracle.table.map_foreign(at, leaf);
        entered.map_err(|error| format!("the oracle has no place for a foreign leaf: {error}"))?;
        for index in 0..count {
            let frame = block.first().get() + index;
            let cell = Cell::Foreign { frame, huge };
            self.model.pages.insert(first + index, cell);
        }
        self.planted.push(first);
        self.tally.planted += 1;
        self.subject.foreign_tables = true;
        Ok(())
    }

    pub(super) fn uproot(&mut self, index: usize) {
        if self.planted.is_empty() {
            return;
        }
        let first = self.planted.remove(index % self.planted.len());
        let at = self.address(first);
        self.foreign.unmap(at);
        self.oracle.table.unmap_foreign(at);
        let huge = matches!(
            self.model.pages.get(&first),
            Some(Cell::Foreign { huge: true, .. })
        );
        for page in first..first + if huge { 512 } else { 1 } {
            self.model.pages.remove(&page);
        }
    }

    pub(super) fn access(&mut self, page: u64, cpu: usize, store: bool) -> Result<(), String> {
        let number = self.number(page);
        let at = self.address(number);
        let cpus = self.ground.machine.cpus().all();
        let Some(cpu) = cpus.get(cpu % cpus.len().max(1)) else {
            return Ok(());
        };
        let done = if store { cpu.store(at) } else { cpu.access(at) };
        self.tally.accessed += u64::from(done.is_ok());
        let cell = self.model.pages.get(&number);
        match (done, cell.is_some_and(|cell| !store || cell.is_writable())) {
            (Ok(_), true) | (Err(_), false) => Ok(()),
            (done, online) => Err(format!("a CPU gets {done:?} where it should be {online}")),
        }
    }

    pub(super) fn speculate(&self) {
        let all = self.ground.machine.cpus().all();
        all.iter().for_each(|cpu| cpu.fill(self.addresses));
    }
}
