// SPDX-License-Identifier: GPL-2.0

//! io_uring, as far as one read at a time needs it.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering::Release};

use anyhow::{ensure, Result};

use crate::sys::{check_len, Map, PAGE};

const IORING_OP_READ: u8 = 22;
const IORING_OFF_SQES: i64 = 0x1000_0000;
const IORING_ENTER_GETEVENTS: u32 = 1;
const IORING_REGISTER_BUFFERS: u32 = 0;

/// Where things are in `struct io_uring_params`, in words.
const SQ_TAIL: usize = 11;
const SQ_ARRAY: usize = 16;
const CQ_HEAD: usize = 20;
const CQ_ENTRIES: usize = 23;
const CQ_CQES: usize = 25;

/// `struct io_uring_sqe`.
#[repr(C)]
#[derive(Default)]
struct Request {
    opcode: u8,
    flags: u8,
    priority: u16,
    fd: i32,
    offset: u64,
    address: u64,
    len: u32,
    rw_flags: u32,
    user_data: u64,
    rest: [u64; 3],
}

/// `struct io_uring_cqe`.
#[repr(C)]
struct Completion {
    user_data: u64,
    result: i32,
    flags: u32,
}

/// A ring with room for one request.
pub struct Ring {
    fd: OwnedFd,
    /// Both queues.
    queues: Map,
    requests: Map,
    params: [u32; 30],
}

impl Ring {
    /// Sets a ring up.
    pub fn new() -> Result<Self> {
        let mut params = [0u32; 30];
        // SAFETY: the parameters are 30 words, which the call fills.
        let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, params.as_mut_ptr()) };
        let fd = check_len(fd as isize)? as i32;
        // SAFETY: it is new and ours.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let file = File::from(fd.try_clone()?);
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let len = (params[SQ_ARRAY] as usize + 4)
            .max(params[CQ_CQES] as usize + params[CQ_ENTRIES] as usize * size_of::<Completion>());
        let queues = Map::at_offset(&file, len, protection, libc::MAP_SHARED, 0)?;
        let requests = Map::at_offset(
            &file,
            size_of::<Request>(),
            protection,
            libc::MAP_SHARED,
            IORING_OFF_SQES,
        )?;
        Ok(Ring {
            fd,
            queues,
            requests,
            params,
        })
    }

    fn word(&self, at: usize) -> &AtomicU32 {
        // SAFETY: a word of the queues, which are mapped as long as the ring lives.
        unsafe { AtomicU32::from_ptr(self.queues.at(self.params[at] as usize).cast()) }
    }

    fn enter(&self, submit: u32, wait: u32) -> Result<()> {
        let no_signals = std::ptr::null::<u8>();
        let fd = self.fd.as_raw_fd();
        let flags = IORING_ENTER_GETEVENTS;
        // SAFETY: requests point to memory that stays mapped until they are completed.
        let n = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                fd,
                submit,
                wait,
                flags,
                no_signals,
                0,
            )
        };
        ensure!(check_len(n as isize)? == submit as usize, "io_uring_enter");
        Ok(())
    }

    /// Begins to read the page at `offset` of `file` to page `at` of `map`.
    pub fn begin_read(&self, file: &File, offset: u64, map: &Map, at: usize) -> Result<()> {
        let request = Request {
            opcode: IORING_OP_READ,
            fd: file.as_raw_fd(),
            offset,
            address: map.at(at) as u64,
            len: PAGE as u32,
            ..Request::default()
        };
        // SAFETY: room for one request.
        unsafe {
            self.requests
                .at(0)
                .cast::<Request>()
                .write_volatile(request)
        };
        self.word(SQ_ARRAY).store(0, Release);
        self.word(SQ_TAIL).fetch_add(1, Release);
        self.enter(1, 0)
    }

    /// Waits for the end of what was begun; returns its result.
    pub fn wait(&self) -> Result<i32> {
        self.enter(0, 1)?;
        let head = self.word(CQ_HEAD).fetch_add(1, Release) % self.params[CQ_ENTRIES];
        let at = self.params[CQ_CQES] as usize + head as usize * size_of::<Completion>();
        // SAFETY: the kernel has written it.
        Ok(unsafe { self.queues.at(at).cast::<Completion>().read_volatile() }.result)
    }

    /// Registers page `at` of `map` as a buffer that stays pinned.
    pub fn register(&self, map: &Map, at: usize) -> io::Result<()> {
        let buffer = libc::iovec {
            iov_base: map.at(at).cast(),
            iov_len: PAGE,
        };
        let (fd, what) = (self.fd.as_raw_fd(), IORING_REGISTER_BUFFERS);
        // SAFETY: the buffer is mapped.
        check_len(unsafe {
            libc::syscall(libc::SYS_io_uring_register, fd, what, &raw const buffer, 1)
        } as isize)
        .map(|_| ())
    }
}
