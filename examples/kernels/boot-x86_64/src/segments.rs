//! Segments of each CPU: code, data, and a task state whose only use is a stack for double faults.

use experiment::MOST_CPUS;
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

/// What a CPU has for itself.
#[repr(C)]
struct Own {
    double_fault: Stack,
    task_state: TaskStateSegment,
    table: GlobalDescriptorTable,
}

static mut OF_CPUS: [Own; MOST_CPUS] = [const {
    Own {
        double_fault: Stack([0; STACK_BYTES]),
        task_state: TaskStateSegment::new(),
        table: GlobalDescriptorTable::new(),
    }
}; MOST_CPUS];

/// Loads the segments of CPU `number`, which this is; says which is the code's.
///
/// # Safety
///
/// 1. Called once on each CPU, before anything else uses segments.
/// 2. `number` is its own, below [`MOST_CPUS`].
pub unsafe fn initialise(number: usize) -> SegmentSelector {
    let all = &raw mut OF_CPUS;
    // SAFETY: within the array (duty 2), and this CPU's alone: nobody else has a reference to it, and from here on it
    // is changed by the CPU alone (duty 1).
    let own = unsafe { &mut *all.cast::<Own>().add(number) };
    let stack_end = own.double_fault.0.as_ptr_range().end;
    // The structure is packed, so that its array is replaced whole.
    let mut stacks = own.task_state.interrupt_stack_table;
    stacks[usize::from(DOUBLE_FAULT_STACK) - 1] = VirtAddr::from_ptr(stack_end);
    own.task_state.interrupt_stack_table = stacks;
    let code = own.table.append(Descriptor::kernel_code_segment());
    let data = own.table.append(Descriptor::kernel_data_segment());
    let task = own.table.append(Descriptor::tss_segment(&own.task_state));
    own.table.load();
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
