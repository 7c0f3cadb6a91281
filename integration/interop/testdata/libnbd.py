# Uses an export as a program over libnbd would, and asserts every answer.
#
#   libnbd.py URI
import errno
import sys

import nbd

h = nbd.NBD()
h.connect_uri(sys.argv[1])
size = h.get_size()
assert h.can_flush() and h.can_fua() and h.can_trim() and h.can_zero() and h.can_multi_conn()
assert not h.is_read_only()

# Many requests in flight, answered in whatever order.
count, step = 256, 8192
bufs = [nbd.Buffer.from_bytearray(bytearray([i]) * step) for i in range(count)]
cookies = [h.aio_pwrite(b, i * step) for i, b in enumerate(bufs)]
while not all(h.aio_command_completed(c) for c in cookies[-1:]):
    h.poll(-1)
for c in cookies[:-1]:
    while not h.aio_command_completed(c):
        h.poll(-1)
h.flush()
for i in range(count):
    assert h.pread(step, i * step) == bytes([i]) * step, "block %d" % i

# What changes without data.
h.pwrite(b"x" * 65536, 0, nbd.CMD_FLAG_FUA)
h.zero(4096, 4096, nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FUA)
h.zero(4096, 12288)
h.trim(4096, 20480, nbd.CMD_FLAG_FUA)
h.flush()
got = h.pread(65536, 0)
for b in range(16):
    want = b"\0" if b in (1, 3, 5) else b"x"
    assert got[b * 4096:(b + 1) * 4096] == want * 4096, "block %d" % b

# A second connection sees what the first wrote; a flush on one covers both.
g = nbd.NBD()
g.connect_uri(sys.argv[1])
h.pwrite(b"y" * 4096, size - 4096)
g.flush()
assert g.pread(4096, size - 4096) == b"y" * 4096

# Bad requests get an errno, and the connection lives on.
h.set_strict_mode(0)
def refused(what, *codes):
    try:
        what()
    except nbd.Error as e:
        assert e.errnum in codes, "%s instead of %s" % (e, codes)
    else:
        assert False, "a bad request succeeded"
beyond = (errno.EINVAL, errno.ENOSPC)
refused(lambda: h.pwrite(b"z" * 4096, size), *beyond)
refused(lambda: h.pwrite(b"z" * 8192, size - 4096), *beyond)
refused(lambda: h.pread(4096, size), *beyond)
refused(lambda: h.pread(4096, 2**63 - 4096), *beyond)
refused(lambda: h.zero(8192, size - 4096), *beyond)
refused(lambda: h.trim(8192, size - 4096), *beyond)
assert h.pread(4096, size - 4096) == b"y" * 4096
h.shutdown()
g.shutdown()
