# Sourced by both guests: node1, which measures, and node2, its peer. The backing
# disk of each is a RAM disk of SIZE MiB.
set -e
. /lab/fio.sh
modprobe brd rd_nr=1 rd_size=$((SIZE * 1024))
disk=/dev/ram0 one=10.0.2.15 two=10.0.2.16

# until_true waits until the command succeeds, 120 s at most.
until_true() {
	for _ in $(seq 480); do
		if "$@" >/dev/null 2>&1; then return 0; fi
		sleep 0.25
	done
	echo "gave up on: $*" >&2
	return 1
}
said() { test -e "/pair/$1" -o -e /pair/over; }
say() { : >"/pair/$1"; }
sum() { head -c 64M "$1" | md5sum; }

# cells measures every cell on a device, each line: cell NAME IOPS MB/s p99-us.
cells() {
	local rw bs qd
	while read -r rw bs qd; do
		echo "cell $rw-$bs-qd$qd $(one "$1" "$SECS" $rw $bs $qd)"
	done <<-CELLS
		randwrite 4k 1
		randwrite 4k 32
		write 128k 8
	CELLS
}
