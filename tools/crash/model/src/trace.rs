// SPDX-License-Identifier: GPL-2.0

//! The file of a recording: a header and events in the order in which the one processor did them.
//!
//! All numbers are little-endian. The header is [`MAGIC`] and the number of bytes that are watched.
//! An event is a word (kind in the low 8 bits, length of the payload in the 8 above, address from
//! the start of the watched memory in the 48 above) and its payload: the value stored, or the two
//! numbers of a mark. The last event is an end: without it the recording was cut off.

use std::io::{self, Read, Write};

/// First bytes of a recording.
pub const MAGIC: [u8; 8] = *b"PMTRACE1";
/// Most bytes of one store event.
pub const STORE_MAX: usize = 16;

/// How a store went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Through {
    /// Through the cache.
    Cache,
    /// Past it: non-temporal.
    Past,
    /// Through the cache, by a locked instruction.
    Locked,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// `len` bytes of `value` were stored at byte `at`.
    Store {
        at: u64,
        len: u8,
        value: [u8; STORE_MAX],
        through: Through,
    },
    /// `clwb`, `clflushopt` or `clflush` of the line at byte `at`.
    WriteBack { at: u64 },
    /// `sfence` or `mfence`.
    Fence,
    /// The program came to a point that it gave two numbers.
    Mark { kind: u64, number: u64 },
}

const STORE: u8 = 1;
const STORE_NT: u8 = 2;
const STORE_LOCKED: u8 = 3;
const WRITE_BACK: u8 = 4;
const FENCE: u8 = 5;
const MARK: u8 = 6;
const END: u8 = 7;

/// Why a recording cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is no recording.
    #[error("this is no recording of stores to persistent memory")]
    Foreign,
    /// It ends without its last event.
    #[error("the recording was cut off: the machine did not come to its end")]
    CutOff,
    /// An event that cannot be.
    #[error("the recording is damaged at byte {0}")]
    Damaged(usize),
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Writes a recording.
pub struct Writer<W: Write> {
    out: W,
}

impl<W: Write> Writer<W> {
    /// Starts a recording of `len` bytes of memory.
    pub fn new(mut out: W, len: u64) -> io::Result<Self> {
        out.write_all(&MAGIC)?;
        out.write_all(&len.to_le_bytes())?;
        Ok(Writer { out })
    }

    fn event(&mut self, kind: u8, at: u64, payload: &[u8]) -> io::Result<()> {
        let head = (at << 16) | ((payload.len() as u64) << 8) | u64::from(kind);
        self.out.write_all(&head.to_le_bytes())?;
        self.out.write_all(payload)
    }

    /// Adds an event.
    pub fn push(&mut self, event: &Event) -> io::Result<()> {
        match event {
            Event::Store {
                at,
                len,
                value,
                through,
            } => {
                let kind = match through {
                    Through::Cache => STORE,
                    Through::Past => STORE_NT,
                    Through::Locked => STORE_LOCKED,
                };
                self.event(kind, *at, &value[..usize::from(*len)])
            }
            Event::WriteBack { at } => self.event(WRITE_BACK, *at, &[]),
            Event::Fence => self.event(FENCE, 0, &[]),
            Event::Mark { kind, number } => {
                let mut payload = [0; 16];
                payload[..8].copy_from_slice(&kind.to_le_bytes());
                payload[8..].copy_from_slice(&number.to_le_bytes());
                self.event(MARK, 0, &payload)
            }
        }
    }

    /// Ends the recording: it is whole, and in the hands of the system, when this returns.
    pub fn finish(&mut self) -> io::Result<()> {
        self.event(END, 0, &[])?;
        self.out.flush()
    }
}

/// A recording in memory.
pub struct Trace {
    /// Bytes of the memory that was watched.
    pub len: u64,
    /// What happened to it.
    pub events: Vec<Event>,
}

impl Trace {
    /// Reads a recording. Fails where it is damaged or not whole; of what it returns, every
    /// address lies in the memory.
    pub fn read(mut from: impl Read) -> Result<Self, Error> {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes)?;
        let mut rest = bytes.strip_prefix(&MAGIC).ok_or(Error::Foreign)?;
        let len = take_word(&mut rest).ok_or(Error::CutOff)?;
        let mut events = Vec::new();
        loop {
            let here = bytes.len() - rest.len();
            let head = take_word(&mut rest).ok_or(Error::CutOff)?;
            let (kind, size, at) = (head as u8, usize::from((head >> 8) as u8), head >> 16);
            let payload = rest.get(..size).ok_or(Error::CutOff)?;
            rest = &rest[size..];
            let inside = at.checked_add(size as u64).is_some_and(|end| end <= len);
            if kind == END {
                return Ok(Trace { len, events });
            }
            events.push(
                decode(kind, at, payload)
                    .filter(|_| inside)
                    .ok_or(Error::Damaged(here))?,
            );
        }
    }
}

fn take_word(from: &mut &[u8]) -> Option<u64> {
    let (word, rest) = from.split_first_chunk()?;
    *from = rest;
    Some(u64::from_le_bytes(*word))
}

fn decode(kind: u8, at: u64, mut payload: &[u8]) -> Option<Event> {
    let through = match kind {
        STORE => Through::Cache,
        STORE_NT => Through::Past,
        STORE_LOCKED => Through::Locked,
        WRITE_BACK => return Some(Event::WriteBack { at }),
        FENCE => return Some(Event::Fence),
        MARK => {
            return Some(Event::Mark {
                kind: take_word(&mut payload)?,
                number: take_word(&mut payload)?,
            })
        }
        _ => return None,
    };
    let mut value = [0; STORE_MAX];
    value.get_mut(..payload.len())?.copy_from_slice(payload);
    Some(Event::Store {
        at,
        len: payload.len() as u8,
        value,
        through,
    })
}
