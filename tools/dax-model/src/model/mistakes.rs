// SPDX-License-Identifier: GPL-2.0

//! Seeded bugs, one at a time. (Bugs in each line of the module's code are made mechanically:
//! `Documentation/mutations.rst`.)

/// One seeded bug: in the module's code, which has a [switch](Mistake::switch) for it, or in the
/// machine under it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mistake {
    None,
    /// Lines are written back while stores can still reach them.
    FlushBeforeProtect,
    /// Taken without being write-protected: a later store has no tag.
    TakeUnprotected,
    /// A page becomes writable and is not tagged.
    NotTagged,
    /// A page that is mapped ahead becomes writable and is not tagged.
    AheadNotTagged,
    /// A hot page is not written back.
    TrustHot,
    /// A sync that finds nothing dirty does not wait for one in flight.
    NoWindow,
    /// 2 MiB become writable and are not tagged.
    HugeNotTagged,

    /// The entry of a page is inserted after the chunk lock was dropped.
    InsertAfterUnlock,
    /// A sync that fails reports it after its window is closed.
    FailLate,
    /// A sync does not check whether the one that it waited for has failed.
    FailAlone,
    /// The mark is cleared after the tag lock was dropped.
    ClearMarkLate,
    /// Whether the file is mapped writable is looked up before the chunk lock is taken.
    WritableCheckedEarly,
    /// The end of a pin, or a zap, tags nothing.
    IgnoreDma,
    /// The end of a pin tags the first page of the folio.
    DmaTagsFirst,
    /// Pinned pages count as idle.
    PinnedIsIdle,
    /// Unmapping leaves entries of pages alone.
    UnmapNothing,
    /// Unmapping leaves the zero page.
    LeaveZero,
    /// A fault looks the block up before it takes the chunk lock.
    LookupEarly,
    /// A hot page that did not change is made clean, and left writable.
    CoolUnprotected,
    /// A sync write-protects the entries of pages, and passes over those of 2 MiB.
    ProtectPagesOnly,
    /// An entry that is being zapped, and still is in a TLB, does not count as a reference; nor
    /// does a pin.
    NotHeld,
    /// A page is mapped without a check whether its 2 MiB have become mapped in one piece.
    PageUnderHuge,
    /// Pages become a folio although they are mapped one by one.
    JoinMapped,
    /// Tags do not outlive the pages.
    JoinDropsTags,
    /// Tags do not outlive the folio.
    SplitDropsTags,
    /// A pinned page is taken from its file while somebody dirties it.
    DissociateUnlocked,
}

impl Mistake {
    /// The name of the switch in the module's code.
    pub fn switch(self) -> Option<&'static str> {
        match self {
            Mistake::FlushBeforeProtect => Some("write-back-early"),
            Mistake::TakeUnprotected => Some("write-protect"),
            Mistake::NotTagged => Some("tag"),
            Mistake::AheadNotTagged => Some("tag-ahead"),
            Mistake::TrustHot => Some("hot-write-back"),
            Mistake::NoWindow => Some("sync-wait"),
            Mistake::HugeNotTagged => Some("tag-huge"),
            _ => None,
        }
    }
}
