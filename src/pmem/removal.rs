// SPDX-License-Identifier: GPL-2.0

//! Notifications from the DAX core to the holder of a device: the device is being removed, or
//! memory is bad.
//!
//! C header: [`include/linux/dax.h`](srctree/include/linux/dax.h)
//!
//! The core takes no lock for them, and `fs_put_dax()` waits for nobody: the callback may run when
//! its mount has not begun, or has ended. So the holder is no pointer that the callback could
//! follow. It looks the holder up in a list, and finds the user to notify, or that there is none
//! yet or any more. [`Registration::detach`] waits for users that were found.

use core::ffi::c_int;
use core::ptr::NonNull;

use kernel::alloc::flags::GFP_ATOMIC;
use kernel::alloc::{flags::GFP_KERNEL, KVec};
use kernel::prelude::*;
use kernel::sync::{Arc, Completion};

use crate::bindings;

/// The user of a device, who is notified of its events.
pub trait User: Sync {
    /// The device is being removed. When this returns, nobody uses its memory any more. Called at
    /// most once.
    fn removed(&self);

    /// The `len` bytes at `at` of the DAX device are bad.
    fn failed(&self, at: u64, len: u64);
}

/// A holder, as the DAX core knows it: its address.
#[pin_data]
struct Holder {
    /// No notification is in progress any more.
    #[pin]
    quiet: Completion,
}

/// The state of a holder.
struct Entry {
    holder: Arc<Holder>,
    user: Option<&'static dyn User>,
    /// The device is removed, or being removed.
    removed: bool,
    /// How many notifications of the user are in progress.
    telling: u32,
}

kernel::sync::global_lock! {
    // SAFETY: `Notifications::new` initialises it, at load, before a device is opened.
    unsafe(uninit) static ENTRIES: SpinLock<KVec<Entry>> = KVec::new();
}

/// Runs `f` with the entry of the holder at `address`, if there is one.
fn with<R>(address: *const Holder, f: impl FnOnce(&mut Entry) -> R) -> Option<R> {
    let mut entries = ENTRIES.lock();
    let mut all = entries.iter_mut();
    let entry = all.find(|entry| core::ptr::eq(&*entry.holder, address));
    entry.map(f)
}

/// A holder of a device that can be notified.
pub(super) struct Registration(Arc<Holder>);

impl Registration {
    /// A new one, for a user that comes later.
    pub(super) fn new() -> Result<Self> {
        let holder = Arc::pin_init(pin_init!(Holder { quiet <- Completion::new() }), GFP_KERNEL)?;
        let entry = Entry {
            holder: holder.clone(),
            user: None,
            removed: false,
            telling: 0,
        };
        ENTRIES.lock().push(entry, GFP_ATOMIC)?;
        Ok(Registration(holder))
    }

    /// The holder that the DAX core gets.
    pub(super) fn as_holder(&self) -> *mut c_void {
        self.address().cast_mut().cast()
    }

    fn address(&self) -> *const Holder {
        &*self.0
    }

    /// From now on `user` is notified. Fails with `ENODEV` if the device is removed already.
    ///
    /// # Safety
    ///
    /// `user` is alive until [`Registration::detach`] has returned.
    pub(super) unsafe fn attach(&self, user: &dyn User) -> Result {
        // SAFETY: nobody uses it after `detach`, by the caller's promise.
        let user = unsafe { core::mem::transmute::<&dyn User, &'static dyn User>(user) };
        let attached = with(self.address(), |entry| {
            entry.user = (!entry.removed).then_some(user);
            entry.user.is_some()
        });
        match attached {
            Some(true) => Ok(()),
            _ => Err(ENODEV),
        }
    }

    /// From now on nobody is notified. Waits for notifications in progress.
    pub(super) fn detach(&self) {
        let telling = with(self.address(), |entry| {
            entry.user = None;
            entry.telling
        });
        if telling.is_some_and(|telling| telling > 0) {
            self.0.quiet.wait_for_completion();
        }
    }

    /// The device is removed. Notifies the user, unless that has happened.
    pub(super) fn removed(&self) {
        if let Some(telling) = Telling::begin(self.address(), true) {
            telling.user.removed();
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.detach();
        let address = self.address();
        let mut entries = ENTRIES.lock();
        let at = entries
            .iter()
            .position(|entry| core::ptr::eq(&*entry.holder, address));
        let entry = at.and_then(|at| entries.remove(at).ok());
        drop(entries);
        drop(entry);
    }
}

/// A notification in progress: the device cannot disappear before it ends.
struct Telling {
    holder: NonNull<Holder>,
    user: &'static dyn User,
}

impl Telling {
    /// `None` if there is nobody to notify, or the removal was already notified. A removal is
    /// recorded for users that attach later.
    fn begin(address: *const Holder, removal: bool) -> Option<Self> {
        let holder = NonNull::new(address.cast_mut())?;
        with(address, |entry| {
            let news = !removal || !entry.removed;
            entry.removed |= removal;
            let user = entry.user.filter(|_| news)?;
            entry.telling += 1;
            Some(Telling { holder, user })
        })?
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        with(self.holder.as_ptr(), |entry| {
            entry.telling -= 1;
            if entry.telling == 0 && entry.user.is_none() {
                entry.holder.quiet.complete_all();
            }
        });
    }
}

/// The functions that the DAX core calls.
pub(super) static OPERATIONS: bindings::dax_holder_operations = bindings::dax_holder_operations {
    notify_failure: Some(notify_failure),
};

/// `dax_holder_operations.notify_failure`. Never fails with `EOPNOTSUPP`: the memory manager would
/// then look for the pages in the page cache of the inode, which is empty, and corrupt it.
///
/// # Safety
///
/// Called by the DAX core alone.
unsafe extern "C" fn notify_failure(
    dax_dev: *mut bindings::dax_device,
    offset: u64,
    len: u64,
    flags: c_int,
) -> c_int {
    // SAFETY: the device is alive. The holder may be one of another file system by now; it is only
    // compared.
    let holder = unsafe { bindings::dax_holder(dax_dev) }.cast::<Holder>();
    let removal = flags & bindings::RDAX_MF_MEM_PRE_REMOVE != 0;
    if let Some(telling) = Telling::begin(holder, removal) {
        match removal {
            true => telling.user.removed(),
            false => telling.user.failed(offset, len),
        }
    }
    0
}

/// Devices may be opened while this exists: while the module is loaded.
pub struct Notifications(());

impl Notifications {
    /// Called once, at load.
    pub fn new() -> Self {
        // SAFETY: called once, before the lock is used.
        unsafe { ENTRIES.init() };
        Notifications(())
    }
}

impl Drop for Notifications {
    fn drop(&mut self) {
        // No device is held, so callers that are still running find nobody to notify, and return
        // without having slept. SAFETY: waits until each task has slept or left the kernel once.
        unsafe { bindings::rdax_synchronize_rcu_tasks() };
    }
}
