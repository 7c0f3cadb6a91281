package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	whole := "version drbd 8.4.11\ncell randwrite-4k-qd1 246 1 27131\ncell randwrite-4k-qd32 1558 6.3 158334\nnoise\ncell write-128k-qd8 143 18.8 177209\n"
	versions := make(map[string]string)
	cells, err := parse(whole, versions)
	if err != nil {
		t.Fatal(err)
	}
	if versions["drbd"] != "8.4.11" || cells["randwrite-4k-qd32"].IOPS != 1558 || cells["write-128k-qd8"].Bytes != 18.8e6 {
		t.Errorf("parsed %v, %v", versions, cells)
	}
	for _, cut := range []string{"randwrite-4k-qd1 ", "write-128k"} {
		if _, err := parse(strings.Replace(whole, "cell "+cut, "cell x", 1), versions); err == nil {
			t.Errorf("nobody misses %q", cut)
		}
	}
}

func TestEqualSums(t *testing.T) {
	dir := t.TempDir()
	write := func(name, sum string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(sum), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("sum1", "a -\n")
	if equalSums(dir) == nil {
		t.Error("without the second node's sum they are equal")
	}
	write("sum2", "b -\n")
	if equalSums(dir) == nil {
		t.Error("a is b")
	}
	write("sum2", "a -\n")
	if err := equalSums(dir); err != nil {
		t.Error(err)
	}
}

// TestScripts: each subject has its script, and each script measures the cells that
// the report has.
func TestScripts(t *testing.T) {
	common, err := scripts.ReadFile("guest/common.sh")
	if err != nil {
		t.Fatal(err)
	}
	for _, cell := range cellNames {
		f := strings.Split(cell, "-") // randwrite-4k-qd1
		if line := "\t" + f[0] + " " + f[1] + " " + strings.TrimPrefix(f[2], "qd") + "\n"; !strings.Contains(string(common), line) {
			t.Errorf("common.sh does not measure %s", cell)
		}
	}
	for _, s := range subjects {
		if b, err := scripts.ReadFile("guest/" + s.script + ".sh"); err != nil || !strings.Contains(string(b), "\ncells /dev/") {
			t.Errorf("%s measures nothing: %v", s.name, err)
		}
	}
}
