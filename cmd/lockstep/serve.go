package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/lockstep-storage/lockstep/node"
	"github.com/urfave/cli/v2"
)

// stopTime is how long a graceful stop may take.
const stopTime = 15 * time.Second

func serveCommand() *cli.Command {
	return &cli.Command{
		Name:  "serve",
		Usage: "run the daemon",
		Description: "Opens every volume in the data directory, exports them over NBD and answers the\n" +
			"other commands, until SIGTERM or SIGINT ends it gracefully; a second one, at once.\n" +
			"Without a config file it runs on defaults (docs/configuration.md).\n\n" +
			"EXAMPLES:\n" +
			"  lockstep serve\n" +
			"  lockstep serve --config /etc/lockstep.yaml\n" +
			"  lockstep serve --config /etc/lockstep.yaml --check",
		UsageText: "lockstep serve [--config FILE] [--check]",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "config", Aliases: []string{"c"}, Usage: "read the configuration from `FILE`"},
			&cli.BoolFlag{Name: "check", Usage: "check the configuration, and do nothing else", DisableDefaultText: true},
		},
		Action: arguments(nil, serve),
	}
}

func serve(c *cli.Context, _ []string) error {
	cfg, err := config(c.String("config"))
	if err != nil {
		return err
	}
	if c.Bool("check") {
		fmt.Fprintf(c.App.Writer, "the configuration is good: node %s, data directory %s\n", cfg.Node, cfg.DataDir)
		return nil
	}
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(signals)
	return runDaemon(cfg, signals, c.App.ErrWriter)
}

func config(path string) (node.Config, error) {
	if path == "" {
		return node.ParseConfig(nil, "") // the defaults, checked
	}
	return node.LoadConfig(path)
}

// runDaemon serves until the first signal, and then stops; at the second it
// returns whatever state that is in.
func runDaemon(cfg node.Config, signals <-chan os.Signal, log io.Writer) error {
	ended, stop := make(chan error, 1), make(chan struct{})
	go func() {
		n, err := node.Start(node.Options{Config: cfg, Version: version, Logger: node.NewLogger(cfg.Log, log)})
		if err == nil {
			<-stop
			ctx, cancel := context.WithTimeout(context.Background(), stopTime)
			defer cancel()
			err = n.Stop(ctx)
		}
		ended <- err
	}()
	select {
	case err := <-ended:
		return err
	case <-signals:
		close(stop)
	}
	select {
	case err := <-ended:
		return err
	case <-signals:
		return errors.New("stopped at once by a second signal: the next start recovers")
	}
}
