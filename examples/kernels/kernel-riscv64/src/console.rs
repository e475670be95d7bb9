//! The kernel's only output, by firmware.

use crate::sbi;
use core::fmt;
use experiment::put_text;

/// The console. Whoever writes has it: the first hart, and others only of what went wrong; lines may mix then.
#[derive(Clone, Copy, Debug)]
pub struct Console;

impl fmt::Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        put_text(text, sbi::put);
        Ok(())
    }
}

/// Prints a line to the console.
#[macro_export]
macro_rules! println {
    ($($arguments:tt)*) => { experiment::print_line!($crate::console::Console, $($arguments)*) };
}
