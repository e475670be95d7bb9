//! The time stamp as a counter of instructions.

use core::arch::asm;
use core::arch::x86_64::_rdtsc;

/// How many instructions two readings take.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    own: u64,
}

impl Clock {
    /// With what reading it takes.
    pub fn new() -> Self {
        let start = now();
        Self { own: now() - start }
    }

    /// How many instructions `work` takes.
    pub fn count<T>(self, work: impl FnOnce() -> T) -> (T, u64) {
        let start = now();
        let done = work();
        let count = now() - start;
        (done, count - self.own.min(count))
    }

    /// Whether it counts: a loop is counted whose instructions are known.
    ///
    /// # Errors
    ///
    /// Where it does not.
    pub fn check(self) -> Result<(), &'static str> {
        let ((), count) = self.count(|| {
            // SAFETY: it changes nothing but a register.
            unsafe {
                asm!("2:", "dec {0}", "jnz 2b", inout(reg) 1000_u64 => _, options(nomem, nostack));
            }
        });
        match count {
            2000..2020 => Ok(()),
            _ => Err(
                "the time stamp is no count: this kernel is for `cargo xtask qemu x86_64 --icount`",
            ),
        }
    }
}

#[inline(never)]
fn now() -> u64 {
    // SAFETY: every CPU has it.
    unsafe { _rdtsc() }
}
