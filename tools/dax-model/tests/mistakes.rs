// SPDX-License-Identifier: GPL-2.0

//! Is the model blind? Each mistake of [`Mistake`], in the module's code or in the machine, must
//! break what holds without it.

use std::panic::{catch_unwind, AssertUnwindSafe};

use dax_model::model::huge_scenes::*;
use dax_model::model::leaving::*;
use dax_model::model::mistakes::Mistake;
use dax_model::model::scenes::*;

/// Which scene finds each mistake.
const MISTAKES: [(Mistake, Scene); 29] = [
    (Mistake::FlushBeforeProtect, stores_and_syncs),
    (Mistake::TakeUnprotected, stores_and_syncs),
    (Mistake::NotTagged, stores_and_syncs),
    (Mistake::AheadNotTagged, stores_and_syncs),
    (Mistake::NoWindow, stores_and_syncs),
    (Mistake::InsertAfterUnlock, stores_and_syncs),
    (Mistake::FailLate, failing_fence),
    (Mistake::FailAlone, failing_fence),
    (Mistake::TrustHot, hot_pages),
    (Mistake::CoolUnprotected, cooling_pages),
    (Mistake::ClearMarkLate, dma_told_early),
    (Mistake::IgnoreDma, dma_and_freeze),
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
    (Mistake::DissociateUnlocked, closed),
];

#[test]
fn every_mistake_is_found() {
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let blind: Vec<_> = MISTAKES
        .into_iter()
        .enumerate()
        .filter(|(_, (mistake, scene))| {
            // Some are found by the one scheduler only: they take turns.
            let explore = match *mistake {
                Mistake::AheadNotTagged => explore_ahead,
                _ => explore,
            };
            let look = || (0..40).for_each(|_| explore(*scene, *mistake, 1000));
            catch_unwind(AssertUnwindSafe(look)).is_ok()
        })
        .map(|(nth, (mistake, _))| (nth, mistake))
        .collect();
    std::panic::set_hook(quiet);
    assert!(blind.is_empty(), "not found: {blind:?}");
}
