//! What a backend says of its page table is what the page table says.

use hosted::{Backend, BackendKind, Machine, MachineConfig, WithBackend};
use mm_core::paging::PageTable;

struct Compare;

impl WithBackend for Compare {
    type Output = ();

    fn with<B: Backend>(self) {
        let machine = Machine::<B>::new(&MachineConfig::default()).unwrap();
        let table = machine.take_table().unwrap();
        assert_eq!(B::HUGE_LEAF, table.huge_leaf(), "{}", B::NAME);
        assert_eq!(B::SHARES_TABLES, table.can_share_tables(), "{}", B::NAME);
        assert_eq!(B::MODEL.granule(), table.granule(), "{}", B::NAME);
    }
}

#[test]
fn what_is_said_of_a_page_table_is_what_it_says() {
    for backend in BackendKind::ALL {
        backend.run(Compare);
    }
}
