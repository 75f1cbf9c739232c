// SPDX-License-Identifier: GPL-2.0

//! What the oracle has to say about a volume.

use std::fmt;
use std::ops::Range;

/// A kind of violation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The volume cannot be mounted, or a part of it cannot be read.
    Unreadable,
    /// A name is missing.
    Missing,
    /// A name is there that should not be.
    Unexpected,
    /// Names stand for one inode that should not, or do not although they should.
    Links,
    /// Type, mode, target, a time or an extended attribute is wrong.
    Attributes,
    /// A file has another size.
    Size,
    /// A file has other bytes.
    Data,
    /// A file has blocks beyond its end.
    Beyond,
    /// The checker found damage.
    Checker,
    /// The counts of free blocks or inodes are wrong, or something is in use that nothing reaches.
    Space,
    /// A database is not as it should be.
    Database,
}

impl Kind {
    /// A word for it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Unreadable => "unreadable",
            Kind::Missing => "missing",
            Kind::Unexpected => "unexpected",
            Kind::Links => "links",
            Kind::Attributes => "attributes",
            Kind::Size => "size",
            Kind::Data => "data",
            Kind::Beyond => "beyond",
            Kind::Checker => "checker",
            Kind::Space => "space",
            Kind::Database => "database",
        }
    }

    /// Whether it is about the content of files, and not about metadata.
    pub fn is_data(self) -> bool {
        self == Kind::Data
    }
}

/// A difference between a recovered volume and all that is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// What kind of difference.
    pub kind: Kind,
    /// The file or directory, if it is about one.
    pub path: Option<String>,
    /// Its bytes, if it is about some.
    pub range: Option<Range<u64>>,
    /// What was found, and what should be there.
    pub text: String,
}

impl Violation {
    /// About the volume as a whole.
    pub fn new(kind: Kind, text: impl fmt::Display) -> Self {
        Violation {
            kind,
            path: None,
            range: None,
            text: text.to_string(),
        }
    }

    pub(crate) fn at(kind: Kind, path: &str, text: impl fmt::Display) -> Self {
        Violation {
            path: Some(path.to_owned()),
            ..Violation::new(kind, text)
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.kind.name())?;
        if let Some(path) = &self.path {
            write!(f, "{path}")?;
            if let Some(range) = &self.range {
                write!(f, ", bytes {}..{}", range.start, range.end)?;
            }
            write!(f, ": ")?;
        }
        f.write_str(&self.text)
    }
}
