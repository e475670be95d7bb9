//! Stores of descriptors past the caches, in whatever comes online with some of them.
//!
//! The experiment looks at descriptors through the MMU. So it sees whether they were there before the entries that
//! lead to them.

use arch_x86_64::Streaming;
use core::ops::Range;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};
use mm_core::addr::Pfn;
use mm_core::frame::{DirectMap, LinearMap, Pattern};

/// From how many bytes in one call on: those for 128 MiB in base pages. A kernel that is not there to test streams
/// from `STREAM_FROM` on.
const FROM: u64 = 2 << 20;

/// How often stores were streamed, and fenced.
static STREAMED: AtomicU64 = AtomicU64::new(0);
static ENDED: AtomicU64 = AtomicU64::new(0);

/// The direct map, with stores that are streamed, and counted.
#[derive(Clone, Copy, Debug)]
pub struct StreamingMap(Streaming<LinearMap>);

impl StreamingMap {
    /// `map`.
    pub fn new(map: LinearMap) -> Self {
        Self(Streaming::from_bytes(map, FROM))
    }

    /// Fails unless stores were streamed by one of these, and fenced.
    pub fn was_used() -> Result<(), &'static str> {
        match [&STREAMED, &ENDED].map(|count| count.load(Ordering::Relaxed)) {
            [0, _] => Err("no store was streamed"),
            [_, 0] => Err("no stream was ended"),
            _ => Ok(()),
        }
    }
}

// SAFETY: 1 to 5: those of `Streaming`, which all is forwarded to.
unsafe impl DirectMap for StreamingMap {
    fn frame_pointer(&self, frame: Pfn) -> NonNull<u8> {
        self.0.frame_pointer(frame)
    }

    fn streams_from(&self) -> u64 {
        self.0.streams_from()
    }

    unsafe fn stream(&self, frame: Pfn, places: Range<usize>, pattern: Pattern<'_>) {
        STREAMED.fetch_add(1, Ordering::Relaxed);
        // SAFETY: 1 and 2: the caller's.
        unsafe { self.0.stream(frame, places, pattern) };
    }

    fn end_stream(&self) {
        ENDED.fetch_add(1, Ordering::Relaxed);
        self.0.end_stream();
    }
}
