package interop

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
)

func qemuImg(t *testing.T, e export) {
	var info struct {
		Size   int64 `json:"virtual-size"`
		Format string
	}
	out := run(t, "qemu-img", "info", "--output=json", "-f", "raw", e.uri())
	if err := json.Unmarshal([]byte(out), &info); err != nil || info.Size != exportSize || info.Format != "raw" {
		t.Errorf("info: %v\n%s", err, out)
	}
	src, back := image(t), filepath.Join(t.TempDir(), "back")
	run(t, "qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", src, e.uri())
	run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", src, e.uri())
	run(t, "qemu-img", "convert", "-f", "raw", "-O", "raw", e.uri(), back)
	sameFiles(t, src, back)
	// -W: out of order, several requests at once.
	run(t, "qemu-img", "convert", "-n", "-W", "-m", "16", "-f", "raw", "-O", "raw", back, e.uri())
	run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", src, e.uri())
}

// qemu-io checks patterns itself (-P) and prints what does not match.
func qemuIO(t *testing.T, e export) {
	args := []string{"-f", "raw", "--discard=unmap"}
	for _, c := range []string{
		"write -P 0x11 0 1M",
		"write -f -P 0x22 1M 64k", // FUA
		"flush",
		"write -z 64k 64k",    // zeroes, may leave a hole
		"write -z -u 256k 4k", // may unmap
		"write -z -f 512k 64k",
		"write -P 0x55 2M 1M",
		"discard 2M 1M",
		"read -P 0x11 0 64k",
		"read -P 0 64k 64k",
		"read -P 0x11 128k 128k",
		"read -P 0 256k 4k",
		"read -P 0 512k 64k",
		"read -P 0x22 1M 64k",
		"read -P 0 2M 1M",
		"aio_write -P 0x33 3M 1M",
		"aio_write -P 0x44 4M 1M",
		"aio_flush",
		"read -P 0x33 3M 1M",
		"read -P 0x44 4M 1M",
		"write -P 0x66 8M 4M",
		"write -z -u 8M 4M",
		"read -P 0 8M 4M",
		"write -P 0x77 16M 1M",
		"write -z -u -n 16M 512k", // only if it is fast
		"read -P 0 16M 512k",
		"read -P 0x77 16896k 512k",
	} {
		args = append(args, "-c", c)
	}
	out := run(t, "qemu-io", append(args, e.uri())...)
	for _, bad := range []string{"fail", "error", "invalid"} {
		if strings.Contains(strings.ToLower(out), bad) {
			t.Fatalf("qemu-io says %q:\n%s", bad, out)
		}
	}
}
