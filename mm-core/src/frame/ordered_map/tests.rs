mod pool;
mod reader;

use self::pool::Pool;
use self::reader::Reader;
use super::tree::Root;
use super::*;
use crate::addr::{Granule, NodeId, Order};
extern crate std;
use core::fmt::Debug;
use std::collections::BTreeMap;
use std::format;
use std::string::String;
use std::vec::Vec;

const NODE: NodeId = NodeId::new(3);

trait Sample: Words + PartialEq + Debug {
    fn sample(seed: u64) -> Self;
}

impl Sample for u64 {
    fn sample(seed: u64) -> Self {
        seed
    }
}

// SAFETY: 1: `N` words.
unsafe impl<const N: usize> Words for [u64; N] {
    const ZERO: Self = [0; N];
}

impl<const N: usize> Sample for [u64; N] {
    fn sample(seed: u64) -> Self {
        core::array::from_fn(|at| seed.wrapping_mul(at as u64 + 1))
    }
}

/// Seventeen rows of it fit into 4 KiB.
type Large = [u64; 29];

fn check<V: Sample, const N: usize>(
    map: &OrderedMap<V, N>,
    pool: &Pool,
    oracle: &BTreeMap<u64, V>,
) {
    let memory = pool.memory();
    let mut rows = Vec::new();
    map.for_each(&memory, &mut |key, value| rows.push((key, *value)));
    let expected: Vec<_> = oracle.iter().map(|(key, value)| (*key, *value)).collect();
    assert_eq!(rows, expected);
    assert_eq!(map.len(), oracle.len() as u64);
    assert_eq!(map.frames(), pool.out());
    let mut named = Vec::new();
    map.for_each_frame(&memory, &mut |frame| named.push(frame.get()));
    assert_eq!(named.len() as u64, map.frames());
    let Some(Root { frame, height }) = map.map.tree.root() else {
        assert_eq!(pool.out(), 0);
        assert!(oracle.len() <= N);
        return;
    };
    assert!(oracle.len() > N / 2);
    let mut reader = Reader {
        pool,
        value_bytes: size_of::<V>(),
        keys: Vec::new(),
        frames: Vec::new(),
    };
    reader.node(frame, height, 0, None);
    assert!(reader.keys.iter().eq(oracle.keys()));
    named.sort_unstable();
    reader.frames.sort_unstable();
    assert_eq!(named, reader.frames);
    named.dedup();
    assert_eq!(named.len() as u64, map.frames());
}

#[derive(Clone, Copy)]
enum Keys {
    Ascending,
    Descending,
    Random,
    Clustered,
    Few,
    Ends,
}

impl Keys {
    const ALL: [Self; 6] = [
        Self::Ascending,
        Self::Descending,
        Self::Random,
        Self::Clustered,
        Self::Few,
        Self::Ends,
    ];

    fn key(self, number: u64, random: u64) -> u64 {
        match self {
            Self::Ascending => number * 8,
            Self::Descending => u64::MAX - number * 8,
            Self::Random => random,
            Self::Clustered => ((random >> 8) % 16) << 40 | (random >> 20) & 0xfff,
            Self::Few => (random >> 16) % 48,
            Self::Ends if random & 1 == 0 => (random >> 16) % 300,
            Self::Ends => u64::MAX - (random >> 16) % 300,
        }
    }
}

/// Numbers that look random and are the same each time (xorshift).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        for shift in [13, -7, 17_i32] {
            let shifted = match shift {
                0.. => self.0 << shift,
                _ => self.0 >> -shift,
            };
            self.0 ^= shifted;
        }
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// A key of `oracle`, or one close to it.
fn known_key<V>(oracle: &BTreeMap<u64, V>, random: u64) -> u64 {
    let (Some((low, _)), Some((high, _))) = (oracle.first_key_value(), oracle.last_key_value())
    else {
        return random;
    };
    let wanted = low + random % (high - low).max(1);
    let found = oracle.range(wanted..).next().map_or(*high, |(key, _)| *key);
    match random >> 60 {
        0 => found.wrapping_add(1),
        1 => found.wrapping_sub(1),
        _ => found,
    }
}

/// Runs `operations` operations on a map and its oracle, growing or shrinking for `phase` of them
/// at a time. Returns the greatest height.
fn compare<V: Sample, const N: usize>(
    granule: Granule,
    keys: Keys,
    operations: u64,
    phase: u64,
) -> u32 {
    let pool = Pool::new(granule, 8192 >> (granule.shift() - 12));
    let memory = pool.memory();
    let mut map = OrderedMap::<V, N>::new();
    let mut oracle = BTreeMap::new();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut highest = 0;
    for number in 0..operations {
        // Of sixteen operations, four remove a row, if they find one, and so many add one.
        let grows = [5, 2, 8, 0][(number / phase) as usize % 4];
        highest = highest.max(map.map.tree.root().map_or(0, |root| root.height));
        let (choice, new) = (random.next() >> 32, keys.key(number, random.next()));
        let key = match known_key(&oracle, random.next()) {
            _ if choice & 0x100 == 0 => new,
            known => known,
        };
        let value = V::sample(random.next());
        match choice % 16 {
            below if below < grows => {
                let key = if below == 0 { key } else { new };
                assert_eq!(
                    map.insert(key, value, &memory),
                    Ok(oracle.insert(key, value))
                );
            }
            8..12 => {
                let key = known_key(&oracle, random.next());
                let removed = pool.with_only(0, || map.remove(key, &memory));
                assert_eq!(removed, oracle.remove(&key));
            }
            12 => {
                let updated =
                    pool.with_only(0, || map.get_mut(key, &memory).map(|old| *old = value));
                assert_eq!(updated.is_some(), oracle.contains_key(&key));
                oracle.entry(key).and_modify(|old| *old = value);
            }
            _ => assert_eq!(map.get(key, &memory), oracle.get(&key).copied()),
        }
        assert_eq!(map.len(), oracle.len() as u64);
        if number % 1500 == 0 || oracle.len() < 20 && number % 7 == 0 {
            check(&map, &pool, &oracle);
        }
    }
    check(&map, &pool, &oracle);
    while let Some((key, value)) = oracle.pop_first() {
        assert_eq!(map.remove(key, &memory), Some(value));
    }
    assert_eq!((map.len(), map.frames(), pool.out()), (0, 0, 0));
    highest
}

fn compare_all<V: Sample, const N: usize>(granule: Granule) {
    for keys in Keys::ALL {
        compare::<V, N>(granule, keys, 100_000, 4096);
    }
}

#[test]
fn a_map_of_small_values_does_what_a_btreemap_does() {
    compare_all::<u64, 1>(Granule::Size4K);
    compare_all::<u64, 8>(Granule::Size4K);
    compare_all::<[u64; 0], 100>(Granule::Size4K);
    compare_all::<[u64; 2], 4>(Granule::Size4K);
}

#[test]
fn a_map_of_large_values_does_what_a_btreemap_does() {
    compare_all::<[u64; 8], 16>(Granule::Size4K);
    compare_all::<[u64; 7], 5>(Granule::Size4K);
    compare_all::<Large, 0>(Granule::Size4K);
    compare_all::<Large, 16>(Granule::Size4K);
}

#[test]
fn a_map_in_larger_frames_does_what_a_btreemap_does() {
    compare_all::<u64, 4>(Granule::Size64K);
    compare_all::<Large, 2>(Granule::Size64K);
    compare_all::<[u64; 8], 8>(Granule::Size16K);
}

#[test]
fn a_map_with_several_levels_does_what_a_btreemap_does() {
    for keys in [
        Keys::Ascending,
        Keys::Descending,
        Keys::Random,
        Keys::Clustered,
    ] {
        let highest = compare::<Large, 8>(Granule::Size4K, keys, 240_000, 30_000);
        assert_eq!(highest, 2);
    }
}

#[test]
fn an_index_that_is_joined_keeps_the_keys_below_that_of_its_first_row() {
    let pool = Pool::new(Granule::Size4K, 1024);
    let memory = pool.memory();
    let mut map = OrderedMap::<Large, 4>::new();
    let mut oracle = insert_all(&mut map, &pool, (0..5000).map(|number| number * 10));
    // The first index has 255 buckets of 17 rows. The second loses its first bucket, and then has
    // keys below that of what is now the first.
    let second = 255 * 17 * 10;
    for key in (second..second + 170).step_by(10) {
        assert_eq!(map.remove(key, &memory), oracle.remove(&key));
    }
    oracle.extend(insert_all(&mut map, &pool, second + 5..second + 25));
    check(&map, &pool, &oracle);
    assert_eq!(map.map.tree.root().map(|root| root.height), Some(2));
    for key in (0..second - 500).step_by(10) {
        assert_eq!(map.remove(key, &memory), oracle.remove(&key));
    }
    assert_eq!(map.map.tree.root().map(|root| root.height), Some(1));
    check(&map, &pool, &oracle);
    for (key, value) in &oracle {
        assert_eq!(map.get(*key, &memory), Some(*value));
    }
}

#[test]
fn a_row_that_comes_and_goes_takes_no_frame_each_time() {
    let pool = Pool::new(Granule::Size4K, 64);
    let memory = pool.memory();
    let mut map = OrderedMap::<Large, 4>::new();
    let value = Large::sample(0);
    let sizes = [5, 17, 18, 26, 27, 35, 200].map(|rows| rows * 2);
    for key in (0..=400).rev().step_by(2) {
        assert_eq!(map.insert(key, value, &memory), Ok(None));
        if sizes.contains(&(400 - key + 2)) {
            let met = pool.met.get();
            for _ in 0..10 {
                assert_eq!(map.remove(key, &memory), Some(value));
                assert_eq!(map.insert(key, value, &memory), Ok(None));
            }
            assert_eq!(pool.met.get(), met, "{map:?}");
        }
    }
}

fn insert_all<V: Sample, const N: usize>(
    map: &mut OrderedMap<V, N>,
    pool: &Pool,
    keys: impl Iterator<Item = u64>,
) -> BTreeMap<u64, V> {
    let memory = pool.memory();
    keys.map(|key| {
        assert_eq!(map.insert(key, V::sample(key), &memory), Ok(None));
        (key, V::sample(key))
    })
    .collect()
}

#[test]
fn a_map_has_as_many_frames_and_levels_as_its_rows_need() {
    const ROWS: u64 = 65_536;
    let odd = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    // Ascending keys fill all 257 frames and begin another. Two indexes of 255, and a root.
    let of_4k = |key: fn(u64) -> u64| {
        let pool = Pool::new(Granule::Size4K, 1024);
        let mut map = OrderedMap::<u64, 8>::new();
        let oracle = insert_all(&mut map, &pool, (0..ROWS).map(key));
        check(&map, &pool, &oracle);
        (map.frames(), map.map.tree.root().unwrap().height)
    };
    assert_eq!(of_4k(|number| number), (258 + 2 + 1, 2));
    // Each split leaves 128 rows for good, or 128 children.
    assert_eq!(of_4k(|number| ROWS - number), (512 + 4 + 1, 2));
    let pool = Pool::new(Granule::Size4K, 1024);
    let mut map = OrderedMap::<u64, 8>::new();
    let oracle = insert_all(&mut map, &pool, (0..ROWS).map(odd));
    check(&map, &pool, &oracle);
    assert!((300..517).contains(&map.frames()), "{map:?}");
    assert_eq!(map.map.tree.root().unwrap().height, 2);
    for &key in oracle.keys() {
        map.remove(key, &pool.memory());
    }
    assert_eq!((map.len(), map.frames(), pool.out()), (0, 0, 0));

    let pool = Pool::new(Granule::Size64K, 64);
    let mut map = OrderedMap::<u64, 8>::new();
    let oracle = insert_all(&mut map, &pool, 0..ROWS);
    check(&map, &pool, &oracle);
    assert_eq!(map.frames(), 17 + 1);
    assert_eq!(map.map.tree.root().unwrap().height, 1);
}

/// How many frames each insert takes.
fn frames_taken(keys: &[u64]) -> Vec<u64> {
    let pool = Pool::new(Granule::Size4K, 2048);
    let mut map = OrderedMap::<Large, 4>::new();
    let mut taken = Vec::new();
    for key in keys {
        let before = pool.met.get();
        let inserted = map.insert(*key, Large::sample(*key), &pool.memory());
        assert_eq!(inserted, Ok(None));
        taken.push(pool.met.get() - before);
    }
    taken
}

fn fail_each_allocation(keys: &[u64]) {
    let taken = frames_taken(keys);
    // The first, a bucket, a bucket and an index above it, and a root above both.
    assert!((0..=3).all(|frames| taken.contains(&frames)));
    let pool = Pool::new(Granule::Size4K, 2048);
    let memory = pool.memory();
    let mut map = OrderedMap::<Large, 4>::new();
    let mut oracle = BTreeMap::new();
    let state = |map: &OrderedMap<Large, 4>| -> (String, _) {
        let mut rows = Vec::new();
        map.for_each(&memory, &mut |key, value| rows.push((key, *value)));
        (format!("{map:?}"), (rows, pool.contents()))
    };
    for (key, taken) in keys.iter().zip(taken) {
        let value = Large::sample(*key);
        if taken > 0 {
            let before = state(&map);
            for left in 0..taken {
                let failed = pool.with_only(left, || map.insert(*key, value, &memory));
                let (order, node) = (Order::BASE, NODE);
                assert_eq!(failed, Err(OutOfFrames { order, node }));
                assert!(state(&map) == before, "{map:?} changed");
            }
        }
        let inserted = pool.with_only(taken, || map.insert(*key, value, &memory));
        assert_eq!(inserted, Ok(None));
        let again = pool.with_only(0, || map.insert(*key, value, &memory));
        assert_eq!(again, Ok(Some(value)));
        oracle.insert(*key, value);
    }
    check(&map, &pool, &oracle);
}

#[test]
fn an_insert_without_frames_changes_nothing_and_succeeds_later() {
    let mut random = Random(7);
    let keys: Vec<_> = (0..4500).map(|_| random.next()).collect();
    fail_each_allocation(&keys);
    let ascending: Vec<_> = (0..4500).collect();
    fail_each_allocation(&ascending);
    let descending: Vec<_> = (0..4500).rev().collect();
    fail_each_allocation(&descending);
}

#[test]
fn after_the_last_row_no_frame_is_out_in_whatever_order_they_go() {
    let mut random = Random(11);
    for order in 0..4 {
        let pool = Pool::new(Granule::Size4K, 2048);
        let mut map = OrderedMap::<Large, 4>::new();
        let mut oracle = insert_all(&mut map, &pool, (0..6000).map(|number| number * 5));
        let mut frames = map.frames();
        while !oracle.is_empty() {
            let key = match order {
                0 => *oracle.first_key_value().unwrap().0,
                1 => *oracle.last_key_value().unwrap().0,
                2 => {
                    *oracle
                        .range(random.next() % 30_000..)
                        .next()
                        .unwrap_or_else(|| oracle.first_key_value().unwrap())
                        .0
                }
                // From the middle to both sides.
                _ => {
                    let above = oracle.range(15_000..).next();
                    *above.unwrap_or_else(|| oracle.last_key_value().unwrap()).0
                }
            };
            assert_eq!(map.remove(key, &pool.memory()), oracle.remove(&key));
            assert!(map.frames() <= frames);
            frames = map.frames();
            if oracle.len().is_multiple_of(97) || oracle.len() < 40 {
                check(&map, &pool, &oracle);
            }
        }
        assert_eq!((map.len(), map.frames(), pool.out()), (0, 0, 0));
    }
}

#[test]
fn rows_stay_in_the_map_while_there_is_room_and_return_at_half() {
    let pool = Pool::new(Granule::Size4K, 4);
    let memory = pool.memory();
    let mut map = OrderedMap::<u64, 8>::new();
    let mut oracle = insert_all(&mut map, &pool, (0..8).rev());
    assert_eq!(map.frames(), 0);
    oracle.extend(insert_all(&mut map, &pool, 8..9));
    assert_eq!(map.frames(), 1);
    for key in 0..9 {
        check(&map, &pool, &oracle);
        assert_eq!(map.frames(), u64::from(oracle.len() > 4));
        assert_eq!(map.remove(key, &memory), oracle.remove(&key));
    }
    assert_eq!(map.len(), 0);
}

#[test]
fn the_lowest_and_the_highest_key_are_keys_like_others() {
    let pool = Pool::new(Granule::Size4K, 64);
    let memory = pool.memory();
    let mut map = OrderedMap::<Large, 2>::new();
    assert_eq!(map.get(u64::MAX, &memory), None);
    let mut oracle = insert_all(&mut map, &pool, [u64::MAX].into_iter());
    assert_eq!(map.get(u64::MAX - 1, &memory), None);
    oracle.extend(insert_all(&mut map, &pool, 1000..1300));
    assert_eq!(map.get(0, &memory), None);
    oracle.extend(insert_all(&mut map, &pool, [0].into_iter()));
    check(&map, &pool, &oracle);
    assert_eq!(map.get(0, &memory), Some(Large::sample(0)));
    assert_eq!(map.get(u64::MAX - 1, &memory), None);
    assert_eq!(map.get(u64::MAX, &memory), Some(Large::sample(u64::MAX)));
}

#[test]
fn a_map_goes_to_another_thread() {
    const fn send_and_sync<T: Send + Sync>() {}
    const { send_and_sync::<OrderedMap<u64, 8>>() };
}
