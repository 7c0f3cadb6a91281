"""Drives an NBD export through libnbd: many requests in flight on several
connections, flags, a flush that covers all of them, and errors."""
import errno
import random
import sys

import nbd

BLOCK = 64 << 10
uri = sys.argv[1]
conns = [nbd.NBD() for _ in range(4)]
for h in conns:
    h.set_strict_mode(0)  # so that refusals come from the server
    h.connect_uri(uri)
assert conns[0].can_multi_conn()
size = conns[0].get_size()
blocks = size // BLOCK // 4
rng = random.Random(1)
want = {}

# 64 writes in flight on each connection, each to a block of its own.
numbers = rng.sample(range(blocks), 256)
cookies = []
for i, n in enumerate(numbers):
    data = rng.randbytes(BLOCK)
    want[n] = data
    h = conns[i % len(conns)]
    flags = nbd.CMD_FLAG_FUA if i % 5 == 0 else 0
    cookies.append((h, h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(data)), n * BLOCK, flags=flags)))
for h, cookie in cookies:
    while not h.aio_command_completed(cookie):
        h.poll(-1)
conns[0].flush()

# Read everything back through the other connections, out of order.
reads = []
for i, n in enumerate(sorted(want, key=lambda _: rng.random())):
    h = conns[(i + 1) % len(conns)]
    buf = nbd.Buffer(BLOCK)
    reads.append((h, n, buf, h.aio_pread(buf, n * BLOCK)))
for h, n, buf, cookie in reads:
    while not h.aio_command_completed(cookie):
        h.poll(-1)
    assert buf.to_bytearray() == want[n], "block %d differs" % n

# Zeroes and trim, with flags.
h = conns[1]
first = numbers[0] * BLOCK
h.zero(BLOCK, first, flags=nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FUA)
assert h.pread(BLOCK, first) == bytes(BLOCK)
second = numbers[1] * BLOCK
h.trim(BLOCK, second, flags=nbd.CMD_FLAG_FUA)

# The server's refusals, each with its errno; the connection lives on.
for what, number in (
    (lambda: h.pread(512, size), errno.EINVAL),
    (lambda: h.pwrite(bytes(512), size), errno.ENOSPC),
    (lambda: h.pwrite(bytes(513), 0), errno.EINVAL),
    (lambda: h.trim(512, 2**63 - 512), errno.EINVAL),
):
    try:
        what()
    except nbd.Error as e:
        assert e.errnum == number, "%s instead of %s" % (e.errnum, number)
    else:
        raise AssertionError("accepted")
assert h.pread(BLOCK, numbers[2] * BLOCK) == want[numbers[2]]
for h in conns:
    h.shutdown()
print("%d blocks on %d connections" % (len(want), len(conns)))
