// SPDX-License-Identifier: GPL-2.0

//! What each operation costs: lines written back or stored past the cache, and fences. The table is
//! printed with `--nocapture`; the limits keep it from growing unnoticed.

mod common;

use common::operations::in_pieces;
use common::*;
use rdax_volume::sim::{Sim, Stats};
use rdax_volume::volume::error::Result;
use rdax_volume::volume::format::BLOCK;
use rdax_volume::volume::inode::Inode;
use rdax_volume::volume::namespace::{Rename, SetAttr};
use rdax_volume::volume::Volume;

type V = Volume<Shared<Sim>>;

struct Bench {
    vol: V,
    sim: Shared<Sim>,
    top: Inode,
    dir: Inode,
    file: Inode,
    over: bool,
}

impl Bench {
    fn new() -> Bench {
        let sim = Shared::new(Sim::new(64 << 20));
        format(&*sim);
        let vol = mount(sim.clone());
        let mut top = root(&vol);
        let mut dir = vol.create(&mut top, b"dir", &new(DIR, 1)).unwrap();
        for i in 0..20 {
            let name = format!("some file {i}");
            vol.create(&mut dir, name.as_bytes(), &new(FILE, 1))
                .unwrap();
        }
        let file = vol.create(&mut top, b"file", &new(FILE, 1)).unwrap();
        println!("{:<34} lines  fences  reads  bytes read", "");
        Bench {
            vol,
            sim,
            top,
            dir,
            file,
            over: false,
        }
    }

    /// Runs `op`, which may take `lines` and `fences`, and prints what it took.
    fn run<T>(
        &mut self,
        name: &str,
        lines: u64,
        fences: u64,
        op: impl FnOnce(&mut Bench) -> Result<T>,
    ) -> T {
        self.sim.reset_stats();
        let value = op(self).unwrap();
        let Stats {
            reads,
            bytes_read,
            lines_nt,
            lines_written_back,
            needless_write_backs,
            fences: made,
            needless_fences,
            ..
        } = self.sim.stats();
        let took = lines_nt + lines_written_back;
        let mark = if took > lines || made > fences {
            " <- more than it may"
        } else {
            ""
        };
        self.over |= !mark.is_empty();
        println!("{name:<34} {took:>5}  {made:>6}  {reads:>5}  {bytes_read:>10}{mark}");
        assert_eq!((needless_write_backs, needless_fences), (0, 0), "{name}");
        value
    }
}

#[test]
fn lines_and_fences() {
    let mut b = Bench::new();
    let now = time(7);
    let created = b.run("create", 10, 4, |b| {
        b.vol.create(&mut b.dir, b"a new name", &new(FILE, 5))
    });
    let mut target = created;
    b.run("link", 10, 3, |b| {
        b.vol.link(&mut b.dir, b"a link", &mut target, now)
    });
    b.run("unlink, not the last", 7, 3, |b| {
        b.vol.unlink(&mut b.dir, b"a link", &mut target, now)
    });
    b.run("unlink, the last", 9, 3, |b| {
        b.vol.unlink(&mut b.dir, b"a new name", &mut target, now)
    });
    b.run("free inode", 6, 3, |b| b.vol.free_inode(&mut target));
    let mut sub = b.run("mkdir", 15, 4, |b| {
        b.vol.create(&mut b.dir, b"a directory", &new(DIR, 5))
    });
    b.run("rename directory to another", 15, 3, |b| {
        b.vol.rename(Rename {
            src_dir: &mut b.dir,
            dst_dir: Some(&mut b.top),
            src_name: b"a directory",
            dst_name: b"a directory",
            moved: &mut sub,
            replaced: None,
            exchange: false,
            now,
        })
    });
    b.run("rmdir", 10, 3, |b| {
        b.vol.rmdir(&mut b.top, b"a directory", &mut sub, now)
    });
    b.run("free directory", 8, 3, |b| b.vol.free_inode(&mut sub));
    let mut moved = b.run("symlink, short", 11, 4, |b| {
        b.vol
            .symlink(&mut b.dir, b"link", b"some/where/else", &new(0o777, 5))
    });
    b.run("rename in place", 10, 3, |b| {
        b.vol.rename(Rename {
            src_dir: &mut b.dir,
            dst_dir: None,
            src_name: b"link",
            dst_name: b"other name",
            moved: &mut moved,
            replaced: None,
            exchange: false,
            now,
        })
    });
    let mut replaced = b.vol.create(&mut b.dir, b"over", &new(FILE, 5)).unwrap();
    b.run("rename over", 12, 3, |b| {
        b.vol.rename(Rename {
            src_dir: &mut b.dir,
            dst_dir: None,
            src_name: b"other name",
            dst_name: b"over",
            moved: &mut moved,
            replaced: Some(&mut replaced),
            exchange: false,
            now,
        })
    });
    b.run("chmod", 5, 3, |b| {
        let set = SetAttr {
            mode: Some(0o600),
            ctime: Some(now),
            ..SetAttr::default()
        };
        b.vol.set_attr(&mut b.file, &set)
    });
    // Data: 64 lines a block.
    b.run("fill one block", 64 + 9, 4, |b| {
        b.vol.fill(&mut b.file, 0, 1, Some(now))
    });
    b.vol.extend(&mut b.file, BLOCK, BLOCK, Some(now)).unwrap();
    b.run("write 4096 to a new block", 64 + 9, 4, |b| {
        write(&b.vol, &mut b.file, BLOCK, &[1; 4096], now)
    });
    b.run("append 64 in a block", 1 + 5, 4, |b| {
        b.vol.truncate(&mut b.file, 2 * BLOCK - 64, now).unwrap();
        b.sim.reset_stats();
        write(&b.vol, &mut b.file, 2 * BLOCK - 64, &[1; 64], now)
    });
    b.run("overwrite 64 in a block", 1, 1, |b| {
        write(&b.vol, &mut b.file, 0, &[1; 64], now)
    });
    b.run("truncate to 0", 8, 3, |b| {
        b.vol.truncate(&mut b.file, 0, now)
    });
    b.run("lookup", 0, 0, |b| b.vol.lookup(&mut b.dir, b"some file 7"));
    b.run("readdir of 21 names", 0, 0, |b| {
        list(&b.vol, &mut b.dir, 100)
    });
    b.run("map", 0, 0, |b| b.vol.map(&mut b.file, 0, 1));
    in_pieces(&b.vol, 200).unwrap();
    b.run(
        "write 8 blocks where all is in pieces",
        8 * 64 + 16,
        4,
        |b| write(&b.vol, &mut b.file, 0, &[1; 8 * 4096], now),
    );
    assert!(!b.over);
}
