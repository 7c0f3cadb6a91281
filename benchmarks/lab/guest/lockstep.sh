# Two nodes of ours, protocol C, the store on the RAM disk, the journal in memory as
# well; the volume is attached on node1 by the kernel's NBD client, over a unix socket.
me=$(hostname) other=node1 its=$one
if [ $me = node1 ]; then other=node2 its=$two; fi
mkdir /tmp/ls
cat >/tmp/ls/config.yaml <<Y
node: $me
data-dir: /tmp/ls/data
admin: /tmp/ls/admin.sock
nbd: {listen: ["unix:/tmp/ls/nbd.sock"]}
peer: {listen: "0.0.0.0:7790", allow-plaintext: true}
nodes: {$other: "$its:7790"}
Y
export LOCKSTEP_SOCKET=/tmp/ls/admin.sock
/ours/lockstep serve --config /tmp/ls/config.yaml 2>/pair/log-$me &
daemon=$!
until_true test -S $LOCKSTEP_SOCKET
/ours/lockstep create data --size ${SIZE}MiB --store $disk --wipe --peer $other --journal-size 128MiB >/dev/null
modprobe nbd
attach() { nbd-client -unix /tmp/ls/nbd.sock -N data -C "$CONNS" -b 4096 /dev/nbd0; }
in_sync() { test "$(/ours/lockstep status --json | jq '[.volumes[0].peers[] | select(.member)] | length')" = 1; }
if [ $me = node2 ]; then
	say up
	until_true said written
	until_true /ours/lockstep promote data
	attach >/dev/null 2>&1
	sum /dev/nbd0 >/pair/sum2
	nbd-client -d /dev/nbd0 >/dev/null
	kill $daemon
	wait $daemon || true
	exit 0
fi
until_true said up
until_true /ours/lockstep promote data
until_true in_sync
attach >/dev/null 2>&1
echo "version lockstep $(/ours/lockstep version | head -n 1)"
cells /dev/nbd0
sum /dev/nbd0 >/pair/sum1
nbd-client -d /dev/nbd0 >/dev/null
/ours/lockstep demote data >/dev/null
say written
until_true test -s /pair/sum2
kill $daemon
wait $daemon || true
