package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// arrange moves a command's flags in front of its positional arguments, so that
// `lockstep create data --size 1GiB` means what it says: package cli takes
// everything after the first positional argument for another one.
func arrange(app *cli.App, args []string) ([]string, error) {
	global, rest, err := split("", app.Flags, args)
	if err != nil || len(rest) == 0 {
		return global, err
	}
	i := slices.IndexFunc(app.Commands, func(c *cli.Command) bool { return c.HasName(rest[0]) })
	if i < 0 {
		return append(global, rest...), nil
	}
	flags, positional, err := split(rest[0], app.Commands[i].Flags, rest[1:])
	out := append(append(global, rest[0]), flags...)
	// Package cli would look for help on the positional argument instead.
	help := slices.Contains(flags, "--help") || slices.Contains(flags, "-h")
	if len(positional) > 0 && !help {
		out = append(append(out, "--"), positional...)
	}
	return out, err
}

// split parts the words that are flags, with their values, from the others. In
// front of the command, "", it ends at the first word that is no flag. A flag
// that nobody knows stays one, for package cli to refuse.
func split(command string, known []cli.Flag, args []string) (flags, others []string, err error) {
	for i := 0; i < len(args); i++ {
		word := args[i]
		switch {
		case word == "--":
			return flags, append(others, args[i+1:]...), nil
		case len(word) < 2 || word[0] != '-':
			if command == "" {
				return flags, args[i:], nil
			}
			others = append(others, word)
		case !takesValue(known, word):
			flags = append(flags, word)
		case i+1 == len(args):
			return nil, nil, usage(command, "flag %s needs a value", word)
		default:
			i++
			flags = append(flags, word, args[i])
		}
	}
	return flags, others, nil
}

// takesValue reports whether the next word belongs to the flag.
func takesValue(known []cli.Flag, word string) bool {
	name := strings.TrimLeft(word, "-")
	for _, f := range known {
		if slices.Contains(f.Names(), name) {
			_, isBool := f.(*cli.BoolFlag)
			return !isBool
		}
	}
	return false
}

// arguments runs action with the command's positional arguments, of which there
// must be at least as many as names without brackets.
func arguments(names []string, action func(c *cli.Context, args []string) error) cli.ActionFunc {
	return func(c *cli.Context) error {
		args := c.Args().Slice()
		for i, name := range names {
			if i >= len(args) && !strings.HasPrefix(name, "[") {
				return usage(c.Command.Name, "%s needs %s", c.Command.Name, strings.Join(names, " "))
			}
		}
		if len(args) > len(names) {
			return usage(c.Command.Name, "%s does not know what to do with %q", c.Command.Name, args[len(names)])
		}
		return action(c, args)
	}
}
