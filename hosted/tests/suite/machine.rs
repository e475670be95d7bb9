//! The simulated machine itself.

use hosted::{AArch64_4K, AArch64_16K, AArch64_64K, Backend, Machine, MachineConfig, MachineError};
use mm_core::addr::{PfnRange, PhysAddr};

fn ram_lies_where_no_device_does<B: Backend>() {
    let granule = B::MODEL.granule();
    let all = B::MODEL.all_frames();
    assert_eq!(all.last(), B::LAST_FRAME);
    let device =
        |start: u64, bytes| PfnRange::from_bytes(PhysAddr::new(start), bytes, granule).unwrap();
    for devices in [
        vec![device(0, 1 << 47)],
        vec![device(1 << 47, 1 << 47)],
        vec![device(0, 1 << 40), device(2 << 40, (1 << 48) - (2 << 40))],
    ] {
        let machine = Machine::<B>::new(&MachineConfig {
            devices: devices.clone(),
            ..MachineConfig::default()
        });
        let machine = machine.unwrap();
        for chunk in machine.memory().chunks() {
            assert!(chunk.last() <= B::LAST_FRAME);
            assert!(!devices.iter().any(|device| device.overlaps(chunk)));
        }
    }
    let everything = Machine::<B>::new(&MachineConfig {
        devices: vec![all],
        ..MachineConfig::default()
    });
    assert!(matches!(everything, Err(MachineError::NoRoomForRam { .. })));
}

#[test]
fn ram_lies_where_no_device_does_on_every_granule() {
    ram_lies_where_no_device_does::<AArch64_4K>();
    ram_lies_where_no_device_does::<AArch64_16K>();
    ram_lies_where_no_device_does::<AArch64_64K>();
}
