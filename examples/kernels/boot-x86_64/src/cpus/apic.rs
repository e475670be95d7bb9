//! The local APIC: interrupts from one CPU to another (SDM, volume 3A, "Advanced Programmable Interrupt Controller").
//!
//! Five registers by memory, as every processor and QEMU's emulation has them. The `x2apic` crate covers timers and much else,
//! and takes four more crates.

use core::hint::spin_loop;

/// Where the local APIC's registers are mapped in the kernel's tables, uncached, for each CPU its own.
pub const LOCAL_APIC: u64 = 0xffff_ffff_fee0_0000;

const END_OF_INTERRUPT: u64 = 0xb0;
const SPURIOUS_INTERRUPT: u64 = 0xf0;
const COMMAND_LOW: u64 = 0x300;
const COMMAND_HIGH: u64 = 0x310;

/// In the spurious-interrupt register: the APIC takes interrupts.
const SOFTWARE_ENABLE: u32 = 1 << 8;

/// In the command register: not sent yet.
const PENDING: u32 = 1 << 12;

/// In the command register: the level that all but an old kind of INIT have.
const ASSERT: u32 = 1 << 14;

/// What one CPU sends to another.
#[derive(Clone, Copy, Debug)]
pub enum Command {
    /// An interrupt with a vector.
    Fixed(u8),
    /// Reset, and wait for the next.
    Initialise,
    /// Start in real mode at the beginning of a page, by its number.
    Start(u8),
}

impl Command {
    const fn word(self) -> u32 {
        ASSERT
            | match self {
                Self::Fixed(vector) => vector as u32,
                Self::Initialise => 5 << 8,
                Self::Start(page) => 6 << 8 | page as u32,
            }
    }
}

/// The local APIC of the CPU that this runs on, mapped at [`LOCAL_APIC`].
#[derive(Clone, Copy, Debug)]
pub struct LocalApic(());

impl LocalApic {
    /// # Safety
    ///
    /// 1. The registers are mapped there, uncached, as long as the value is used.
    pub const unsafe fn new() -> Self {
        Self(())
    }

    fn read(self, register: u64) -> u32 {
        // SAFETY: a register that is mapped (duty 1 of `new`), of which a read has no effect.
        unsafe { ((LOCAL_APIC + register) as *const u32).read_volatile() }
    }

    fn write(self, register: u64, value: u32) {
        // SAFETY: a register that is mapped (duty 1 of `new`); it touches no memory.
        unsafe { ((LOCAL_APIC + register) as *mut u32).write_volatile(value) };
    }

    /// Takes interrupts from now on, with `spurious` for those that are none.
    pub fn enable(self, spurious: u8) {
        self.write(SPURIOUS_INTERRUPT, SOFTWARE_ENABLE | u32::from(spurious));
    }

    /// The interrupt that is being handled is done.
    pub fn end_of_interrupt(self) {
        self.write(END_OF_INTERRUPT, 0);
    }

    /// Sends `command` to the CPU with the local APIC `to`. Not from within an interrupt of this CPU's own.
    pub fn send(self, to: u8, command: Command) {
        self.write(COMMAND_HIGH, u32::from(to) << 24);
        self.write(COMMAND_LOW, command.word());
        while self.read(COMMAND_LOW) & PENDING != 0 {
            spin_loop();
        }
    }
}
