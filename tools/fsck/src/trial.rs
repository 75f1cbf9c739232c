// SPDX-License-Identifier: GPL-2.0

//! What the next mount will make of a volume, found out by doing what it does, in memory.

use rdax_volume::overlay::Overlay;
use rdax_volume::volume::error::{Error, Result, Structure};
use rdax_volume::volume::format::ROOT_INO;
use rdax_volume::volume::pmem::Pmem;
use rdax_volume::volume::{MountOptions, Volume};

use crate::media::{file_type, DT_DIR};

/// Mounts the volume on `pmem` for writing, frees what was removed, and reads the root directory.
/// Nothing is written. Fails with what the kernel would refuse the mount for, or report.
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
