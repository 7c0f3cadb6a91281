package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/urfave/cli/v2"
)

// version is set by the linker: -ldflags "-X main.version=1.2.3".
var version = "dev"

const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2
)

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

// run is main without the process around it.
func run(args []string, in io.Reader, out, errOut io.Writer) int {
	app := newApp(in, out, errOut)
	args, err := arrange(app, args)
	if err == nil {
		err = app.Run(append([]string{app.Name}, args...))
	}
	if err == nil {
		return exitOK
	}
	fmt.Fprintln(errOut, "lockstep:", err)
	if u, ok := errors.AsType[*usageError](err); ok {
		fmt.Fprintf(errOut, "See `%s --help`.\n", strings.TrimSpace("lockstep "+u.command))
		return exitUsage
	}
	return exitFailure
}

// A usageError is a command line that makes no sense.
type usageError struct {
	command string // "" is none
	text    string
}

func (e *usageError) Error() string { return e.text }

func usage(command, format string, a ...any) error {
	return &usageError{command, fmt.Sprintf(format, a...)}
}

func newApp(in io.Reader, out, errOut io.Writer) *cli.App {
	app := &cli.App{
		Name:      "lockstep",
		HelpName:  "lockstep",
		Usage:     "a block target that mirrors every write before it is acknowledged",
		Version:   version,
		Reader:    in,
		Writer:    out,
		ErrWriter: errOut,
		Suggest:   true,
		Description: "`lockstep serve` runs the daemon; the other commands ask the daemon on this host,\n" +
			"but for `check` and `journal`, which read the files of a daemon that is stopped, and `keys`.",
		Flags: []cli.Flag{globalSocket()},
		Commands: []*cli.Command{
			serveCommand(), createCommand(), deleteCommand(), statusCommand(), promoteCommand(),
			demoteCommand(), connectCommand(), disconnectCommand(), exportCommand(), unexportCommand(), snapshotCommand(), splitCommand(), resyncCommand(), repairCommand(), rollbackCommand(), checkCommand(), journalCommand(), keysCommand(), versionCommand(),
		},
		Action:         noCommand,
		OnUsageError:   func(_ *cli.Context, err error, _ bool) error { return usage("", "%v", err) },
		ExitErrHandler: func(*cli.Context, error) {}, // run sets the exit status
	}
	prepare("", app.Commands)
	return app
}

// prepare has each command and those below it answer a flag that makes no sense.
func prepare(parent string, commands []*cli.Command) {
	for _, c := range commands {
		name := strings.TrimSpace(parent + " " + c.Name)
		c.OnUsageError = func(_ *cli.Context, err error, _ bool) error { return usage(name, "%v", err) }
		prepare(name, c.Subcommands)
	}
}

// noCommand runs when the line names no command of ours.
func noCommand(c *cli.Context) error {
	name := c.Args().First()
	if name == "" {
		return cli.ShowAppHelp(c)
	}
	if near := cli.SuggestCommand(c.App.Commands, name); near != "" {
		return usage("", "unknown command %q. %s", name, near)
	}
	return usage("", "unknown command %q", name)
}
