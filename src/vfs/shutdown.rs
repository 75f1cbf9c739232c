// SPDX-License-Identifier: GPL-2.0

//! `FS_IOC_SHUTDOWN`, which ends a mount on demand.
//!
//! After a shutdown nothing reaches the media: [`DirectMap`](crate::pmem::DirectMap) is closed, so
//! that a transaction in progress also stops where it is, as in a crash. The next mount recovers
//! from it. Every operation fails with EIO, every page is unmapped, and faults raise SIGBUS.

use kernel::error::code::*;
use kernel::error::to_result;
use kernel::prelude::*;
use kernel::uaccess::{UserPtr, UserSlice};

use crate::mount::super_block::SbInfo;
use crate::{bindings, dax};

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
            // Freezing makes everything durable, and nothing changes until the end.
            // SAFETY: the super block holds its device; each freeze is thawed.
            unsafe {
                let device = (*sb.as_raw()).s_bdev;
                to_result(bindings::bdev_freeze(device))?;
                dax::shut_down(sb, "asked to, all is durable");
                // It fails if somebody else keeps the device frozen.
                let _ = bindings::bdev_thaw(device);
            }
        }
        // All of the journal is durable, so the other two modes are the same. A repeated call does
        // the same, too.
        bindings::FS_SHUTDOWN_FLAGS_DEFAULT
        | bindings::FS_SHUTDOWN_FLAGS_LOGFLUSH
        | bindings::FS_SHUTDOWN_FLAGS_NOLOGFLUSH => {
            dax::shut_down(sb, "asked to, without a flush");
        }
        _ => return Err(EINVAL),
    }
    Ok(())
}
