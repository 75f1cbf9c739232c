// SPDX-License-Identifier: GPL-2.0

//! What can be repaired without giving anything up.

use rdax_volume::volume::check::{Kind, Problem};
use rdax_volume::volume::error::Structure;

/// Whether the right value can be computed from other structures, which are sound if nothing else
/// is reported: summaries and bitmaps, counts, link counts, parents, types in entries, fields that
/// must be zero; and a copy from the other one.
pub fn is_safe(problem: &Problem) -> bool {
    match problem.kind {
        Kind::Leaked { .. }
        | Kind::MarkedFree { .. }
        | Kind::FreeCount { .. }
        | Kind::FreePastEnd
        | Kind::FreeBlocks { .. }
        | Kind::UsedInodes { .. }
        | Kind::HeaderFree
        | Kind::OneOfTwo
        | Kind::Blocks { .. }
        | Kind::DirSize { .. }
        | Kind::Parent { .. }
        | Kind::EntryType { .. }
        | Kind::Reserved(_) => true,
        // Without a link it would be removed.
        Kind::Links { counted, .. } => counted > 0,
        Kind::Checksum => problem.what == Structure::Bitmap,
        _ => false,
    }
}
