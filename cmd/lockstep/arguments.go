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
	flags, rest, err := split("", true, app.Flags, args)
	if err != nil {
		return flags, err
	}
	rest, err = arrangeCommand("", app.Commands, rest)
	return append(flags, rest...), err
}

// arrangeCommand arranges what follows the flags of the command of that name,
// "" for the program itself.
func arrangeCommand(parent string, commands []*cli.Command, args []string) ([]string, error) {
	if len(args) == 0 {
		return nil, nil
	}
	i := slices.IndexFunc(commands, func(c *cli.Command) bool { return c.HasName(args[0]) })
	if i < 0 {
		return args, nil
	}
	c, name := commands[i], strings.TrimSpace(parent+" "+args[0])
	flags, positional, err := split(name, len(c.Subcommands) > 0, c.Flags, args[1:])
	out := append([]string{args[0]}, flags...)
	if err == nil && len(c.Subcommands) > 0 {
		positional, err = arrangeCommand(name, c.Subcommands, positional)
		return append(out, positional...), err
	}
	// Package cli would look for help on the positional argument instead.
	help := slices.Contains(flags, "--help") || slices.Contains(flags, "-h")
	if len(positional) > 0 && !help {
		out = append(append(out, "--"), positional...)
	}
	return out, err
}

// split parts the words that are flags, with their values, from the others. In
// front of a command it ends at the first word that is no flag. A flag that
// nobody knows stays one, for package cli to refuse.
func split(command string, front bool, known []cli.Flag, args []string) (flags, others []string, err error) {
	for i := 0; i < len(args); i++ {
		word := args[i]
		switch {
		case word == "--":
			return flags, append(others, args[i+1:]...), nil
		case len(word) < 2 || word[0] != '-':
			if front {
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
				return usage(nameOf(c), "%s needs %s", nameOf(c), strings.Join(names, " "))
			}
		}
		if len(args) > len(names) {
			return usage(nameOf(c), "%s does not know what to do with %q", nameOf(c), args[len(names)])
		}
		return action(c, args)
	}
}

// nameOf is the command's name as it is typed, such as "journal dump".
func nameOf(c *cli.Context) string { return strings.TrimPrefix(c.Command.HelpName, c.App.Name+" ") }
