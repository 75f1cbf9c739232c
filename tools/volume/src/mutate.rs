// SPDX-License-Identifier: GPL-2.0

//! Bugs on purpose, on the host: while a test runs, by name. `src/mutate.rs` is the kernel's side
//! of the same macro, where they are built in.

use std::cell::Cell;

thread_local! {
    static MISTAKE: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// Makes this thread's volumes have the bug `name` from now on, one of those that
/// `scripts/mutations` finds in `src/volume` and `src/track`; `None`: no more.
pub fn make_mistake(name: Option<&'static str>) {
    MISTAKE.set(name);
}

/// Whether the mistake `name` is to be made.
pub fn is_made(name: &str) -> bool {
    MISTAKE.get() == Some(name)
}

/// Whether the mistake `$name` is to be made.
macro_rules! mutated {
    ($name:literal) => {
        crate::mutate::is_made($name)
    };
}
pub(crate) use mutated;
