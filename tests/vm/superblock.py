# SPDX-License-Identifier: GPL-2.0
#
# Changes the superblocks of an rdax volume, for the tests of what mount refuses.
#
# superblock.py DEVICE WHICH CHANGE
#   WHICH   first, copy or both
#   CHANGE  damage           flips a bit of the label and leaves the checksum
#           erase            overwrites the whole with zeroes
#           version=N        and compat=, ro_compat=, incompat=: with a right checksum
import struct
import sys

SIZE = 512
BLOCK = 4096
FIELDS = {
    "version": (12, "<I"),
    "compat": (16, "<Q"),
    "ro_compat": (24, "<Q"),
    "incompat": (32, "<Q"),
}
LABEL = 56
BLOCKS = 88


def crc_of_change(change, crc=0):
    """By what the CRC32C of bytes changes that are changed by the XOR with these."""
    for byte in change:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc


def crc32c(data):
    return crc_of_change(data, 0xFFFFFFFF) ^ 0xFFFFFFFF


def sealed(block):
    block[8:12] = bytes(4)
    block[8:12] = struct.pack("<I", crc32c(block))


def change(block, what):
    if what == "damage":
        block[LABEL] ^= 0x40
    elif what == "erase":
        block[:] = bytes(SIZE)
    else:
        name, value = what.split("=")
        at, form = FIELDS[name]
        struct.pack_into(form, block, at, int(value, 0))
        sealed(block)


def main():
    device, which, what = sys.argv[1:]
    with open(device, "r+b", buffering=0) as file:
        block = bytearray(file.read(SIZE))
        if block[:4] != b"rdax":
            sys.exit("no superblock in the first block")
        check = bytearray(block)
        sealed(check)
        if check != block:
            sys.exit("the checksum of the superblock is not what this program makes it")
        last = (struct.unpack_from("<Q", block, BLOCKS)[0] - 1) * BLOCK
        for at in {"first": [0], "copy": [last], "both": [0, last]}[which]:
            file.seek(at)
            block = bytearray(file.read(SIZE))
            change(block, what)
            file.seek(at)
            file.write(block)


if __name__ == "__main__":
    main()
