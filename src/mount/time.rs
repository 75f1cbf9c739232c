// SPDX-License-Identifier: GPL-2.0

//! Timestamps: the kernel's and the volume's, and which of them are durable when.
//!
//! A system call that changes metadata writes the timestamps it updates in its transaction. Those
//! that change with data, mtime and ctime of an overwrite or a mapped store and every atime, only
//! change in the kernel's inode; `fsync`, `sync`, and write-back by age make them durable.

use super::inode::InodeInfo;
use crate::bindings;
use crate::volume::format::Time;

/// The three timestamps of an inode that can change.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// Last access.
    pub atime: Time,
    /// Last change of the content.
    pub mtime: Time,
    /// Last change of the inode.
    pub ctime: Time,
}

impl From<bindings::timespec64> for Time {
    fn from(ts: bindings::timespec64) -> Time {
        Time {
            sec: ts.tv_sec,
            // CAST: the kernel keeps it below 10^9.
            nsec: ts.tv_nsec as u32,
        }
    }
}

impl From<Time> for bindings::timespec64 {
    fn from(time: Time) -> Self {
        bindings::timespec64 {
            tv_sec: time.sec,
            // CAST: a u32 fits in a long of 64 bits.
            tv_nsec: time.nsec as isize,
        }
    }
}

/// Runs `change`, which concerns all of `infos`, with its timestamp, for the transaction that makes
/// it durable: not before the last change of any. The kernel's ctimes become now; if `change`
/// fails, they are restored. The caller holds `i_rwsem` of each exclusively, or is its only user.
pub fn touching<T, E, const N: usize>(
    infos: [Option<&InodeInfo>; N],
    change: impl FnOnce(Time) -> Result<T, E>,
) -> Result<T, E> {
    let touched = infos.map(|info| info.map(|info| (info, info.times().ctime, info.touch_ctime())));
    let now = touched.iter().flatten().map(|(.., now)| *now).max();
    let result = change(now.unwrap_or_default());
    if result.is_err() {
        for (info, before, now) in touched.into_iter().flatten() {
            // A store to a mapping may have changed it since.
            if info.times().ctime == now {
                info.set_ctime(before);
            }
        }
    }
    result
}

impl InodeInfo {
    /// Sets the kernel's ctime to now and returns it.
    fn touch_ctime(&self) -> Time {
        // SAFETY: the inode is alive; concurrent setters of times are the kernel's normal case.
        unsafe { bindings::inode_set_ctime_current(self.as_vfs()) }.into()
    }

    /// The content was changed: sets the kernel's mtime and ctime to now. Does not sleep.
    pub fn touch_data(&self) {
        // SAFETY: the inode is alive. Nothing but memory is changed, so this does not fail.
        unsafe {
            bindings::generic_update_time(self.as_vfs(), bindings::fs_update_time_FS_UPD_CMTIME, 0);
        }
    }

    /// The kernel's timestamps.
    pub fn times(&self) -> Times {
        let inode = self.as_vfs();
        let mut ts = bindings::timespec64::default();
        let mut get =
            |f: unsafe extern "C" fn(*const bindings::inode, *mut bindings::timespec64)| {
                // SAFETY: `f` is one of the three below; each stores to `ts` and reads a live
                // inode.
                unsafe { f(inode, &mut ts) };
                Time::from(ts)
            };
        Times {
            atime: get(bindings::rdax_inode_get_atime),
            mtime: get(bindings::rdax_inode_get_mtime),
            ctime: get(bindings::rdax_inode_get_ctime),
        }
    }

    /// Sets the kernel's mtime.
    pub fn set_mtime(&self, time: Time) {
        // SAFETY: the inode is alive.
        unsafe { bindings::rdax_inode_set_mtime(self.as_vfs(), time.sec, time.nsec) };
    }

    /// Sets the kernel's ctime. If it has this value already, the kernel's flag that somebody has
    /// seen it stays, so that the next change gets another value.
    pub fn set_ctime(&self, time: Time) {
        if self.times().ctime == time {
            return;
        }
        // SAFETY: the inode is alive.
        unsafe { bindings::rdax_inode_set_ctime(self.as_vfs(), time.sec, time.nsec) };
    }

    /// Sets all three of the kernel's timestamps.
    pub fn set_times(&self, times: Times) {
        // SAFETY: the inode is alive.
        unsafe {
            bindings::rdax_inode_set_atime(self.as_vfs(), times.atime.sec, times.atime.nsec);
        }
        self.set_mtime(times.mtime);
        self.set_ctime(times.ctime);
    }
}
