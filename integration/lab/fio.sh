# Sourced in the guest: the benchmark every script of the lab runs.
# It needs fio and jq: LOCKSTEP_LAB_PACKAGES="fio jq".
# one DEVICE SECS RW BS QD: prints "iops MB/s p99us"
one() {
	fio --name=x --filename="$1" --direct=1 --ioengine=libaio --rw="$3" --bs="$4" \
		--iodepth="$5" --time_based --runtime="$2" --ramp_time=${RAMP:-0.5} --randrepeat=0 --norandommap \
		--thread --output-format=json 2>/dev/null | sed -n '/^{/,$p' |
		jq -r '.jobs[0] | (if .write.total_ios > 0 then .write else .read end) |
			"\(.iops|floor) \(.bw_bytes/1e6*10|floor/10) \((.clat_ns.percentile["99.000000"] // 0)/1000|floor)"'
}
median() { sort -n | awk '{v[NR]=$0} END{print v[int((NR+1)/2)]}'; }
# row DEVICE SECS LABEL RW BS QD: medians of RUNS (3) runs
row() {
	local r=
	for _ in $(seq "${RUNS:-3}"); do r+="$(one "$1" "$2" "$4" "$5" "$6")"$'\n'; done
	r=${r%$'\n'}
	printf '%-10s %-10s bs=%-4s qd=%-3s %8s IOPS %8s MB/s  p99 %7s us   (IOPS of runs: %s)\n' "$3" "$4" "$5" "$6" \
		"$(cut -d' ' -f1 <<<"$r" | median)" "$(cut -d' ' -f2 <<<"$r" | median)" "$(cut -d' ' -f3 <<<"$r" | median)" \
		"$(cut -d' ' -f1 <<<"$r" | xargs)"
}
# bench DEVICE SECS LABEL
bench() {
	row "$1" "$2" "$3" randwrite 4k 1
	row "$1" "$2" "$3" randwrite 4k 16
	row "$1" "$2" "$3" randread 4k 1
	row "$1" "$2" "$3" randread 4k 16
	row "$1" "$2" "$3" write 128k 8
	row "$1" "$2" "$3" read 128k 8
}
