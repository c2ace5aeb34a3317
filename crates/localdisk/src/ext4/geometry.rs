//! Where everything lies in a file system of a size.

/// Bytes of a block.
pub(crate) const BLOCK: u64 = 4096;
/// Bytes of an inode.
pub(super) const INODE: u64 = 256;
/// As many as one block of bits tells of: 128 MiB.
pub(super) const BLOCKS_PER_GROUP: u32 = 32_768;
/// One for every 16 KiB, as mkfs.ext4 has it. Groups that are added later get as many.
pub(super) const INODES_PER_GROUP: u32 = 8_192;
/// A meta block group: as many groups as one block of descriptors tells of.
pub(super) const DESCRIPTORS_PER_BLOCK: u32 = (BLOCK / 32) as u32;
const TABLE_BLOCKS: u64 = INODES_PER_GROUP as u64 * INODE / BLOCK;
/// Inodes 1 to 10 are the file system's own.
pub(super) const RESERVED_INODES: u32 = 10;
/// Superblock, descriptors, two bitmaps and the table of inodes.
const OVERHEAD_MAX: u64 = 4 + TABLE_BLOCKS;
/// A last group with less room for data than this is left out.
const DATA_MIN: u64 = 64;

/// Room for the tables of one group, the smallest journal and some data.
pub(crate) const SIZE_MIN: u64 = 16 << 20;
/// Block numbers of 32 bits.
pub(crate) const SIZE_MAX: u64 = (16 << 40) - (128 << 20);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Geometry {
    pub(super) blocks: u64,
    pub(super) groups: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) number: u32,
    /// Blocks of the group: fewer in the last one.
    pub(super) blocks: u32,
}

impl Group {
    pub(super) fn start(&self) -> u64 {
        u64::from(self.number) * u64::from(BLOCKS_PER_GROUP)
    }

    /// Copies lie in groups 0 and 1 and those whose numbers are powers of 3, 5 and 7 (`sparse_super`).
    pub(super) fn has_superblock(&self) -> bool {
        let is_power = |base: u32| {
            let mut power = base;
            while power < self.number {
                power = power.saturating_mul(base);
            }
            power == self.number
        };
        self.number <= 1 || [3, 5, 7].into_iter().any(is_power)
    }

    /// The first, the second and the last group of a meta block group have its descriptors (`meta_bg`).
    pub(super) fn has_descriptors(&self) -> bool {
        let at = self.number % DESCRIPTORS_PER_BLOCK;
        at <= 1 || at == DESCRIPTORS_PER_BLOCK - 1
    }

    fn heads(&self) -> u64 {
        u64::from(self.has_superblock()) + u64::from(self.has_descriptors())
    }
}

impl Geometry {
    /// None for sizes outside [`SIZE_MIN`] to [`SIZE_MAX`].
    pub(super) fn of(size: u64) -> Option<Geometry> {
        if !(SIZE_MIN..=SIZE_MAX).contains(&size) {
            return None;
        }
        let per_group = u64::from(BLOCKS_PER_GROUP);
        let mut blocks = size / BLOCK;
        let rest = blocks % per_group;
        if blocks > per_group && rest != 0 && rest < OVERHEAD_MAX + DATA_MIN {
            blocks -= rest;
        }
        Some(Geometry { blocks, groups: blocks.div_ceil(per_group) as u32 })
    }

    pub(super) fn group(&self, number: u32) -> Group {
        let start = u64::from(number) * u64::from(BLOCKS_PER_GROUP);
        let blocks = (self.blocks - start).min(u64::from(BLOCKS_PER_GROUP)) as u32;
        Group { number, blocks }
    }

    pub(super) fn groups(&self) -> impl Iterator<Item = Group> + '_ {
        (0..self.groups).map(|number| self.group(number))
    }

    pub(super) fn block_bitmap(&self, group: &Group) -> u64 {
        group.start() + group.heads()
    }

    pub(super) fn inode_bitmap(&self, group: &Group) -> u64 {
        self.block_bitmap(group) + 1
    }

    pub(super) fn inode_table(&self, group: &Group) -> u64 {
        self.block_bitmap(group) + 2
    }

    /// The block of the root directory: right behind the tables of group 0, before the journal.
    pub(super) fn root_block(&self) -> u64 {
        self.inode_table(&self.group(0)) + TABLE_BLOCKS
    }

    pub(super) fn journal_block(&self) -> u64 {
        self.root_block() + 1
    }

    /// As mkfs.ext4 chooses, but at most what one group has room for.
    pub(super) fn journal_blocks(&self) -> u32 {
        match self.blocks {
            ..32_768 => 1_024,
            32_768..262_144 => 4_096,
            262_144..524_288 => 8_192,
            _ => 16_384,
        }
    }

    /// Blocks in use, from the group's first one on.
    pub(super) fn used_blocks(&self, group: &Group) -> u32 {
        let tables = group.heads() + 2 + TABLE_BLOCKS;
        match group.number {
            0 => tables as u32 + 1 + self.journal_blocks(),
            _ => tables as u32,
        }
    }

    pub(super) fn used_inodes(&self, group: &Group) -> u32 {
        if group.number == 0 { RESERVED_INODES } else { 0 }
    }

    pub(super) fn free_blocks(&self) -> u64 {
        self.groups().map(|g| u64::from(g.blocks - self.used_blocks(&g))).sum()
    }

    pub(super) fn inodes(&self) -> u32 {
        self.groups * INODES_PER_GROUP
    }
}
