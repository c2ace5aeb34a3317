//! Makes ext4 file systems, so that a node needs no `mkfs.ext4`. The form is that of the kernel's
//! documentation (`Documentation/filesystems/ext4`): blocks of 4 KiB, a journal, extents, group descriptors
//! in meta block groups, so that a mounted file system grows without space set aside for it.
//!
//! The primary superblock is written last: a file system that is not whole is none. There is no `lost+found`
//! (a checker makes it when it needs it): databases refuse data directories that are not empty.

mod geometry;
mod grow;
mod journal;
mod structures;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

pub(crate) use geometry::{BLOCK, SIZE_MAX, SIZE_MIN};
use geometry::{Geometry, Group, INODE};
pub(crate) use grow::{Growth, grow, growth};
use structures::{Inode, descriptor, root_directory, superblock};

/// Identities of one file system.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Identity {
    pub(crate) uuid: [u8; 16],
    pub(crate) hash_seed: [u8; 16],
    /// Seconds since 1970.
    pub(crate) now: u32,
}

/// Makes a file system of `size` bytes in a file (or device) that reads as zeros.
pub(crate) fn make(file: &File, size: u64, identity: &Identity) -> io::Result<()> {
    let geometry = Geometry::of(size).ok_or_else(|| {
        let why = format!("no ext4 file system has {size} bytes here: {SIZE_MIN} to {SIZE_MAX}");
        io::Error::new(io::ErrorKind::InvalidInput, why)
    })?;
    write_bitmaps(file, &geometry)?;
    write_descriptors(file, &geometry)?;
    write_inodes(file, &geometry, identity)?;
    for group in geometry.groups().filter(|g| g.has_superblock() && g.number != 0) {
        let block = superblock(&geometry, identity, group.number);
        file.write_all_at(&block, group.start() * BLOCK)?;
    }
    file.sync_data()?;
    // The first 1,024 bytes of the device are left to boot loaders.
    file.write_all_at(&superblock(&geometry, identity, 0), 1024)?;
    file.sync_data()
}

/// Whether a primary superblock of ext2, ext3 or ext4 is there.
pub(crate) fn is_there(file: &File) -> io::Result<bool> {
    let mut magic = [0; 2];
    file.read_exact_at(&mut magic, 1024 + 56)?;
    Ok(u16::from_le_bytes(magic) == structures::MAGIC)
}

fn write_bitmaps(file: &File, geometry: &Geometry) -> io::Result<()> {
    for group in geometry.groups() {
        let blocks = bitmap(geometry.used_blocks(&group), group.blocks);
        file.write_all_at(&blocks, geometry.block_bitmap(&group) * BLOCK)?;
        let inodes = bitmap(geometry.used_inodes(&group), geometry::INODES_PER_GROUP);
        file.write_all_at(&inodes, geometry.inode_bitmap(&group) * BLOCK)?;
    }
    Ok(())
}

/// One block: the first `used` bits are set, and those from `len` on, which stand for nothing.
fn bitmap(used: u32, len: u32) -> Vec<u8> {
    let mut block = vec![0; BLOCK as usize];
    for bit in (0..used).chain(len..(BLOCK * 8) as u32) {
        block[bit as usize / 8] |= 1 << (bit % 8);
    }
    block
}

fn write_descriptors(file: &File, geometry: &Geometry) -> io::Result<()> {
    let groups: Vec<Group> = geometry.groups().collect();
    for meta_group in groups.chunks(geometry::DESCRIPTORS_PER_BLOCK as usize) {
        let mut block = vec![0; BLOCK as usize];
        for (at, group) in meta_group.iter().enumerate() {
            let descriptor = descriptor(geometry, group);
            block[at * descriptor.len()..][..descriptor.len()].copy_from_slice(&descriptor);
        }
        for holder in meta_group.iter().filter(|g| g.has_descriptors()) {
            let at = holder.start() + u64::from(holder.has_superblock());
            file.write_all_at(&block, at * BLOCK)?;
        }
    }
    Ok(())
}

fn write_inodes(file: &File, geometry: &Geometry, identity: &Identity) -> io::Result<()> {
    let table = geometry.inode_table(&geometry.group(0)) * BLOCK;
    let at = |number: u64| table + (number - 1) * INODE;
    let root = Inode::directory(geometry.root_block(), identity.now);
    file.write_all_at(&root.encode(), at(structures::ROOT))?;
    file.write_all_at(&root_directory(), geometry.root_block() * BLOCK)?;
    let journal = Inode::journal(geometry, identity.now);
    file.write_all_at(&journal.encode(), at(structures::JOURNAL))?;
    let head = journal::superblock(geometry.journal_blocks(), &identity.uuid);
    file.write_all_at(&head, geometry.journal_block() * BLOCK)
}

#[cfg(test)]
mod tests;
