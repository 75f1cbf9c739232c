// SPDX-License-Identifier: GPL-2.0

//! FIEMAP: where the blocks of a file are on the device.

use kernel::error::code::*;
use kernel::prelude::*;

use super::cached;
use super::io::interrupted;
use super::table::fiemap::{Extent, FiemapOperations, Request};
use crate::mount::inode::InodeInfo;
use crate::mount::lock::SharedInodeLock;
use crate::volume::file::Map;
use crate::volume::format::{BLOCK, MAX_FILE};

/// The operation on regular files.
pub struct Fiemap;

impl FiemapOperations for Fiemap {
    fn fiemap(info: &InodeInfo, request: &Request, start: u64, len: u64) -> Result {
        let sb = info.sb();
        sb.check_alive()?;
        let _blocks_stay = SharedInodeLock::new(info);
        if !info.is_dax() {
            cached::flush_size_to(info, info.i_size())?;
        }
        let end = start.saturating_add(len).min(MAX_FILE).div_ceil(BLOCK);
        let last = (MAX_FILE + 1) / BLOCK;
        let mut block = start / BLOCK;
        // An extent is shown once it is known whether another follows it in the file.
        let mut found = None;
        while block < last {
            if interrupted() {
                return Err(EINTR);
            }
            let map = {
                let mut meta = info.meta();
                sb.check(sb.volume.map(&mut meta, block, u64::MAX))?
            };
            let (at, len, unwritten) = match map {
                Map::Hole { len } => {
                    block += len;
                    continue;
                }
                Map::Run { block: at, len } => (at, len, false),
                Map::Unwritten { block: at, len } => (at, len, true),
            };
            let next = Extent {
                file_block: block,
                block: at,
                len,
                unwritten,
            };
            if let Some(extent) = found {
                if request.show(&extent, false)? {
                    return Ok(());
                }
            }
            if block >= end {
                return Ok(());
            }
            found = Some(next);
            block += len;
        }
        if let Some(extent) = found {
            request.show(&extent, true)?;
        }
        Ok(())
    }
}
