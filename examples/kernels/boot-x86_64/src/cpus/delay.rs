//! Short waits, by channel 2 of the PIT: it counts down at 1.193182 MHz, and its output says when it is done.

use core::hint::spin_loop;
use x86_64::instructions::port::Port;

const CHANNEL: u16 = 0x42;
const MODE: u16 = 0x43;
const CONTROL: u16 = 0x61;

/// Channel 2, both bytes of the count, one shot.
const ONE_SHOT: u8 = 0b1011_0000;

/// In the control register: the channel counts, the speaker is on, the count is over.
const GATE: u8 = 1 << 0;
const SPEAKER: u8 = 1 << 1;
const OUTPUT: u8 = 1 << 5;

/// Waits at least `microseconds`, of which there are at most 50000.
pub fn wait(microseconds: u32) {
    let count = (u64::from(microseconds) * 1_193_182 / 1_000_000 + 1).min(0xffff) as u16;
    let [low, high] = count.to_le_bytes();
    let mut control = Port::<u8>::new(CONTROL);
    // SAFETY: registers of the PIT and of the speaker, which are nobody else's and touch no memory.
    unsafe {
        let off = control.read() & !(GATE | SPEAKER);
        control.write(off);
        Port::new(MODE).write(ONE_SHOT);
        Port::new(CHANNEL).write(low);
        Port::new(CHANNEL).write(high);
        control.write(off | GATE);
        while control.read() & OUTPUT == 0 {
            spin_loop();
        }
        control.write(off);
    }
}
