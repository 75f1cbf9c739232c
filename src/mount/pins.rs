// SPDX-License-Identifier: GPL-2.0

//! Pages that are pinned when their inode is evicted: where they are recorded.
//! [`dax::pins`](crate::dax::pins) says what happens to them.

use kernel::bindings::work_struct;
use kernel::container_of;
use kernel::prelude::*;
use kernel::sync::{new_mutex, Mutex};

use super::super_block::SbInfo;
use super::work::{DelayedWork, Function};
use crate::track::left::LeftBehind;

/// The interval of the checks, in milliseconds.
const INTERVAL: u32 = 1000;

/// What the evicted inodes of one mount have left behind.
#[pin_data]
pub struct Pins {
    #[pin]
    pub left: Mutex<LeftBehind>,
    /// Looks for pages that are idle.
    #[pin]
    work: DelayedWork,
}

impl Pins {
    /// Empty. `look` is called with the work, and finds its mount by [`Pins::mount_of`].
    pub fn new(look: Function) -> impl PinInit<Self> {
        pin_init!(Pins {
            left <- new_mutex!(LeftBehind::new(), "rdax_pins"),
            work <- DelayedWork::new(look),
        })
    }

    /// Schedules a check by a work item.
    pub fn look_later(&self) {
        self.work.queue(INTERVAL);
    }

    /// Waits until no check is running, and none will.
    pub fn stop_looking(&self) {
        self.work.cancel();
    }

    /// The mount that `work` is part of.
    ///
    /// # Safety
    ///
    /// `work` is that of the [`Pins`] of a mount, which stays for all of `'a`.
    pub unsafe fn mount_of<'a>(work: *mut work_struct) -> &'a SbInfo {
        // SAFETY: by the caller.
        unsafe {
            let pins = container_of!(DelayedWork::of(work), Pins, work);
            &*container_of!(pins, SbInfo, pins)
        }
    }
}
