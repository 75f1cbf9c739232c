// SPDX-License-Identifier: GPL-2.0

//! Pages that are pinned when their inode leaves memory: where they are remembered.
//! [`dax::pins`](crate::dax::pins) says what becomes of them.

use kernel::bindings::{delayed_work, work_struct, wq_misc_consts_WORK_CPU_UNBOUND};
use kernel::container_of;
use kernel::prelude::*;
use kernel::sync::{new_mutex, Mutex};
use kernel::time::msecs_to_jiffies;
use kernel::types::Opaque;

use super::super_block::SbInfo;
use crate::bindings;
use crate::track::left::LeftBehind;

/// What a thread of the kernel calls.
pub type Work = unsafe extern "C" fn(*mut work_struct);

/// How often is looked, in milliseconds.
const INTERVAL: u32 = 1000;

/// What the evicted inodes of one mount have left behind.
#[pin_data]
pub struct Pins {
    #[pin]
    pub left: Mutex<LeftBehind>,
    /// Looks for pages that are idle.
    #[pin]
    work: Opaque<delayed_work>,
}

impl Pins {
    /// None. `look` is called with the work, and finds its mount by [`Pins::mount_of`].
    pub fn new(look: Work) -> impl PinInit<Self> {
        pin_init!(Pins {
            left <- new_mutex!(LeftBehind::new(), "rdax_pins"),
            // SAFETY: initialises the work in its place, where it stays.
            work <- Opaque::ffi_init(|slot| unsafe {
                bindings::rdax_init_delayed_work(slot, Some(look));
            }),
        })
    }

    /// Has a thread of the kernel look, after a while.
    pub fn look_later(&self) {
        // SAFETY: the work is initialised; `finish` cancels it before it goes away.
        unsafe {
            bindings::queue_delayed_work_on(
                wq_misc_consts_WORK_CPU_UNBOUND as i32,
                bindings::system_dfl_wq,
                self.work.get(),
                msecs_to_jiffies(INTERVAL),
            );
        }
    }

    /// Waits until nobody looks, and nobody will.
    pub fn stop_looking(&self) {
        // SAFETY: the work is initialised.
        unsafe { bindings::cancel_delayed_work_sync(self.work.get()) };
    }

    /// The mount that `work` is part of.
    ///
    /// # Safety
    ///
    /// `work` is that of the [`Pins`] of a mount, which stays for all of `'a`.
    pub unsafe fn mount_of<'a>(work: *mut work_struct) -> &'a SbInfo {
        // SAFETY: by the caller.
        unsafe {
            let work = container_of!(work, delayed_work, work);
            let pins = container_of!(Opaque::cast_from(work), Pins, work);
            &*container_of!(pins, SbInfo, pins)
        }
    }
}
