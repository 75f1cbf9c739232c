// SPDX-License-Identifier: GPL-2.0

//! The super block: mounting a volume, its state while mounted, and what happens when it turns out
//! to be damaged.

use core::ffi::CStr;
use core::ptr::null_mut;

use kernel::alloc::{flags::GFP_KERNEL, KBox};
use kernel::error::code::*;
use kernel::fmt;
use kernel::prelude::*;
use kernel::seq_file::SeqFile;
use kernel::seq_print;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::{new_mutex, Mutex};

use super::context::{Dax, OnError, Options};
use super::counters::{CounterFiles, Counters};
use super::export;
use super::inode::iget;
use super::object::SuperBlock;
use super::read_only::ReadOnly;
use super::shutdown::{State, StateCell};
use super::table::context::Context;
use super::table::super_block::{SuperOperations, SuperTable};
use super::table::Table;
use super::xattr;
use crate::pmem::{DirectMap, OpenError};
use crate::volume::error::Error as VolumeError;
use crate::volume::format::{
    BLOCK, LINK_MAX, MAX_FILE, NAME_MAX, ROOT_INO, RO_COMPAT_KNOWN, STATFS_MAGIC,
};
use crate::volume::{self, MountOptions, Notes, Volume};
use crate::{bindings, dax};

static OPERATIONS: Table<bindings::super_operations> = SuperTable::<RdaxSuper>::table();

/// What rdax keeps beside a super block, from mount to the end of unmount.
#[pin_data]
pub struct SbInfo {
    sb: *mut bindings::super_block,
    /// The files in /sys that show the counters, as long as the name of the device is this mount's.
    #[pin]
    files: Mutex<Option<CounterFiles>>,
    /// The volume on the device.
    pub volume: Volume<DirectMap>,
    /// What happened since the mount.
    pub counters: Counters,
    /// The inodes with pages that may be dirty.
    #[pin]
    pub dirty: dax::DirtyInodes,
    /// The pages that were pinned when their inode left memory.
    #[pin]
    pub pins: dax::Pins,
    /// The orphans that the last mount left are recovered: those there are now are this one's.
    orphans_recovered: Atomic<bool>,
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

impl SbInfo {
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

    /// What the mount still does; only unmounting helps where it is not all.
    pub fn state(&self) -> State {
        self.state.get()
    }

    /// Ends everything: nothing is read or written any more, no page is mapped, and what was not
    /// durable is lost. Calls under way may still complete. `why` is for the log. May sleep; takes
    /// the invalidate lock of every file.
    pub fn shut_down(&self, why: &str) {
        if self.state.lower(State::ShutDown) {
            pr_err!("{}: {why}; shut down, unmount it\n", self.name());
        }
        self.volume.pmem().close();
        dax::unmap_all(self);
    }

    /// Shows the counters in /sys. Fails with `EIO` if the device is removed: its name is not this
    /// mount's then.
    fn show_counters(&self) -> Result {
        let mut files = self.files.lock();
        self.check_alive()?;
        *files = Some(CounterFiles::new(self)?);
        Ok(())
    }

    /// Shows them no more: the device is removed, and another may have its name.
    pub fn hide_counters(&self) {
        let files = self.files.lock().take();
        drop(files);
    }

    /// Ends all writing. Calls under way may still complete.
    fn become_read_only(&self) {
        if !self.state.lower(State::ReadOnly) {
            return;
        }
        pr_err!("{}: read-only from now on\n", self.name());
        self.read_only.end_stores_soon();
    }

    /// Fails with EIO after a shutdown. To be asked by what does not touch the media, or could make
    /// it seem that it had.
    #[inline]
    pub fn check_alive(&self) -> Result {
        match self.state() {
            State::Running | State::ReadOnly => Ok(()),
            State::ShutDown => Err(EIO),
        }
    }

    /// Fails with EROFS if the mount is read-only, with EIO after a shutdown. To be asked before a
    /// change.
    #[inline]
    pub fn check_writable(&self) -> Result {
        self.check_sound()?;
        match self.read_only.is_asked() {
            false => Ok(()),
            true => Err(EROFS),
        }
    }

    /// Fails with EROFS if all writing has ended after an error, with EIO after a shutdown. To be
    /// asked before what was changed is made durable.
    #[inline]
    pub fn check_sound(&self) -> Result {
        match self.state() {
            State::Running => Ok(()),
            State::ReadOnly => Err(EROFS),
            State::ShutDown => Err(EIO),
        }
    }

    /// The result of an operation on the volume as the VFS wants it. Damage is logged, and what
    /// the option `errors` says is done.
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

/// Why a device holds nothing that can be mounted, and what would help.
fn refuse(fc: &Context, name: &CStr, error: VolumeError) -> Error {
    let mend = match error {
        VolumeError::NotRdax => "make one with mkfs.rdax",
        VolumeError::Version { .. } => "use the rdax that it was made with",
        VolumeError::Unsupported { ro: true, .. } => "or use a newer rdax",
        VolumeError::Unsupported { ro: false, .. } => "use a newer rdax",
        VolumeError::Corrupt { .. } | VolumeError::Media { .. } => "run fsck.rdax",
        VolumeError::WriteProtected => "blockdev --setrw makes it writable",
        VolumeError::TooSmall { .. } => "was it cut short, or is it another device?",
        _ => "not mounted",
    };
    fc.refuse(name, fmt!("{error}; {mend}"));
    Error::from_errno(-error.errno())
}

/// Opens the device of `sb` and the volume on it.
// Not inlined: the kernel's stack is small.
#[inline(never)]
fn mount(fc: &Context, options: Options, sb: &SuperBlock) -> Result<Pin<KBox<SbInfo>>> {
    let raw = sb.as_raw();
    // SAFETY: the super block is new and ours alone; its device is open. What others wrote to the
    // device through its page cache must be on the media now, and not be written later over what
    // we write past it.
    unsafe {
        bindings::sync_blockdev((*raw).s_bdev);
        bindings::invalidate_bdev((*raw).s_bdev);
    }
    // SAFETY: the device stays open until the super block is gone, which is after `put`.
    let pmem = unsafe { DirectMap::open((*raw).s_bdev) };
    let pmem = pmem.map_err(|error| {
        fc.refuse(sb.name(), fmt!("{error}"));
        Error::from(error)
    })?;
    let how = MountOptions {
        read_only: fc.is_read_only(),
        // SAFETY: the device is open.
        write_protected: unsafe { bindings::rdax_bdev_read_only((*raw).s_bdev) },
    };
    let volume = Volume::mount(pmem, how).map_err(|e| refuse(fc, sb.name(), e))?;
    KBox::pin_init(
        try_pin_init!(SbInfo {
            sb: raw,
            files <- new_mutex!(None, "rdax_files"),
            volume,
            counters: Counters::new(),
            dirty <- dax::DirtyInodes::new(),
            pins <- dax::Pins::new(),
            orphans_recovered: Atomic::new(false),
            read_only <- ReadOnly::new(fc.is_read_only()),
            on_error: Atomic::new(options.on_error as i32),
            dax: Atomic::new(options.dax as i32),
            state: StateCell::new(),
        }),
        GFP_KERNEL,
    )
}

/// `fill_super`: mounts the volume on the device of `sb`. Where it fails, nothing was written.
pub fn fill(fc: &Context, options: Options, sb: &SuperBlock) -> Result {
    let raw = sb.as_raw();
    let info = mount(fc, options, sb)?;
    log_notes(sb.name(), &info.volume.notes());
    let uuid = info.volume.super_block().uuid;
    // SAFETY: the value stays in its box, and pinned, until `put`.
    let info = KBox::into_raw(unsafe { Pin::into_inner_unchecked(info) });
    // SAFETY: the super block is new and ours alone; the table is static.
    let block = unsafe {
        (*raw).s_fs_info = info.cast();
        (*raw).s_op = OPERATIONS.as_ptr();
        (*raw).s_xattr = xattr::handlers();
        (*raw).s_export_op = export::operations().cast();
        // ACLs, and the umask applied where they are; nothing asked at a write of a file without
        // attributes that it would take away.
        (*raw).s_flags |= bindings::RDAX_SB_POSIXACL | bindings::RDAX_SB_NOSEC;
        (*raw).s_magic = STATFS_MAGIC as usize;
        (*raw).s_maxbytes = MAX_FILE as i64;
        (*raw).s_max_links = LINK_MAX;
        (*raw).s_time_gran = 1;
        (*raw).s_time_min = i64::MIN;
        (*raw).s_time_max = i64::MAX;
        bindings::rdax_set_names(raw, uuid.as_ptr());
        bindings::sb_set_blocksize(raw, BLOCK as i32)
    };
    // SAFETY: `put` detaches it.
    let attached = unsafe { sb.info().volume.pmem().attach(sb.info()) };
    let result = if block == 0 {
        fc.refuse(sb.name(), fmt!("device has no blocks of 4096 bytes"));
        Err(EINVAL)
    } else if attached.is_err() {
        fc.refuse(sb.name(), fmt!("{}", OpenError::Removed));
        attached
    } else {
        open_root(fc, sb)
    };
    if result.is_err() {
        // SAFETY: without a root the VFS does not call `put_super`; nobody else uses it, for the
        // inodes there were are evicted.
        unsafe { RdaxSuper::put(sb) };
    }
    result
}

/// Tells what is worth telling about a mount.
fn log_notes(name: &CStr, notes: &Notes) {
    if let Some(error) = notes.copy_served {
        pr_warn!("{name}: first superblock: {error}; its copy serves; run fsck.rdax\n");
    }
    if notes.replayed > 0 || notes.cancelled > 0 {
        pr_info!(
            "{name}: recovered: {} transactions completed, {} cancelled\n",
            notes.replayed,
            notes.cancelled
        );
    }
}

/// The part of a mount that needs the super block to work.
fn open_root(fc: &Context, sb: &SuperBlock) -> Result {
    let info = sb.info();
    if !fc.is_read_only() {
        match recover_orphans(info) {
            // Said, and `errors=` followed: what cannot be freed is no reason to serve nothing.
            Err(e) if e == EUCLEAN || e == EIO => info.orphans_recovered.store(true, Relaxed),
            result => result?,
        }
    }
    let root = iget(info, ROOT_INO)?;
    if !root.is(bindings::S_IFDIR) {
        fc.refuse(sb.name(), fmt!("root is no directory; run fsck.rdax"));
        return Err(EUCLEAN);
    }
    info.show_counters()?;
    // SAFETY: takes over the reference, also where it fails. The super block is new: nobody else
    // looks at the field.
    unsafe {
        let root = bindings::d_make_root(root.into_raw());
        if root.is_null() {
            return Err(ENOMEM);
        }
        (*sb.as_raw()).s_root = root;
    }
    Ok(())
}

/// Frees what files without a name left behind, before the first change after a mount.
fn recover_orphans(info: &SbInfo) -> Result {
    if info.orphans_recovered.load(Relaxed) {
        return Ok(());
    }
    let freed = info.check(info.volume.recover_orphans())?;
    if freed > 0 {
        pr_info!("{}: freed {freed} inodes without a name\n", info.name());
    }
    info.orphans_recovered.store(true, Relaxed);
    Ok(())
}

/// An emergency: the mount becomes read-only at once, whoever uses it. Nobody looks at an error.
pub fn make_read_only(info: &SbInfo) {
    if info.check_alive().is_err() {
        return;
    }
    info.read_only.ask(true);
    if let Err(error) = dax::end_stores(info) {
        pr_err!("{}: mapped stores are lost: {error:?}\n", info.name());
    }
    let _ = dax::pins::settle(info);
}

/// A read-only mount shall become writable.
pub fn make_writable(fc: &Context, info: &SbInfo) -> Result {
    let name = info.name();
    // The VFS thaws one that is read-only without asking.
    info.volume.pmem().check_place().map_err(|error| {
        fc.refuse(name, fmt!("{error}"));
        Error::from(error)
    })?;
    if info.state() != State::Running {
        fc.refuse(
            name,
            fmt!("there were errors; unmount, run fsck.rdax, and mount again"),
        );
        return Err(EROFS);
    }
    let unknown = info.volume.super_block().ro_compat.get() & !RO_COMPAT_KNOWN;
    if unknown != 0 {
        return Err(refuse(
            fc,
            name,
            VolumeError::Unsupported {
                bits: unknown,
                ro: true,
            },
        ));
    }
    recover_orphans(info)?;
    info.read_only.ask(false);
    Ok(())
}

/// The operations of a super block.
struct RdaxSuper;

impl SuperOperations for RdaxSuper {
    fn statfs(sb: &SuperBlock, stat: &mut bindings::kstatfs) -> Result {
        let volume = &sb.info().volume;
        let now = volume.statfs();
        let (head, tail) = volume.super_block().uuid.split_at(8);
        let fold = |bytes: &[u8]| {
            bytes
                .iter()
                .fold(0i32, |id, &b| id.rotate_left(8) ^ i32::from(b))
        };
        // CAST: constants.
        stat.f_type = STATFS_MAGIC as isize;
        stat.f_bsize = BLOCK as isize;
        stat.f_frsize = BLOCK as isize;
        stat.f_namelen = NAME_MAX as isize;
        stat.f_blocks = now.blocks;
        stat.f_bfree = now.free;
        stat.f_bavail = now.available;
        stat.f_files = now.inodes_used.saturating_add(now.inodes_free);
        stat.f_ffree = now.inodes_free;
        stat.f_fsid.val = [fold(head), fold(tail)];
        Ok(())
    }

    fn sync(sb: &SuperBlock) -> Result {
        sb.info().check_alive()?;
        // Metadata is durable as it is; mapped stores are not.
        dax::sync_all(sb.info()).and(dax::pins::settle(sb.info()))
    }

    fn show_options(sb: &SuperBlock, seq: &SeqFile) -> Result {
        let options = sb.info().options();
        let (dax, on_error) = (options.dax.name(), options.on_error.name());
        seq_print!(seq, ",dax={dax},errors={on_error}");
        Ok(())
    }

    fn device_removed(sb: &SuperBlock) {
        sb.info().volume.pmem().removed();
    }

    fn thawed(sb: &SuperBlock) {
        let info = sb.info();
        if let Err(error) = info.volume.pmem().check_place() {
            pr_err!("{}: {error}\n", sb.name());
            info.shut_down("device has changed");
        }
    }

    unsafe fn put(sb: &SuperBlock) {
        // Before anything is taken down: who is told of the device uses all of it.
        sb.info().volume.pmem().detach();
        sb.info().hide_counters();
        dax::pins::finish(sb.info());
        sb.info().read_only.finish();
        // SAFETY: by the caller nobody uses it any more; `fill` made the box.
        unsafe {
            let info = core::mem::replace(&mut (*sb.as_raw()).s_fs_info, null_mut());
            drop(Pin::new_unchecked(KBox::<SbInfo>::from_raw(info.cast())));
        }
    }
}
