package node

import (
	"fmt"
	"slices"
	"strings"
)

// A Problem is one thing that is wrong in a configuration.
type Problem struct {
	Line int // 0 when no line of the file is to blame
	Text string
}

// ConfigError is everything that is wrong with a configuration, by line.
type ConfigError struct {
	File     string // "" when there is no file
	Problems []Problem
}

func (e *ConfigError) Error() string {
	name := e.File
	if name == "" {
		name = "configuration"
	}
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		if p.Line == 0 {
			lines[i] = fmt.Sprintf("%s: %s", name, p.Text)
		} else {
			lines[i] = fmt.Sprintf("%s:%d: %s", name, p.Line, p.Text)
		}
	}
	return strings.Join(lines, "\n")
}

// errOrNil sorts the problems; nil when there are none.
func (e *ConfigError) errOrNil() error {
	if len(e.Problems) == 0 {
		return nil
	}
	slices.SortStableFunc(e.Problems, func(a, b Problem) int { return a.Line - b.Line })
	return e
}

func (e *ConfigError) add(line int, format string, a ...any) {
	e.Problems = append(e.Problems, Problem{line, fmt.Sprintf(format, a...)})
}
