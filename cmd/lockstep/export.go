package main

import (
	"fmt"

	"github.com/lockstep-storage/lockstep/node"
	"github.com/urfave/cli/v2"
)

func exportCommand() *cli.Command {
	return &cli.Command{
		Name:      "export",
		Usage:     "export this node's replica read-only, though it is not Primary",
		UsageText: "lockstep export VOLUME --read-only",
		Description: "A Primary is exported by itself. This is for a Secondary that follows nobody, as each side\n" +
			"of a split-brain is: its export VOLUME@NODE shows what it holds, its journal included, and\n" +
			"takes no writes. It does not change while it is exported: whatever would change it (a\n" +
			"Primary that it follows again, a promotion) ends the export first. `lockstep unexport`\n" +
			"ends it, too.\n\n" +
			"EXAMPLES:\n" +
			"  lockstep export data --read-only",
		Flags: asking(&cli.BoolFlag{Name: "read-only", Usage: "which it has to be", DisableDefaultText: true}, jsonFlag()),
		Action: arguments([]string{"VOLUME"}, func(c *cli.Context, args []string) error {
			if !c.Bool("read-only") {
				return usage("export", "a volume is exported by `lockstep promote`; what is exported besides is read-only: add --read-only")
			}
			st, err := client(c).Export(c.Context, args[0], node.ExportRequest{ReadOnly: true})
			if err == nil && st.Image != nil && !c.Bool("json") {
				fmt.Fprintf(c.App.Writer, "volume %s: exported read-only as %s, up to LSN %d\n", st.Name, st.ReadOnlyExport, st.Image.UpTo)
				return nil
			}
			return printChanged(c, st, err)
		}),
	}
}

func unexportCommand() *cli.Command {
	return &cli.Command{
		Name:      "unexport",
		Usage:     "end the read-only export of this node's replica",
		UsageText: "lockstep unexport VOLUME",
		Description: "The clients of VOLUME@NODE are disconnected.\n\n" +
			"EXAMPLES:\n" +
			"  lockstep unexport data",
		Flags: asking(jsonFlag()),
		Action: arguments([]string{"VOLUME"}, func(c *cli.Context, args []string) error {
			st, err := client(c).Unexport(c.Context, args[0])
			return printChanged(c, st, err)
		}),
	}
}
