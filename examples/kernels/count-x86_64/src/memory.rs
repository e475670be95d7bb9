//! Memory functions without string instructions: QEMU counts one of these as many times as it repeats, where
//! a loop of stores of 8 bytes is what is compared.

use core::arch::global_asm;

global_asm!(
    r#"
    .pushsection .text.memory, "ax"
    .globl memset
memset:                                 # RDI, SIL, RDX; answers RDI
    mov rax, rdi
    movzx esi, sil
    movabs rcx, 0x0101010101010101
    imul rsi, rcx
    mov rcx, rdx
    shr rcx, 3
    jz 3f
2:
    mov [rdi], rsi
    add rdi, 8
    dec rcx
    jnz 2b
3:
    and edx, 7
    jz 5f
4:
    mov [rdi], sil
    inc rdi
    dec edx
    jnz 4b
5:
    ret

    .globl memcpy
memcpy:                                 # RDI, RSI, RDX; answers RDI
    mov rax, rdi
    mov rcx, rdx
    shr rcx, 3
    jz 3f
2:
    mov r8, [rsi]
    mov [rdi], r8
    add rsi, 8
    add rdi, 8
    dec rcx
    jnz 2b
3:
    and edx, 7
    jz 5f
4:
    mov r8b, [rsi]
    mov [rdi], r8b
    inc rsi
    inc rdi
    dec edx
    jnz 4b
5:
    ret
    .popsection
    "#
);
