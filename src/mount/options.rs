// SPDX-License-Identifier: GPL-2.0

//! Mount options.

/// What to do when the volume turns out to be damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// Fail the operation, and go on.
    Continue,
    /// Fail it, and write nothing more.
    RemountReadOnly,
    /// Stop the machine.
    Panic,
}

impl OnError {
    /// The value of the option `errors`.
    pub fn name(self) -> &'static str {
        match self {
            OnError::Continue => "continue",
            OnError::RemountReadOnly => "remount-ro",
            OnError::Panic => "panic",
        }
    }
}

/// Which files are mapped directly; the others go through the page cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dax {
    /// All.
    Always,
    /// Those with the attribute.
    Inode,
    /// None.
    Never,
}

impl Dax {
    /// The value of the option `dax`.
    pub fn name(self) -> &'static str {
        match self {
            Dax::Always => "always",
            Dax::Inode => "inode",
            Dax::Never => "never",
        }
    }
}

/// The options of a mount. `ro` and the like are the VFS's own.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// `errors=`.
    pub on_error: OnError,
    /// `dax=`. A change applies to inodes that are not in memory yet.
    pub dax: Dax,
}

impl Options {
    /// The options of a mount that specifies none.
    pub const DEFAULT: Options = Options {
        on_error: OnError::RemountReadOnly,
        dax: Dax::Inode,
    };
}
