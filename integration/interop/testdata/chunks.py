"""Drives an NBD export through libnbd's structured replies. The export is empty,
every read of it waits for a disk, and byte 32 MiB cannot be read.

  chunks.py URI
"""
import errno
import sys

import nbd

MIB = 1 << 20
BAD = 32 * MIB
h = nbd.NBD()
h.set_strict_mode(0)  # so that refusals come from the server
h.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
h.connect_uri(sys.argv[1])
assert h.get_structured_replies_negotiated() and h.can_df()
assert h.can_meta_context(nbd.CONTEXT_BASE_ALLOCATION)


def read(n, off, flags=0):
    """What the read's chunks were, and its error's number."""
    chunks = []

    def chunk(data, off, status, error):
        chunks.append((off, len(data), {nbd.READ_DATA: "data", nbd.READ_HOLE: "hole", nbd.READ_ERROR: "error"}[status]))
        return 0

    try:
        got = h.pread_structured(n, off, chunk, flags)
    except nbd.Error as e:
        return None, chunks, e.errnum
    return got, chunks, 0


h.pwrite(b"x" * MIB, 0)
h.pwrite(b"y" * MIB, 3 * MIB)
h.pwrite(b"z" * 4096, BAD)
want = b"x" * MIB + bytes(2 * MIB) + b"y" * MIB + bytes(4 * MIB)
parts = [(0, MIB, "data"), (MIB, 2 * MIB, "hole"), (3 * MIB, MIB, "data"), (4 * MIB, 4 * MIB, "hole")]
assert read(8 * MIB, 0) == (want, parts, 0)
assert read(8 * MIB, 0, nbd.CMD_FLAG_DF) == (want, [(0, 8 * MIB, "data")], 0)
assert read(4096, 2 * MIB) == (bytes(4096), [(2 * MIB, 4096, "data")], 0)
h.trim(MIB, 3 * MIB)
assert read(MIB, 3 * MIB) == (bytes(MIB), [(3 * MIB, MIB, "hole")], 0)


def status(n, off, flags=0):
    """The extents, as pairs of length and flags; base:allocation's alone."""
    got = []

    def extents(context, offset, entries, error):
        assert (context, offset) == (nbd.CONTEXT_BASE_ALLOCATION, off), (context, offset)
        got.extend(zip(entries[::2], entries[1::2]))
        return 0

    try:
        h.block_status(n, off, extents, flags)
    except nbd.Error as e:
        return e.errnum
    return got


HOLE = nbd.STATE_HOLE | nbd.STATE_ZERO
h.zero(MIB, 5 * MIB, nbd.CMD_FLAG_NO_HOLE)
assert status(8 * MIB, 0) == [(MIB, 0), (4 * MIB, HOLE), (MIB, nbd.STATE_ZERO), (2 * MIB, HOLE)], status(8 * MIB, 0)
assert status(8 * MIB, 0, nbd.CMD_FLAG_REQ_ONE) == [(MIB, 0)]
assert status(512, 3 * MIB, nbd.CMD_FLAG_REQ_ONE) == [(512, HOLE)]
assert status(MIB, h.get_size()) == errno.EINVAL
assert status(0, 0) == errno.EINVAL
assert status(MIB, 0, nbd.CMD_FLAG_DF) == errno.EINVAL

# This device's zeroes are no faster than a write.
try:
    h.zero(MIB, 0, nbd.CMD_FLAG_FAST_ZERO)
except nbd.Error as e:
    assert e.errnum == errno.ENOTSUP, e.errnum
else:
    raise AssertionError("a fast zero that is not fast was done")
assert read(MIB, 0) == (b"x" * MIB, [(0, MIB, "data")], 0)

# An error says where: what comes before it is there.
_, chunks, number = read(MIB, BAD - 4096)
assert number == errno.EIO, number
assert chunks == [(BAD - 4096, 4096, "hole"), (BAD, 0, "error")], chunks

# Refusals, and longer than it can be sent in one piece.
for n, off, flags, number in [
    (4096, h.get_size(), 0, errno.EINVAL),
    (33 * MIB, 0, 0, errno.EOVERFLOW),
    (33 * MIB, 0, nbd.CMD_FLAG_DF, errno.EOVERFLOW),
]:
    got = read(n, off, flags)
    assert got[2] == number, (n, off, flags, got[1:])
assert read(MIB, 0) == (b"x" * MIB, [(0, MIB, "data")], 0)
h.shutdown()
print("chunks, errors and refusals are as they should be")
