"""Drives an NBD export through libnbd: many requests in flight on several
connections, flags, a flush that covers all of them, and errors.

  libnbd.py URI
"""
import errno
import random
import sys

import nbd

BLOCK = 64 << 10
uri = sys.argv[1]
conns = [nbd.NBD() for _ in range(4)]
for h in conns:
    h.set_strict_mode(0)  # so that refusals come from the server
    h.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
    h.connect_uri(uri)
h = conns[0]
assert h.can_flush() and h.can_fua() and h.can_trim() and h.can_zero() and h.can_multi_conn()
assert h.can_cache() and h.can_fast_zero()
assert not h.is_read_only()
size = h.get_size()
rng = random.Random(1)
want = {}


def finish(h, cookie):
    while not h.aio_command_completed(cookie):
        h.poll(-1)


# 64 writes in flight on each connection, each to a block of its own. A flush on
# one connection covers them all.
numbers = rng.sample(range(size // BLOCK), 256)
writes = []
for i, n in enumerate(numbers):
    want[n] = rng.randbytes(BLOCK)
    h = conns[i % len(conns)]
    flags = nbd.CMD_FLAG_FUA if i % 5 == 0 else 0
    writes.append((h, h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(want[n])), n * BLOCK, flags=flags)))
for h, cookie in writes:
    finish(h, cookie)
conns[0].flush()

# Everything is read back through the other connections, out of order.
reads = []
for i, n in enumerate(sorted(want, key=lambda _: rng.random())):
    h = conns[(i + 1) % len(conns)]
    buf = nbd.Buffer(BLOCK)
    reads.append((h, n, buf, h.aio_pread(buf, n * BLOCK)))
for h, n, buf, cookie in reads:
    finish(h, cookie)
    assert buf.to_bytearray() == want[n], "block %d differs" % n

# What changes without data, with every flag, and nothing beside it.
h = conns[1]
h.pwrite(b"x" * BLOCK, 0, nbd.CMD_FLAG_FUA)
h.zero(4096, 4096, nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FUA)
h.zero(4096, 12288)
h.trim(4096, 20480, nbd.CMD_FLAG_FUA)
h.zero(4096, 28672, nbd.CMD_FLAG_FAST_ZERO)
h.cache(size, 0)
h.flush()
got = conns[2].pread(BLOCK, 0)
for b in range(16):
    expected = b"\0" if b in (1, 3, 5, 7) else b"x"
    assert got[b * 4096:(b + 1) * 4096] == expected * 4096, "4 KiB block %d" % b

# What block status calls zero reads as zeroes, also where it was changed a moment
# ago, and in pieces that fit no block if the export has none.
least = h.get_block_size(nbd.SIZE_MINIMUM)
h.trim(1 << 20, 1 << 20)
for i in range(50):
    off = (1 << 20) + rng.randrange(900000) // least * least
    n = rng.randrange(1, 40) * least
    [lambda: h.pwrite(b"w" * n, off), lambda: h.trim(n, off), lambda: h.zero(n, off)][i % 3]()
extents = []
while sum(n for n, _ in extents) < size:
    entries = []
    h.block_status(size, sum(n for n, _ in extents), lambda c, o, e, err: entries.extend(e) or 0)
    assert entries
    extents += zip(entries[::2], entries[1::2])
off = 0
for n, flags in extents:
    for at in range(off, off + n, 8 << 20):
        k = min(8 << 20, off + n - at)
        assert not flags or h.pread(k, at) == bytes(k), "%d bytes at %d are not zero" % (k, at)
    off += n
assert off == size and any(flags for _, flags in extents) and not all(flags for _, flags in extents)

# The server's refusals, each with its errno; the connection lives on.
refusals = [
    (lambda: h.pread(4096, size), errno.EINVAL),
    (lambda: h.pread(4096, 2**63 - 4096), errno.EINVAL),
    (lambda: h.pwrite(bytes(4096), size), errno.ENOSPC),
    (lambda: h.pwrite(bytes(8192), size - 4096), errno.ENOSPC),
    (lambda: h.zero(8192, size - 4096), errno.ENOSPC),
    (lambda: h.trim(8192, size - 4096), errno.EINVAL),
    (lambda: h.cache(8192, size - 4096), errno.EINVAL),
    (lambda: h.trim(4096, 2**63 - 4096), errno.EINVAL),
]
if h.get_block_size(nbd.SIZE_MINIMUM) > 1:
    refusals.append((lambda: h.pwrite(bytes(513), 0), errno.EINVAL))
for i, (what, number) in enumerate(refusals):
    try:
        what()
    except nbd.Error as e:
        assert e.errnum == number, "refusal %d: %s instead of %s" % (i, e.errnum, number)
    else:
        raise AssertionError("request %d was accepted" % i)
assert h.pread(BLOCK, 0) == got
for h in conns:
    h.shutdown()
print("%d blocks on %d connections" % (len(want), len(conns)))
