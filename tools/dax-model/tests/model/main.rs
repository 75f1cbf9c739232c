// SPDX-License-Identifier: GPL-2.0

//! A model of dirty tracking under every interleaving the scheduler finds.
//!
//! The module's own state machine (`chunk.rs`) runs in a small machine: a file of a few pages or of
//! 2 MiB, two mappings with page tables, a cache and a media per block. Threads store through the
//! mappings, fault, sync, zap, finish DMA, truncate. What a sync does to a chunk is the module's own
//! code (`src/track/sync.rs`), on this machine; what else they do follows `src/dax/fault.rs` and
//! `layout.rs` step by step. A [`Mistake`] bends one step.
//!
//! What must hold, in every interleaving:
//!
//! * when a sync returns, the media holds every store to its range that was complete when the
//!   sync began, or the sync has failed;
//! * a block that is freed is mapped nowhere, pinned by nobody, and part of no folio; a folio is
//!   made of pages, and taken apart, while nobody maps or pins it;
//! * an entry of 2 MiB and entries of pages do not replace each other;
//! * after a hole was filled, nobody reads the zero page there;
//! * 2 MiB that were stored to all over may become dirty as a whole again.
//!
//! Each mistake must break one of them, or the model would be blind to it.

use std::panic::{catch_unwind, AssertUnwindSafe};

use dax_model::mutate::make_mistake;

mod faults;
mod huge_scenes;
mod layout;
mod machine;
mod memory;
mod mistakes;
mod scenes;
mod syncs;

use huge_scenes::{
    huge_dma, huge_holes, huge_joins, huge_splits, huge_stores_and_syncs, huge_truncation,
    huge_zaps, stored_all_over,
};
use mistakes::Mistake;
use scenes::{
    failing_fence, holes, hot_pages, late_mapping, stores_and_syncs, truncation, zaps_and_dma,
    Scene,
};

const SCENES: [Scene; 15] = [
    stores_and_syncs,
    failing_fence,
    hot_pages,
    zaps_and_dma,
    late_mapping,
    truncation,
    holes,
    huge_stores_and_syncs,
    huge_splits,
    huge_zaps,
    huge_dma,
    huge_joins,
    huge_truncation,
    huge_holes,
    stored_all_over,
];

/// Which scene finds each mistake.
const MISTAKES: [(Mistake, Scene); 35] = [
    (Mistake::FlushBeforeProtect, stores_and_syncs),
    (Mistake::TakeUnprotected, stores_and_syncs),
    (Mistake::TagAfterInsert, stores_and_syncs),
    (Mistake::InsertAfterUnlock, stores_and_syncs),
    (Mistake::NoWindow, stores_and_syncs),
    (Mistake::FailLate, failing_fence),
    (Mistake::FailAlone, failing_fence),
    (Mistake::TrustHot, hot_pages),
    (Mistake::CoolUnprotected, hot_pages),
    (Mistake::TakeHot, hot_pages),
    (Mistake::ClearMarkLate, zaps_and_dma),
    (Mistake::WritableCheckedEarly, late_mapping),
    (Mistake::IgnoreDma, zaps_and_dma),
    (Mistake::FreePinned, truncation),
    (Mistake::DropTags, truncation),
    (Mistake::FreeMapped, truncation),
    (Mistake::LookupEarly, holes),
    (Mistake::LeaveZero, holes),
    (Mistake::TagHugeAfterInsert, huge_stores_and_syncs),
    (Mistake::TagOneOfHuge, huge_stores_and_syncs),
    (Mistake::ProtectPagesOnly, huge_stores_and_syncs),
    (Mistake::TakeFolio, huge_stores_and_syncs),
    (Mistake::SplitMapped, huge_splits),
    (Mistake::SplitDropsTags, huge_splits),
    (Mistake::TakeHeld, huge_zaps),
    (Mistake::SplitPinned, huge_dma),
    (Mistake::DmaTagsFirst, huge_dma),
    (Mistake::JoinMapped, huge_joins),
    (Mistake::JoinDropsTags, huge_joins),
    (Mistake::PageUnderHuge, huge_joins),
    (Mistake::ForgetUnsplit, huge_truncation),
    (Mistake::ForgetAllTags, huge_truncation),
    (Mistake::LeaveZeroUnderHuge, huge_holes),
    (Mistake::SampleAfterInsert, stored_all_over),
    (Mistake::SampleAgain, stored_all_over),
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
fn holds_in_every_interleaving() {
    for scene in SCENES {
        explore(scene, Mistake::None, rounds());
    }
}

#[test]
fn every_mistake_is_found() {
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let blind: Vec<Mistake> = MISTAKES
        .into_iter()
        .filter(|(mistake, scene)| {
            // Some are found by the one scheduler only: they take turns.
            let look = || (0..40).for_each(|_| explore(*scene, *mistake, 1000));
            catch_unwind(AssertUnwindSafe(look)).is_ok()
        })
        .map(|(mistake, _)| mistake)
        .collect();
    std::panic::set_hook(quiet);
    assert!(blind.is_empty(), "not found: {blind:?}");
}
