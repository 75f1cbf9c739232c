// SPDX-License-Identifier: GPL-2.0

//! The switches of the mutated tree, on the host: RDAX_MUTATE is the mistake that is made;
//! RDAX_MUTATE_REACHED a file to which the number of each switch is appended, as four bytes, when
//! it is asked for the first time.

use std::fs::File;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::LazyLock;

static MADE: LazyLock<u32> = LazyLock::new(|| {
    let made = std::env::var("RDAX_MUTATE").ok();
    made.and_then(|n| n.parse().ok()).unwrap_or(0)
});
static REACHED: LazyLock<Option<File>> = LazyLock::new(|| {
    let path = std::env::var_os("RDAX_MUTATE_REACHED")?;
    File::options().create(true).append(true).open(path).ok()
});
static ASKED: [AtomicBool; COUNT] = [const { AtomicBool::new(false) }; COUNT];

/// Whether mistake `n` is made.
#[inline]
pub fn on(n: u32) -> bool {
    if !ASKED[n as usize].load(Ordering::Relaxed) {
        first(n);
    }
    *MADE == n
}

#[cold]
#[inline(never)]
fn first(n: u32) {
    ASKED[n as usize].store(true, Ordering::Relaxed);
    if let Some(mut file) = REACHED.as_ref() {
        let _ = file.write_all(&n.to_le_bytes());
    }
}
