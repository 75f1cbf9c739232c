// SPDX-License-Identifier: GPL-2.0

//! What crash tests run, and what may be found after the crash.
//!
//! A [`Workload`] is a list of operations ([`Op`]) on a small namespace, made from a name and a
//! seed: always the same one. Whoever runs it (the host tests, on the volume itself;
//! `rdax-crash-guest`, on the mounted file system) tells how many operations have returned and
//! whether one was under way when the machine stopped. Of the volume that is recovered from what
//! was on the media then, the [`Oracle`] says whether it is one of those allowed:
//!
//! ```no_run
//! # fn image() -> rdax_volume::ram::Ram { unreachable!() }
//! use rdax_crash_ops::{recover, workload, Oracle};
//!
//! let workload = workload("ace2:creat-A.foo,unlink-foo", 1).expect("a name of names()");
//! let oracle = Oracle::new(&workload);
//! let volume = recover(image()).expect("mounts");
//! // Five operations had returned, the sixth had not.
//! for violation in oracle.check(&volume, 5, true) {
//!     println!("{violation}");
//! }
//! ```
//!
//! # What is promised
//!
//! The oracle holds the file system to what its documentation says (`Documentation/format.rst`,
//! `Documentation/dirty-tracking.rst`, `src/vfs/io.rs`), for one process at a time:
//!
//! * **An operation that has returned is durable**: names, links, sizes, modes, times that were
//!   set, and the data of write(2). Fsync adds nothing to that but mapped stores.
//! * **One that has not is there wholly or not at all.** Exceptions, since data is changed in
//!   place: of a write(2), each byte within the old size is old or new, and the file grows only
//!   over bytes that are there, at once or, where its new blocks lie in several pieces, piece by
//!   piece. Of punching and zeroing, each byte is old or zero, and so is each whole block that is
//!   punched. Fallocate grows the file at once, but may leave blocks beyond its end.
//! * **Mapped stores** that no sync has covered may reach the media or not, cache line by cache
//!   line (64 bytes), and of the stores to a line those up to any one. msync makes durable the
//!   pages of its range, fsync and fdatasync (by whichever descriptor or process) the file, sync,
//!   freezing and write-back by age all files. With `MAP_SYNC` the program's own `clwb` and
//!   `sfence` do for the lines.
//! * **Nothing else is ever seen**: not what the media held before, not another file's data. A file
//!   has no blocks beyond its end but those that fallocate has put there.
//! * **The volume is sound**: the checker has nothing to say, and the numbers of free blocks and of
//!   inodes are those that it counts.
//!
//! Times that nobody set, and the numbers of inodes, may be any.

#![forbid(unsafe_code)]

mod ace;
pub mod client;
mod compare;
mod data;
mod model;
mod op;
mod oracle;
mod random;
mod scenario;
mod seen;
mod synced;
mod violation;
mod workload;

pub use data::fill;
pub use model::{Refused, Tree};
pub use op::{Op, Rename};
pub use oracle::{check_volume, recover, Oracle};
pub use seen::{see, Content, Entry, Seen};
pub use synced::Synced;
pub use violation::{Kind, Violation};
pub use workload::{names, workload, Workload};
