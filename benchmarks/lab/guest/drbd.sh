# DRBD of this kernel, protocol C, metadata internal. DISKOPT is a line more for its
# disk section.
modprobe drbd
echo 'global { usage-count no; } common { }' >/etc/drbd.d/global_common.conf
cat >/etc/drbd.d/r0.res <<R
resource r0 {
	net { protocol C; }
	disk { $DISKOPT }
	device /dev/drbd0; disk $disk; meta-disk internal;
	on node1 { address $one:7789; }
	on node2 { address $two:7789; }
}
R
drbdadm create-md --force r0 >/dev/null 2>&1
if [ "$(hostname)" = node2 ]; then
	drbdadm up r0
	say up
	until_true said settled
	while [ ! -e /pair/over ]; do sleep 0.5; done
	sum $disk >/pair/sum2
	exit 0
fi
until_true said up
drbdadm up r0
until_true grep -q cs:Connected /proc/drbd
drbdadm new-current-uuid --clear-bitmap r0/0 # both are zeroes
until_true grep -q ds:UpToDate/UpToDate /proc/drbd
say settled
drbdadm primary r0
echo "version drbd $(sed -n 's/^version: \([^ ]*\).*/\1/p' /proc/drbd)"
cells /dev/drbd0
drbdadm secondary r0
sum $disk >/pair/sum1
