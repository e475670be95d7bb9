//! Writing and clearing 262144 entries, as criterion sees it. `report` has all of them interleaved.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a benchmark stops at the first surprise"
)]

mod contenders;

use benches::{Arena, ENTRIES};
use contenders::{Look, Round, pattern, round};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use figures::{Case, Contender, Op};
use std::time::Duration;

fn entries(criterion: &mut Criterion) {
    for op in Op::ALL {
        let mut group = criterion.benchmark_group(op.name());
        group.throughput(Throughput::Elements(ENTRIES));
        let mut arena = Arena::new();
        group.bench_function("memset", |bencher| bencher.iter(|| arena.memset()));
        let time = |round: Round| match op {
            Op::Map => round.map,
            Op::Unmap => round.unmap,
        };
        for case in Case::ALL {
            for contender in Contender::ALL {
                let id = BenchmarkId::new(contender.name(), case.meaning());
                group.bench_function(id, |bencher| {
                    bencher.iter_custom(|iterations| {
                        let rounds = (0..iterations)
                            .map(|_| time(round(*contender, &arena, pattern(*case), Look::No)));
                        rounds.sum::<Duration>()
                    });
                });
            }
        }
        group.finish();
    }
}

criterion_group! {
    name = all;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(20);
    targets = entries
}
criterion_main!(all);
