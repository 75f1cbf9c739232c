// SPDX-License-Identifier: GPL-2.0

//! A model of dirty tracking under every interleaving the scheduler finds.
//!
//! The module's own code (`src/track`) runs on a small machine: a file of a few pages or of 2 MiB,
//! two mappings with page tables and TLBs, a cache and a media per block. Threads store through the
//! mappings, fault, sync, zap, finish DMA, truncate, freeze, reclaim: the machine does what the
//! memory manager does then, and calls the module's code as the kernel does. A
//! [`Mistake`](mistakes::Mistake) changes one thing.
//!
//! What must hold, in every interleaving:
//!
//! * when a sync returns, the media holds every store to its range that was complete when the
//!   sync began, or the sync has failed; and the times of the file have moved for them;
//! * a block that is freed is mapped nowhere, pinned by nobody, and part of no folio; a folio is
//!   made of pages, and taken apart, while nobody maps or pins it;
//! * an entry of 2 MiB and entries of pages do not replace each other;
//! * after a hole was filled, nobody reads the zero page there;
//! * 2 MiB that were stored to all over may become dirty as a whole again;
//! * what is dirty is known to the mount;
//! * what DMA stored to a page of an evicted file is durable after a sync of all, and no page
//!   belongs to such a file;
//! * while the file system is frozen, or read-only, nothing can be stored to.
//!
//! Each mistake must break one of them, otherwise the model would be blind to it:
//! `tests/mistakes.rs`.

pub mod calls;
pub mod huge_scenes;
pub mod kernel;
pub mod leaving;
pub mod life;
pub mod machine;
pub mod memory;
pub mod mistakes;
pub mod scenes;
pub mod single;
pub mod synced;
pub mod tracking;
