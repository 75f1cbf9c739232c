// SPDX-License-Identifier: GPL-2.0

//! What a mount still does, and `FS_IOC_SHUTDOWN`, which ends it on demand.
//!
//! After a shutdown nothing reaches the media: [`DirectMap`](crate::pmem::DirectMap) is closed, so
//! that also a transaction that was under way stops where it is, as in a crash. The next mount
//! recovers from it. Every operation fails with EIO, every page is unmapped, and faults end in
//! SIGBUS.

use kernel::error::code::*;
use kernel::error::to_result;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::uaccess::{UserPtr, UserSlice};

use super::super_block::SbInfo;
use crate::bindings;

/// What a mount still does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// All.
    Running,
    /// It reads; an error ended all writing (`errors=remount-ro`).
    ReadOnly,
    /// Nothing; it waits to be unmounted.
    ShutDown,
}

/// The state of a mount: it only ever does less.
pub struct StateCell(Atomic<i32>);

impl StateCell {
    /// Of a mount that does all.
    pub fn new() -> Self {
        StateCell(Atomic::new(State::Running as i32))
    }

    /// The state now.
    #[inline]
    pub fn get(&self) -> State {
        match self.0.load(Relaxed) {
            0 => State::Running,
            1 => State::ReadOnly,
            _ => State::ShutDown,
        }
    }

    /// Goes on to `state`. Returns false if it was there, or further, already.
    pub fn lower(&self, state: State) -> bool {
        let mut now = self.0.load(Relaxed);
        while now < state as i32 {
            match self.0.cmpxchg(now, state as i32, Relaxed) {
                Ok(_) => return true,
                Err(other) => now = other,
            }
        }
        false
    }
}

/// `FS_IOC_SHUTDOWN`: `arg` points to the mode.
pub fn ioctl(sb: &SbInfo, arg: UserPtr) -> Result {
    // SAFETY: looks at the credentials of the current task.
    // CAST: a small constant.
    if !unsafe { bindings::capable(bindings::CAP_SYS_ADMIN as i32) } {
        return Err(EPERM);
    }
    let mode = UserSlice::new(arg, size_of::<u32>()).reader().read()?;
    match mode {
        bindings::FS_SHUTDOWN_FLAGS_DEFAULT if sb.check_alive().is_ok() => {
            // Freezing makes everything durable, and keeps it so until the end.
            // SAFETY: the super block holds its device; each freeze is thawed.
            unsafe {
                let device = (*sb.as_raw()).s_bdev;
                to_result(bindings::bdev_freeze(device))?;
                sb.shut_down("asked to, all is durable");
                // It fails if somebody else keeps the device frozen.
                let _ = bindings::bdev_thaw(device);
            }
        }
        // The journal has nothing that is not durable: the other two are the same. And so is what
        // comes a second time.
        bindings::FS_SHUTDOWN_FLAGS_DEFAULT
        | bindings::FS_SHUTDOWN_FLAGS_LOGFLUSH
        | bindings::FS_SHUTDOWN_FLAGS_NOLOGFLUSH => {
            sb.shut_down("asked to, without a flush");
        }
        _ => return Err(EINVAL),
    }
    Ok(())
}
