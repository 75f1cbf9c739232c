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

/// The line on the terminal, if there is one.
pub struct Line(ProgressBar);

impl Line {
    /// Calls `print`, which prints on standard output. If that is a terminal, the line makes room
    /// meanwhile.
    pub fn make_room(&self, print: impl FnOnce()) {
        match std::io::stdout().is_terminal() {
            true => self.0.suspend(print),
            false => print(),
        }
    }
}

/// Does `work`; if it takes long and standard error is a terminal, shows there what `image` has
/// read and written so far.
pub fn watch<T>(what: &'static str, image: &Image, work: impl FnOnce(&Line) -> T) -> T {
    let line = Line(ProgressBar::hidden());
    if !std::io::stderr().is_terminal() {
        return work(&line);
    }
    let bar = line.0.clone().with_prefix(what).with_style(
        ProgressStyle::with_template("{spinner} {prefix} {elapsed}: {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_spinner()),
    );
    let (done, rest) = channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            if rest.recv_timeout(PATIENCE) != Err(RecvTimeoutError::Timeout) {
                return;
            }
            bar.set_draw_target(ProgressDrawTarget::stderr());
            while rest.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                let (read, written) = (image.bytes_read(), image.bytes_written());
                bar.set_message(format!("{} read, {} written", human(read), human(written)));
                bar.tick();
            }
            bar.finish_and_clear();
        });
        let result = work(&line);
        drop(done);
        result
    })
}
