package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/lockstep-storage/lockstep/mirror"
	"github.com/lockstep-storage/lockstep/node"
	"github.com/urfave/cli/v2"
)

func createCommand() *cli.Command {
	return &cli.Command{
		Name:      "create",
		Usage:     "make a new volume's replica on this node",
		UsageText: "lockstep create VOLUME --size SIZE [--peer NODE]... [options]",
		Description: "Run it on every node that shall hold the volume, with the same size, each naming\n" +
			"the others as peers. Then promote the volume on the node that shall serve it.\n" +
			"Sizes are powers of 1024: 512MiB, 1GiB, 10G.\n\n" +
			"EXAMPLES:\n" +
			"  lockstep create data --size 10GiB\n" +
			"  lockstep create data --size 10GiB --peer beta\n" +
			"  lockstep create data --size 10GiB --peer beta=10.0.0.2:7790 --journal-size 1GiB\n" +
			"  lockstep create data --size 10GiB --peer beta --min-in-sync 2\n" +
			"  lockstep create data --size 10GiB --peer beta --peer-latency-budget 500ms\n" +
			"  lockstep create data --size 10GiB --journal /fast/data-journal --store /big/data --preallocate\n" +
			"  lockstep create data --size 10GiB --store /dev/sdb --wipe --direct",
		Flags: asking(
			&cli.StringFlag{Name: "size", Usage: "the volume's `SIZE`, a multiple of 4096 bytes"},
			&cli.StringSliceFlag{Name: "peer", Usage: "a `NODE` that holds the volume too, as NAME (its address is in the config file) or NAME=HOST:PORT; repeatable"},
			&cli.StringFlag{Name: "journal-size", Usage: "the journal's `SIZE`, at least 64MiB", DefaultText: "256MiB"},
			&cli.StringFlag{Name: "protocol", Usage: "`PROTOCOL`: acknowledge a write when the peers have it in their journals (C), or have received it (B)", DefaultText: "C", Value: "C"},
			&cli.BoolFlag{Name: "no-write-cache", Usage: "acknowledge a write only when it is durable on every replica", DisableDefaultText: true},
			&cli.StringFlag{Name: "on-io-error", Usage: "`POLICY` when this node is Primary and its own disk fails: go on through the peers (detach), or give clients the error (pass-on)", DefaultText: "detach", Value: "detach"},
			&cli.IntFlag{Name: "min-in-sync", Usage: "acknowledge a write only with `N` replicas in sync, this one included", DefaultText: "1"},
			&cli.StringFlag{Name: "on-no-quorum", Usage: "`POLICY` for writes while there are fewer: let them wait (suspend-io), or give clients an error (io-error)", DefaultText: "suspend-io", Value: "suspend-io"},
			&cli.StringFlag{Name: "peer-latency-budget", Usage: "`TIME` that writes may wait for one peer: one that keeps them waiting longer leaves the in-sync set until it keeps up", DefaultText: "off"},
			&cli.StringFlag{Name: "store", Usage: "keep the volume's bytes in a new file at `PATH`, or on a block device (with --wipe)", DefaultText: "in the data directory"},
			&cli.BoolFlag{Name: "preallocate", Usage: "take the store's space at once, so that it cannot run out (a trim gives it back)", DisableDefaultText: true},
			&cli.BoolFlag{Name: "direct", Usage: "keep the store's bytes out of this node's page cache (O_DIRECT)", DisableDefaultText: true},
			&cli.StringFlag{Name: "journal", Usage: "keep the journal in the empty directory `DIR`, on another disk perhaps", DefaultText: "in the data directory"},
			&cli.BoolFlag{Name: "wipe", Usage: "let --store be a block device, and erase all that is on it", DisableDefaultText: true},
			jsonFlag(),
		),
		Action: arguments([]string{"VOLUME"}, create),
	}
}

func create(c *cli.Context, args []string) error {
	r, err := createRequest(c, args[0])
	if err != nil {
		return err
	}
	st, err := client(c).Create(c.Context, r)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		err = printJSON(c.App.Writer, st)
	} else {
		_, words := socketOf(c)
		printCreated(c.App.Writer, st, words)
	}
	if st.Problem != "" {
		return fmt.Errorf("the volume was made, but %s", st.Problem)
	}
	return err
}

func createRequest(c *cli.Context, name string) (node.CreateRequest, error) {
	r := node.CreateRequest{Name: name, NoWriteCache: c.Bool("no-write-cache"), Store: c.String("store"), Wipe: c.Bool("wipe"),
		Preallocate: c.Bool("preallocate"), Direct: c.Bool("direct"), Journal: c.String("journal")}
	if !c.IsSet("size") {
		return r, usage("create", "create needs --size, such as --size 1GiB")
	}
	for flag, to := range map[string]*int64{"size": &r.Size, "journal-size": &r.JournalSize} {
		if text := c.String(flag); text != "" {
			n, err := node.ParseSize(text)
			if err != nil {
				return r, usage("create", "--%s: %v", flag, err)
			}
			*to = n
		}
	}
	if err := r.Protocol.UnmarshalText([]byte(c.String("protocol"))); err != nil {
		return r, usage("create", "--protocol: %v", err)
	}
	if err := r.OnIOError.UnmarshalText([]byte(c.String("on-io-error"))); err != nil {
		return r, usage("create", "--on-io-error: %v", err)
	}
	if err := r.OnNoQuorum.UnmarshalText([]byte(c.String("on-no-quorum"))); err != nil {
		return r, usage("create", "--on-no-quorum: %v", err)
	}
	if r.MinInSync = c.Int("min-in-sync"); c.IsSet("min-in-sync") && r.MinInSync < 1 {
		return r, usage("create", "--min-in-sync: at least 1 is wanted")
	}
	if text := c.String("peer-latency-budget"); text != "" && text != "off" {
		if err := r.PeerLatencyBudget.UnmarshalText([]byte(text)); err != nil {
			return r, usage("create", "--peer-latency-budget: %v", err)
		}
		if time.Duration(r.PeerLatencyBudget) < mirror.BudgetLeast {
			return r, usage("create", "--peer-latency-budget is %v, the least is %v, and off is without", r.PeerLatencyBudget, mirror.BudgetLeast)
		}
	}
	for _, p := range c.StringSlice("peer") {
		peer, addr, _ := strings.Cut(p, "=")
		r.Peers = append(r.Peers, node.Peer{Name: peer, Address: addr})
	}
	return r, nil
}

func printCreated(w io.Writer, st node.VolumeStatus, words string) {
	if st.Status == nil {
		return
	}
	fmt.Fprintf(w, "volume %s made on node %s: %s", st.Name, st.Node, humanize.IBytes(uint64(st.Size)))
	var peers []string
	for _, p := range st.Peers {
		peers = append(peers, p.Node)
	}
	if len(peers) > 0 {
		fmt.Fprintf(w, ", mirrored with %s", strings.Join(peers, ", "))
	}
	fmt.Fprintln(w)
	if len(peers) > 0 {
		fmt.Fprintf(w, "once it exists on every node, promote it on the one that shall serve it: lockstep promote %s%s\n", st.Name, words)
	}
}
