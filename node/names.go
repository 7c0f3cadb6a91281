package node

import (
	"fmt"
	"strings"
)

const maxName = 64

// checkName judges the name of a volume or a node. What names a volume also
// names a directory, an export and a word on a command line.
func checkName(kind, name string) error {
	switch {
	case name == "":
		return fmt.Errorf("the %s has no name", kind)
	case len(name) > maxName:
		return fmt.Errorf("the %s's name %.20q... has %d characters, the limit is %d", kind, name, len(name), maxName)
	case name[0] == '.' || name[0] == '-':
		return fmt.Errorf("%q can't name a %s: it begins with %q", name, kind, name[:1])
	}
	for _, r := range name {
		if !strings.ContainsRune(nameLetters, r) {
			return fmt.Errorf("%q can't name a %s: use only a-z A-Z 0-9 . _ -", name, kind)
		}
	}
	return nil
}

const nameLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"

// didYouMean is " (did you mean X?)" for the word among known that is nearest
// to got, or "" when none is near.
func didYouMean(got string, known []string) string {
	best, distance := "", max(2, len(got)/3)+1
	for _, k := range known {
		d := editDistance(got, k)
		if len(got) > 2 && strings.HasPrefix(k, got) {
			d = 0 // a word cut short
		}
		if d < distance {
			best, distance = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %q?)", best)
}

// editDistance counts the letters to insert, delete or change. Words longer
// than any key of ours count as far away.
func editDistance(a, b string) int {
	if len(a) > maxName || len(b) > maxName {
		return maxName
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
