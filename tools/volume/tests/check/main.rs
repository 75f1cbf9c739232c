// SPDX-License-Identifier: GPL-2.0

//! The checker: every kind of damage is found and named, nothing else is reported with it, a sound
//! volume has no problems, and no content makes it fail otherwise than by a report.

mod bed;
mod bitmaps;
mod directories;
mod fixed_places;
mod hostile;
mod inodes;
mod links;
mod sound;
mod trees;
mod verifier;
mod xattrs;
