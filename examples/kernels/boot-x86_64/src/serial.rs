//! The serial port: a 16550 at the first standard port. The kernel's only output and input.

use core::fmt;
use experiment::put_text;
use x86_64::instructions::port::Port;

const BASE: u16 = 0x3f8;

/// A byte has come in (line status register).
const DATA_READY: u8 = 1;

/// The transmitter has room for a byte (line status register).
const TRANSMITTER_EMPTY: u8 = 1 << 5;

/// The port. Whoever writes has it: the first CPU, and others only of what went wrong; lines may mix then.
#[derive(Clone, Copy, Debug, Default)]
pub struct Serial(());

impl Serial {
    /// The port, to be written to.
    pub const fn new() -> Self {
        Self(())
    }

    /// 115200 baud, 8 bits, no parity, no interrupts.
    pub fn initialise() {
        let registers = [
            (1, 0x00), // no interrupts
            (3, 0x80), // the divisor's registers
            (0, 1),
            (1, 0),
            (3, 0x03), // 8 bits, no parity, 1 stop bit
            (2, 0xc7), // FIFOs on and empty
        ];
        for (register, value) in registers {
            write(register, value);
        }
    }

    /// Waits for a byte of input.
    pub fn wait_for_input(self) {
        // SAFETY: the line status register of the serial port; reading it has no effect.
        while unsafe { Port::<u8>::new(BASE + 5).read() } & DATA_READY == 0 {
            core::hint::spin_loop();
        }
        // SAFETY: the receiver's register, which nobody else reads.
        let _ = unsafe { Port::<u8>::new(BASE).read() };
    }

    fn put(self, byte: u8) {
        // SAFETY: the line status register of the serial port; reading it has no effect.
        while unsafe { Port::<u8>::new(BASE + 5).read() } & TRANSMITTER_EMPTY == 0 {
            core::hint::spin_loop();
        }
        write(0, byte);
    }
}

fn write(register: u16, value: u8) {
    // SAFETY: a register of the serial port, which is nobody else's and touches no memory.
    unsafe { Port::new(BASE + register).write(value) };
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
    ($($arguments:tt)*) => { $crate::print_line!($crate::Serial::new(), $($arguments)*) };
}
