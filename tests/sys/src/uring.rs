// SPDX-License-Identifier: GPL-2.0

//! io_uring, as far as one read at a time needs it.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering::Release};

use rustix::io_uring::{
    addr_or_splice_off_in_union, io_uring_cqe, io_uring_enter, io_uring_params, io_uring_ptr,
    io_uring_register, io_uring_setup, io_uring_sqe, len_union, off_or_addr2_union,
    IoringEnterFlags, IoringOp, IoringRegisterOp, IORING_OFF_SQES, IORING_OFF_SQ_RING,
};

use crate::{of, Map, Result, PAGE};

/// A ring with room for one request.
pub struct Ring {
    fd: OwnedFd,
    /// Both queues.
    queues: Map,
    requests: Map,
    params: io_uring_params,
}

impl Ring {
    /// Sets a ring up.
    pub fn new() -> Result<Ring> {
        let mut params = io_uring_params::default();
        // SAFETY: the parameters ask for nothing special.
        let fd = unsafe { io_uring_setup(1, &mut params) }.map_err(of("io_uring_setup"))?;
        let completions = params.cq_entries as usize * size_of::<io_uring_cqe>();
        let len = (params.sq_off.array as usize + size_of::<u32>())
            .max(params.cq_off.cqes as usize + completions);
        Ok(Ring {
            queues: Map::shared_at(&fd, IORING_OFF_SQ_RING, len)?,
            requests: Map::shared_at(&fd, IORING_OFF_SQES, size_of::<io_uring_sqe>())?,
            fd,
            params,
        })
    }

    fn word(&self, at: u32) -> &AtomicU32 {
        // SAFETY: a word of the queues, which are mapped as long as the ring lives.
        unsafe { AtomicU32::from_ptr(self.queues.at(at as usize, 4).cast()) }
    }

    fn enter(&self, submit: u32, wait: u32) -> Result<u32> {
        // SAFETY: requests point to mappings, to which nothing in Rust refers.
        unsafe { io_uring_enter(&self.fd, submit, wait, IoringEnterFlags::GETEVENTS) }
            .map_err(of("io_uring_enter"))
    }

    /// Begins to read the page at `offset` of `file` to page `at` of `map`, which is to stay
    /// mapped until the end.
    pub fn begin_read(&self, file: &File, offset: u64, map: &Map, at: usize) -> Result<()> {
        let mut request = io_uring_sqe::default();
        let addr = io_uring_ptr::new(map.at(at, PAGE).cast());
        request.opcode = IoringOp::Read;
        request.fd = file.as_raw_fd();
        request.off_or_addr2 = off_or_addr2_union { off: offset };
        request.addr_or_splice_off_in = addr_or_splice_off_in_union { addr };
        request.len = len_union { len: PAGE as u32 };
        let to = self.requests.at(0, size_of::<io_uring_sqe>());
        // SAFETY: room for one request.
        unsafe { to.cast::<io_uring_sqe>().write_volatile(request) };
        self.word(self.params.sq_off.array).store(0, Release);
        self.word(self.params.sq_off.tail).fetch_add(1, Release);
        let submitted = self.enter(1, 0)?;
        assert_eq!(submitted, 1, "io_uring_enter");
        Ok(())
    }

    /// Waits for the end of what was begun; returns its result.
    pub fn wait(&self) -> Result<i32> {
        self.enter(0, 1)?;
        let head = self.word(self.params.cq_off.head).fetch_add(1, Release);
        let nth = (head % self.params.cq_entries) as usize;
        let at = self.params.cq_off.cqes as usize + nth * size_of::<io_uring_cqe>();
        let done = self.queues.at(at, size_of::<io_uring_cqe>());
        // SAFETY: the kernel has written it.
        Ok(unsafe { done.cast::<io_uring_cqe>().read_volatile() }.res)
    }

    /// Registers page `at` of `map` as a buffer that stays pinned.
    pub fn register(&self, map: &Map, at: usize) -> Result<()> {
        let (buffer, what) = (map.vector(at, PAGE), IoringRegisterOp::RegisterBuffers);
        // SAFETY: the argument is one vector, of mapped memory.
        unsafe { io_uring_register(&self.fd, what, (&raw const buffer).cast(), 1) }
            .map_err(of("io_uring_register"))?;
        Ok(())
    }
}
