// SPDX-License-Identifier: GPL-2.0

//! The removal of the device while it is mounted.
//!
//! Guarantee: when [`remove`] returns, nobody uses the memory of the device or its struct pages,
//! and nobody will. The mount stays until it is unmounted, but every access fails.

use super::evict;
use super::layout;
use super::machine::{Machine, Mount};

/// A mount, as the removal of its device uses it.
pub trait Removal: Mount {
    /// Its files.
    type File: Machine;

    /// Makes [`Machine::check_usable`] of every file fail from now on, and unmaps all pages.
    fn shut_down(&self);
    /// Ends access to the memory: no guard of [`Device::access`](super::machine::Device::access)
    /// exists when this returns, and there will be none. May sleep.
    fn end_access(&self);
    /// Runs `each` for every file in memory, with faults kept out, and a reference held.
    fn for_each_file(&self, each: impl FnMut(&Self::File));
    /// Waits until no file is an owner of pages ([`Machine::is_owner`]). May sleep.
    fn wait_for_owners(&self);
    /// Gives the device up.
    fn release_device(&self);
}

/// Ends all use of the device. Stores that are not durable are lost. Waits for pins. May sleep.
pub fn remove<N: Removal>(mount: &N) {
    mount.shut_down();
    mount.end_access();
    // Whoever was giving pages back to a file that is read again is done, or sees the shutdown.
    drop(mount.left());
    mount.for_each_file(layout::detach);
    // A file that is evicted meanwhile has none, or leaves them behind.
    mount.wait_for_owners();
    evict::wait_for_all(mount);
    mount.release_device();
}
