// SPDX-License-Identifier: GPL-2.0

//! A line on the terminal while something takes long.

use std::io::IsTerminal;
use std::sync::mpsc::{channel, RecvTimeoutError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rdax_volume::image::Image;

use crate::human;

/// Nothing is shown before this has passed: most work is done by then.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two updates.
const TICK: Duration = Duration::from_millis(200);

/// Does `work`; if it takes long and standard error is a terminal, shows there what `image` has
/// read and written so far.
pub fn watch<T>(what: &'static str, image: &Image, work: impl FnOnce() -> T) -> T {
    if !std::io::stderr().is_terminal() {
        return work();
    }
    let (done, rest) = channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            if rest.recv_timeout(PATIENCE) != Err(RecvTimeoutError::Timeout) {
                return;
            }
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            bar.set_style(
                ProgressStyle::with_template("{spinner} {prefix} {elapsed}: {msg}")
                    .unwrap_or_else(|_| ProgressStyle::default_spinner()),
            );
            bar.set_prefix(what);
            while rest.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                let (read, written) = (image.bytes_read(), image.bytes_written());
                bar.set_message(format!("{} read, {} written", human(read), human(written)));
                bar.tick();
            }
            bar.finish_and_clear();
        });
        let result = work();
        drop(done);
        result
    })
}
