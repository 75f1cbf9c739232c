// SPDX-License-Identifier: GPL-2.0

//! The calls: which arguments each takes.

/// What an argument is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arg {
    /// A descriptor.
    Fd,
    /// A directory's descriptor, or AT_FDCWD.
    DirFd,
    /// A path.
    Path,
    /// A name of an extended attribute.
    Xattr,
    /// Memory that is read or written.
    Buffer,
    /// Bytes.
    Len,
    /// A position in a file.
    Offset,
    /// Bits.
    Flags,
    /// A small number: a command, an advice.
    Small,
    /// A mode of a file, its type among it.
    Mode,
    /// An address in a mapping of the user's.
    Mapped,
    /// A user or a group.
    Id,
    /// The request of an ioctl.
    Request,
    /// This number.
    Is(i64),
}

use Arg::*;

/// The numbers of calls, with those that the library lacks.
mod numbers {
    pub use libc::*;
    #[allow(non_upper_case_globals)]
    pub const SYS_cachestat: c_long = 451;
}

/// A call, and whether its success is a fault.
pub struct Call {
    pub name: &'static str,
    pub number: i64,
    pub args: &'static [Arg],
    pub privileged: bool,
}

macro_rules! calls {
    ($($name:ident($($arg:expr),*) $(($must:ident))?;)*) => {
        pub const CALLS: &[Call] = &[$(Call {
            name: stringify!($name),
            number: numbers::$name,
            args: &[$($arg),*],
            privileged: false $(|| stringify!($must).len() == 5)?,
        }),*];
    };
}

// What needs a privilege is marked (fails). No memfd_create: fallocate keeps as much memory for
// such a file as it is asked for, which no limit holds back, and the kernel kills the user for it.
calls! {
    SYS_openat(DirFd, Path, Flags, Mode);
    SYS_openat(DirFd, Path, Is((libc::O_CREAT | libc::O_RDWR) as i64), Mode);
    SYS_openat2(DirFd, Path, Buffer, Len);
    SYS_close(Fd);
    SYS_dup(Fd);
    SYS_mkdirat(DirFd, Path, Mode);
    SYS_mknodat(DirFd, Path, Mode, Small);
    SYS_linkat(DirFd, Path, DirFd, Path, Flags);
    SYS_symlinkat(Path, DirFd, Path);
    SYS_unlinkat(DirFd, Path, Flags);
    SYS_renameat2(DirFd, Path, DirFd, Path, Flags);
    SYS_readlinkat(DirFd, Path, Buffer, Len);
    SYS_truncate(Path, Offset);
    SYS_ftruncate(Fd, Offset);
    SYS_fallocate(Fd, Small, Offset, Offset);
    SYS_fallocate(Fd, Flags, Offset, Len);
    SYS_pread64(Fd, Buffer, Len, Offset);
    SYS_pwrite64(Fd, Buffer, Len, Offset);
    SYS_write(Fd, Buffer, Len);
    SYS_read(Fd, Buffer, Len);
    SYS_preadv2(Fd, Buffer, Small, Offset, Offset, Flags);
    SYS_pwritev2(Fd, Buffer, Small, Offset, Offset, Flags);
    SYS_lseek(Fd, Offset, Small);
    SYS_mmap(Is(0), Len, Small, Flags, Fd, Offset);
    SYS_mmap(Is(0), Len, Is(3), Is(libc::MAP_SHARED as i64), Fd, Is(0));
    SYS_mmap(Is(0), Len, Is(3), Is((libc::MAP_SHARED_VALIDATE | libc::MAP_SYNC) as i64), Fd, Is(0));
    SYS_munmap(Mapped, Len);
    SYS_mprotect(Mapped, Len, Small);
    SYS_mremap(Mapped, Len, Len, Small, Mapped);
    SYS_remap_file_pages(Mapped, Len, Is(0), Small, Flags);
    SYS_msync(Mapped, Len, Small);
    SYS_madvise(Mapped, Len, Small);
    SYS_mincore(Mapped, Len, Buffer);
    SYS_mlock2(Mapped, Len, Small);
    SYS_munlock(Mapped, Len);
    SYS_fadvise64(Fd, Offset, Len, Small);
    SYS_readahead(Fd, Offset, Len);
    SYS_sync_file_range(Fd, Offset, Offset, Small);
    SYS_fsync(Fd);
    SYS_fdatasync(Fd);
    SYS_syncfs(Fd);
    SYS_sendfile(Fd, Fd, Buffer, Len);
    SYS_splice(Fd, Buffer, Fd, Buffer, Len, Small);
    SYS_vmsplice(Fd, Buffer, Small, Small);
    SYS_copy_file_range(Fd, Buffer, Fd, Buffer, Len, Flags);
    SYS_getdents64(Fd, Buffer, Len);
    SYS_statx(DirFd, Path, Flags, Flags, Buffer);
    SYS_newfstatat(DirFd, Path, Buffer, Flags);
    SYS_fstatfs(Fd, Buffer);
    SYS_faccessat2(DirFd, Path, Small, Flags);
    SYS_fchmodat(DirFd, Path, Mode);
    SYS_fchmod(Fd, Mode);
    SYS_fchownat(DirFd, Path, Id, Id, Flags);
    SYS_utimensat(DirFd, Path, Buffer, Flags);
    SYS_setxattr(Path, Xattr, Buffer, Len, Small);
    SYS_fsetxattr(Fd, Xattr, Buffer, Len, Small);
    SYS_lsetxattr(Path, Xattr, Buffer, Len, Small);
    SYS_getxattr(Path, Xattr, Buffer, Len);
    SYS_fgetxattr(Fd, Xattr, Buffer, Len);
    SYS_listxattr(Path, Buffer, Len);
    SYS_flistxattr(Fd, Buffer, Len);
    SYS_removexattr(Path, Xattr);
    SYS_fremovexattr(Fd, Xattr);
    SYS_name_to_handle_at(DirFd, Path, Buffer, Buffer, Flags);
    SYS_open_by_handle_at(Fd, Buffer, Flags) (fails);
    SYS_fcntl(Fd, Small, Buffer);
    SYS_fcntl(Fd, Is(1024), Small);
    SYS_fcntl(Fd, Is(1026), Flags);
    SYS_flock(Fd, Small);
    SYS_inotify_init1(Small);
    SYS_inotify_add_watch(Fd, Path, Flags);
    SYS_fanotify_init(Flags, Flags);
    SYS_fanotify_mark(Fd, Flags, Flags, DirFd, Path);
    SYS_ioctl(Fd, Request, Buffer);
    SYS_ioctl(Fd, Request, Small);
    SYS_quotactl_fd(Fd, Flags, Id, Buffer);
    SYS_mount(Path, Path, Xattr, Flags, Buffer) (fails);
    SYS_umount2(Path, Small) (fails);
    SYS_fsopen(Xattr, Small) (fails);
    SYS_fspick(DirFd, Path, Flags) (fails);
    SYS_fsconfig(Fd, Small, Path, Buffer, Small) (fails);
    SYS_fsmount(Fd, Small, Flags) (fails);
    SYS_move_mount(DirFd, Path, DirFd, Path, Flags) (fails);
    SYS_mount_setattr(DirFd, Path, Flags, Buffer, Len) (fails);
    SYS_chroot(Path) (fails);
    SYS_swapon(Path, Flags) (fails);
    SYS_swapoff(Path) (fails);
    SYS_acct(Path) (fails);
    SYS_userfaultfd(Flags);
    SYS_pipe2(Buffer, Small);
    SYS_chdir(Path);
    SYS_fchdir(Fd);
    SYS_cachestat(Fd, Buffer, Buffer, Small);
    SYS_process_madvise(Fd, Buffer, Small, Small, Flags);
    SYS_io_uring_setup(Small, Buffer);
    SYS_io_setup(Small, Buffer);
    SYS_unshare(Is(libc::CLONE_FS as i64));
}

/// Requests that file systems know, also those of others, and whether they take a privilege.
pub const REQUESTS: &[(u64, bool)] = &[
    // FS_IOC_GETFLAGS, SETFLAGS, GETVERSION, SETVERSION
    (0x8008_6601, false),
    (0x4008_6602, false),
    (0x8008_7601, false),
    (0x4008_7602, false),
    // FS_IOC_FSGETXATTR, FSSETXATTR
    (0x801c_581f, false),
    (0x401c_5820, false),
    // FS_IOC_FIEMAP, FIBMAP, FIGETBSZ, FIONREAD, FIOQSIZE
    (0xc020_660b, false),
    (0x1, true),
    (0x2, false),
    (0x541b, false),
    (0x5460, false),
    // FIFREEZE, FITHAW, FITRIM
    (0xc004_5877, true),
    (0xc004_5878, true),
    (0xc018_5879, true),
    // FICLONE, FICLONERANGE, FIDEDUPERANGE
    (0x4004_9409, false),
    (0x4020_940d, false),
    (0xc018_9436, false),
    // FS_IOC_GETFSLABEL, SETFSLABEL, GETFSUUID, GETFSSYSFSPATH, GETLBMD_CAP
    (0x8100_9431, false),
    (0x4100_9432, true),
    (0x8011_1500, false),
    (0x8081_1501, false),
    (0x8008_1502, false),
    // FS_IOC_SHUTDOWN
    (0x8004_587d, true),
    // FS_IOC_RESVSP64, UNRESVSP64, ZERO_RANGE
    (0x4030_582a, false),
    (0x4030_582b, false),
    (0x4030_5839, false),
    // FS_IOC_ENABLE_VERITY, SET_ENCRYPTION_POLICY
    (0x4080_6685, false),
    (0x400c_6613, false),
    // EXT4_IOC_GROUP_ADD, RESIZE_FS, MIGRATE, SWAP_BOOT
    (0x4028_6608, true),
    (0x4008_6610, true),
    (0x6609, false),
    (0x6611, true),
    // BLKFLSBUF, BLKROSET
    (0x1261, true),
    (0x125d, true),
];
