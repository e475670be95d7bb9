//! Writing and clearing 262144 entries, as criterion sees it. `entries_summary` prints the ratios.

use benches::{Arena, ENTRIES, Engine, OffsetTable, Pattern};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::time::{Duration, Instant};

/// The time that `measured` takes out of `iterations` rounds, each with what `around` does besides.
fn only<S>(
    iterations: u64,
    state: &mut S,
    mut before: impl FnMut(&mut S),
    mut measured: impl FnMut(&mut S),
    mut after: impl FnMut(&mut S),
) -> Duration {
    let mut total = Duration::ZERO;
    for _ in 0..iterations {
        before(state);
        let start = Instant::now();
        measured(state);
        total += start.elapsed();
        after(state);
    }
    total
}

fn map(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("map");
    group.throughput(Throughput::Elements(ENTRIES));
    let mut arena = Arena::new();
    group.bench_function("memset", |bencher| bencher.iter(|| arena.memset()));
    for (pattern, name) in Pattern::ALL {
        group.bench_function(BenchmarkId::new("engine", name), |bencher| {
            let mut engine = Engine::new(&arena);
            bencher.iter_custom(|iterations| {
                only(
                    iterations,
                    &mut engine,
                    |_| (),
                    |engine| engine.map(pattern),
                    |engine| {
                        engine.unmap();
                    },
                )
            });
        });
        group.bench_function(BenchmarkId::new("map_to", name), |bencher| {
            let mut table = OffsetTable::new(&arena);
            bencher.iter_custom(|iterations| {
                only(
                    iterations,
                    &mut table,
                    |_| (),
                    |table| table.map(pattern),
                    |table| {
                        table.unmap();
                        table.free_tables();
                    },
                )
            });
        });
    }
    group.finish();
}

fn unmap(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("unmap");
    group.throughput(Throughput::Elements(ENTRIES));
    let mut arena = Arena::new();
    group.bench_function("memset", |bencher| bencher.iter(|| arena.memset()));
    for (pattern, name) in Pattern::ALL {
        group.bench_function(BenchmarkId::new("engine", name), |bencher| {
            let mut engine = Engine::new(&arena);
            bencher.iter_custom(|iterations| {
                only(
                    iterations,
                    &mut engine,
                    |engine| engine.map(pattern),
                    |engine| {
                        engine.unmap();
                    },
                    |_| (),
                )
            });
        });
        group.bench_function(BenchmarkId::new("x86_64", name), |bencher| {
            let mut table = OffsetTable::new(&arena);
            bencher.iter_custom(|iterations| {
                only(
                    iterations,
                    &mut table,
                    |table| table.map(pattern),
                    |table| {
                        table.unmap();
                    },
                    |table| table.free_tables(),
                )
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = entries;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(20);
    targets = map, unmap
}
criterion_main!(entries);
