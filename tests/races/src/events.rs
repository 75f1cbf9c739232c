// SPDX-License-Identifier: GPL-2.0

//! The events. Each is done as it comes, and may fail: what else happens decides that.

use std::fs;
use std::io;
use std::time::Duration;

use rdax_test_sys::{self as sys, Map, PAGE};
use rustix::fs::{syncfs, OFlags};
use rustix::mm::{Advice, MsyncFlags};
use rustix::mount::{mount_remount, MountFlags};
use rustix::system::delete_module;

use crate::machine::Machine;

/// Something that happens in the life of a mount.
pub struct Event {
    /// What it is called.
    pub name: &'static str,
    /// Makes it happen.
    pub run: fn(&Machine, &mut fastrand::Rng) -> io::Result<()>,
}

/// All of them.
pub const EVENTS: [Event; 13] = [
    Event {
        name: "mount",
        run: mount,
    },
    Event {
        name: "unmount",
        run: |machine, _| machine.unmount(),
    },
    Event {
        name: "freeze",
        run: freeze,
    },
    Event {
        name: "remount",
        run: remount,
    },
    Event {
        name: "sync",
        run: |_, _| {
            rustix::fs::sync();
            Ok(())
        },
    },
    Event {
        name: "syncfs",
        run: |machine, _| Ok(syncfs(machine.open()?)?),
    },
    Event {
        name: "eviction",
        run: |_, _| fs::write("/proc/sys/vm/drop_caches", "2"),
    },
    Event {
        name: "truncation",
        run: truncate,
    },
    Event {
        name: "flusher",
        run: flush,
    },
    Event {
        name: "memory-error",
        run: memory_error,
    },
    Event {
        name: "unbind",
        run: |machine, _| machine.unbind(),
    },
    Event {
        name: "rebind",
        run: rebind,
    },
    Event {
        name: "rmmod",
        run: unload,
    },
];

/// One that is new: nothing uses the old one.
fn mount(machine: &Machine, _: &mut fastrand::Rng) -> io::Result<()> {
    let _ = machine.unmount();
    machine.mount()
}

fn freeze(machine: &Machine, random: &mut fastrand::Rng) -> io::Result<()> {
    let file = machine.open()?;
    sys::freeze(&file, true)?;
    std::thread::sleep(Duration::from_micros(random.u64(..3000)));
    Ok(sys::freeze(&file, false)?)
}

fn remount(machine: &Machine, _: &mut fastrand::Rng) -> io::Result<()> {
    let _ = mount_remount(&machine.at, MountFlags::RDONLY, "");
    Ok(mount_remount(&machine.at, MountFlags::empty(), "")?)
}

fn truncate(machine: &Machine, random: &mut fastrand::Rng) -> io::Result<()> {
    let file = machine.open()?;
    let map = Map::shared(&file, 16 * PAGE)?;
    for _ in 0..16 {
        file.set_len(random.u64(..16 * PAGE as u64))?;
        file.set_len(16 * PAGE as u64)?;
        let _ = map.msync(0, 16 * PAGE, MsyncFlags::SYNC);
    }
    Ok(())
}

/// The flusher finds everything too old.
fn flush(machine: &Machine, _: &mut fastrand::Rng) -> io::Result<()> {
    let file = machine.open()?;
    for name in ["dirty_expire_centisecs", "dirty_writeback_centisecs"] {
        fs::write(format!("/proc/sys/vm/{name}"), "1")?;
    }
    file.set_modified(std::time::SystemTime::now())?;
    std::thread::sleep(Duration::from_millis(20));
    fs::write("/proc/sys/vm/dirty_writeback_centisecs", "500")
}

/// In a page of a file, which is mapped; a whole write heals it later. Loading the page may end
/// in a signal, so a child does it.
fn memory_error(machine: &Machine, random: &mut fastrand::Rng) -> io::Result<()> {
    let mut child = std::process::Command::new("/proc/self/exe");
    let child = child.arg("--memory-error").arg(&machine.at);
    let child = child.arg("--seed").arg(random.u64(..).to_string());
    child.output().map(|_| ())
}

/// What the child does: see [`memory_error`].
pub fn fail_memory(dir: &std::path::Path, random: &mut fastrand::Rng) -> io::Result<()> {
    let name = dir.join(format!("file{}", random.usize(..4)));
    let mut options = fs::OpenOptions::new();
    let file = options.read(true).write(true).open(name)?;
    let map = Map::shared(&file, 16 * PAGE)?;
    let at = random.usize(..16) * PAGE;
    map.load(at);
    map.advise(at, PAGE, Advice::LinuxHwPoison)?;
    std::os::unix::fs::FileExt::write_all_at(&file, &[2; PAGE], at as u64)
}

fn rebind(machine: &Machine, _: &mut fastrand::Rng) -> io::Result<()> {
    let _ = machine.unbind();
    machine.bind()
}

fn unload(machine: &Machine, _: &mut fastrand::Rng) -> io::Result<()> {
    let _ = machine.unmount();
    let unloaded = delete_module(c"rdax", OFlags::NONBLOCK.bits() as i32);
    let _ = machine.load_module();
    Ok(unloaded?)
}
