// SPDX-License-Identifier: GPL-2.0

//! The requests of linux/nbd.h.

use std::fs::File;
use std::os::fd::AsRawFd;

use crate::{check, Result};

/// A request.
#[derive(Clone, Copy, Debug)]
pub enum Request {
    /// The argument is the descriptor of the socket that serves the device.
    SetSock = 0xab00,
    /// The argument is the bytes of a block.
    SetBlkSize = 0xab01,
    /// Serves the device until it is disconnected.
    DoIt = 0xab03,
    /// The argument is the number of blocks.
    SetSizeBlocks = 0xab07,
    /// Disconnects the device.
    Disconnect = 0xab08,
}

/// Makes `request` of `device`.
pub fn request(device: &File, request: Request, argument: u64) -> Result<()> {
    let name = match request {
        Request::SetSock => "NBD_SET_SOCK",
        Request::SetBlkSize => "NBD_SET_BLKSIZE",
        Request::DoIt => "NBD_DO_IT",
        Request::SetSizeBlocks => "NBD_SET_SIZE_BLOCKS",
        Request::Disconnect => "NBD_DISCONNECT",
    };
    // SAFETY: these requests take a number, not an address. (rustix has them one by one.)
    check(name, unsafe {
        libc::ioctl(device.as_raw_fd(), request as libc::c_ulong, argument)
    })?;
    Ok(())
}
