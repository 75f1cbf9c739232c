// SPDX-License-Identifier: GPL-2.0

//! A block device that answers when it is told to (nbd, served from here): DMA into a mapped page
//! that lasts exactly as long as a scenario wants.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{channel, Receiver, Sender};
use std::thread::JoinHandle;

use anyhow::{ensure, Context, Result};

use crate::sys::{check, check_len, long, wait_until, Map, PAGE};

/// What a page of the device is full of.
pub const DEVICE_BYTE: u8 = 0x5a;
/// Where the page is whose reads wait: in the middle, where nobody looks for partitions.
pub const HELD: u64 = 64 * PAGE as u64;
const PAGES: u64 = 128;
const DEVICE: &str = "/dev/nbd0";

/// Requests of linux/nbd.h.
const NBD_SET_SOCK: libc::c_ulong = 0xab00;
const NBD_SET_BLKSIZE: libc::c_ulong = 0xab01;
const NBD_DO_IT: libc::c_ulong = 0xab03;
const NBD_SET_SIZE_BLOCKS: libc::c_ulong = 0xab07;
const NBD_DISCONNECT: libc::c_ulong = 0xab08;

const NBD_CMD_READ: u32 = 0;
const NBD_CMD_DISC: u32 = 2;
const NBD_REPLY_MAGIC: u32 = 0x6744_6698;

fn ioctl(device: &File, request: libc::c_ulong, argument: u64) -> Result<()> {
    // SAFETY: these requests take a number, not an address.
    check(unsafe { libc::ioctl(device.as_raw_fd(), request, argument) })
        .with_context(|| format!("nbd request {request:#x}"))?;
    Ok(())
}

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
        let open = |flags| {
            let mut options = OpenOptions::new();
            let options = options.read(true).write(true).custom_flags(flags);
            options.open(DEVICE).context(DEVICE)
        };
        let control = open(0)?;
        let (ours, kernels) = UnixStream::pair()?;
        ioctl(&control, NBD_SET_BLKSIZE, PAGE as u64)?;
        ioctl(&control, NBD_SET_SIZE_BLOCKS, PAGES)?;
        ioctl(&control, NBD_SET_SOCK, kernels.as_raw_fd() as u64)?;
        let (arrived_sender, arrived) = channel();
        let (let_go, let_go_receiver) = channel();
        let server = std::thread::spawn(move || serve(ours, arrived_sender, let_go_receiver));
        let connection = std::thread::spawn(move || {
            let _socket = kernels;
            ioctl(&control, NBD_DO_IT, 0)
        });
        // The last that is set up.
        let sectors = PAGES * PAGE as u64 / 512;
        let is_up = || {
            let size = std::fs::read_to_string("/sys/block/nbd0/size").unwrap_or_default();
            size.trim() == sectors.to_string()
        };
        ensure!(wait_until(is_up), "{DEVICE} did not come up");
        Ok(HeldDevice {
            file: open(libc::O_DIRECT)?,
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
        ioctl(&self.file, NBD_DISCONNECT, 0)?;
        for thread in self.threads {
            thread.join().unwrap()?;
        }
        Ok(())
    }
}

/// O_DIRECT read of the page [`HELD`] of `device` to page `at` of `map`, which is pinned until
/// [`HeldDevice::let_go`].
pub fn read_held(device: &File, map: &Map, at: usize) -> Result<()> {
    // SAFETY: the page is mapped.
    let n = check_len(unsafe {
        let to = map.at(at).cast();
        libc::pread(device.as_raw_fd(), to, PAGE, HELD as i64)
    })?;
    ensure!(n == PAGE, "{n} bytes read from {DEVICE}");
    Ok(())
}
