# SPDX-License-Identifier: GPL-2.0
"""partition.py add DISK NUMBER START BYTES | del DISK NUMBER: partitions that the kernel alone knows of
(BLKPG, in linux/blkpg.h); NUMBER counts from 1, START and BYTES are multiples of 512."""

import ctypes
import fcntl
import sys

BLKPG = 0x1269
OPERATIONS = {"add": 1, "del": 2}


class Partition(ctypes.Structure):
    """struct blkpg_partition"""

    _fields_ = [
        ("start", ctypes.c_longlong),
        ("length", ctypes.c_longlong),
        ("pno", ctypes.c_int),
        ("devname", ctypes.c_char * 64),
        ("volname", ctypes.c_char * 64),
    ]


class Argument(ctypes.Structure):
    """struct blkpg_ioctl_arg"""

    _fields_ = [
        ("op", ctypes.c_int),
        ("flags", ctypes.c_int),
        ("datalen", ctypes.c_int),
        ("data", ctypes.POINTER(Partition)),
    ]


operation, disk, number, *place = sys.argv[1:]
partition = Partition(*map(int, place or (0, 0)), int(number))
argument = Argument(
    OPERATIONS[operation], 0, ctypes.sizeof(partition), ctypes.pointer(partition)
)
with open(disk, "rb") as file:
    fcntl.ioctl(file, BLKPG, argument)
