// SPDX-License-Identifier: GPL-2.0

//! Blocks with a cache and a media, and page tables.
//!
//! Of the 512 pages of the chunk, [`NR`] have blocks in the model. The bitmaps have all of them: a
//! store to a folio tags 512 pages, and a sync takes the 512. Nobody stores to the others one by
//! one; where their content is asked for, it is that of a page that the model has.

use crate::track::page_set::PAGES;

/// Pages that can be stored to.
pub const NR: usize = 2;
/// The file page that is the first one of them: before it is a chunk that nobody uses. So a page
/// number of the chunk that is taken for one of the file, or the other way round, leads elsewhere.
pub const FIRST: u64 = PAGES as u64;

/// The number in the chunk of `page` of the file.
pub fn nth(page: u64) -> usize {
    (page - FIRST) as usize
}

/// An entry for one page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pte {
    None,
    Zero,
    Ro(u64),
    Rw(u64),
}

/// What a mapping has for the 2 MiB of the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pmd {
    None,
    Table([Pte; NR]),
    Huge {
        block: u64,
        writable: bool,
    },
    /// Zeros, read-only.
    Zeros,
}

impl Pmd {
    /// The block of `page`, if an entry leads there that can be stored through.
    pub fn writable(&self, page: usize) -> Option<u64> {
        match *self {
            Pmd::Table(ptes) => match ptes[page] {
                Pte::Rw(block) => Some(block),
                _ => None,
            },
            Pmd::Huge {
                block,
                writable: true,
            } => Some(block + page as u64),
            _ => None,
        }
    }

    /// The entry of `page`; the table of pages is made if it is not there.
    pub fn pte(&mut self, page: usize) -> &mut Pte {
        if *self == Pmd::None {
            *self = Pmd::Table([Pte::None; NR]);
        }
        match self {
            Pmd::Table(ptes) => &mut ptes[page],
            _ => panic!("a page mapped where an entry of 2 MiB is"),
        }
    }

    /// Whether it leads to one of the blocks.
    pub fn leads_to(&self, mut blocks: std::ops::Range<u64>) -> bool {
        match *self {
            Pmd::None | Pmd::Zeros => false,
            Pmd::Table(ptes) => ptes.iter().any(|pte| match pte {
                Pte::Ro(block) | Pte::Rw(block) => blocks.contains(block),
                _ => false,
            }),
            Pmd::Huge { block, .. } => blocks.any(|b| region(b) == region(block)),
        }
    }
}

/// The number of the aligned 2 MiB of the device that a block is in.
fn region(block: u64) -> usize {
    block as usize / PAGES
}

#[derive(Default)]
pub struct Block {
    pub cache: u64,
    /// The newest store that is complete: what a sync that begins now must make durable.
    pub complete: u64,
    pub media: u64,
    /// When it was stored to last.
    pub stored: u64,
    pub pins: u32,
    pub has_pg_dirty: bool,
    /// The page of the file that it belongs to.
    pub owner: Option<u64>,
    pub free: bool,
}

/// Aligned 2 MiB of the device, of which the first blocks are in the model.
#[derive(Default)]
struct Region {
    blocks: [Block; NR],
    used: usize,
    /// Its pages are one folio.
    folio: bool,
    /// References to that by entries that were zapped, and are not flushed from the TLB yet.
    zapped: u32,
}

/// The device.
#[derive(Default)]
pub struct Device(Vec<Region>);

impl Device {
    pub fn block(&mut self, block: u64) -> &mut Block {
        &mut self.0[region(block)].blocks[block as usize % PAGES]
    }

    /// Any free block.
    pub fn allocate(&mut self) -> u64 {
        if self.0.last().is_none_or(|region| region.used == NR) {
            self.0.push(Region::default());
        }
        let nth = self.0.len() - 1;
        self.0[nth].used += 1;
        (nth * PAGES + self.0[nth].used - 1) as u64
    }

    /// 2 MiB in one aligned piece.
    pub fn allocate_huge(&mut self) -> u64 {
        self.0.push(Region {
            used: NR,
            ..Region::default()
        });
        (self.0.len() as u64 - 1) * PAGES as u64
    }

    /// Makes a folio of the 2 MiB at `first`, or takes it apart.
    pub fn set_folio(&mut self, first: u64, folio: bool) {
        self.0[region(first)].folio = folio;
    }

    /// Whether the page of `block` is part of a folio of 2 MiB.
    pub fn is_huge(&self, block: u64) -> bool {
        self.0[region(block)].folio
    }

    /// The blocks in the model that are one folio with `block`.
    pub fn folio_of(&self, block: u64) -> std::ops::Range<u64> {
        let first = block - block % PAGES as u64;
        match self.is_huge(block) {
            true => first..first + NR as u64,
            false => block..block + u64::from(block - first < NR as u64),
        }
    }

    /// Whether somebody has the page of `block`, or another one of its folio, pinned, or is about
    /// to give up an entry for it.
    pub fn is_held(&self, block: u64) -> bool {
        let pinned = |block: u64| {
            let blocks = &self.0[region(block)].blocks;
            blocks[block as usize % PAGES].pins > 0
        };
        self.0[region(block)].zapped > 0 || self.folio_of(block).any(pinned)
    }

    /// Whether no page is pinned or belongs to a file, and none is part of a folio.
    pub fn is_idle(&self) -> bool {
        let in_use = |block: &Block| block.pins > 0 || block.owner.is_some();
        let blocks = self.0.iter().flat_map(|region| &region.blocks);
        !blocks.into_iter().any(in_use) && !self.0.iter().any(|region| region.folio)
    }

    /// An entry of the folio at `first` was zapped.
    pub fn zapped(&mut self, first: u64) {
        self.0[region(first)].zapped += 1;
    }

    /// And no CPU has it in its TLB any more.
    pub fn flushed(&mut self, first: u64) {
        self.0[region(first)].zapped -= 1;
    }
}
