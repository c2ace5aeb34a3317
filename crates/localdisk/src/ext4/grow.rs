//! Makes an unmounted file system larger. The kernel can do that too, but only while it is mounted and for a
//! process with `CAP_SYS_RESOURCE`.
//!
//! The superblock is written last, and all that is written before it follows from the old superblock: a growth
//! that was interrupted is done again from the start.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use super::geometry::{
    BLOCK, BLOCKS_PER_GROUP, DESCRIPTORS_PER_BLOCK, Geometry, Group, INODE, INODES_PER_GROUP,
};
use super::structures::{INCOMPATIBLE, MAGIC, descriptor};

/// The journal has something to replay.
const RECOVER: u32 = 0x4;
const DESCRIPTOR: usize = 32;

/// A superblock as it was read, and changed in place.
struct Superblock([u8; 1024]);

impl Superblock {
    fn read(file: &File) -> io::Result<Superblock> {
        let mut bytes = [0; 1024];
        file.read_exact_at(&mut bytes, 1024)?;
        Ok(Superblock(bytes))
    }

    fn get(&self, at: usize) -> u32 {
        u32::from_le_bytes([self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3]])
    }

    fn put(&mut self, at: usize, value: u32) {
        self.0[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    fn blocks(&self) -> u64 {
        u64::from(self.get(4))
    }

    /// Whether it has the form that is made here.
    fn is_ours(&self) -> bool {
        let half = |at: usize| u16::from_le_bytes([self.0[at], self.0[at + 1]]);
        half(56) == MAGIC
            && half(88) == INODE as u16
            && self.get(96) & !RECOVER == INCOMPATIBLE
            && self.get(24) == BLOCK.trailing_zeros() - 10
            && self.get(32) == BLOCKS_PER_GROUP
            && self.get(40) == INODES_PER_GROUP
    }
}

/// What must be done with an unmounted file system before it has the size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Growth {
    None,
    /// It must be mounted once before it can grow.
    AfterRecovery,
    Now,
}

pub(crate) fn growth(file: &File, size: u64) -> io::Result<Growth> {
    let old = Superblock::read(file)?;
    let larger = Geometry::of(size).is_some_and(|new| new.blocks > old.blocks());
    Ok(match larger && old.is_ours() {
        false => Growth::None,
        true if old.get(96) & RECOVER != 0 => Growth::AfterRecovery,
        true => Growth::Now,
    })
}

/// Makes it so large; `file` is so large already.
pub(crate) fn grow(file: &File, size: u64) -> io::Result<()> {
    if growth(file, size)? != Growth::Now {
        return Ok(());
    }
    let mut superblock = Superblock::read(file)?;
    let invalid = || io::Error::new(io::ErrorKind::InvalidData, "the superblock is damaged");
    let old =
        Geometry { blocks: superblock.blocks(), groups: superblock.get(0) / INODES_PER_GROUP };
    let new = Geometry::of(size).ok_or_else(invalid)?;
    if u64::from(old.groups) != old.blocks.div_ceil(u64::from(BLOCKS_PER_GROUP)) {
        return Err(invalid());
    }
    let mut freed = extend_last(file, &old, &new)?;
    for number in old.groups..new.groups {
        let group = new.group(number);
        add(file, &new, &group)?;
        freed += new_free(&new, &group);
    }
    file.sync_data()?;
    superblock.put(0, new.inodes());
    superblock.put(4, new.blocks as u32);
    superblock.put(12, superblock.get(12).saturating_add(freed));
    let inodes = (new.groups - old.groups) * INODES_PER_GROUP;
    superblock.put(16, superblock.get(16).saturating_add(inodes));
    write_superblocks(file, &new, &superblock)
}

fn new_free(geometry: &Geometry, group: &Group) -> u32 {
    group.blocks - geometry.used_blocks(group)
}

/// Frees the blocks that the last group gets; how many.
fn extend_last(file: &File, old: &Geometry, new: &Geometry) -> io::Result<u32> {
    let number = old.groups - 1;
    let (before, after) = (old.group(number).blocks, new.group(number).blocks);
    let mut descriptor = read_descriptor(file, number)?;
    let at =
        u64::from(u32::from_le_bytes([descriptor[0], descriptor[1], descriptor[2], descriptor[3]]));
    let mut map = vec![0; BLOCK as usize];
    file.read_exact_at(&mut map, at * BLOCK)?;
    for bit in before..after {
        map[bit as usize / 8] &= !(1 << (bit % 8));
    }
    let free = map.iter().map(|byte| byte.count_zeros()).sum::<u32>();
    file.write_all_at(&map, at * BLOCK)?;
    descriptor[12..14].copy_from_slice(&(free as u16).to_le_bytes());
    write_descriptor(file, new, number, &descriptor)?;
    Ok(after - before)
}

fn add(file: &File, geometry: &Geometry, group: &Group) -> io::Result<()> {
    let table = geometry.inode_table(group) * BLOCK;
    let blank = vec![0; (u64::from(INODES_PER_GROUP) * INODE) as usize];
    file.write_all_at(&blank, table)?;
    let blocks = super::bitmap(geometry.used_blocks(group), group.blocks);
    file.write_all_at(&blocks, geometry.block_bitmap(group) * BLOCK)?;
    let inodes = super::bitmap(0, INODES_PER_GROUP);
    file.write_all_at(&inodes, geometry.inode_bitmap(group) * BLOCK)?;
    write_descriptor(file, geometry, group.number, &descriptor(geometry, group))
}

fn first_of_meta_group(group: u32) -> u32 {
    group - group % DESCRIPTORS_PER_BLOCK
}

/// Where a group that has descriptors has them, in bytes.
fn descriptors_of(group: &Group) -> u64 {
    (group.start() + u64::from(group.has_superblock())) * BLOCK
}

fn read_block(file: &File, group: &Group) -> io::Result<Vec<u8>> {
    let mut block = vec![0; BLOCK as usize];
    file.read_exact_at(&mut block, descriptors_of(group))?;
    Ok(block)
}

fn read_descriptor(file: &File, group: u32) -> io::Result<[u8; DESCRIPTOR]> {
    let holder = Group { number: first_of_meta_group(group), blocks: 0 };
    let block = read_block(file, &holder)?;
    let at = (group - holder.number) as usize * DESCRIPTOR;
    let mut descriptor = [0; DESCRIPTOR];
    descriptor.copy_from_slice(&block[at..at + DESCRIPTOR]);
    Ok(descriptor)
}

/// Writes a descriptor to all copies of its block, which are as the first one.
fn write_descriptor(
    file: &File,
    geometry: &Geometry,
    group: u32,
    descriptor: &[u8; DESCRIPTOR],
) -> io::Result<()> {
    let first = first_of_meta_group(group);
    let mut block = read_block(file, &geometry.group(first))?;
    let at = (group - first) as usize * DESCRIPTOR;
    block[at..at + DESCRIPTOR].copy_from_slice(descriptor);
    let holders =
        (first..geometry.groups.min(first + DESCRIPTORS_PER_BLOCK)).map(|n| geometry.group(n));
    for holder in holders.filter(Group::has_descriptors) {
        file.write_all_at(&block, descriptors_of(&holder))?;
    }
    Ok(())
}

/// The copies first, the one that counts last.
fn write_superblocks(file: &File, geometry: &Geometry, of: &Superblock) -> io::Result<()> {
    for group in geometry.groups().filter(|g| g.has_superblock() && g.number != 0) {
        let mut copy = of.0;
        copy[90..92].copy_from_slice(&(group.number as u16).to_le_bytes());
        file.write_all_at(&copy, group.start() * BLOCK)?;
    }
    file.sync_data()?;
    file.write_all_at(&of.0, 1024)?;
    file.sync_data()
}
