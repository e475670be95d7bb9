//! Segments: code, data, and a task state whose only use is a stack for double faults.

use core::ptr::addr_of;
use x86_64::VirtAddr;
use x86_64::instructions::segmentation::{CS, DS, ES, SS, Segment};
use x86_64::instructions::tables::load_tss;
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable, SegmentSelector};
use x86_64::structures::tss::TaskStateSegment;

/// The entry of the interrupt stack table (from 1 on) that double faults use.
pub const DOUBLE_FAULT_STACK: u8 = 1;

const STACK_BYTES: usize = 16 << 10;

#[repr(C, align(16))]
struct Stack([u8; STACK_BYTES]);

static mut DOUBLE_FAULT: Stack = Stack([0; STACK_BYTES]);
static mut TASK_STATE: TaskStateSegment = TaskStateSegment::new();
static mut TABLE: GlobalDescriptorTable = GlobalDescriptorTable::new();

/// Loads the segments; says which is the code's.
///
/// # Safety
///
/// 1. Called once, before anything else uses segments.
pub unsafe fn initialise() -> SegmentSelector {
    let stack_end = addr_of!(DOUBLE_FAULT) as u64 + STACK_BYTES as u64;
    let (task_state, table) = (&raw mut TASK_STATE, &raw mut TABLE);
    // SAFETY: called once (duty 1), on the only CPU: nobody else has a reference to these, and from here on they are
    // changed by the CPU alone.
    let (task_state, table) = unsafe { (&mut *task_state, &mut *table) };
    // The structure is packed, so that its array is replaced whole.
    let mut stacks = task_state.interrupt_stack_table;
    stacks[usize::from(DOUBLE_FAULT_STACK) - 1] = VirtAddr::new(stack_end);
    task_state.interrupt_stack_table = stacks;
    let code = table.append(Descriptor::kernel_code_segment());
    let data = table.append(Descriptor::kernel_data_segment());
    let task = table.append(Descriptor::tss_segment(task_state));
    table.load();
    // SAFETY: the selectors are those of the table just loaded: flat 64-bit code, data, and a task state that stays.
    unsafe {
        CS::set_reg(code);
        DS::set_reg(data);
        ES::set_reg(data);
        SS::set_reg(data);
        load_tss(task);
    }
    code
}
