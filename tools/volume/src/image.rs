// SPDX-License-Identifier: GPL-2.0

//! An image file or a block device as a volume's device, for the tools.
//!
//! Plain reads and writes; a fence is `fdatasync`, so that it provides the durability the volume
//! expects. The tools fence seldom. The page cache stands in for the CPU cache: nothing is durable
//! before the fence, and the next program that opens the device reads through the same cache.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::volume::pmem::Pmem;
use crate::volume::{Error, Result};

/// An open image file or block device.
pub struct Image {
    file: File,
    len: u64,
    read: AtomicU64,
    written: AtomicU64,
    error: Mutex<Option<io::Error>>,
}

impl Image {
    /// Takes an open file. Its end says how large the device is: a block device has one too.
    pub fn new(mut file: File) -> io::Result<Self> {
        let len = file.seek(SeekFrom::End(0))?;
        Ok(Image {
            file,
            len,
            read: AtomicU64::new(0),
            written: AtomicU64::new(0),
            error: Mutex::new(None),
        })
    }

    /// Bytes read so far, for a progress display.
    pub fn bytes_read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Bytes written so far.
    pub fn bytes_written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// The system's own error behind the last [`Error::Media`], once.
    pub fn take_error(&self) -> Option<io::Error> {
        self.error
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    fn media(&self, at: u64, result: io::Result<()>) -> Result<()> {
        result.map_err(|e| {
            *self.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(e);
            Error::Media { at }
        })
    }

    fn within(&self, at: u64, len: u64) -> Result<()> {
        match at.checked_add(len) {
            Some(end) if end <= self.len => Ok(()),
            _ => Err(Error::Invalid),
        }
    }
}

impl Pmem for Image {
    fn len(&self) -> u64 {
        self.len
    }

    fn read(&self, at: u64, buf: &mut [u8]) -> Result<()> {
        self.within(at, buf.len() as u64)?;
        self.read.fetch_add(buf.len() as u64, Ordering::Relaxed);
        self.media(at, self.file.read_exact_at(buf, at))
    }

    fn store(&self, at: u64, bytes: &[u8]) -> Result<()> {
        self.within(at, bytes.len() as u64)?;
        self.written
            .fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.media(at, self.file.write_all_at(bytes, at))
    }

    fn store_nt(&self, at: u64, bytes: &[u8]) -> Result<()> {
        self.store(at, bytes)
    }

    fn zero_nt(&self, at: u64, len: u64) -> Result<()> {
        const PIECE: u64 = 1 << 20;
        let zeros = vec![0; len.min(PIECE) as usize];
        self.within(at, len)?;
        let mut done = 0;
        while done < len {
            let piece = (len - done).min(PIECE);
            self.store(at + done, &zeros[..piece as usize])?;
            done += piece;
        }
        Ok(())
    }

    fn write_back(&self, _at: u64, _len: u64) {}

    fn fence(&self) -> Result<()> {
        self.media(0, self.file.sync_data())
    }
}
