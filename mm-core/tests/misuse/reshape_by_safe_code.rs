//! The library finds heads and tail frames by what descriptors say.

use mm_core::addr::{NodeId, Order};
use mm_core::descriptor::{Initial, Mask, Page, Reshape};

fn reshape(page: &Page<Mask>, initial: Initial) {
    page.reshape(initial);
    page.reset(initial);
}

fn main() {
    let _ = (reshape, Order::BASE, NodeId::new(0));
}
