//! What the kernels for x86-64 share: the way from the virtual machine's entry to a kernel's own code,
//! and what it prints and ends by.
//!
//! ```text
//!   boot (32 bits) ▶ start ▶ serial port, segments, exceptions ▶ memory map ▶ the kernel's main function
//! ```
//!
//! A kernel names that function by [`entry!`]. It runs on the boot code's tables, which map the first
//! 4 GiB where they are, until it has tables of its own.
#![no_std]

mod boot;
mod cpus;
mod exceptions;
mod exit;
mod firmware;
mod probe;
mod pvh;
mod segments;
mod serial;

pub use boot::{IDENTITY_END, KERNEL_BASE, image_end};
pub use cpus::{
    Interrupt, LOCAL_APIC, NotStarted, Processors, StartSetting, Trampoline, X86, interrupt,
    stack_of, start as start_cpus,
};
pub use exit::exit;
/// For [`println!`].
#[doc(hidden)]
pub use experiment::print_line;
pub use firmware::{Fields, FirmwareMemory};
pub use probe::Instructions;
pub use pvh::StartInfo;
pub use serial::Serial;

use core::panic::PanicInfo;
use experiment::{CpuProbe, Verdict};

/// What a kernel starts with.
#[derive(Debug)]
pub struct Booted {
    /// What the firmware says of memory.
    pub start: StartInfo,
    /// Loads and stores that may fault. The fault handler is installed, on the only CPU that runs.
    pub probe: CpuProbe<Instructions>,
}

unsafe extern "Rust" {
    /// The kernel's main function.
    ///
    /// # Safety
    ///
    /// 1. Called once.
    fn kernel_main(booted: Booted) -> !;
}

/// Names the kernel's main function, a `fn(Booted) -> !`.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        /// Called by the boot code.
        // SAFETY: `boot-x86_64` declares it so, and no other function has the name.
        #[unsafe(no_mangle)]
        fn kernel_main(booted: $crate::Booted) -> ! {
            $main(booted)
        }
    };
}

/// Called by the boot code with the physical address of the start information, on the kernel's stack.
extern "C" fn start(start_info: u64) -> ! {
    Serial::initialise();
    // SAFETY: 1: called once each, in this order, by the boot code's only call. 2 of `segments`: this is the first CPU.
    let probe = unsafe {
        exceptions::initialise(segments::initialise(0));
        exceptions::load();
        CpuProbe::new()
    };
    // SAFETY: 1: the boot tables are in use, and the value does not outlive this function. 2: nobody writes yet.
    let firmware = unsafe { FirmwareMemory::new() };
    let Some(start) = StartInfo::read(&firmware, start_info) else {
        panic!("no PVH start information at {start_info:#x}");
    };
    // SAFETY: 1: by the boot code's only call.
    unsafe { kernel_main(Booted { start, probe }) }
}

#[panic_handler]
fn panicked(info: &PanicInfo<'_>) -> ! {
    println!("PANIC: {info}");
    exit(Verdict::Panicked)
}
