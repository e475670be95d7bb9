//! Where other CPUs start: in real mode, in a page below 1 MiB.
//!
//! The page holds the way to 32-bit code and nothing else, so it is the same wherever it lies; `boot` does the rest.

use core::arch::global_asm;
use core::ptr::addr_of;
use experiment::RangeList;
use mm_core::addr::Pfn;

global_asm!(
    r#"
    .pushsection .rodata.trampoline, "a", @progbits
    .globl trampoline_start, trampoline_end
    .code16
trampoline_start:
    cli
    cld
    mov ax, cs
    mov ds, ax
    .byte 0xbb                          # mov bx, its place in the page
    .word trampoline_gdt - trampoline_start
    .byte 0x66, 0x0f, 0x01, 0x17        # lgdt [bx], with 32 bits of base
    mov eax, cr0
    or al, 1                            # PE
    mov cr0, eax
    .byte 0x66, 0xea                    # far jump with a 32-bit offset
    .long cpu_32
    .word 0x18
trampoline_gdt:
    .word 4 * 8 - 1                     # as many entries as it has
    .long boot_gdt
trampoline_end:
    .code64
    .popsection

    .pushsection .text.cpu, "ax", @progbits
    .globl cpu_upper_half
cpu_upper_half:                         # still on the boot code's tables
    mov rsp, [rip + {stack}]
    mov rdi, [rip + {number}]
    mov rax, [rip + {root}]
    mov cr3, rax
    xor ebp, ebp
    call {enter}
    ud2
    .popsection
    "#,
    stack = sym super::start::STACK,
    number = sym super::start::NUMBER,
    root = sym super::start::ROOT,
    enter = sym super::start::enter,
);

unsafe extern "C" {
    static trampoline_start: u8;
    static trampoline_end: u8;
}

/// The first page that is not firmware's own data, and the first behind memory that real mode reaches.
const FIRST: u64 = 0x8;
const END: u64 = 0x9f;

/// The page, with the code in it.
#[derive(Clone, Copy, Debug)]
pub struct Trampoline {
    page: u8,
}

impl Trampoline {
    /// Puts the code into a frame of `ram` below 1 MiB; `None` where there is none.
    ///
    /// # Safety
    ///
    /// 1. Physical memory below 1 MiB is mapped where it is.
    /// 2. `ram` is the firmware's map, and nobody uses what of it is below 1 MiB, then or later.
    pub unsafe fn place(ram: &RangeList) -> Option<Self> {
        let is_ram = |page: &u64| {
            let frame = Pfn::new(*page);
            frame.is_some_and(|frame| ram.as_slice().iter().any(|range| range.contains(frame)))
        };
        let page = (FIRST..END).find(is_ram)?;
        let (start, end) = (addr_of!(trampoline_start), addr_of!(trampoline_end));
        let bytes = end as usize - start as usize;
        // SAFETY: the code is in the image, and the frame is nobody's (duty 2), mapped where it is (duty 1), and larger.
        unsafe { start.copy_to_nonoverlapping((page << 12) as *mut u8, bytes) };
        Some(Self { page: page as u8 })
    }

    /// The number of the page, by which a CPU is told to start there.
    pub(super) const fn page(self) -> u8 {
        self.page
    }
}
