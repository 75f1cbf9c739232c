// SPDX-License-Identifier: GPL-2.0

//! A crash image as a volume's device: a base that many images share, and the pages in which this
//! one differs from it. Making one and throwing it away costs what it touches.

use std::cell::RefCell;

use pmem_crash_model::media::{Content, LINE};
use rdax_volume::volume::pmem::Pmem;
use rdax_volume::volume::{Error, Result};

/// Bytes that are copied together.
const PAGE: usize = 4096;
/// No page of its own.
const SHARED: u32 = u32::MAX;

/// Memory for the images of one base, used again and again.
pub struct Scratch {
    /// For each page of the device: which of `own` has its content, or [`SHARED`].
    page: Vec<u32>,
    /// Copies; the first `used` are in use.
    own: Vec<Box<[u8; PAGE]>>,
    /// Which page each copy is of.
    of: Vec<usize>,
    /// For each line a bit: it was read. Only while somebody wants to know.
    read: Option<Vec<u64>>,
}

impl Scratch {
    /// For images of `len` bytes.
    pub fn new(len: usize) -> Self {
        Scratch {
            page: vec![SHARED; len.div_ceil(PAGE)],
            own: Vec::new(),
            of: Vec::new(),
            read: None,
        }
    }

    fn reset(&mut self) {
        for page in self.of.drain(..) {
            self.page[page] = SHARED;
        }
    }

    /// The copy of `page`, made now if there is none.
    fn own(&mut self, base: &[u8], page: usize) -> &mut [u8; PAGE] {
        if self.page[page] == SHARED {
            let slot = self.of.len();
            if slot == self.own.len() {
                self.own.push(Box::new([0; PAGE]));
            }
            let there = &base[page * PAGE..base.len().min((page + 1) * PAGE)];
            self.own[slot][..there.len()].copy_from_slice(there);
            self.of.push(page);
            self.page[page] = slot as u32;
        }
        &mut self.own[self.page[page] as usize]
    }
}

/// An image.
pub struct Image<'a> {
    base: &'a [u8],
    scratch: &'a RefCell<Scratch>,
}

/// Splits `at..at + len` at the borders of pages: page, offset in it, range of the buffer.
fn pieces(at: u64, len: usize) -> impl Iterator<Item = (usize, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let byte = at as usize + done;
        let n = (PAGE - byte % PAGE).min(len - done);
        done += n;
        Some((byte / PAGE, byte % PAGE, done - n..done))
    })
}

impl<'a> Image<'a> {
    /// The image that differs from `base` in `lines`. The last one made with `scratch` is gone.
    pub fn new<'l>(
        base: &'a [u8],
        scratch: &'a RefCell<Scratch>,
        lines: impl IntoIterator<Item = (u64, &'l Content)>,
    ) -> Self {
        let mut pages = scratch.borrow_mut();
        pages.reset();
        for (at, content) in lines {
            let (page, offset) = (at as usize / PAGE, at as usize % PAGE);
            pages.own(base, page)[offset..offset + content.len()].copy_from_slice(content);
        }
        drop(pages);
        Image { base, scratch }
    }

    /// Notes from now on which lines are read.
    pub fn watch(&self) {
        let words = self.base.len().div_ceil(LINE as usize * 64);
        self.scratch.borrow_mut().read = Some(vec![0; words]);
    }

    /// Ends [`Image::watch`]. A function that says whether the line at a byte was read.
    pub fn watched(&self) -> impl Fn(u64) -> bool {
        let read = self.scratch.borrow_mut().read.take().unwrap_or_default();
        move |at| {
            let line = at / LINE;
            let word = read.get(line as usize / 64);
            word.is_some_and(|word| (word >> (line % 64)) & 1 != 0)
        }
    }

    fn within(&self, at: u64, len: usize) -> Result<()> {
        match at.checked_add(len as u64) {
            Some(end) if end <= self.base.len() as u64 => Ok(()),
            _ => Err(Error::Invalid),
        }
    }
}

impl Pmem for Image<'_> {
    fn len(&self) -> u64 {
        self.base.len() as u64
    }

    fn read(&self, at: u64, buf: &mut [u8]) -> Result<()> {
        self.within(at, buf.len())?;
        let mut scratch = self.scratch.borrow_mut();
        if let Some(read) = &mut scratch.read {
            for line in at / LINE..(at + buf.len() as u64).div_ceil(LINE) {
                read[line as usize / 64] |= 1 << (line % 64);
            }
        }
        for (page, offset, range) in pieces(at, buf.len()) {
            let part = &mut buf[range];
            let from = match scratch.page[page] {
                SHARED => &self.base[page * PAGE + offset..],
                slot => &scratch.own[slot as usize][offset..],
            };
            part.copy_from_slice(&from[..part.len()]);
        }
        Ok(())
    }

    fn store(&self, at: u64, bytes: &[u8]) -> Result<()> {
        self.within(at, bytes.len())?;
        let mut scratch = self.scratch.borrow_mut();
        for (page, offset, range) in pieces(at, bytes.len()) {
            let part = &bytes[range];
            scratch.own(self.base, page)[offset..offset + part.len()].copy_from_slice(part);
        }
        Ok(())
    }

    fn store_nt(&self, at: u64, bytes: &[u8]) -> Result<()> {
        self.store(at, bytes)
    }

    fn zero_nt(&self, at: u64, len: u64) -> Result<()> {
        self.within(at, len as usize)?;
        let mut scratch = self.scratch.borrow_mut();
        for (page, offset, range) in pieces(at, len as usize) {
            scratch.own(self.base, page)[offset..offset + range.len()].fill(0);
        }
        Ok(())
    }

    fn write_back(&self, _at: u64, _len: u64) {}

    fn fence(&self) -> Result<()> {
        Ok(())
    }
}
