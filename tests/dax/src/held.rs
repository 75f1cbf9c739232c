// SPDX-License-Identifier: GPL-2.0

//! A block device that answers when it is told to (nbd, served from here): DMA into a mapped page
//! that lasts exactly as long as a scenario wants.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{channel, Receiver, Sender};
use std::thread::JoinHandle;

use anyhow::{ensure, Context, Result};
use rdax_test_sys::nbd::{self, request};
use rdax_test_sys::{Map, PAGE};
use rustix::fs::OFlags;

use crate::common::{long, open, wait_until};

/// What a page of the device is full of.
pub const DEVICE_BYTE: u8 = 0x5a;
/// Where the page is whose reads wait: in the middle, where nobody looks for partitions.
pub const HELD: u64 = 64 * PAGE as u64;
const PAGES: u64 = 128;
const DEVICE: &str = "/dev/nbd0";

const NBD_CMD_READ: u32 = 0;
const NBD_CMD_DISC: u32 = 2;
const NBD_REPLY_MAGIC: u32 = 0x6744_6698;

/// `struct nbd_request`, as far as it is needed.
struct Request {
    command: u32,
    cookie: [u8; 8],
    from: u64,
    len: usize,
}

impl Request {
    fn receive(socket: &mut UnixStream) -> Result<Self> {
        let mut bytes = [0; 28];
        socket.read_exact(&mut bytes)?;
        Ok(Request {
            command: u32::from_be_bytes(bytes[4..8].try_into()?),
            cookie: bytes[8..16].try_into()?,
            from: u64::from_be_bytes(bytes[16..24].try_into()?),
            len: u32::from_be_bytes(bytes[24..28].try_into()?) as usize,
        })
    }
}

/// Answers reads until the device is disconnected: those of the page [`HELD`] one by one, each
/// after it was told `arrived` and something came from `let_go`.
fn serve(mut socket: UnixStream, arrived: Sender<()>, let_go: Receiver<()>) -> Result<()> {
    loop {
        let request = Request::receive(&mut socket)?;
        if request.command == NBD_CMD_DISC {
            return Ok(());
        }
        ensure!(request.command == NBD_CMD_READ, "only reads are served");
        if request.from == HELD {
            arrived.send(())?;
            let_go.recv()?;
        }
        let mut reply = NBD_REPLY_MAGIC.to_be_bytes().to_vec();
        reply.extend([0; 4]);
        reply.extend(request.cookie);
        reply.resize(reply.len() + request.len, DEVICE_BYTE);
        socket.write_all(&reply)?;
    }
}

/// The device; one at a time.
pub struct HeldDevice {
    /// For reading with O_DIRECT.
    pub file: File,
    arrived: Receiver<()>,
    let_go: Sender<()>,
    threads: [JoinHandle<Result<()>>; 2],
}

impl HeldDevice {
    /// Connects the device. Wants the driver loaded.
    pub fn new() -> Result<Self> {
        let open = |flags| open(DEVICE.as_ref(), OFlags::RDWR | flags).context(DEVICE);
        let control = open(OFlags::empty())?;
        let (ours, kernels) = UnixStream::pair()?;
        request(&control, nbd::Request::SetBlkSize, PAGE as u64)?;
        request(&control, nbd::Request::SetSizeBlocks, PAGES)?;
        request(&control, nbd::Request::SetSock, kernels.as_raw_fd() as u64)?;
        let (arrived_sender, arrived) = channel();
        let (let_go, let_go_receiver) = channel();
        let server = std::thread::spawn(move || serve(ours, arrived_sender, let_go_receiver));
        let connection = std::thread::spawn(move || {
            let _socket = kernels;
            Ok(request(&control, nbd::Request::DoIt, 0)?)
        });
        // The last that is set up.
        let sectors = PAGES * PAGE as u64 / 512;
        let is_up = || {
            let size = std::fs::read_to_string("/sys/block/nbd0/size").unwrap_or_default();
            size.trim() == sectors.to_string()
        };
        ensure!(wait_until(is_up), "{DEVICE} did not come up");
        Ok(HeldDevice {
            file: open(OFlags::DIRECT)?,
            arrived,
            let_go,
            threads: [server, connection],
        })
    }

    /// Waits until a read of the page [`HELD`] is under way, and so its target pinned.
    pub fn wait_for_read(&self) -> Result<()> {
        self.arrived.recv_timeout(long()).context("no read arrived")
    }

    /// Answers the read that [`Self::wait_for_read`] saw.
    pub fn let_go(&self) {
        // A server that has failed says so when the device goes.
        let _ = self.let_go.send(());
    }

    /// Disconnects it. What it served is to have ended.
    pub fn disconnect(self) -> Result<()> {
        request(&self.file, nbd::Request::Disconnect, 0)?;
        for thread in self.threads {
            thread.join().unwrap()?;
        }
        Ok(())
    }
}

/// O_DIRECT read of the page [`HELD`] of `device` to page `at` of `map`, which is pinned until
/// [`HeldDevice::let_go`].
pub fn read_held(device: &File, map: &Map, at: usize) -> Result<()> {
    let n = map.read_into(at, PAGE, device, HELD)?;
    ensure!(n == PAGE, "{n} bytes read from {DEVICE}");
    Ok(())
}
