# Writes or reads numbered blocks through libnbd.
#
#   client.py write URI SIZE FIRST LAST PASS   prints the next block after each flush
#   client.py read  URI SIZE FIRST LAST        prints the blocks' bytes
#
# Every block is filled with the number of the pass and its own number.
import struct
import sys

import nbd

FLUSH_EVERY = 64  # blocks

mode, uri, size, first, last = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])
h = nbd.NBD()
try:
    h.connect_uri(uri)
    for n in range(first, last):
        if mode == "read":
            sys.stdout.buffer.write(h.pread(size, n * size))
            continue
        h.pwrite(struct.pack("<QQ", int(sys.argv[6]), n) * (size // 16), n * size)
        if (n + 1) % FLUSH_EVERY == 0 or n + 1 == last:
            h.flush()
            print(n + 1, flush=True)
    h.shutdown()
except nbd.Error as e:
    sys.exit("libnbd: " + str(e))
