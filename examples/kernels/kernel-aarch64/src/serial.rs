//! The serial port: a PL011 (Arm, *PrimeCell UART (PL011) Technical Reference Manual*). The kernel's only output and input.

use core::fmt;
use experiment::put_text;

/// Where the machine `virt` has it.
pub const BASE: u64 = 0x0900_0000;

/// Registers, by offset.
const DATA: u64 = 0x00;
const FLAGS: u64 = 0x18;
const BAUD_INTEGER: u64 = 0x24;
const BAUD_FRACTION: u64 = 0x28;
const LINE_CONTROL: u64 = 0x2c;
const CONTROL: u64 = 0x30;
const INTERRUPT_MASK: u64 = 0x38;

/// UARTFR.RXFE: no byte has come in.
const RECEIVER_EMPTY: u32 = 1 << 4;

/// UARTFR.TXFF: no room for a byte.
const TRANSMITTER_FULL: u32 = 1 << 5;

/// UARTLCR_H: 8 bits, no parity, 1 stop bit; FIFOs.
const EIGHT_BITS_AND_FIFOS: u32 = 0b11 << 5 | 1 << 4;

/// UARTCR: UARTEN, TXE, RXE.
const ENABLED: u32 = 1 << 9 | 1 << 8 | 1;

/// The port. Whoever writes has it: the first CPU, and others only of what went wrong; lines may mix then.
#[derive(Clone, Copy, Debug)]
pub struct Serial(());

impl Serial {
    /// The port, to be written to.
    pub const fn new() -> Self {
        Self(())
    }

    /// 115200 baud from a clock of 24 MHz, 8 bits, no parity, no interrupts.
    pub fn initialise() {
        let registers = [
            (CONTROL, 0),
            (INTERRUPT_MASK, 0),
            (BAUD_INTEGER, 13),
            (BAUD_FRACTION, 1),
            (LINE_CONTROL, EIGHT_BITS_AND_FIFOS),
            (CONTROL, ENABLED),
        ];
        for (register, value) in registers {
            write(register, value);
        }
    }

    /// Waits for a byte of input.
    pub fn wait_for_input(self) {
        while read(FLAGS) & RECEIVER_EMPTY != 0 {
            core::hint::spin_loop();
        }
        read(DATA);
    }

    fn put(self, byte: u8) {
        while read(FLAGS) & TRANSMITTER_FULL != 0 {
            core::hint::spin_loop();
        }
        write(DATA, u32::from(byte));
    }
}

fn register(offset: u64) -> *mut u32 {
    core::ptr::with_exposed_provenance_mut((BASE + offset) as usize)
}

fn read(offset: u64) -> u32 {
    // SAFETY: a register of the serial port, mapped where it is as device memory by all of the kernel's tables; only those are read that
    // change nothing, or take a byte that came in.
    unsafe { register(offset).read_volatile() }
}

fn write(offset: u64, value: u32) {
    // SAFETY: as for `read`; the port is nobody else's and touches no memory.
    unsafe { register(offset).write_volatile(value) };
}

impl fmt::Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        put_text(text, |byte| self.put(byte));
        Ok(())
    }
}

/// Prints a line to the serial port.
#[macro_export]
macro_rules! println {
    ($($arguments:tt)*) => { experiment::print_line!($crate::serial::Serial::new(), $($arguments)*) };
}
