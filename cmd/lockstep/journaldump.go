package main

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/lockstep-storage/lockstep/mirror"
	"github.com/urfave/cli/v2"
)

func journalDumpCommand() *cli.Command {
	return &cli.Command{
		Name:      "dump",
		Usage:     "print a journal's segments, batches and records",
		UsageText: "lockstep journal dump [VOLUME | --dir DIRECTORY] [--config FILE] [options]",
		Description: "Prints one line for each, in order, up to the journal's end; of a damaged journal up to\n" +
			"the damage, and then says what it is and ends with exit status 1. Stop the daemon first.\n" +
			"DIRECTORY is a replica's, or that of a journal alone. Nothing is changed.\n" +
			"With --json it prints one object a line; docs/formats.md says what the numbers mean.\n\n" +
			"EXAMPLES:\n" +
			"  lockstep journal dump data\n" +
			"  lockstep journal dump data --from 1000 --to 1010 --records --payload\n" +
			"  lockstep journal dump --dir /mnt/old-disk/volumes/data --batches --json",
		Flags: offline(
			&cli.Uint64Flag{Name: "from", Usage: "leave out what is before `LSN`", DefaultText: "the oldest"},
			&cli.Uint64Flag{Name: "to", Usage: "leave out what is past `LSN`", DefaultText: "the newest"},
			&cli.BoolFlag{Name: "batches", Usage: "print batches only", DisableDefaultText: true},
			&cli.BoolFlag{Name: "records", Usage: "print records only", DisableDefaultText: true},
			&cli.BoolFlag{Name: "payload", Usage: "print what the records write, too: in hexadecimal", DisableDefaultText: true},
		),
		Action: arguments([]string{"[VOLUME]"}, journalDump),
	}
}

func journalDump(c *cli.Context, args []string) (err error) {
	if c.IsSet("to") && c.Uint64("to") < c.Uint64("from") {
		return usage(nameOf(c), "--from %d is past --to %d", c.Uint64("from"), c.Uint64("to"))
	}
	o, err := openOffline(c, args)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	if len(o.Volumes) != 1 {
		return usage(nameOf(c), "%s needs one VOLUME of those in %s: %s", nameOf(c), o.DataDir, strings.Join(o.Volumes, ", "))
	}
	w := bufio.NewWriter(c.App.Writer)
	d := newDumper(c, w)
	found, err := o.DumpJournal(o.Volumes[0], d.visitor())
	d.end(found, err)
	return errors.Join(err, d.err, w.Flush())
}

// A dumper prints what a journal's dump shows and the command line asks for.
type dumper struct {
	w        io.Writer
	err      error // of the first write that failed
	json     bool
	segments bool
	batches  bool
	records  bool
	payload  bool
	from, to mirror.LSN

	// header is a segment that is printed once something of it is.
	header *dumpedSegment
}

func newDumper(c *cli.Context, w io.Writer) *dumper {
	d := &dumper{w: w, json: c.Bool("json"), batches: c.Bool("batches"), records: c.Bool("records"), payload: c.Bool("payload"),
		from: mirror.LSN(c.Uint64("from")), to: math.MaxUint64}
	if c.IsSet("to") {
		d.to = mirror.LSN(c.Uint64("to"))
	}
	if !d.batches && !d.records {
		d.segments, d.batches, d.records = true, true, true
	}
	return d
}

// What --json prints, one object a line; Type tells them apart.
type (
	dumpedNotes struct {
		Stable        mirror.LSN `json:"stable"`
		Durable       mirror.LSN `json:"durable"`
		Checkpoint    mirror.LSN `json:"checkpoint"`
		SuperblockSeq uint64     `json:"superblock"`
	}
	dumpedSegment struct {
		Type    string     `json:"type"` // "segment"
		File    string     `json:"file"`
		Journal string     `json:"journal"` // id, hexadecimal
		Seq     uint64     `json:"sequence"`
		Prev    uint64     `json:"previous"`
		Oldest  uint64     `json:"oldest"`
		First   mirror.LSN `json:"first"`
		Seed    string     `json:"seed"` // CRC of the record before First
		dumpedNotes
	}
	dumpedBatch struct {
		Type    string     `json:"type"`   // "batch"
		Offset  int64      `json:"offset"` // in the segment
		Length  int64      `json:"length"`
		Records int        `json:"records"`
		First   mirror.LSN `json:"first"`
		dumpedNotes
	}
	dumpedRecord struct {
		Type       string     `json:"type"`   // "record"
		Offset     int64      `json:"offset"` // in the segment
		LSN        mirror.LSN `json:"lsn"`
		Kind       string     `json:"kind"`
		At         int64      `json:"at"`         // in the volume
		Length     int64      `json:"length"`     // of the range there
		Generation string     `json:"generation"` // tag
		Last       bool       `json:"last"`       // of its write
		NoHole     bool       `json:"noHole,omitempty"`
		CRC        string     `json:"crc"`
		Bytes      int        `json:"payloadLength"`
		Payload    string     `json:"payload,omitempty"` // hexadecimal
	}
	dumpedEnd struct {
		Type string `json:"type"` // "end"
		mirror.CheckedJournal
		Error string `json:"error,omitempty"` // the damage that ended the dump
	}
)

func (d *dumper) visitor() mirror.JournalVisitor {
	return mirror.JournalVisitor{Segment: d.segment, Batch: d.batch, Record: d.record}
}

func (d *dumper) print(v any, format string, a ...any) {
	var err error
	if d.json {
		err = json.NewEncoder(d.w).Encode(v)
	} else {
		_, err = fmt.Fprintf(d.w, format+"\n", a...)
	}
	if d.err == nil {
		d.err = err
	}
}

func (n dumpedNotes) String() string {
	return fmt.Sprintf("stable %d  durable %d  checkpoint %d  superblock %d", n.Stable, n.Durable, n.Checkpoint, n.SuperblockSeq)
}

func (d *dumper) segment(s mirror.JournalSegment) {
	d.header = nil
	if !d.segments {
		return
	}
	d.header = &dumpedSegment{"segment", s.Name, fmt.Sprintf("%016x", s.ID), s.Seq, s.Prev, s.Oldest, s.First, fmt.Sprintf("%08x", s.Seed), dumpedNotes(s.Notes)}
	if s.First >= d.from && s.First <= d.to {
		d.printHeader()
	}
}

func (d *dumper) printHeader() {
	if h := d.header; h != nil {
		d.header = nil
		d.print(h, "segment %s  journal %s  sequence %d  previous %d  oldest %d  first %d  seed %s  %v",
			h.File, h.Journal, h.Seq, h.Prev, h.Oldest, h.First, h.Seed, h.dumpedNotes)
	}
}

func (d *dumper) batch(b mirror.JournalBatch) {
	last := b.First + mirror.LSN(max(b.Records, 1)) - 1
	if !d.batches || last < d.from || b.First > d.to {
		return
	}
	d.printHeader()
	v := dumpedBatch{"batch", b.Off, b.Length, b.Records, b.First, dumpedNotes(b.Notes)}
	d.print(v, "  batch  %10d  length %-7d  records %-4d  first %d  %v", v.Offset, v.Length, v.Records, v.First, v.dumpedNotes)
}

func (d *dumper) record(off int64, r *mirror.JournalRecord) {
	if !d.records || r.LSN < d.from || r.LSN > d.to {
		return
	}
	d.printHeader()
	v := dumpedRecord{
		Type: "record", Offset: off, LSN: r.LSN, Kind: r.Kind.String(), At: r.Offset, Length: r.Length,
		Generation: fmt.Sprintf("%016x", r.Generation), Last: r.Flags&mirror.FlagLast != 0, NoHole: r.Flags&mirror.FlagNoHole != 0,
		CRC: fmt.Sprintf("%08x", r.CRC), Bytes: len(r.Payload),
	}
	if d.payload {
		v.Payload = hex.EncodeToString(r.Payload)
	}
	var flags string
	if v.Last {
		flags += "  last"
	}
	if v.NoHole {
		flags += "  no-hole"
	}
	d.print(v, "    record %8d  LSN %-8d  %-12s  at %-14d  length %-8d  generation %s  CRC %s%s", v.Offset, v.LSN, v.Kind, v.At, v.Length, v.Generation, v.CRC, flags)
	if d.payload && !d.json && len(r.Payload) > 0 {
		d.print(nil, "%s", strings.TrimSuffix(hex.Dump(r.Payload), "\n"))
	}
}

// end says where the journal, or what can be read of it, ends.
func (d *dumper) end(j mirror.CheckedJournal, err error) {
	v := dumpedEnd{Type: "end", CheckedJournal: j}
	switch {
	case err != nil:
		v.Error = err.Error()
		d.print(v, "damaged after LSN %d", j.End)
	case j.Torn:
		d.print(v, "end at LSN %d; what is printed past it was torn by a crash, or is outside the history, and is no part of the journal", j.End)
	default:
		d.print(v, "end at LSN %d", j.End)
	}
}
