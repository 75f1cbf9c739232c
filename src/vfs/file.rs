// SPDX-License-Identifier: GPL-2.0

//! Regular files: seeking, mapping, syncing. `io` reads and writes them, `allocate` allocates and
//! frees space.

use kernel::error::code::*;
use kernel::error::to_result;
use kernel::iov::{IovIterDest, IovIterSource};
use kernel::prelude::*;
use kernel::uaccess::UserPtr;

use super::attr::Attributes;
use super::fiemap::Fiemap;
use super::table::fiemap::FiemapTable;
use super::table::file::{FileOperations, FileTable, Kiocb, RegularTable};
use super::table::inode::{AttrTable, InodeTable};
use super::{allocate, cached, dir, io, ioctl, vm};
use crate::mount::inode::InodeInfo;
use crate::mount::lock::SharedInodeLock;
use crate::mount::object::File;
use crate::{bindings, dax};

static INODE: InodeTable = InodeTable::new(bindings::inode_operations {
    fiemap: Some(FiemapTable::<Fiemap>::fiemap),
    ..AttrTable::<Attributes>::OPERATIONS
});

static FILE: FileTable = FileTable::new(bindings::file_operations {
    // Every allocation is durable before its page is mapped writable, as MAP_SYNC promises.
    fop_flags: bindings::RDAX_FOP_MMAP_SYNC | bindings::RDAX_FOP_BUFFER_WASYNC,
    get_unmapped_area: Some(bindings::thp_get_unmapped_area),
    splice_read: Some(bindings::copy_splice_read),
    splice_write: Some(bindings::iter_file_splice_write),
    setlease: Some(bindings::generic_setlease),
    ..RegularTable::<Regular>::OPERATIONS
});

/// Makes `info`, which others do not see yet, a regular file.
pub fn set_operations(info: &InodeInfo) {
    INODE.install(info);
    if !info.is_dax() {
        return cached::set_operations(info);
    }
    FILE.install(info);
    // SAFETY: nobody else uses the inode yet; the table is static.
    unsafe { (*info.mapping()).a_ops = vm::address_space_operations() };
}

/// The operations of a regular file that is DAX. Some serve all regular files.
pub struct Regular;

impl FileOperations for Regular {
    fn open(info: &InodeInfo) -> Result {
        info.sb().check_alive()
    }

    fn llseek(file: &File, offset: i64, whence: i32) -> Result<i64> {
        let info = file.inode();
        let sb = info.sb();
        let data = match u32::try_from(whence) {
            Ok(bindings::SEEK_DATA) => true,
            Ok(bindings::SEEK_HOLE) => false,
            _ => {
                // SAFETY: the file is open.
                return dir::result(unsafe {
                    bindings::generic_file_llseek(file.as_raw(), offset, whence)
                });
            }
        };
        sb.check_alive()?;
        let offset = u64::try_from(offset).map_err(|_| ENXIO)?;
        let found = {
            let _blocks_stay = SharedInodeLock::new(info);
            if !info.is_dax() {
                cached::flush_size_to(info, info.i_size())?;
            }
            // Faults fill holes, with only this lock of the file held.
            let mut meta = info.meta();
            let volume = &sb.volume;
            sb.check(if data {
                volume.seek_data(&mut meta, offset)
            } else {
                volume.seek_hole(&mut meta, offset)
            })?
        };
        let pos = i64::try_from(found.ok_or(ENXIO)?)?;
        // SAFETY: the file is open.
        dir::result(unsafe { bindings::vfs_setpos(file.as_raw(), pos, i64::MAX) })
    }

    fn read(iocb: &mut Kiocb, to: &mut IovIterDest<'_>) -> Result<usize> {
        io::read(iocb, to)
    }

    fn write(iocb: &mut Kiocb, from: &mut IovIterSource<'_>) -> Result<usize> {
        io::write(iocb, from)
    }

    fn mmap(file: &File, desc: &mut bindings::vm_area_desc) -> Result {
        let info = file.inode();
        info.sb().check_alive()?;
        let dax_device = info.sb().volume.pmem().dax_device();
        // SAFETY: the file is open, and its device held as long as it is mounted.
        if !unsafe { bindings::rdax_mapping_supported(desc, info.as_vfs(), dax_device) } {
            return Err(EOPNOTSUPP);
        }
        file.accessed();
        // SAFETY: the mapping is about to be made.
        desc.vm_ops = vm::vm_operations(unsafe { bindings::rdax_desc_is_locked(desc) });
        Ok(())
    }

    fn fsync(file: &File, start: u64, end: u64, datasync: bool) -> Result {
        let info = file.inode();
        info.sb().check_alive()?;
        let mut result = dax::sync_range(info, start, end);
        // Size and blocks are durable since the call that changed them; timestamps may not be.
        if result.is_ok() && !datasync {
            result = info.write_times();
        }
        // An error in another task's sync is reported once to each open file.
        // SAFETY: the file is open.
        let missed = to_result(unsafe { bindings::file_check_and_advance_wb_err(file.as_raw()) });
        result.and(missed)
    }

    fn fallocate(file: &File, mode: i32, offset: u64, len: u64) -> Result {
        allocate::fallocate(file, mode, offset, len)
    }

    fn ioctl(file: &File, cmd: u32, arg: UserPtr) -> Result<isize> {
        ioctl::ioctl(file, cmd, arg)
    }
}
