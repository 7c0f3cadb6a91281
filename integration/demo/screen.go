package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
)

// A screen prints numbered steps. On a terminal a step shows how it goes while
// it runs; elsewhere only what came of it.
type screen struct {
	tty   bool
	color bool
	step  int
	title string
}

func newScreen() *screen {
	info, err := os.Stdout.Stat()
	tty := err == nil && info.Mode()&os.ModeCharDevice != 0
	return &screen{tty: tty, color: tty && os.Getenv("NO_COLOR") == ""}
}

func (s *screen) paint(code, text string) string {
	if !s.color {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (s *screen) bold(text string) string  { return s.paint("1", text) }
func (s *screen) green(text string) string { return s.paint("32", text) }
func (s *screen) red(text string) string   { return s.paint("31;1", text) }

// begin opens a step.
func (s *screen) begin(title string) {
	s.step++
	s.title = title
}

func (s *screen) line(format string, a ...any) string {
	return fmt.Sprintf("%2d  %s %s", s.step, s.bold(fmt.Sprintf("%-16s", s.title)), fmt.Sprintf(format, a...))
}

// goes replaces the step's line on a terminal.
func (s *screen) goes(format string, a ...any) {
	if s.tty {
		fmt.Print("\r\x1b[K" + s.line(format, a...))
	}
}

// done closes the step with what came of it; more says it in further lines.
func (s *screen) done(format string, a ...any) {
	if s.tty {
		fmt.Print("\r\x1b[K")
	}
	fmt.Println(s.line(format, a...))
}

func (s *screen) more(format string, a ...any) {
	fmt.Println(strings.Repeat(" ", 21) + fmt.Sprintf(format, a...))
}

// bar draws how much of something is done.
func bar(done, total int) string {
	const width = 24
	n := 0
	if total > 0 {
		n = min(width, width*done/total)
	}
	return "[" + strings.Repeat("#", n) + strings.Repeat(".", width-n) + "]"
}

func count(n int) string { return humanize.Comma(int64(n)) }

func rate(blocks int, d time.Duration) string {
	return humanize.IBytes(uint64(float64(blocks)*blockSize/max(d.Seconds(), 1e-3))) + "/s"
}

func seconds(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}
