// SPDX-License-Identifier: GPL-2.0

//! A device over an unchanged image: a page is copied when it is first stored to. It counts
//! accesses, so that endless loops are stopped, and can be cut off at any store.

use std::cell::{Cell, RefCell};
use std::panic::panic_any;

use rdax_volume::volume::pmem::{Pmem, LINE};
use rdax_volume::volume::Result;

/// Bytes kept together.
pub const PAGE: usize = 4096;

type Page = Box<[u8; PAGE]>;

/// Why a [`Cow`] has stopped its user, by a panic with this in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// More was read and stored than any use of so small a device needs.
    Endless,
    /// The store that [`Cow::cut_after`] named.
    Cut,
}

/// A copy-on-write view of an image, for one thread.
pub struct Cow<'a> {
    base: &'a [u8],
    pages: RefCell<Vec<Option<Page>>>,
    /// Lines that may still be read and stored.
    left: Cell<u64>,
    stores: Cell<u64>,
    cut: Cell<u64>,
}

impl<'a> Cow<'a> {
    /// A view in which nothing is changed. `base` is a whole number of pages.
    pub fn new(base: &'a [u8]) -> Self {
        assert_eq!(base.len() % PAGE, 0);
        Cow {
            base,
            pages: RefCell::new(vec![None; base.len() / PAGE]),
            left: Cell::new(u64::MAX),
            stores: Cell::new(0),
            cut: Cell::new(u64::MAX),
        }
    }

    /// Another view with the same content, which may use `lines` lines.
    pub fn copy(&self, lines: u64) -> Cow<'a> {
        Cow {
            base: self.base,
            pages: self.pages.clone(),
            left: Cell::new(lines),
            stores: Cell::new(0),
            cut: Cell::new(u64::MAX),
        }
    }

    /// Stops the thread at the `stores`-th store from now on: it and all after it do not happen.
    pub fn cut_after(&self, stores: u64) {
        self.cut.set(self.stores.get() + stores);
    }

    /// Stores so far.
    pub fn stores(&self) -> u64 {
        self.stores.get()
    }

    /// Calls `each` with every page that is not as in the image: its byte address and its content.
    pub fn changed(&self, mut each: impl FnMut(u64, &[u8; PAGE])) {
        for (at, page) in (0..).step_by(PAGE).zip(self.pages.borrow().iter()) {
            if let Some(page) = page {
                each(at, page);
            }
        }
    }

    /// Counts an access, and ends what goes outside or on for ever.
    fn account(&self, at: u64, len: u64) {
        let end = at.checked_add(len);
        assert!(
            end.is_some_and(|end| end <= self.base.len() as u64),
            "access outside the device: {len} bytes at {at:#x}"
        );
        match self.left.get().checked_sub(1 + len / LINE) {
            Some(left) => self.left.set(left),
            None => panic_any(Stop::Endless),
        }
    }

    /// Calls `part` with each page of `at..at + len`: its number, the first byte in it, and the
    /// range of bytes of the request.
    fn split(at: u64, len: usize, mut part: impl FnMut(usize, usize, std::ops::Range<usize>)) {
        let (mut at, mut done) = (at as usize, 0);
        while done < len {
            let count = (PAGE - at % PAGE).min(len - done);
            part(at / PAGE, at % PAGE, done..done + count);
            at += count;
            done += count;
        }
    }
}

impl Pmem for Cow<'_> {
    fn len(&self) -> u64 {
        self.base.len() as u64
    }

    fn read(&self, at: u64, buf: &mut [u8]) -> Result<()> {
        self.account(at, buf.len() as u64);
        let pages = self.pages.borrow();
        Self::split(at, buf.len(), |page, first, range| {
            let from = match &pages[page] {
                Some(bytes) => &bytes[first..],
                None => &self.base[page * PAGE + first..],
            };
            let len = range.len();
            buf[range].copy_from_slice(&from[..len]);
        });
        Ok(())
    }

    fn store(&self, at: u64, bytes: &[u8]) -> Result<()> {
        self.account(at, bytes.len() as u64);
        self.stores.set(self.stores.get() + 1);
        if self.stores.get() > self.cut.get() {
            panic_any(Stop::Cut);
        }
        let mut pages = self.pages.borrow_mut();
        Self::split(at, bytes.len(), |page, first, range| {
            let to = pages[page].get_or_insert_with(|| {
                let mut copy = Box::new([0; PAGE]);
                copy.copy_from_slice(&self.base[page * PAGE..][..PAGE]);
                copy
            });
            to[first..first + range.len()].copy_from_slice(&bytes[range]);
        });
        Ok(())
    }

    fn store_nt(&self, at: u64, bytes: &[u8]) -> Result<()> {
        self.store(at, bytes)
    }

    fn zero_nt(&self, at: u64, len: u64) -> Result<()> {
        const ZERO: [u8; PAGE] = [0; PAGE];
        let mut done = 0;
        while done < len {
            let n = (len - done).min(PAGE as u64);
            self.store(at + done, &ZERO[..n as usize])?;
            done += n;
        }
        Ok(())
    }

    fn write_back(&self, _at: u64, _len: u64) {}

    fn fence(&self) -> Result<()> {
        Ok(())
    }
}
