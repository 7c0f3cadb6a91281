package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/lockstep-storage/lockstep/mirror"
	"github.com/urfave/cli/v2"
)

func splitShowCommand() *cli.Command {
	return &cli.Command{
		Name:      "show",
		Usage:     "say what each side of a split-brain wrote since",
		UsageText: "lockstep split show VOLUME [--json]",
		Description: "Each side measured its own when the two met last, and told the other; this node's own\n" +
			"is measured anew. So it can be asked on either node, also while they do not reach each\n" +
			"other. Nothing is changed.\n\n" +
			"EXAMPLES:\n" +
			"  lockstep split show data\n" +
			"  lockstep split show data --json",
		Flags: asking(jsonFlag()),
		Action: arguments([]string{"VOLUME"}, func(c *cli.Context, args []string) error {
			list, err := client(c).SplitBrains(c.Context, args[0])
			switch {
			case err != nil:
				return err
			case c.Bool("json"):
				return printJSON(c.App.Writer, list)
			case len(list) == 0:
				fmt.Fprintf(c.App.Writer, "volume %s: no split-brain is known on this node\n", args[0])
			}
			for _, r := range list {
				printSplit(c.App.Writer, r)
			}
			return nil
		}),
	}
}

// shownRanges and shownGenerations are how many of them people are shown.
const (
	shownRanges      = 10
	shownGenerations = 10
)

func printSplit(w io.Writer, r mirror.SplitReport) {
	fmt.Fprintf(w, "volume %s: split-brain between %s and %s\n", r.Volume, r.Ours.Node, r.Theirs.Node)
	fmt.Fprintf(w, "  both hold LSN %d of generation %.8s, and nothing past it; they parted %s, and met last at %s\n",
		r.Common.LSN, r.Common.Generation, partedAt(r.Parted), clock(r.Met))
	printSide(w, &r.Ours, "this node, now")
	printSide(w, &r.Theirs, "when they met last")
	what := "both wrote"
	if !r.BothExact {
		what = "both wrote, as far as that can be told"
	}
	printRanges(w, what, r.Both)
}

func partedAt(t time.Time) string {
	if t.IsZero() {
		return "at a time that is not known any more"
	}
	return "at " + clock(t)
}

func clock(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") }

func printSide(w io.Writer, s *mirror.SplitSide, when string) {
	fmt.Fprintf(w, "\n%s (%s): %s, %s, ends at LSN %d\n", s.Node, when, s.Role, s.Disk, s.End)
	fmt.Fprintf(w, "  %s since, %s\n", counted(int(s.Writes), "write"), writtenBytes(s))
	if s.Accuracy == mirror.RangesUnknown && len(s.Ranges) == 0 {
		if s.Writes > 0 {
			fmt.Fprintf(w, "  where is not known\n")
		}
	} else {
		printRanges(w, "  "+accuracy[s.Accuracy], s.Ranges)
	}
	if s.Stable < s.End {
		fmt.Fprintf(w, "  synced on its in-sync set: through LSN %d\n", s.Stable)
	}
	for i, g := range s.Generations {
		if i == shownGenerations {
			fmt.Fprintf(w, "  … and %s more\n", counted(len(s.Generations)-i, "generation"))
			break
		}
		fmt.Fprintf(w, "  from LSN %d: %s\n", g.First, became(&g))
	}
}

var accuracy = map[mirror.RangeAccuracy]string{
	mirror.RangesExact:   "written",
	mirror.RangesBlocks:  "written, in whole blocks of 4 KiB where the journal does not reach back",
	mirror.RangesFilled:  "written, with the narrowest gaps counted in",
	mirror.RangesUnknown: "written for certain, and more that is not known",
}

// writtenBytes says how many bytes were written, and how well that is known.
func writtenBytes(s *mirror.SplitSide) string {
	switch {
	case s.Accuracy == mirror.RangesUnknown && s.Bytes == 0 && s.Writes > 0:
		return "their bytes are not known"
	case s.Trimmed > 0:
		return fmt.Sprintf("%d of them no longer in the journal: %s in the others", s.Trimmed, humanize.IBytes(uint64(s.Bytes)))
	}
	return humanize.IBytes(uint64(s.Bytes)) + ", all still in the journal"
}

// printRanges prints a line and below it the first ranges.
func printRanges(w io.Writer, what string, ranges []mirror.Range) {
	total := int64(0)
	for _, r := range ranges {
		total += r.Length
	}
	if len(ranges) == 0 {
		fmt.Fprintf(w, "%s%s: nothing\n", separator(what), what)
		return
	}
	fmt.Fprintf(w, "%s%s: %s in %s\n", separator(what), what, humanize.IBytes(uint64(total)), counted(len(ranges), "range"))
	indent := strings.Repeat(" ", 2+len(what)-len(strings.TrimLeft(what, " ")))
	for i, r := range ranges {
		if i == shownRanges {
			fmt.Fprintf(w, "%s… and %d more (--json has them)\n", indent, len(ranges)-i)
			break
		}
		fmt.Fprintf(w, "%s%d to %d (%s)\n", indent, r.Offset, r.Offset+r.Length-1, humanize.IBytes(uint64(r.Length)))
	}
}

// separator sets what belongs to both sides apart.
func separator(what string) string {
	if strings.HasPrefix(what, " ") {
		return ""
	}
	return "\n"
}

// became says what a side was in a generation.
func became(g *mirror.SplitGeneration) string {
	var b strings.Builder
	switch {
	case g.Continued:
		b.WriteString("Primary as before")
	case g.Promotion && g.Forced == nil:
		b.WriteString("promoted (whether by force is not known any more)")
	case g.Promotion && *g.Forced:
		b.WriteString("promoted by force")
	case g.Promotion:
		b.WriteString("promoted")
	case len(g.Without) > 0:
		b.WriteString("went on")
	default:
		b.WriteString("the in-sync set changed")
	}
	if len(g.Without) > 0 {
		fmt.Fprintf(&b, " without %s", strings.Join(g.Without, ", "))
	}
	fmt.Fprintf(&b, ", in epoch %d", g.Epoch)
	if !g.Began.IsZero() {
		fmt.Fprintf(&b, ", at %s", clock(g.Began))
	}
	return b.String()
}
