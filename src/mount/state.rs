// SPDX-License-Identifier: GPL-2.0

//! What a mount still does.

use kernel::sync::atomic::{Atomic, Relaxed};

/// What a mount still does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// All.
    Running,
    /// It reads; an error ended all writing (`errors=remount-ro`).
    ReadOnly,
    /// Nothing; it waits to be unmounted.
    ShutDown,
}

/// The state of a mount: it only ever does less.
pub struct StateCell(Atomic<i32>);

impl StateCell {
    /// Of a mount that does all.
    pub fn new() -> Self {
        StateCell(Atomic::new(State::Running as i32))
    }

    /// The state now.
    #[inline]
    pub fn get(&self) -> State {
        match self.0.load(Relaxed) {
            0 => State::Running,
            1 => State::ReadOnly,
            _ => State::ShutDown,
        }
    }

    /// Goes on to `state`. Returns false if it was there, or further, already.
    pub fn lower(&self, state: State) -> bool {
        let mut now = self.0.load(Relaxed);
        while now < state as i32 {
            match self.0.cmpxchg(now, state as i32, Relaxed) {
                Ok(_) => return true,
                Err(other) => now = other,
            }
        }
        false
    }
}
