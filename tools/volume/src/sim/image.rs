// SPDX-License-Identifier: GPL-2.0

//! The content of a device as sparse pages that clones share.

use std::collections::HashMap;
use std::sync::Arc;

/// Bytes of a page.
const PAGE: u64 = 4096;

/// The content of a device; what was never written is zero. A clone costs little.
#[derive(Clone, Default)]
pub struct Image {
    pages: HashMap<u64, Arc<[u8; PAGE as usize]>>,
}

/// Splits `at..at + len` at the borders of pages: page, offset in it, range of the buffer.
fn pieces(at: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let byte = at + done as u64;
        let offset = (byte % PAGE) as usize;
        let n = (PAGE as usize - offset).min(len - done);
        let piece = (byte / PAGE, offset, done..done + n);
        done += n;
        Some(piece)
    })
}

impl Image {
    /// Copies the content at `at` into `buf`.
    pub fn read(&self, at: u64, buf: &mut [u8]) {
        for (page, offset, range) in pieces(at, buf.len()) {
            let part = &mut buf[range];
            match self.pages.get(&page) {
                Some(bytes) => part.copy_from_slice(&bytes[offset..offset + part.len()]),
                None => part.fill(0),
            }
        }
    }

    /// Replaces the content at `at`.
    pub fn write(&mut self, at: u64, bytes: &[u8]) {
        for (page, offset, range) in pieces(at, bytes.len()) {
            let part = &bytes[range];
            let page = self
                .pages
                .entry(page)
                .or_insert_with(|| Arc::new([0; PAGE as usize]));
            Arc::make_mut(page)[offset..offset + part.len()].copy_from_slice(part);
        }
    }
}
