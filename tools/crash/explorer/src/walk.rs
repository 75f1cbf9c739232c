// SPDX-License-Identifier: GPL-2.0

//! The replay of a recording, with the moments at which crashes are tried.
//!
//! Between two fences nothing becomes durable for certain, and nothing that might have reached the
//! media earlier is excluded later. So the states that a crash right before a fence may leave
//! include those of a crash at any earlier moment since the fence before, and it is enough to look
//! before each fence, and before each mark, since there the oracle's knowledge changes.

use std::ops::Range;

use anyhow::{bail, ensure, Result};
use pmem_crash_model::media::{Content, Media};
use pmem_crash_model::trace::{Event, Trace};

/// Marks of the guest's program: an operation begins, has succeeded, has failed.
const BEGINS: u64 = 1;
const SUCCEEDED: u64 = 2;
const FAILED: u64 = 3;

/// A recording, and what has to be known of it.
#[derive(Clone)]
pub struct Recorded<'a> {
    pub trace: &'a Trace,
    /// What was in the watched memory first.
    pub base: &'a [u8],
    /// Where the device lies in it.
    pub device: Range<u64>,
    /// Operations that should be in it. Crashes are tried after the first `setup` of them.
    pub operations: usize,
    pub setup: usize,
}

/// A moment at which crashes are tried.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Moments before it.
    pub number: usize,
    /// Fences before it.
    pub fences: usize,
    /// Operations that had returned.
    pub finished: usize,
    /// Another one had begun.
    pub in_flight: bool,
}

/// Lines of the device that a crash may leave in several contents: where they are in the watched
/// memory, and the contents, first the one that is on the media.
pub type Open = Vec<(u64, Vec<Content>)>;

/// Calls `visit` at each moment, with the memory as it is.
///
/// Fails if the recording does not have all the operations, or one of them failed.
pub fn walk(recorded: &Recorded, visit: &mut dyn FnMut(Moment, &Media, &Open)) -> Result<()> {
    let mut media = Media::new(recorded.base.to_vec());
    let mut moment = Moment {
        number: 0,
        fences: 0,
        finished: 0,
        in_flight: false,
    };
    // Something happened since the last moment.
    let mut dirty = true;
    for event in &recorded.trace.events {
        let looks = matches!(event, Event::Fence | Event::Mark { .. });
        if looks && dirty && moment.finished >= recorded.setup {
            let mut open = media.open();
            open.retain(|(at, _)| recorded.device.contains(at));
            visit(moment, &media, &open);
            moment.number += 1;
            dirty = false;
        }
        media.replay(event);
        match *event {
            Event::Store { .. } => dirty = true,
            Event::WriteBack { .. } => {}
            Event::Fence => moment.fences += 1,
            // The beginning of an operation allows more, and excludes nothing.
            Event::Mark { kind, number } => match kind {
                BEGINS => {
                    let next = number as usize == moment.finished;
                    ensure!(next, "operation {number} begins too soon");
                    moment.in_flight = true;
                }
                SUCCEEDED => {
                    let this = number as usize == moment.finished;
                    ensure!(this, "operation {number} ends too soon");
                    moment.finished += 1;
                    moment.in_flight = false;
                    dirty = true;
                }
                FAILED => bail!(
                    "operation {} failed: errno {}",
                    number >> 16,
                    number & 0xffff
                ),
                _ => {}
            },
        }
    }
    let (finished, all) = (moment.finished, recorded.operations);
    ensure!(
        finished == all,
        "only {finished} of {all} operations are in the recording"
    );
    Ok(())
}

/// The bytes of the device that are on the media for certain.
pub fn durable<'m>(media: &'m Media, device: &Range<u64>) -> &'m [u8] {
    &media.durable()[device.start as usize..device.end as usize]
}

/// The lines of the device that are not as they are on the media, if `open` has the contents
/// `picks`.
pub fn lines<'l>(
    device: &Range<u64>,
    open: &'l Open,
    picks: &'l [usize],
) -> impl Iterator<Item = (u64, &'l Content)> {
    let start = device.start;
    let changed = open.iter().zip(picks).filter(|(_, pick)| **pick > 0);
    changed.map(move |((at, contents), pick)| (at - start, &contents[*pick]))
}

/// The device if `open` has the contents `picks`.
pub fn image(media: &Media, device: &Range<u64>, open: &Open, picks: &[usize]) -> Vec<u8> {
    let mut image = durable(media, device).to_vec();
    for (at, content) in lines(device, open, picks) {
        image[at as usize..][..content.len()].copy_from_slice(content);
    }
    image
}
