package main

import (
	"fmt"
	"runtime"

	"github.com/urfave/cli/v2"
)

func versionCommand() *cli.Command {
	return &cli.Command{
		Name:      "version",
		Usage:     "print this program's version",
		UsageText: "lockstep version [--json]",
		Description: "EXAMPLES:\n" +
			"  lockstep version\n" +
			"  lockstep version --json",
		Flags:  []cli.Flag{jsonFlag()},
		Action: arguments(nil, printVersion),
	}
}

type versionInfo struct {
	Version string `json:"version"`
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
}

func printVersion(c *cli.Context, _ []string) error {
	v := versionInfo{version, runtime.Version(), runtime.GOOS, runtime.GOARCH}
	if c.Bool("json") {
		return printJSON(c.App.Writer, v)
	}
	fmt.Fprintf(c.App.Writer, "lockstep %s (%s, %s/%s)\n", v.Version, v.Go, v.OS, v.Arch)
	return nil
}
