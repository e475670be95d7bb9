//! The interrupt controller, a GICv3 (Arm, *Generic Interrupt Controller Architecture Specification, GIC architecture version 3 and 4*), as
//! far as interrupts from one CPU to another need it.
//!
//! What there is of it by memory is written once for each CPU; all the rest is system registers. The `arm-gic` crate covers all interrupts,
//! and takes twenty more crates.

use core::arch::asm;
use core::fmt;
use core::hint::spin_loop;

/// GICD_CTLR: affinities are used; interrupts of group 1; a write is under way.
const GICD_CTLR: u64 = 0;
const ARE: u32 = 1 << 4;
const ENABLE_GROUP_1: u32 = 1 << 1;
const WRITE_PENDING: u32 = 1 << 31;

/// A redistributor's frames: of the CPU, and of interrupts of its own; two more where TYPER.VLPIS is set.
const FRAME_BYTES: u64 = 64 << 10;
const GICR_TYPER: u64 = 0x8;
const VIRTUAL_FRAMES: u64 = 1 << 1;
const LAST: u64 = 1 << 4;
const GICR_WAKER: u64 = 0x14;
const PROCESSOR_SLEEP: u32 = 1 << 1;
const CHILDREN_ASLEEP: u32 = 1 << 2;
const GICR_IGROUPR0: u64 = FRAME_BYTES + 0x80;
const GICR_ISENABLER0: u64 = FRAME_BYTES + 0x100;
const GICR_IPRIORITYR: u64 = FRAME_BYTES + 0x400;

/// Software-generated interrupts are the first 16; a byte of priority each.
const ALL_SGIS: u32 = 0xffff;
const PRIORITY: u32 = 0x8080_8080;
const PRIORITY_WORDS: u64 = 4;

/// Numbers from here on are not those of interrupts.
const SPECIAL: u32 = 1020;

/// Aff3, as in MPIDR_EL1.
const AFFINITY_3: u64 = 0xff << 32;
const AFFINITIES_0_TO_2: u64 = 0xff_ffff;

/// The affinity of a CPU, of its MPIDR_EL1.
pub const fn affinity_of(mpidr: u64) -> u64 {
    mpidr & (AFFINITY_3 | AFFINITIES_0_TO_2)
}

/// Where the registers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GicRegisters {
    /// Those of the distributor: address and bytes.
    pub distributor: (u64, u64),
    /// Those of all redistributors.
    pub redistributors: (u64, u64),
}

/// There is no redistributor of a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRedistributor {
    /// The CPU's affinity.
    pub affinity: u64,
}

impl fmt::Display for NoRedistributor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "no redistributor of the CPU with affinity {:#x}",
            self.affinity
        )
    }
}

/// The controller, with its registers mapped where they are.
#[derive(Clone, Copy, Debug)]
pub struct Gic(GicRegisters);

impl Gic {
    /// # Safety
    ///
    /// 1. `registers` are those of a GICv3, and mapped where they are as device memory for as long as the value is used.
    pub const unsafe fn new(registers: GicRegisters) -> Self {
        Self(registers)
    }

    fn read(self, at: u64) -> u32 {
        // SAFETY: a register that is mapped (duty 1 of `new`), of which a read has no effect.
        unsafe { core::ptr::with_exposed_provenance::<u32>(at as usize).read_volatile() }
    }

    fn write(self, at: u64, value: u32) {
        // SAFETY: a register that is mapped (duty 1 of `new`); it touches no memory.
        unsafe { core::ptr::with_exposed_provenance_mut::<u32>(at as usize).write_volatile(value) };
    }

    /// Has interrupts routed. Once, on the first CPU.
    pub fn initialise(self) {
        let control = self.0.distributor.0 + GICD_CTLR;
        for value in [ARE, ARE | ENABLE_GROUP_1] {
            self.write(control, value);
            while self.read(control) & WRITE_PENDING != 0 {
                spin_loop();
            }
        }
    }

    /// Has this CPU, with `affinity`, take those that others send.
    ///
    /// # Errors
    ///
    /// [`NoRedistributor`].
    pub fn join(self, affinity: u64) -> Result<(), NoRedistributor> {
        let own = self.redistributor(affinity);
        let own = own.ok_or(NoRedistributor { affinity })?;
        let awake = self.read(own + GICR_WAKER) & !PROCESSOR_SLEEP;
        self.write(own + GICR_WAKER, awake);
        while self.read(own + GICR_WAKER) & CHILDREN_ASLEEP != 0 {
            spin_loop();
        }
        self.write(own + GICR_IGROUPR0, ALL_SGIS);
        for word in 0..PRIORITY_WORDS {
            self.write(own + GICR_IPRIORITYR + 4 * word, PRIORITY);
        }
        self.write(own + GICR_ISENABLER0, ALL_SGIS);
        // SAFETY: registers of the CPU interface, which is nobody else's (duty 1 of `new`): ICC_SRE_EL1.SRE, any priority by ICC_PMR_EL1, and
        // ICC_IGRPEN1_EL1. Nothing comes but what other CPUs send.
        unsafe {
            asm!(
                "dsb sy",
                "mrs {word}, s3_0_c12_c12_5",
                "orr {word}, {word}, #1",
                "msr s3_0_c12_c12_5, {word}",
                "isb",
                "mov {word}, #0xff",
                "msr s3_0_c4_c6_0, {word}",
                "mov {word}, #1",
                "msr s3_0_c12_c12_7, {word}",
                "isb",
                word = out(reg) _,
                options(nostack, preserves_flags)
            )
        };
        Ok(())
    }

    /// The redistributor of the CPU with `affinity`: GICR_TYPER names it, in its upper word.
    fn redistributor(self, affinity: u64) -> Option<u64> {
        let (start, bytes) = self.0.redistributors;
        let packed = (affinity & AFFINITY_3) >> 8 | affinity & AFFINITIES_0_TO_2;
        let mut at = start;
        while at + 2 * FRAME_BYTES <= start + bytes {
            let [low, high] = [0, 4].map(|word| u64::from(self.read(at + GICR_TYPER + word)));
            if high == packed {
                return Some(at);
            }
            if low & LAST != 0 {
                break;
            }
            let frames = if low & VIRTUAL_FRAMES == 0 { 2 } else { 4 };
            at += frames * FRAME_BYTES;
        }
        None
    }
}

/// Sends software-generated interrupt `number` to the CPU with `affinity`: ICC_SGI1R_EL1. All stores before are visible to its handler.
pub fn send(affinity: u64, number: u8) {
    let [of_0, of_1, of_2] = [0, 8, 16].map(|shift| affinity >> shift & 0xff);
    let of_3 = affinity >> 32 & 0xff;
    // A bit for each CPU of 16 with the same upper affinities.
    let (range, bit) = (of_0 >> 4, of_0 & 0xf);
    let word =
        of_3 << 48 | range << 44 | of_2 << 32 | u64::from(number) << 24 | of_1 << 16 | 1 << bit;
    // SAFETY: at EL1, where SRE is set (`join`); the other CPU has a handler.
    unsafe {
        asm!("dsb ish", "msr s3_0_c12_c11_5, {}", "isb", in(reg) word, options(nostack, preserves_flags))
    };
}

/// Takes the interrupt that is pending: ICC_IAR1_EL1. `None` where there is none any more.
pub fn acknowledge() -> Option<u32> {
    let number: u64;
    // SAFETY: at EL1, where SRE is set (`join`).
    unsafe {
        asm!("mrs {}, s3_0_c12_c12_0", "dsb sy", out(reg) number, options(nostack, preserves_flags))
    };
    let number = number as u32 & 0xff_ffff;
    (number < SPECIAL).then_some(number)
}

/// The interrupt is done, and another one may be taken: ICC_EOIR1_EL1.
pub fn end(number: u32) {
    // SAFETY: at EL1, where SRE is set (`join`).
    unsafe {
        asm!("msr s3_0_c12_c12_1, {}", "isb", in(reg) u64::from(number), options(nostack, preserves_flags))
    };
}
