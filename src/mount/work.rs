// SPDX-License-Identifier: GPL-2.0

//! Work items of a mount, which a kernel thread runs later.
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)

use kernel::bindings::{delayed_work, work_struct, wq_misc_consts_WORK_CPU_UNBOUND};
use kernel::container_of;
use kernel::prelude::*;
use kernel::time::msecs_to_jiffies;
use kernel::types::Opaque;

use crate::bindings;

/// The function that a kernel thread calls, with the work.
pub type Function = unsafe extern "C" fn(*mut work_struct);

/// A work item that can be queued. Its owner cancels it before it is freed.
#[pin_data]
#[repr(transparent)]
pub struct DelayedWork {
    #[pin]
    work: Opaque<delayed_work>,
}

impl DelayedWork {
    /// A work item that is not queued, and calls `function`.
    pub fn new(function: Function) -> impl PinInit<Self> {
        pin_init!(DelayedWork {
            // SAFETY: initialises the work in its place, where it stays.
            work <- Opaque::ffi_init(|slot| unsafe {
                bindings::rdax_init_delayed_work(slot, Some(function));
            }),
        })
    }

    /// Queues it to run in this many milliseconds, unless it is queued already. Does not sleep.
    pub fn queue(&self, milliseconds: u32) {
        // SAFETY: the work is initialised, and cancelled before it goes away.
        unsafe {
            bindings::queue_delayed_work_on(
                wq_misc_consts_WORK_CPU_UNBOUND as i32,
                bindings::system_dfl_wq,
                self.work.get(),
                msecs_to_jiffies(milliseconds),
            );
        }
    }

    /// Removes it from the queue, and waits until it is not running. May sleep.
    pub fn cancel(&self) {
        // SAFETY: the work is initialised.
        unsafe { bindings::cancel_delayed_work_sync(self.work.get()) };
    }

    /// The delayed work that `work` is part of.
    ///
    /// # Safety
    ///
    /// `work` is what the [`Function`] of one was called with.
    pub unsafe fn of(work: *mut work_struct) -> *mut DelayedWork {
        // SAFETY: by the caller.
        let work = unsafe { container_of!(work, delayed_work, work) };
        Opaque::<delayed_work>::cast_from(work).cast_mut().cast()
    }
}
