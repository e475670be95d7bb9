//! What is asked of a CPU's registers: bits by hand, from the Arm ARM.

use arch_aarch64::{Misconfigured, Registers, check};
use mm_core::addr::Granule;

/// TCR_EL1, MAIR_EL1, SCTLR_EL1, TCR2_EL1.
#[derive(Clone, Copy)]
struct Values(u64, u64, u64, u64);

impl Registers for Values {
    fn tcr_el1(&self) -> u64 {
        self.0
    }

    fn mair_el1(&self) -> u64 {
        self.1
    }

    fn sctlr_el1(&self) -> u64 {
        self.2
    }

    fn tcr2_el1(&self) -> u64 {
        self.3
    }
}

/// T1SZ = 16, IRGN1 = ORGN1 = 1, SH1 = 3, IPS = 48 bits; TG1 is added.
const TCR: u64 = 16 << 16 | 1 << 24 | 1 << 26 | 3 << 28 | 5 << 32;

const fn good(tg1: u64) -> Values {
    Values(TCR | tg1 << 30, 0xff, 0x30d0_198d, 0)
}

const GRANULES: [(Granule, u64); 3] = [
    (Granule::Size4K, 0b10),
    (Granule::Size16K, 0b01),
    (Granule::Size64K, 0b11),
];

#[test]
fn each_granule_is_for_its_own_tables() {
    for (granule, tg1) in GRANULES {
        assert_eq!(check(&good(tg1), granule), Ok(()));
        for (_, other) in GRANULES.into_iter().filter(|(_, other)| *other != tg1) {
            let refused = Misconfigured::OtherGranule { tg1: other as u8 };
            assert_eq!(check(&good(other), granule), Err(refused));
        }
    }
}

#[test]
fn each_thing_that_is_missing_is_named() {
    let Values(tcr, mair, sctlr, tcr2) = good(0b10);
    let cases = [
        (
            Values(tcr | 1 << 23, mair, sctlr, tcr2),
            Misconfigured::NoWalks,
        ),
        (
            Values(tcr & !(0x3f << 16) | 25 << 16, mair, sctlr, tcr2),
            Misconfigured::AddressBits { bits: 39 },
        ),
        (
            Values(tcr & !(1 << 28), mair, sctlr, tcr2),
            Misconfigured::Walks { fields: 0b10_0101 },
        ),
        (
            Values(tcr & !(1 << 24), mair, sctlr, tcr2),
            Misconfigured::Walks { fields: 0b11_0100 },
        ),
        (
            Values(tcr, 0xff44, sctlr, tcr2),
            Misconfigured::NotWriteBack { field: 0x44 },
        ),
        (
            Values(tcr, mair, sctlr | 1 << 25, tcr2),
            Misconfigured::BigEndianWalks,
        ),
        (
            Values(tcr, mair, sctlr, 1 << 1),
            Misconfigured::OtherDescriptors { tcr2: 1 << 1 },
        ),
        (
            Values(tcr, mair, sctlr, 1 << 5),
            Misconfigured::OtherDescriptors { tcr2: 1 << 5 },
        ),
    ];
    for (values, expected) in cases {
        assert_eq!(check(&values, Granule::Size4K), Err(expected));
    }
}

/// FEAT_LPA2 moves shareability out of the descriptors. FEAT_LPA, with 64K pages, has address bits
/// where these descriptors have zeros, which is no harm.
#[test]
fn descriptors_with_52_address_bits_are_refused_and_52_bit_memory_is_not() {
    for (granule, tg1) in GRANULES {
        let Values(tcr, mair, sctlr, tcr2) = good(tg1);
        let large = Values(tcr | 1 << 59, mair, sctlr, tcr2);
        assert_eq!(check(&large, granule), Err(Misconfigured::LargeAddresses));
    }
    let Values(tcr, mair, sctlr, tcr2) = good(0b11);
    let lpa = Values(tcr & !(7 << 32) | 6 << 32, mair, sctlr, tcr2);
    assert_eq!(check(&lpa, Granule::Size64K), Ok(()));
}
