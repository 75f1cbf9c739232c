// SPDX-License-Identifier: GPL-2.0

//! A model of dirty tracking under every interleaving the scheduler finds.
//!
//! The module's own code (`src/track`) runs on a small machine: a file of a few pages or of 2 MiB,
//! two mappings with page tables and TLBs, a cache and a media per block. Threads store through the
//! mappings, fault, sync, zap, finish DMA, truncate, freeze, reclaim: the machine does what the
//! memory manager does about it, and calls the module's code as the kernel does. A [`Mistake`]
//! bends one thing.
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
//! * while the file system is frozen, or read-only, nothing can be stored to.
//!
//! Each mistake must break one of them, or the model would be blind to it.

use std::panic::{catch_unwind, AssertUnwindSafe};

use dax_model::mutate::make_mistake;

mod calls;
mod huge_scenes;
mod kernel;
mod machine;
mod memory;
mod mistakes;
mod scenes;
mod tracking;

use huge_scenes::*;
use mistakes::Mistake;
use scenes::*;

/// A test for each scene: it holds, without a mistake, in every interleaving.
macro_rules! holds {
    ($($scene:ident)*) => {
        mod holds {
            use super::*;

            $(#[test]
            fn $scene() {
                explore(super::$scene, Mistake::None, rounds());
            })*
        }
    };
}

holds! {
    stores_and_syncs
    failing_fence
    hot_pages
    zaps_and_dma
    late_mapping
    truncation
    holes
    reclaim
    ends_of_stores
    cache_is_switched
    huge_stores_and_syncs
    huge_splits
    huge_zaps
    huge_dma
    huge_joins
    huge_truncation
    huge_holes
    huge_reclaim
    stored_all_over
}

/// Which scene finds each mistake.
const MISTAKES: [(Mistake, Scene); 27] = [
    (Mistake::FlushBeforeProtect, stores_and_syncs),
    (Mistake::TakeUnprotected, stores_and_syncs),
    (Mistake::NotTagged, stores_and_syncs),
    (Mistake::NoWindow, stores_and_syncs),
    (Mistake::InsertAfterUnlock, stores_and_syncs),
    (Mistake::FailLate, failing_fence),
    (Mistake::FailAlone, failing_fence),
    (Mistake::TrustHot, hot_pages),
    (Mistake::CoolUnprotected, hot_pages),
    (Mistake::ClearMarkLate, zaps_and_dma),
    (Mistake::IgnoreDma, zaps_and_dma),
    (Mistake::WritableCheckedEarly, late_mapping),
    (Mistake::PinnedIsIdle, truncation),
    (Mistake::UnmapNothing, truncation),
    (Mistake::PinnedIsIdle, reclaim),
    (Mistake::LookupEarly, holes),
    (Mistake::LeaveZero, holes),
    (Mistake::HugeNotTagged, huge_stores_and_syncs),
    (Mistake::ProtectPagesOnly, huge_stores_and_syncs),
    (Mistake::SplitDropsTags, huge_splits),
    (Mistake::NotHeld, huge_zaps),
    (Mistake::PinnedIsIdle, huge_dma),
    (Mistake::DmaTagsFirst, huge_dma),
    (Mistake::JoinMapped, huge_joins),
    (Mistake::JoinDropsTags, huge_joins),
    (Mistake::PageUnderHuge, huge_joins),
    (Mistake::LeaveZero, huge_holes),
];

fn explore(scene: Scene, mistake: Mistake, rounds: usize) {
    // All threads of the model run on this one.
    make_mistake(mistake.switch());
    shuttle::check_random(move || scene(mistake), rounds);
    shuttle::check_pct(move || scene(mistake), rounds, 3);
}

/// How many schedules each scene is run under, twice (random, and PCT with three changes).
/// `DAX_MODEL_ROUNDS` for more.
fn rounds() -> usize {
    std::env::var("DAX_MODEL_ROUNDS").map_or(4000, |n| n.parse().expect("a number"))
}

#[test]
fn every_mistake_is_found() {
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let blind: Vec<_> = MISTAKES
        .into_iter()
        .enumerate()
        .filter(|(_, (mistake, scene))| {
            // Some are found by the one scheduler only: they take turns.
            let look = || (0..40).for_each(|_| explore(*scene, *mistake, 1000));
            catch_unwind(AssertUnwindSafe(look)).is_ok()
        })
        .map(|(nth, (mistake, _))| (nth, mistake))
        .collect();
    std::panic::set_hook(quiet);
    assert!(blind.is_empty(), "not found: {blind:?}");
}
