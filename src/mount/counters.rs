// SPDX-License-Identifier: GPL-2.0

//! Counters of a mount, readable by anyone in `/sys/fs/rdax/<device>/`, one number per file.

use core::ptr::{null_mut, NonNull};

use kernel::alloc::{flags::GFP_KERNEL, KBox};
use kernel::error::code::*;
use kernel::error::to_result;
use kernel::ffi::c_char;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};

use super::super_block::SbInfo;
use super::table::Table;
use crate::bindings;
use crate::volume::format::BLOCK;
use crate::volume::pmem::LINE;

/// One counter, on a cache line of its own.
#[repr(align(64))]
pub struct Counter(Atomic<u64>);

impl Counter {
    const fn new() -> Self {
        Counter(Atomic::new(0))
    }

    /// Adds `n`.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.add(n, Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Declares the counters and the files that show them, from one list.
macro_rules! counters {
    (
        counted { $($(#[$doc:meta])* $name:ident,)* }
        shown { $($shown:ident = $get:expr,)* }
    ) => {
        /// What happened since mount.
        pub struct Counters {
            $($(#[$doc])* pub $name: Counter,)*
        }

        impl Counters {
            /// All at zero.
            pub const fn new() -> Self {
                Counters { $($name: Counter::new(),)* }
            }
        }

        /// The files.
        static FILES: Files<{ [$(stringify!($name),)* $(stringify!($shown),)*].len() }> = Files([
            $(File::new(concat!(stringify!($name), "\0"), |sb| sb.counters.$name.get()),)*
            $(File::new(concat!(stringify!($shown), "\0"), $get),)*
        ]);
    };
}

counters! {
    counted {
        /// Faults that read.
        read_faults,
        /// Faults that stored, where nothing was mapped.
        write_faults,
        /// Stores to pages that were mapped read-only.
        mkwrite_faults,
        /// Faults that mapped 2 MiB in one piece.
        huge_faults,
        /// Faults that mapped the zero page into a hole.
        hole_faults,
        /// Pages that became dirty.
        pages_tagged,
        /// Pages that a sync write-protected.
        pages_write_protected,
        /// Pages that a sync wrote back.
        pages_written_back,
        /// The pages among them that stayed dirty and writable, because they are hot.
        hot_pages,
        /// Pages of the page cache that were written back.
        cached_pages_written_back,
        /// Chunks of 2 MiB of mapped files that were freed because memory was short.
        chunks_reclaimed,
        /// Files whose cached metadata was freed because memory was short.
        inodes_forgotten,
        /// Calls of fsync, fdatasync and msync.
        sync_calls,
    }
    shown {
        // Every line of every page that a sync wrote back.
        lines_flushed = |sb| sb.counters.pages_written_back.get() * (BLOCK / LINE),
        journal_lines = |sb| sb.volume.pmem().journal_lines(),
        fences = |sb| sb.volume.pmem().fences(),
    }
}

/// A file that shows a number.
#[repr(C)]
struct File {
    /// First, so that a pointer to it is a pointer to the whole.
    attribute: bindings::attribute,
    get: fn(&SbInfo) -> u64,
}

impl File {
    /// `name` ends with a zero.
    // Kernels with lockdep have more fields.
    #[allow(clippy::needless_update)]
    const fn new(name: &'static str, get: fn(&SbInfo) -> u64) -> Self {
        File {
            attribute: bindings::attribute {
                name: name.as_ptr().cast(),
                mode: 0o444,
                ..pin_init::zeroed()
            },
            get,
        }
    }
}

/// All files of a mount.
struct Files<const N: usize>([File; N]);

// SAFETY: names and functions are constant.
unsafe impl<const N: usize> Sync for Files<N> {}

/// `/sys/fs/rdax`, while the module is loaded.
pub struct Root(NonNull<bindings::kobject>);

// SAFETY: kobjects are reference counted and used from any task.
unsafe impl Send for Root {}
// SAFETY: as above.
unsafe impl Sync for Root {}

/// The kobject of [`Root`], for mounts.
static ROOT: Atomic<*mut bindings::kobject> = Atomic::new(null_mut());

impl Root {
    /// Makes the directory.
    pub fn new() -> Result<Self> {
        // SAFETY: /sys/fs is there as long as the kernel; the name is static.
        let kobj =
            unsafe { bindings::kobject_create_and_add(c"rdax".as_char_ptr(), bindings::fs_kobj) };
        let kobj = NonNull::new(kobj).ok_or(ENOMEM)?;
        ROOT.store(kobj.as_ptr(), Relaxed);
        Ok(Root(kobj))
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        // SAFETY: the reference is ours; no mount is left to use it.
        unsafe { bindings::kobject_put(self.0.as_ptr()) };
    }
}

/// The directory of a mount, and the counters it shows.
#[repr(C)]
struct Directory {
    /// First, so that a pointer to it is a pointer to the whole.
    kobj: bindings::kobject,
    sb: *const SbInfo,
}

/// Owns the files of a mount. Once dropped, nobody reads the counters through them.
pub struct CounterFiles(NonNull<Directory>);

static OPERATIONS: Table<bindings::sysfs_ops> = Table::new(bindings::sysfs_ops {
    show: Some(show),
    ..pin_init::zeroed()
});

static TYPE: Table<bindings::kobj_type> = Table::new(bindings::kobj_type {
    release: Some(release),
    sysfs_ops: OPERATIONS.as_ptr(),
    ..pin_init::zeroed()
});

impl CounterFiles {
    /// Makes the files of `sb`, which stays where it is until the result is dropped.
    pub fn new(sb: &SbInfo) -> Result<Self> {
        let directory = Directory {
            kobj: pin_init::zeroed(),
            sb,
        };
        let directory = KBox::into_raw(KBox::new(directory, GFP_KERNEL)?);
        // From here on the kobject owns the memory; dropping `files` releases it.
        // SAFETY: a box is not null.
        let files = CounterFiles(unsafe { NonNull::new_unchecked(directory) });
        // SAFETY: the kobject is zeroed, and stays where it is; the type is static. The name is a
        // string that is copied.
        to_result(unsafe {
            bindings::kobject_init_and_add(
                files.kobj(),
                TYPE.as_ptr(),
                ROOT.load(Relaxed),
                c"%s".as_char_ptr(),
                sb.name().as_char_ptr(),
            )
        })?;
        for file in &FILES.0 {
            // SAFETY: the kobject was added; the attribute is static.
            to_result(unsafe {
                bindings::sysfs_create_file_ns(files.kobj(), &file.attribute, null_mut())
            })?;
        }
        Ok(files)
    }

    fn kobj(&self) -> *mut bindings::kobject {
        self.0.as_ptr().cast()
    }
}

impl Drop for CounterFiles {
    fn drop(&mut self) {
        // SAFETY: the kobject is initialised, and the reference ours. The first waits for readers
        // of the files, the second frees the memory when the last reference is gone.
        unsafe {
            bindings::kobject_del(self.kobj());
            bindings::kobject_put(self.kobj());
        }
    }
}

/// # Safety
///
/// `->show`, called by sysfs with a file of a [`Directory`].
unsafe extern "C" fn show(
    kobj: *mut bindings::kobject,
    attribute: *mut bindings::attribute,
    page: *mut c_char,
) -> isize {
    // SAFETY: the attribute is that of a `File`, the kobject that of a `Directory`. Deleting it
    // waits for us, and comes before the counters go.
    let value = unsafe {
        let file = &*attribute.cast::<File>();
        (file.get)(&*(*kobj.cast::<Directory>()).sb)
    };
    // SAFETY: `page` is a page, and the format takes one number of 64 bits.
    unsafe { bindings::sysfs_emit(page, c"%llu\n".as_char_ptr(), value) as isize }
}

/// # Safety
///
/// `->release`, called when the last reference to the kobject of a [`Directory`] is gone.
unsafe extern "C" fn release(kobj: *mut bindings::kobject) {
    // SAFETY: `CounterFiles::new` made the box.
    drop(unsafe { KBox::from_raw(kobj.cast::<Directory>()) });
}
