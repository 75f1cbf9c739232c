# SPDX-License-Identifier: GPL-2.0
#
# Damages structures of an rdax volume that is not mounted, for the tests of what the kernel makes
# of them. Where they are, rdax-dump says.
#
# damage.py DEVICE one STRUCTURE INO   spoils one structure and prints its address
# damage.py DEVICE field INO OFFSET BYTES VALUE
#                                      changes a field of an inode, and makes the checksum right;
#                                      prints the address of the inode
# damage.py DEVICE name INO VALUE      makes the first name of a directory one of inode VALUE,
#                                      likewise; prints the address of its record
# damage.py DEVICE random SEED         changes some bytes of some metadata
import json
import random
import subprocess
import sys

from superblock import crc_of_change

BLOCK = 4096


def dump(device, *what):
    output = subprocess.run(
        ["rdax-dump", "--json", device, *map(str, what)], check=True, stdout=subprocess.PIPE
    ).stdout
    return json.loads(output)


def node_of(device, ino):
    child = dump(device, "extents", ino)["parts"][0]
    return child["parts"][0]["block"] * BLOCK


def leaf_of(device, ino):
    return dump(device, "dir", ino)["parts"][0]


def record_of(device, ino):
    leaf = leaf_of(device, ino)
    record = next(part for part in leaf["parts"] if "ino" in part)
    return leaf["at"] + record["offset"]


def superblock(device):
    return dump(device, "superblock")["parts"][0]


# Structure: its address, and the offset of a byte in it that nothing but its checksum protects.
PLACES = {
    "inode": lambda device, ino: (dump(device, "inode", ino)["at"], 100),
    "inode-chunk": lambda device, ino: (dump(device, "inodes")["parts"][ino // 16]["at"], 50),
    "extent-node": lambda device, ino: (node_of(device, ino), 64 + 9),
    "leaf": lambda device, ino: (leaf_of(device, ino)["at"], 20),
    "record": lambda device, ino: (record_of(device, ino), 24),
    "orphan": lambda device, ino: (dump(device, "orphans")["parts"][0]["at"], 8),
    "lane": lambda device, ino: (dump(device, "journal")["parts"][0]["at"], 0),
    "table": lambda device, ino: (superblock(device)["system_block"] * BLOCK, 100),
}


def flip(file, at, mask):
    file.seek(at)
    byte = file.read(1)[0]
    file.seek(at)
    file.write(bytes([byte ^ mask]))


def one(device, what, ino):
    at, offset = PLACES[what](device, ino)
    with open(device, "r+b", buffering=0) as file:
        flip(file, at + offset, 0x10)
        if what == "lane":
            # Both headers: with one the other would do.
            flip(file, at + 64, 0x10)
        if what == "table":
            # Its copy, too.
            copy = (superblock(device)["blocks"] - 2) * BLOCK
            flip(file, copy + offset, 0x10)
    print("%#x" % at)


def field(device, ino, offset, size, value):
    change(device, dump(device, "inode", ino)["at"], 256, offset, size, value)


def name(device, ino, value):
    at = record_of(device, ino)
    with open(device, "rb", buffering=0) as file:
        file.seek(at + 6)
        name_len = file.read(1)[0]
    change(device, at, 24 + name_len, 8, 8, value)


def change(device, at, length, offset, size, value):
    """A field of the `length` bytes at byte `at`, which begin with their checksum."""
    with open(device, "r+b", buffering=0) as file:
        file.seek(at)
        record = bytearray(file.read(length))
        old = bytes(record)
        record[offset : offset + size] = value.to_bytes(size, "little")
        crc = int.from_bytes(record[:4], "little")
        crc ^= crc_of_change(a ^ b for a, b in zip(old[4:], record[4:]))
        record[:4] = crc.to_bytes(4, "little")
        file.seek(at)
        file.write(record)
    print("%#x" % at)


def bitmaps(device):
    sb = superblock(device)
    with open(device, "r+b", buffering=0) as file:
        for chunk in range(sb["chunks"]):
            flip(file, sb["summary_block"] * BLOCK + chunk * 8, 1)
    print("%#x" % (sb["bitmap_block"] * BLOCK))


def chaos(device, seed):
    """Bytes in blocks that are no file's data: those before it, and those that look like metadata."""
    rng = random.Random(seed)
    sb = superblock(device)
    with open(device, "r+b", buffering=0) as file:
        places = [block * BLOCK for block in (0, sb["system_block"])]
        fixed = range(sb["lanes_block"], sb["data_block"])
        places += [block * BLOCK for block in rng.choices(fixed, k=20)]
        for block in range(sb["data_block"], sb["blocks"]):
            file.seek(block * BLOCK)
            head = file.read(16)
            if head[4:8] in (b"DrLf", b"InCk") or head[4:6] == b"Nx" or head[0:4] != bytes(4):
                places.append(block * BLOCK)
        for _ in range(rng.randint(1, 12)):
            at = rng.choice(places) + rng.randrange(BLOCK)
            flip(file, at, rng.randint(1, 255))


device, what = sys.argv[1:3]
if what == "random":
    chaos(device, int(sys.argv[3]))
elif what == "field":
    field(device, *(int(arg, 0) for arg in sys.argv[3:7]))
elif what == "name":
    name(device, int(sys.argv[3]), int(sys.argv[4]))
elif sys.argv[3] == "bitmap":
    bitmaps(device)
else:
    one(device, sys.argv[3], int(sys.argv[4]))
