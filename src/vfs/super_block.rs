// SPDX-License-Identifier: GPL-2.0

//! The super block: mounting a volume, and its operations.

use core::ffi::CStr;
use core::ptr::null_mut;

use kernel::alloc::{flags::GFP_KERNEL, KBox};
use kernel::error::code::*;
use kernel::prelude::*;
use kernel::seq_file::SeqFile;
use kernel::seq_print;
use kernel::sync::atomic::Relaxed;

use super::export;
use super::inode::iget;
use super::table::context::Context;
use super::table::super_block::{SuperOperations, SuperTable};
use super::xattr;
use crate::mount::object::SuperBlock;
use crate::mount::options::Options;
use crate::mount::state::State;
use crate::mount::super_block::{SbInfo, Works};
use crate::mount::table::Table;
use crate::pmem::{DirectMap, OpenError};
use crate::volume::error::Error as VolumeError;
use crate::volume::format::{
    BLOCK, LINK_MAX, MAX_FILE, NAME_MAX, ROOT_INO, RO_COMPAT_KNOWN, STATFS_MAGIC,
};
use crate::volume::{MountOptions, Notes, Volume};
use crate::{bindings, dax};

static OPERATIONS: Table<bindings::super_operations> = SuperTable::<RdaxSuper>::table();

/// Why a device cannot be mounted, and what would help.
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
    let works = Works {
        look_for_pins: dax::pins::look,
        end_stores: dax::end_stores_work,
    };
    let read_only = fc.is_read_only();
    KBox::pin_init(
        SbInfo::new(sb, volume, options, read_only, works),
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
        // ACLs, and the umask applied with them. A write to a file without attributes that it would
        // remove skips the check for them.
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

/// Logs remarkable facts about a mount.
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
            // Logged, and `errors=` followed: orphans that cannot be freed are no reason to refuse.
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

/// Frees the orphans of the previous mount, before the first change after a mount.
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

/// An emergency: the mount becomes read-only at once, although it is in use. Errors are ignored.
pub fn make_read_only(info: &SbInfo) {
    if info.check_alive().is_err() {
        return;
    }
    info.read_only.ask(true);
    let _ = dax::pins::release(info);
    if let Err(error) = dax::end_stores(info) {
        pr_err!("{}: mapped stores are lost: {error:?}\n", info.name());
    }
}

/// A read-only mount is to become writable.
pub fn make_writable(fc: &Context, info: &SbInfo) -> Result {
    let name = info.name();
    // The VFS thaws a read-only mount without asking.
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
        // Metadata is durable already; mapped stores are not.
        dax::sync_all(sb.info())
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
            dax::shut_down(info, "device has changed");
        }
    }

    unsafe fn put(sb: &SuperBlock) {
        // Before anything is taken down: notifications of the device use all of it.
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
