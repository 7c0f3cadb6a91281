package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// clockTick is the unit of the times in /proc, whatever the kernel's own (USER_HZ).
const clockTick = 10 * time.Millisecond

// cpuTime is the processor time that processes have taken, all their threads.
func cpuTime(pids ...int) (sum time.Duration, err error) {
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return 0, err
		}
		d, err := parseStat(string(b))
		if err != nil {
			return 0, fmt.Errorf("process %d: %w", pid, err)
		}
		sum += d
	}
	return sum, nil
}

// parseStat reads user and system time of a /proc/PID/stat. The command's name, in
// brackets, may hold anything.
func parseStat(s string) (time.Duration, error) {
	f := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
	if len(f) < 13 {
		return 0, fmt.Errorf("no stat of a process: %q", s)
	}
	user, err1 := strconv.ParseInt(f[11], 10, 64)
	system, err2 := strconv.ParseInt(f[12], 10, 64)
	return time.Duration(user+system) * clockTick, errors.Join(err1, err2)
}

// memory is a process's resident memory now and at its peak, bytes.
func memory(pid int) (now, peak int64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, err
	}
	return parseStatus(string(b))
}

// parseStatus reads the resident memory in a /proc/PID/status.
func parseStatus(s string) (now, peak int64, err error) {
	found := map[string]int64{}
	for line := range strings.Lines(s) {
		key, value, _ := strings.Cut(line, ":")
		if key != "VmRSS" && key != "VmHWM" {
			continue
		}
		kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("status of a process: %w", err)
		}
		found[key] = kib << 10
	}
	if len(found) != 2 {
		return 0, 0, fmt.Errorf("no status of a process: %q", s)
	}
	return found["VmRSS"], found["VmHWM"], nil
}

// forgetPeak has a process's peak begin anew from what it has now.
func forgetPeak(pid int) error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0)
}
