//! What is asked of a hart, and what a kernel may choose.

use crate::machine::{Machine, Plan, vmemmap};
use arch_riscv64::{
    Choices, Misconfigured, Registers, Sv39, Sv48, Sv57, SvFormat, check, satp_mode,
};
use arch_sim::walker::Walker;
use mm_core::paging::{NoRecords, PageTable};

struct Satp(u64);

impl Registers for Satp {
    fn satp(&self) -> u64 {
        self.0
    }
}

#[test]
fn a_hart_walks_the_mode_that_satp_says() {
    // Whatever the address space and the root are.
    let satp = |mode: u64| Satp(mode << 60 | 0x0fff_f000_0008_1234);
    fn format<F: SvFormat>(satp: &Satp) -> Result<(), Misconfigured> {
        check::<F>(satp)
    }
    let refused = |format, hart| Err(Misconfigured::OtherMode { format, hart });
    assert_eq!(format::<Sv39>(&satp(8)), Ok(()));
    assert_eq!(format::<Sv48>(&satp(9)), Ok(()));
    assert_eq!(format::<Sv57>(&satp(10)), Ok(()));
    assert_eq!(format::<Sv39>(&satp(9)), refused(8, 9));
    assert_eq!(format::<Sv48>(&satp(8)), refused(9, 8));
    assert_eq!(format::<Sv57>(&satp(0)), refused(10, 0));
    assert_eq!(
        format::<Sv57>(&satp(9)).unwrap_err().to_string(),
        "satp.MODE is 9 (Sv48), and the format is for 10 (Sv57)"
    );
    assert_eq!(
        [
            satp_mode::<Sv39>(),
            satp_mode::<Sv48>(),
            satp_mode::<Sv57>()
        ],
        [8, 9, 10]
    );
}

#[test]
fn leaves_are_global_unless_the_kernel_chooses_otherwise() {
    for (choices, global) in [(Choices::new(), true), (Choices::new().not_global(), false)] {
        let machine = Machine::<Sv48>::new();
        // SAFETY: 1: the one value for the tree. 2: memory is not encrypted.
        let mut table = unsafe { machine.table().with_attributes(choices.attributes()) };
        let range = vmemmap::<Sv48>(0, 9);
        let mut source = machine.source(Plan::Distinct);
        // SAFETY: 1: the source's frames. 2: nobody uses the addresses.
        unsafe { table.map_runs(range, machine.node(), &mut source, &NoRecords) }.unwrap();
        let read = machine
            .walker()
            .translate(&machine.memory, machine.root, range.start());
        assert_eq!(read.unwrap().global, global);
        let found = table.lookup(range.start()).mapping().unwrap();
        assert_eq!(found.leaf, source.mapped[&range.start()]);
    }
}
