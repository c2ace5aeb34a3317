//! File systems of all sizes are whole: counts agree with bitmaps, no two things share a block, and where
//! the machine has `e2fsck`, it finds nothing.

use std::collections::BTreeSet;

use super::geometry::{Geometry, INODES_PER_GROUP};
use super::*;

const ONE: Identity = Identity { uuid: [7; 16], hash_seed: [9; 16], now: 1_700_000_000 };
const SIZES: [u64; 8] = [
    SIZE_MIN,
    SIZE_MIN + 5000,
    (128 << 20) - 4096,
    128 << 20,
    // The rest after one group is too small for a group of its own.
    (128 << 20) + (1 << 20),
    1 << 30,
    (10 << 30) + (77 << 20),
    // More than one meta block group.
    17 << 30,
];

fn made(size: u64) -> File {
    let file = tempfile::tempfile().unwrap();
    file.set_len(size).unwrap();
    make(&file, size, &ONE).unwrap();
    file
}

#[test]
fn sizes_out_of_range_are_refused() {
    let file = tempfile::tempfile().unwrap();
    for size in [0, SIZE_MIN - 1, SIZE_MAX + 1] {
        assert!(make(&file, size, &ONE).is_err(), "{size}");
    }
    assert_eq!(file.metadata().unwrap().len(), 0, "nothing was written");
}

#[test]
fn tables_of_all_groups_lie_apart_and_inside() {
    for size in SIZES {
        let geometry = Geometry::of(size).unwrap();
        let mut seen = BTreeSet::new();
        for group in geometry.groups() {
            let own = group.start()..group.start() + u64::from(group.blocks);
            let table = geometry.inode_table(&group);
            let end = table + u64::from(INODES_PER_GROUP) * INODE / BLOCK;
            let heads = [geometry.block_bitmap(&group), geometry.inode_bitmap(&group)];
            for block in heads.into_iter().chain(table..end) {
                assert!(own.contains(&block) && seen.insert(block), "{size}: block {block}");
            }
            assert!(geometry.used_blocks(&group) <= group.blocks, "{size}: {group:?}");
        }
        assert!(geometry.blocks * BLOCK <= size);
    }
}

#[test]
fn bits_beyond_a_short_group_are_set() {
    let map = bitmap(3, 12);
    assert_eq!(map[..3], [0b0000_0111, 0b1111_0000, 0xff]);
    assert_eq!(map.last(), Some(&0xff));
}

#[test]
fn what_was_made_is_recognized_and_zeros_are_not() {
    assert!(is_there(&made(SIZE_MIN)).unwrap());
    let blank = tempfile::tempfile().unwrap();
    blank.set_len(SIZE_MIN).unwrap();
    assert!(!is_there(&blank).unwrap());
}

/// Whether `e2fsck` finds nothing; also where there is none.
fn check(file: &File, what: &str) {
    use std::os::fd::AsRawFd as _;
    let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    let mut check = std::process::Command::new("e2fsck");
    let Ok(out) = check.args(["-f", "-n", &path]).output() else {
        tracing::warn!("this machine has no e2fsck");
        return;
    };
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{what}: {said}{}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn a_checker_finds_nothing() {
    for size in SIZES {
        check(&made(size), &size.to_string());
    }
}

#[test]
fn what_has_grown_is_what_would_have_been_made_but_for_the_journal() {
    for (from, to) in [(0, 1), (0, 3), (2, 3), (3, 5), (4, 5), (5, 7), (6, 7)] {
        let (from, to) = (SIZES[from], SIZES[to]);
        let file = made(from);
        file.set_len(to).unwrap();
        assert_eq!(
            growth(&file, to).unwrap() == Growth::Now,
            Geometry::of(from) != Geometry::of(to)
        );
        grow(&file, to).unwrap();
        assert_eq!(growth(&file, to).unwrap(), Growth::None);
        let mut blocks = [0; 4];
        file.read_exact_at(&mut blocks, 1024 + 4).unwrap();
        assert_eq!(u64::from(u32::from_le_bytes(blocks)), Geometry::of(to).unwrap().blocks);
        check(&file, &format!("{from} to {to}"));
    }
}

#[test]
fn a_growth_that_was_interrupted_is_done_again() {
    let (from, to) = (SIZES[1], SIZES[5]);
    let file = made(from);
    let mut superblock = [0; 1024];
    file.read_exact_at(&mut superblock, 1024).unwrap();
    file.set_len(to).unwrap();
    grow(&file, to).unwrap();
    // As if the power had gone right before the superblock was written.
    file.write_all_at(&superblock, 1024).unwrap();
    assert_eq!(growth(&file, to).unwrap(), Growth::Now);
    grow(&file, to).unwrap();
    check(&file, "grown twice");
}

#[test]
fn foreign_and_unclean_file_systems_are_left_alone() {
    let file = made(SIZE_MIN);
    file.set_len(1 << 30).unwrap();
    let put = |value: u32| file.write_all_at(&value.to_le_bytes(), 1024 + 96).unwrap();
    put(structures::INCOMPATIBLE | 0x4);
    assert_eq!(growth(&file, 1 << 30).unwrap(), Growth::AfterRecovery);
    put(structures::INCOMPATIBLE | 0x80);
    assert_eq!(growth(&file, 1 << 30).unwrap(), Growth::None);
}
