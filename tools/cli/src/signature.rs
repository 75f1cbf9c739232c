// SPDX-License-Identifier: GPL-2.0

//! What else may be on a device: magic numbers of file systems, volume managers and partition
//! tables, as `blkid` knows them. They keep the tools from overwriting somebody's data.

use rdax_volume::volume::format::{BLOCK, MAGIC};
use rdax_volume::volume::pmem::Pmem;
use rdax_volume::volume::Result;

/// One magic number found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature {
    /// What it says is there.
    pub name: &'static str,
    /// Byte address of the magic number.
    pub at: u64,
    /// Its bytes.
    pub magic: &'static [u8],
}

/// What rdax calls itself in [`Signature::name`].
pub const RDAX: &str = "rdax volume";

/// From where a magic number's place counts.
#[derive(Clone, Copy)]
enum Place {
    Start(u64),
    /// Back from the end of the device.
    End(u64),
    /// The last whole block.
    LastBlock,
}
use Place::{End, LastBlock, Start};

/// The magic numbers, in the order in which they are looked for: what contains others comes first.
const KNOWN: &[(&str, Place, &[u8])] = &[
    (RDAX, Start(0), &MAGIC),
    ("NVDIMM BTT", Start(4096), b"BTT_ARENA_INFO\0"),
    ("NVDIMM BTT", Start(0), b"BTT_ARENA_INFO\0"),
    ("NVDIMM fsdax namespace", Start(4096), b"NVDIMM_PFN_INFO\0"),
    ("NVDIMM devdax namespace", Start(4096), b"NVDIMM_DAX_INFO\0"),
    ("LUKS volume", Start(0), b"LUKS\xba\xbe"),
    ("LVM physical volume", Start(0), b"LABELONE"),
    ("LVM physical volume", Start(512), b"LABELONE"),
    ("LVM physical volume", Start(1024), b"LABELONE"),
    ("LVM physical volume", Start(1536), b"LABELONE"),
    ("MD RAID member", Start(0), b"\xfc\x4e\x2b\xa9"),
    ("MD RAID member", Start(4096), b"\xfc\x4e\x2b\xa9"),
    (
        "bcache device",
        Start(4096 + 24),
        b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca",
    ),
    (
        "bcachefs file system",
        Start(4096 + 24),
        b"\xc6\x85\x73\xf6\x66\xce\x90\xa9",
    ),
    ("ext2, ext3 or ext4 file system", Start(0x438), b"\x53\xef"),
    ("XFS file system", Start(0), b"XFSB"),
    ("btrfs file system", Start(0x10040), b"_BHRfS_M"),
    ("F2FS file system", Start(1024), b"\x10\x20\xf5\xf2"),
    ("EROFS file system", Start(1024), b"\xe2\xe1\xf5\xe0"),
    ("squashfs file system", Start(0), b"hsqs"),
    ("ISO 9660 file system", Start(0x8001), b"CD001"),
    ("NTFS file system", Start(3), b"NTFS    "),
    ("exFAT file system", Start(3), b"EXFAT   "),
    ("FAT file system", Start(0x52), b"FAT32   "),
    ("FAT file system", Start(0x36), b"FAT16   "),
    ("FAT file system", Start(0x36), b"FAT12   "),
    ("swap space", Start(4096 - 10), b"SWAPSPACE2"),
    ("suspended system", Start(4096 - 10), b"S1SUSPEND\0"),
    ("GPT partition table", Start(512), b"EFI PART"),
    ("GPT partition table", Start(4096), b"EFI PART"),
    ("GPT partition table", End(512), b"EFI PART"),
    ("GPT partition table", End(4096), b"EFI PART"),
    ("boot sector or partition table", Start(510), b"\x55\xaa"),
    // The copy of the superblock, where the first is gone.
    (RDAX, LastBlock, &MAGIC),
];

/// All magic numbers on `device`, the most telling first.
pub fn probe(device: &dyn Pmem) -> Result<Vec<Signature>> {
    let mut found = Vec::new();
    let len = device.len();
    for &(name, from, magic) in KNOWN {
        let at = match from {
            Start(at) => Some(at),
            End(back) => len.checked_sub(back),
            LastBlock => (len / BLOCK).checked_sub(1).map(|block| block * BLOCK),
        };
        let Some(at) = at.filter(|at| at.saturating_add(magic.len() as u64) <= len) else {
            continue;
        };
        let mut bytes = vec![0; magic.len()];
        device.read(at, &mut bytes)?;
        if bytes == magic {
            found.push(Signature { name, at, magic });
        }
    }
    Ok(found)
}

/// Erases the magic numbers `found`, durably, so that nothing recognises the old content.
pub fn wipe(device: &dyn Pmem, found: &[Signature]) -> Result<()> {
    for signature in found {
        device.zero_nt(signature.at, signature.magic.len() as u64)?;
    }
    device.fence()
}
