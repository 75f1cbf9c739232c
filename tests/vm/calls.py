# SPDX-License-Identifier: GPL-2.0
#
# For the Python programs of tests: system calls that os lacks, and calls that have to fail.
import ctypes, errno, os

libc = ctypes.CDLL(None, use_errno=True)
libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]

def check(result, *names):
    """What a call of libc returned, or the OSError that it stands for."""
    if result < 0:
        e = ctypes.get_errno()
        raise OSError(e, os.strerror(e), *names)
    return result

def fallocate(fd, mode, offset, length):
    check(libc.fallocate(fd, mode, offset, length))

def as_user(uid, gid, call):
    """The errno of call as that user, 0 if it succeeds."""
    pid = os.fork()
    if pid == 0:
        os.setgroups([gid]); os.setgid(gid); os.setuid(uid)
        try:
            call()
        except OSError as e:
            os._exit(e.errno)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def fails(number, call, *args, **kw):
    """It fails with the errno `number`."""
    try:
        call(*args, **kw)
    except OSError as e:
        assert e.errno == number, (errno.errorcode[e.errno], errno.errorcode[number], args)
    else:
        raise AssertionError((errno.errorcode[number], args))
