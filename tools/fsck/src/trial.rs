// SPDX-License-Identifier: GPL-2.0

//! Predicts the result of the next mount by doing what it does, in memory.

use rdax_volume::overlay::Overlay;
use rdax_volume::volume::error::{Error, Result, Structure};
use rdax_volume::volume::format::ROOT_INO;
use rdax_volume::volume::pmem::Pmem;
use rdax_volume::volume::{MountOptions, Volume};

use crate::media::{file_type, DT_DIR};

/// Mounts the volume on `pmem` for writing, frees removed files, and reads the root directory.
/// Nothing is written. Fails with the error for which the kernel would refuse the mount, or that it
/// would report.
pub fn mount(pmem: &dyn Pmem) -> Result<()> {
    let view = Overlay::new(pmem);
    let volume = Volume::mount(&view, MountOptions::default())?;
    volume.recover_orphans()?;
    let root = volume.iget(ROOT_INO)?;
    if file_type(root.raw()) != DT_DIR {
        return Err(Error::Corrupt {
            what: Structure::Inode,
            at: root.at(),
        });
    }
    Ok(())
}
