// SPDX-License-Identifier: GPL-2.0

//! rdax's data beside a super block: the volume, its state while mounted, and the reaction to
//! damage.

use core::ffi::CStr;

use kernel::error::code::*;
use kernel::fmt;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::{new_mutex, Mutex};

use super::counters::{CounterFiles, Counters};
use super::dirty::DirtyInodes;
use super::huge_zero::HugeZero;
use super::object::SuperBlock;
use super::options::{Dax, OnError, Options};
use super::pins::Pins;
use super::read_only::ReadOnly;
use super::state::{State, StateCell};
use super::work::Function;
use crate::bindings;
use crate::pmem::{DirectMap, OpenError};
use crate::volume::error::Error as VolumeError;
use crate::volume::{self, Volume};

/// rdax's data beside a super block, from mount to the end of unmount.
#[pin_data]
pub struct SbInfo {
    sb: *mut bindings::super_block,
    /// The files in /sys that show the counters, while the name of the device belongs to this
    /// mount.
    #[pin]
    files: Mutex<Option<CounterFiles>>,
    /// The volume on the device.
    pub volume: Volume<DirectMap>,
    /// What happened since mount.
    pub counters: Counters,
    /// The inodes with pages that may be dirty.
    #[pin]
    pub dirty: DirtyInodes,
    /// The pages that were pinned when their inode was evicted.
    #[pin]
    pub pins: Pins,
    /// The zeros that are mapped where 2 MiB are a hole.
    pub huge_zero: HugeZero,
    /// The orphans of the previous mount are recovered: those that exist now are this mount's.
    pub orphans_recovered: Atomic<bool>,
    /// Whether it is read-only, or becoming so.
    #[pin]
    pub read_only: ReadOnly,
    on_error: Atomic<i32>,
    dax: Atomic<i32>,
    state: StateCell,
}

// SAFETY: the pointer to the super block is used as C does, under C's rules; all else is `Sync`.
unsafe impl Send for SbInfo {}
// SAFETY: as above.
unsafe impl Sync for SbInfo {}

/// Functions of a mount that work items call.
pub struct Works {
    /// See [`Pins::new`].
    pub look_for_pins: Function,
    /// See [`ReadOnly::new`].
    pub end_stores: Function,
}

impl SbInfo {
    /// For the new super block `sb`, of the volume that was found on its device.
    pub fn new(
        sb: &SuperBlock,
        volume: Volume<DirectMap>,
        options: Options,
        read_only: bool,
        works: Works,
    ) -> impl PinInit<Self, Error> + use<> {
        let sb = sb.as_raw();
        try_pin_init!(SbInfo {
            sb,
            files <- new_mutex!(None, "rdax_files"),
            volume,
            counters: Counters::new(),
            dirty <- DirtyInodes::new(),
            pins <- Pins::new(works.look_for_pins),
            huge_zero: HugeZero::new(),
            orphans_recovered: Atomic::new(false),
            read_only <- ReadOnly::new(read_only, works.end_stores),
            on_error: Atomic::new(options.on_error as i32),
            dax: Atomic::new(options.dax as i32),
            state: StateCell::new(),
        })
    }

    /// The C super block.
    pub fn as_raw(&self) -> *mut bindings::super_block {
        self.sb
    }

    /// The super block.
    pub fn super_block(&self) -> &SuperBlock {
        // SAFETY: it outlives what is kept beside it.
        unsafe { SuperBlock::from_raw(self.sb) }
    }

    /// The name of the device, for messages.
    pub fn name(&self) -> &CStr {
        self.super_block().name()
    }

    /// The mount options now.
    pub fn options(&self) -> Options {
        let on_error = match self.on_error.load(Relaxed) {
            0 => OnError::Continue,
            1 => OnError::RemountReadOnly,
            _ => OnError::Panic,
        };
        let dax = match self.dax.load(Relaxed) {
            0 => Dax::Always,
            1 => Dax::Inode,
            _ => Dax::Never,
        };
        Options { on_error, dax }
    }

    /// Changes the mount options.
    pub fn set_options(&self, options: Options) {
        self.on_error.store(options.on_error as i32, Relaxed);
        self.dax.store(options.dax as i32, Relaxed);
    }

    /// Which operations the mount still supports; if not all, only unmounting helps.
    pub fn state(&self) -> State {
        self.state.get()
    }

    /// Ends everything: nothing is read or written any more, and data that was not durable is lost.
    /// Calls in progress may still complete, and mappings still exist. `why` is for the log.
    pub fn close(&self, why: &str) {
        if self.state.lower(State::ShutDown) {
            pr_err!("{}: {why}; shut down, unmount it\n", self.name());
        }
        self.volume.pmem().close();
    }

    /// Shows the counters in /sys. Fails with `EIO` if the device is removed: its name no longer
    /// belongs to this mount then.
    pub fn show_counters(&self) -> Result {
        let mut files = self.files.lock();
        self.check_alive()?;
        *files = Some(CounterFiles::new(self)?);
        Ok(())
    }

    /// Hides them: the device is removed, and another may get its name.
    pub fn hide_counters(&self) {
        let files = self.files.lock().take();
        drop(files);
    }

    /// Ends all writing. Calls in progress may still complete.
    fn become_read_only(&self) {
        if !self.state.lower(State::ReadOnly) {
            return;
        }
        pr_err!("{}: read-only from now on\n", self.name());
        self.read_only.end_stores_soon();
    }

    /// Fails with EIO after a shutdown. Call this in operations that do not touch the media, or
    /// could look as if they had.
    #[inline]
    pub fn check_alive(&self) -> Result {
        match self.state() {
            State::Running | State::ReadOnly => Ok(()),
            State::ShutDown => Err(EIO),
        }
    }

    /// Fails with EROFS if the mount is read-only, with EIO after a shutdown. Call this before a
    /// change.
    #[inline]
    pub fn check_writable(&self) -> Result {
        self.check_sound()?;
        match self.read_only.is_asked() {
            false => Ok(()),
            true => Err(EROFS),
        }
    }

    /// Fails with EROFS if all writing has ended after an error, with EIO after a shutdown. Call
    /// this before a change is made durable.
    #[inline]
    pub fn check_sound(&self) -> Result {
        match self.state() {
            State::Running => Ok(()),
            State::ReadOnly => Err(EROFS),
            State::ShutDown => Err(EIO),
        }
    }

    /// Converts the result of a volume operation for the VFS. Logs damage, and acts on it as the
    /// option `errors` says.
    pub fn check<T>(&self, result: volume::Result<T>) -> Result<T> {
        result.map_err(|error| {
            if self.state() == State::ShutDown {
                // The volume made of it what it could.
                return EIO;
            }
            if matches!(
                error,
                VolumeError::Corrupt { .. } | VolumeError::Media { .. }
            ) {
                self.damaged(error);
            }
            Error::from_errno(-error.errno())
        })
    }

    /// Logs damage and follows `errors=`.
    fn damaged(&self, error: VolumeError) {
        let on_error = self.options().on_error;
        // For fanotify (`FAN_FS_ERROR`).
        // SAFETY: the super block is alive; the event is delivered by a work item.
        unsafe { bindings::rdax_report_damage(self.as_raw(), -error.errno()) };
        // SAFETY: takes a lock of its own only.
        if unsafe { bindings::rdax_printk_ratelimit() } {
            pr_err!("{}: {error}; run fsck.rdax\n", self.name());
        }
        match on_error {
            OnError::Continue => {}
            OnError::RemountReadOnly => self.become_read_only(),
            // SAFETY: stops the machine, as was asked for; the name is a string.
            OnError::Panic => unsafe { bindings::rdax_panic(self.name().as_char_ptr()) },
        }
    }
}

/// The kernel's messages take a trait of their own; these types have the standard one.
macro_rules! in_messages {
    ($($error:ty),*) => {
        $(impl fmt::Display for $error {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                core::fmt::Display::fmt(self, f)
            }
        })*
    };
}

in_messages!(VolumeError, OpenError);
