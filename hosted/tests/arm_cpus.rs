//! CPUs that keep all they have read, on each granule: offline reaches every one of them before a
//! frame is freed.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use hosted::{
    AArch64_4K, AArch64_16K, AArch64_64K, ArmCpus, Backend, Machine, MachineConfig, SimCpus,
};
use mm_core::addr::{Order, PfnRange, PhysAddr};
use mm_core::descriptor::Page;
use mm_core::pagemap::{DevPagemap, Geometry, Piece};
use mm_core::vmemmap::Vmemmap;

/// Brings `compounds` compound pages of `order` online at 512 GiB and takes them offline, all at
/// once or in subsections.
fn goes_offline_under_the_eyes_of_all_cpus<B: Backend<Cpus = ArmCpus>>(order: u8, compounds: u64) {
    let geometry = Geometry::compound(Order::new(order).unwrap());
    let start = PhysAddr::new(512 << 30).frame(B::MODEL.granule()).unwrap();
    let ranges = [PfnRange::new(start, compounds << order).unwrap()];
    let machine = Machine::<B>::new(&MachineConfig {
        devices: ranges.to_vec(),
        ..MachineConfig::default()
    })
    .unwrap();
    let mut table = machine.take_table().unwrap();
    // SAFETY: 1 to 3: the machine has one table, one memory and one vmemmap.
    let vmemmap =
        unsafe { Vmemmap::<Page, _, _>::new(B::MODEL, machine.frames(), machine.memory()) };
    let mut vmemmap = vmemmap.unwrap();
    let addresses = B::MODEL.descriptors(ranges[0]).unwrap();
    let cpus = machine.cpus().all();
    cpus.iter().for_each(|cpu| cpu.watch(machine.frames()));
    let pagemap = DevPagemap::new(&B::MODEL, &ranges, geometry).unwrap();

    let region = vmemmap.online(&mut table, &pagemap).unwrap();
    cpus.iter().for_each(|cpu| cpu.fill(addresses));
    vmemmap.offline(&mut table, region);
    assert_eq!(machine.frames().outstanding(), 0);

    let pagemap = pagemap.with_piece(Piece::Subsection);
    for piece in pagemap.pieces() {
        vmemmap.populate(&mut table, &pagemap, piece).unwrap();
    }
    for piece in pagemap.pieces() {
        cpus.iter().for_each(|cpu| cpu.fill(addresses));
        vmemmap.depopulate(&mut table, &pagemap, piece).unwrap();
        let gone = B::MODEL.descriptors(piece).unwrap();
        for cpu in cpus {
            assert!(cpu.access(gone.start()).is_err() && cpu.access(gone.last()).is_err());
        }
    }
    assert_eq!(machine.frames().outstanding(), 0);
    for cpu in cpus {
        assert_eq!((cpu.cached_leaves(), cpu.cached_tables()), (0, 0));
    }
    assert!(machine.violations().is_empty(), "{}", machine.violations());
}

#[test]
fn memory_goes_offline_under_the_eyes_of_all_cpus() {
    // Base pages, the natural compound pages, and the next natural ones.
    goes_offline_under_the_eyes_of_all_cpus::<AArch64_4K>(0, 1 << 12);
    goes_offline_under_the_eyes_of_all_cpus::<AArch64_4K>(9, 100);
    goes_offline_under_the_eyes_of_all_cpus::<AArch64_4K>(18, 2);
    goes_offline_under_the_eyes_of_all_cpus::<AArch64_16K>(0, 1 << 12);
    goes_offline_under_the_eyes_of_all_cpus::<AArch64_16K>(11, 100);
    goes_offline_under_the_eyes_of_all_cpus::<AArch64_16K>(16, 10);
    goes_offline_under_the_eyes_of_all_cpus::<AArch64_64K>(0, 1 << 12);
    goes_offline_under_the_eyes_of_all_cpus::<AArch64_64K>(13, 20);
    goes_offline_under_the_eyes_of_all_cpus::<AArch64_64K>(18, 2);
}
