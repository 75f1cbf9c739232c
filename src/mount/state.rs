// SPDX-License-Identifier: GPL-2.0

//! Which operations a mount still supports.

use kernel::sync::atomic::{Atomic, Relaxed};

/// Which operations a mount still supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// All.
    Running,
    /// Reading; an error ended all writing (`errors=remount-ro`).
    ReadOnly,
    /// None; the mount waits to be unmounted.
    ShutDown,
}

/// The state of a mount. It only moves down this list.
pub struct StateCell(Atomic<i32>);

impl StateCell {
    /// The state of a fully working mount.
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

    /// Moves to `state`. Returns false if it was there, or further, already.
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
