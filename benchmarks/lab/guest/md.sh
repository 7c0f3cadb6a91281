# md raid1 with a bitmap: one leg is here, the other comes over the kernel's NBD client
# from nbdkit on node2.
if [ "$(hostname)" = node2 ]; then
	nbdkit -i $two file $disk
	say up
	while [ ! -e /pair/over ]; do sleep 0.5; done
	sum $disk >/pair/sum2
	exit 0
fi
until_true said up
modprobe nbd
modprobe raid1
until_true nbd-client $two 10809 -b 4096 /dev/nbd0
# The superblock and the bitmap lie at the end of each leg; both are zeroes else.
mdadm --create /dev/md0 --run --level=1 --raid-devices=2 --metadata=1.0 --bitmap=internal --assume-clean $disk /dev/nbd0 >/dev/null 2>&1
echo "version md $(mdadm --version 2>&1)"
cells /dev/md0
mdadm --stop /dev/md0 >/dev/null 2>&1
sum $disk >/pair/sum1
nbd-client -d /dev/nbd0 >/dev/null
