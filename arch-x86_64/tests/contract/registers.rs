//! What is asked of a CPU's registers: bits by hand, from the SDM.

use arch_x86_64::{Choices, FiveLevel, FourLevel, Misconfigured, Registers, check};

/// CR0, CR4, EFER, PAT.
#[derive(Clone, Copy)]
struct Values(u64, u64, u64, u64);

impl Registers for Values {
    fn cr0(&self) -> u64 {
        self.0
    }

    fn cr4(&self) -> u64 {
        self.1
    }

    fn efer(&self) -> u64 {
        self.2
    }

    fn pat(&self) -> u64 {
        self.3
    }
}

/// PE, WP, PG; PAE, PGE; LME, LMA, NXE; PAT as after reset.
const GOOD: Values = Values(0x8001_0001, 0xa0, 0xd00, 0x0007_0406_0007_0406);

#[test]
fn a_cpu_that_is_set_up_passes_and_each_thing_that_is_missing_is_named() {
    let check = |values: Values| check::<FourLevel>(&values, Choices::new());
    assert_eq!(check(GOOD), Ok(()));
    let Values(cr0, cr4, efer, pat) = GOOD;
    let cases = [
        (
            Values(cr0, cr4, efer & !(1 << 11), pat),
            Misconfigured::NoExecuteIsOff,
        ),
        (
            Values(cr0 & !(1 << 16), cr4, efer, pat),
            Misconfigured::WriteProtectIsOff,
        ),
        (
            Values(cr0, cr4 & !(1 << 7), efer, pat),
            Misconfigured::GlobalPagesAreOff,
        ),
        (
            Values(cr0, cr4, efer, pat & !7 | 4),
            Misconfigured::NotWriteBack { memory_type: 4 },
        ),
        (
            Values(cr0, cr4 | 1 << 12, efer, pat),
            Misconfigured::OtherLevels { format: 4, cpu: 5 },
        ),
    ];
    for (values, expected) in cases {
        assert_eq!(check(values), Err(expected));
    }
}

#[test]
fn leaves_that_are_not_global_need_no_global_pages() {
    let values = Values(GOOD.0, 1 << 5, GOOD.2, GOOD.3);
    assert_eq!(
        check::<FourLevel>(&values, Choices::new().not_global()),
        Ok(())
    );
}

#[test]
fn five_levels_are_for_five_levels() {
    let five = Values(GOOD.0, GOOD.1 | 1 << 12, GOOD.2, GOOD.3);
    assert_eq!(check::<FiveLevel>(&five, Choices::new()), Ok(()));
    let error = check::<FiveLevel>(&GOOD, Choices::new());
    assert_eq!(error, Err(Misconfigured::OtherLevels { format: 5, cpu: 4 }));
}

/// Only the address of the page is dropped then, with what leads to it.
#[test]
fn other_values_of_efer_do_not_matter() {
    let cached = Values(GOOD.0, GOOD.1, GOOD.2 | 1 << 15, GOOD.3);
    assert_eq!(check::<FourLevel>(&cached, Choices::new()), Ok(()));
}
