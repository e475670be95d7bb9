//! From 32-bit protected mode, where the virtual machine enters, to 64-bit code in the upper half.
//!
//! Entered by PVH ("x86/HVM direct boot ABI", Xen project): paging off, flat segments, EBX = physical address of
//! the start information. An ELF note of type 18 (`XEN_ELFNOTE_PHYS32_ENTRY`) names the entry.
//!
//! The tables for the way up map the first 4 GiB twice over: where they are, and (the first GiB) at the kernel's base. With LA57,
//! which has to be chosen before paging is enabled (SDM, volume 3A, "Linear-Address Pre-Processing" and CR4.LA57), one more table
//! stands above them.
//!
//! The other CPUs go the same way from `cpu_32` on, with what the first one has chosen (see `cpus`).

use core::arch::global_asm;
use core::ptr::addr_of;

/// Where physical address 0 lies for the kernel's code: the linker script's `KERNEL_BASE`.
pub const KERNEL_BASE: u64 = 0xffff_ffff_8000_0000;

/// Up to where physical memory is mapped where it is, until the kernel has tables of its own.
pub const IDENTITY_END: u64 = 1 << 32;

unsafe extern "C" {
    static __kernel_end: u8;
}

/// The first physical address behind the kernel's image.
pub fn image_end() -> u64 {
    addr_of!(__kernel_end) as u64 - KERNEL_BASE
}

global_asm!(
    r#"
    .pushsection .note.pvh, "a", @note
    .balign 4
    .long 4              # the name's length
    .long 4              # the description's
    .long 18             # XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .long pvh_entry
    .popsection

    .pushsection .boot, "awx", @progbits
    .code32
    .globl pvh_entry
pvh_entry:
    cli
    cld
    mov ebp, ebx                        # CPUID overwrites EBX

    mov edi, offset boot_pml4
    mov esi, 0xa0                       # CR4.PAE | PGE
    xor eax, eax
    cpuid
    cmp eax, 7
    jb 2f
    mov eax, 7
    xor ecx, ecx
    cpuid
    test ecx, 1 << 16                   # LA57
    jz 2f
    or esi, 1 << 12                     # CR4.LA57
    mov edi, offset boot_pml5
2:
    mov [chosen_cr4], esi
    mov [chosen_root], edi
    mov ebx, offset boot_64
enable_paging:                          # EBX = where to go on in 64-bit code
    mov esi, [chosen_cr4]
    mov edi, [chosen_root]
    mov cr4, esi
    mov cr3, edi
    mov ecx, 0xc0000080                 # EFER
    rdmsr
    or eax, (1 << 8) | (1 << 11)        # LME | NXE
    wrmsr
    mov eax, cr0
    or eax, (1 << 31) | (1 << 16) | 1   # PG | WP | PE
    mov cr0, eax
    lgdt [boot_gdt_pointer]
    ljmp 0x08, offset in_64

    .globl cpu_32
cpu_32:                                 # another CPU, from its trampoline
    mov ax, 0x10
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov ebx, offset cpu_64
    jmp enable_paging

    .code64
in_64:
    mov ax, 0x10
    mov ds, ax
    mov es, ax
    mov ss, ax
    xor eax, eax
    mov fs, ax
    mov gs, ax
    mov ebx, ebx
    jmp rbx

cpu_64:
    movabs rax, offset cpu_upper_half
    jmp rax

boot_64:
    movabs rsp, offset __stack_end
    mov edi, ebp
    xor ebp, ebp
    movabs rax, offset {start}
    call rax
    ud2

    .balign 8
    .globl boot_gdt
boot_gdt:
    .quad 0
    .quad 0x00af9b000000ffff            # 64-bit code
    .quad 0x00cf93000000ffff            # data
    .quad 0x00cf9b000000ffff            # 32-bit code
boot_gdt_pointer:
    .word boot_gdt_pointer - boot_gdt - 1
    .long boot_gdt

    .balign 4
chosen_cr4:
    .long 0
chosen_root:
    .long 0

    .balign 4096
boot_pml5:
    .quad boot_pml4 + 3
    .fill 510, 8, 0
    .quad boot_pml4 + 3
boot_pml4:
    .quad boot_pdpt + 3
    .fill 510, 8, 0
    .quad boot_pdpt_upper + 3
boot_pdpt:
    .quad boot_pd + 3
    .quad boot_pd + 0x1003
    .quad boot_pd + 0x2003
    .quad boot_pd + 0x3003
    .fill 508, 8, 0
boot_pdpt_upper:
    .fill 510, 8, 0
    .quad boot_pd + 3
    .quad 0
boot_pd:
    .set boot_frame, 0
    .rept 2048
    .quad boot_frame + 0x83             # present, writable, 2 MiB
    .set boot_frame, boot_frame + 0x200000
    .endr
    .popsection
    "#,
    start = sym crate::start,
);
