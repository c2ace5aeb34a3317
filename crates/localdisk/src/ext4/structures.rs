//! The structures of ext4 as bytes (little endian), by their offsets.

use super::Identity;
use super::geometry::{
    BLOCK, BLOCKS_PER_GROUP, Geometry, Group, INODE, INODES_PER_GROUP, RESERVED_INODES,
};

pub(super) const MAGIC: u16 = 0xEF53;
/// Number of the root directory's inode.
pub(super) const ROOT: u64 = 2;
/// Number of the journal's inode.
pub(super) const JOURNAL: u64 = 8;
const FIRST_INODE: u32 = RESERVED_INODES + 1;

/// `has_journal`, `ext_attr`, `dir_index`.
const COMPATIBLE: u32 = 0x4 | 0x8 | 0x20;
/// `filetype`, `meta_bg`, `extents`.
pub(super) const INCOMPATIBLE: u32 = 0x2 | 0x10 | 0x40;
/// `sparse_super`, `large_file`, `huge_file`, `dir_nlink`, `extra_isize`.
const READ_ONLY_COMPATIBLE: u32 = 0x1 | 0x2 | 0x8 | 0x20 | 0x40;
/// Becomes read-only when it finds itself damaged.
const ON_ERROR_READ_ONLY: u16 = 2;
/// `user_xattr`, `acl`.
const MOUNT_OPTIONS: u32 = 0x4 | 0x8;
/// Bytes of an inode beyond the first 128 that are in use.
const EXTRA: u16 = 32;
const EXTENTS_FLAG: u32 = 0x8_0000;
const DIRECTORY: u8 = 2;

/// Bytes with a way to put numbers at offsets.
struct Bytes<const N: usize>([u8; N]);

impl<const N: usize> Bytes<N> {
    fn put16(&mut self, at: usize, value: u16) {
        self.put(at, &value.to_le_bytes());
    }

    fn put32(&mut self, at: usize, value: u32) {
        self.put(at, &value.to_le_bytes());
    }

    fn put(&mut self, at: usize, value: &[u8]) {
        self.0[at..][..value.len()].copy_from_slice(value);
    }
}

/// A superblock; `group` is where this copy lies.
pub(super) fn superblock(geometry: &Geometry, identity: &Identity, group: u32) -> [u8; 1024] {
    let mut s = Bytes([0; 1024]);
    s.put32(0, geometry.inodes());
    s.put32(4, geometry.blocks as u32);
    s.put32(12, geometry.free_blocks() as u32);
    s.put32(16, geometry.inodes() - RESERVED_INODES);
    // Sizes of blocks and clusters, as powers of two times 1,024.
    s.put32(24, BLOCK.trailing_zeros() - 10);
    s.put32(28, BLOCK.trailing_zeros() - 10);
    s.put32(32, BLOCKS_PER_GROUP);
    s.put32(36, BLOCKS_PER_GROUP);
    s.put32(40, INODES_PER_GROUP);
    s.put32(48, identity.now);
    // Never checked for the number of mounts or the time since the last check.
    s.put16(54, u16::MAX);
    s.put16(56, MAGIC);
    s.put16(58, 1);
    s.put16(60, ON_ERROR_READ_ONLY);
    s.put32(64, identity.now);
    s.put32(76, 1);
    s.put32(84, FIRST_INODE);
    s.put16(88, INODE as u16);
    s.put16(90, group as u16);
    s.put32(92, COMPATIBLE);
    s.put32(96, INCOMPATIBLE);
    s.put32(100, READ_ONLY_COMPATIBLE);
    s.put(104, &identity.uuid);
    s.put32(224, JOURNAL as u32);
    s.put(236, &identity.hash_seed);
    // Directories are hashed with half MD4, of signed characters.
    s.put(252, &[1]);
    put_journal_backup(&mut s, geometry, identity);
    s.put32(256, MOUNT_OPTIONS);
    s.put32(264, identity.now);
    s.put16(348, EXTRA);
    s.put16(350, EXTRA);
    s.put32(352, 1);
    s.0
}

/// A copy of the journal's map of blocks and of its length.
fn put_journal_backup(s: &mut Bytes<1024>, geometry: &Geometry, identity: &Identity) {
    let journal = Inode::journal(geometry, identity.now);
    s.put(253, &[1]);
    s.put(268, &journal.map());
    s.put32(268 + 16 * 4, journal.size as u32);
}

pub(super) fn descriptor(geometry: &Geometry, group: &Group) -> [u8; 32] {
    let mut d = Bytes([0; 32]);
    d.put32(0, geometry.block_bitmap(group) as u32);
    d.put32(4, geometry.inode_bitmap(group) as u32);
    d.put32(8, geometry.inode_table(group) as u32);
    d.put16(12, (group.blocks - geometry.used_blocks(group)) as u16);
    d.put16(14, (INODES_PER_GROUP - geometry.used_inodes(group)) as u16);
    d.put16(16, u16::from(group.number == 0));
    d.0
}

/// An inode whose content is one extent.
pub(super) struct Inode {
    mode: u16,
    links: u16,
    size: u64,
    start: u64,
    blocks: u32,
    now: u32,
}

impl Inode {
    pub(super) fn directory(start: u64, now: u32) -> Inode {
        Inode { mode: 0o040_755, links: 2, size: BLOCK, start, blocks: 1, now }
    }

    pub(super) fn journal(geometry: &Geometry, now: u32) -> Inode {
        let blocks = geometry.journal_blocks();
        let (size, start) = (u64::from(blocks) * BLOCK, geometry.journal_block());
        Inode { mode: 0o100_600, links: 1, size, start, blocks, now }
    }

    /// The tree of extents: a header and one leaf.
    fn map(&self) -> [u8; 60] {
        let mut m = Bytes([0; 60]);
        m.put16(0, 0xF30A);
        m.put16(2, 1);
        m.put16(4, 4);
        m.put16(12 + 4, self.blocks as u16);
        m.put32(12 + 8, self.start as u32);
        m.0
    }

    pub(super) fn encode(&self) -> [u8; INODE as usize] {
        let mut i = Bytes([0; INODE as usize]);
        i.put16(0, self.mode);
        i.put32(4, self.size as u32);
        for time in [8, 12, 16, 144] {
            i.put32(time, self.now);
        }
        i.put16(26, self.links);
        i.put32(28, self.blocks * (BLOCK / 512) as u32);
        i.put32(32, EXTENTS_FLAG);
        i.put(40, &self.map());
        i.put16(128, EXTRA);
        i.0
    }
}

/// A directory with itself in it, twice: the root is its own parent.
pub(super) fn root_directory() -> [u8; BLOCK as usize] {
    let mut d = Bytes([0; BLOCK as usize]);
    d.put32(0, ROOT as u32);
    d.put16(4, 12);
    d.put(6, &[1, DIRECTORY, b'.']);
    d.put32(12, ROOT as u32);
    d.put16(12 + 4, BLOCK as u16 - 12);
    d.put(12 + 6, &[2, DIRECTORY, b'.', b'.']);
    d.0
}
