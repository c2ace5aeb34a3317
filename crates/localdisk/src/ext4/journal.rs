//! The journal's own superblock (`jbd2`, big endian): an empty journal.

use super::geometry::BLOCK;

const MAGIC: u32 = 0xC03B_3998;
/// Type of a block: a superblock of version 2.
const SUPERBLOCK: u32 = 4;

pub(super) fn superblock(blocks: u32, uuid: &[u8; 16]) -> Vec<u8> {
    let mut block = vec![0; BLOCK as usize];
    let mut put = |at: usize, value: u32| block[at..at + 4].copy_from_slice(&value.to_be_bytes());
    put(0, MAGIC);
    put(4, SUPERBLOCK);
    put(12, BLOCK as u32);
    put(16, blocks);
    // Records start behind this block; the first transaction has number 1; there is none to replay.
    put(20, 1);
    put(24, 1);
    put(64, 1);
    block[48..64].copy_from_slice(uuid);
    block
}
