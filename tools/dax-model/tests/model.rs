// SPDX-License-Identifier: GPL-2.0

//! What must hold ([`dax_model::model`]) holds in every interleaving that the scheduler finds.

use dax_model::model::huge_scenes::*;
use dax_model::model::leaving::*;
use dax_model::model::mistakes::Mistake;
use dax_model::model::scenes::*;

/// A test for each scene: it holds, without a mistake, in every interleaving.
macro_rules! holds {
    ($module:ident, by $explore:ident: $($scene:ident)*) => {
        mod $module {
            use super::*;

            $(#[test]
            fn $scene() {
                $explore(super::$scene, Mistake::None, rounds());
            })*
        }
    };
}

holds! {
    holds, by explore:
    stores_and_syncs
    failing_fence
    hot_pages
    cooling_pages
    locked_pages
    zaps_and_dma
    dma_and_freeze
    late_mapping
    truncation
    holes
    all_holes
    reclaim
    ends_of_stores
    cache_is_switched
    dma_told_early
    bad_block
    kvm
    holes_and_reclaim
    removal
    failures
    used_twice
    removal_and_truncation
    huge_stores_and_syncs
    huge_splits
    huge_locked
    huge_zaps
    huge_unmapped
    huge_dma
    huge_joins
    huge_truncation
    huge_holes
    huge_reclaim
    huge_dma_told_early
    huge_bad_block
    not_aligned
    huge_ends_of_stores
    unwritten
    sparse
    huge_zeros
    huge_over_table
    stored_all_over
    closed
    huge_closed
    opened_again
    huge_opened_again
    closed_twice
    closed_with_two_pins
    closed_and_frozen
    closed_and_read_only
    closed_and_unmounted
    unlinked
    unlinked_and_frozen
    closed_and_removed
    not_remembered
    not_read
    closed_and_reclaimed
}

// The same, where stores come in a row, and the page that follows each is mapped ahead.
holds! {
    holds_ahead, by explore_ahead:
    stores_and_syncs
    hot_pages
    cooling_pages
    locked_pages
    zaps_and_dma
    dma_and_freeze
    truncation
    holes
    all_holes
    reclaim
    ends_of_stores
    cache_is_switched
    bad_block
    holes_and_reclaim
    removal
    failures
    used_twice
    removal_and_truncation
    huge_splits
    huge_joins
    huge_truncation
    huge_reclaim
    not_aligned
    sparse
}

/// A test for each scene of one thread.
macro_rules! is_done {
    ($module:ident, of $file:ident: $($scene:ident)*) => {
        mod $module {
            use dax_model::model::$file;

            $(#[test]
            fn $scene() {
                shuttle::check_random($file::$scene, 1);
            })*
        }
    };
}

is_done! {
    is_done, of single:
    two_mib
    two_mib_are_filled
    little_space
    many_holes
    copied_beside_a_reader
    unwritten_and_bad
    by_pages
    past_the_end
    given_back
    refused
    interrupted
    dirtied_before
    hot_before
    no_cache
    a_part_goes
    one_piece_again
    left_and_lost
    times_of_hot_pages
    taken_apart_once
    mapped_ahead
    one_window
}

is_done! {
    is_synced, of synced:
    stale_entries
    stale_and_cooling
    part_of_two_mib
    small_pages_of_one
    chunks_stay
    switched_on
    left_out
    no_cache
    not_dirty
    locked_to_read
    locked_and_left_alone
    counted
    no_memory
    newly_dirty
    from_end_to_end
    dirty_for_kvm
    epochs
    nobody_to_notify
    growing_window
    error_of_a_walk
    closed_and_read_only
    in_vain
    unpinned_meanwhile
    unlinked_and_not_remembered
    released_once
    removed_with_two_mib
    removed_before_it_is_read
    read_only_and_read
    removed_while_it_is_read
}

/// How many schedules each scene is run under, twice (random, and PCT with three changes).
/// `DAX_MODEL_ROUNDS` for more.
fn rounds() -> usize {
    std::env::var("DAX_MODEL_ROUNDS").map_or(2500, |n| n.parse().expect("a number"))
}
