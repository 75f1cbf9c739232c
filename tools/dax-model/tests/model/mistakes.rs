// SPDX-License-Identifier: GPL-2.0

//! What can be done wrongly, one step at a time.

/// One step done wrongly: by this machine, or, where it has a [switch](Mistake::switch), by the module's
/// own code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mistake {
    None,
    /// Lines are written back while stores can still reach them.
    FlushBeforeProtect,
    /// Taken without being write-protected: a store after that is seen by nobody.
    TakeUnprotected,
    /// The entry is writable before the page is tagged.
    TagAfterInsert,
    /// `pfn_mkwrite` returns 0: the entry is made writable after the chunk lock was dropped.
    InsertAfterUnlock,
    /// A sync that finds nothing dirty does not wait for one in flight.
    NoWindow,
    /// A sync that fails says so when its window is closed.
    FailLate,
    /// A sync does not look whether the one that it waited for has failed.
    FailAlone,
    /// The mark is cleared by what was seen before the tag lock was taken.
    ClearMarkLate,
    /// Whether the file is mapped writable is looked up before the chunk lock is taken.
    WritableCheckedEarly,
    /// `dirty_folio` does nothing.
    IgnoreDma,
    /// Truncation does not look at pinned pages.
    FreePinned,
    /// Truncation drops tags while the file still has the pages.
    DropTags,
    /// Truncation frees before it unmaps.
    FreeMapped,
    /// A fault looks the block up before it takes the chunk lock.
    LookupEarly,
    /// write(2) into a hole does not unmap the zero page.
    LeaveZero,
    /// A hot page is not written back.
    TrustHot,
    /// A hot page that did not change is made clean, and left writable.
    CoolUnprotected,
    /// A hot page is made clean like the others, and left writable.
    TakeHot,
    /// The entry of 2 MiB is writable before the pages are tagged.
    TagHugeAfterInsert,
    /// A store to 2 MiB tags the page that it hit, and no other.
    TagOneOfHuge,
    /// A sync write-protects the entries of pages, and passes over those of 2 MiB.
    ProtectPagesOnly,
    /// A sync of a range makes all pages of a huge chunk clean.
    TakeFolio,
    /// A sync makes pages of a folio clean that a CPU may still store to, by an entry that is being
    /// zapped.
    TakeHeld,
    /// A page is mapped without a look at whether its 2 MiB have become mapped in one piece.
    PageUnderHuge,
    /// A folio is taken apart that is still mapped.
    SplitMapped,
    /// A folio is taken apart that is pinned.
    SplitPinned,
    /// Tags do not outlive the folio.
    SplitDropsTags,
    /// Pages become a folio that are mapped one by one.
    JoinMapped,
    /// Tags do not outlive the pages.
    JoinDropsTags,
    /// The zero page stays mapped where a folio is now.
    LeaveZeroUnderHuge,
    /// The end of a pin tags the first page of the folio.
    DmaTagsFirst,
    /// Truncation forgets a part of a folio without taking it apart.
    ForgetUnsplit,
    /// Truncation of a part of 2 MiB drops the tags of all.
    ForgetAllTags,
    /// The sample is taken when stores can happen already.
    SampleAfterInsert,
    /// The sample is taken anew for each mapping.
    SampleAgain,
}

impl Mistake {
    /// The name of the switch in the module's code.
    pub fn switch(self) -> Option<&'static str> {
        match self {
            Mistake::FlushBeforeProtect => Some("write-back-early"),
            Mistake::TakeUnprotected => Some("write-protect"),
            Mistake::TrustHot => Some("hot-write-back"),
            Mistake::TakeHeld => Some("flush-zapped"),
            _ => None,
        }
    }
}
