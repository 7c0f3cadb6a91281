package node

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/lockstep-storage/lockstep/mirror"
)

// isSet: a key without a value stands for its default.
func isSet(v *yaml.Node) bool {
	return v != nil && !(v.Kind == yaml.ScalarNode && v.Tag == "!!null")
}

func keysOf[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// pairs calls f for every key and value of a mapping, after refusing what is no
// plain key and what was there before.
func (p *configParser) pairs(v *yaml.Node, at string, f func(name string, key, value *yaml.Node)) {
	if !isSet(v) {
		return
	}
	if v.Kind != yaml.MappingNode {
		p.errs.add(v.Line, "%s must be a mapping of keys to values", orWhole(at))
		return
	}
	first := map[string]int{}
	for i := 0; i+1 < len(v.Content); i += 2 {
		key, value := v.Content[i], v.Content[i+1]
		if key.Kind != yaml.ScalarNode || key.Tag == "!!merge" {
			p.errs.add(key.Line, "a key of %s must be a plain word", orWhole(at))
			continue
		}
		if line, ok := first[key.Value]; ok {
			p.errs.add(key.Line, "%q is set twice, first in line %d", join(at, key.Value), line)
			continue
		}
		first[key.Value] = key.Line
		p.lines[join(at, key.Value)] = key.Line
		f(key.Value, key, value)
	}
}

// mapping reads a mapping whose keys are fixed.
func (p *configParser) mapping(v *yaml.Node, at string, known fields) {
	p.pairs(v, at, func(name string, key, value *yaml.Node) {
		read, ok := known[name]
		if !ok {
			p.errs.add(key.Line, "unknown key %q%s", join(at, name), didYouMean(name, keysOf(known)))
			return
		}
		read(value)
	})
}

func (p *configParser) section(at string, known fields) func(*yaml.Node) {
	return func(v *yaml.Node) { p.mapping(v, at, known) }
}

// each reads a mapping whose keys are names.
func (p *configParser) each(at string, f func(name string, key, value *yaml.Node)) func(*yaml.Node) {
	return func(v *yaml.Node) { p.pairs(v, at, f) }
}

// scalar gives the text of a single value.
func (p *configParser) scalar(v *yaml.Node) (string, bool) {
	if v.Kind == yaml.AliasNode {
		p.errs.add(v.Line, "YAML aliases are not supported: write the value out")
		return "", false
	}
	if v.Kind != yaml.ScalarNode {
		p.errs.add(v.Line, "a single value is wanted here")
		return "", false
	}
	return v.Value, true
}

// parsed reads a single value through parse, whose error is the problem's text.
func (p *configParser) parsed(at string, parse func(string) error) func(*yaml.Node) {
	return func(v *yaml.Node) {
		if !isSet(v) {
			return
		}
		s, ok := p.scalar(v)
		if !ok {
			return
		}
		if err := parse(s); err != nil {
			text := err.Error()
			if !strings.HasPrefix(text, at) {
				text = at + ": " + text
			}
			p.errs.add(v.Line, "%s", text)
		}
	}
}

func (p *configParser) text(to *string) func(*yaml.Node) {
	return p.parsed("", func(s string) error { *to = s; return nil })
}

func (p *configParser) boolean(to *bool) func(*yaml.Node) {
	return func(v *yaml.Node) {
		if !isSet(v) {
			return
		}
		if v.Tag != "!!bool" || v.Decode(to) != nil {
			p.errs.add(v.Line, "%q is neither true nor false", v.Value)
		}
	}
}

// flag is a boolean that may be left out.
func (p *configParser) flag(to **bool) func(*yaml.Node) {
	return func(v *yaml.Node) {
		if isSet(v) {
			*to = new(bool)
			p.boolean(*to)(v)
		}
	}
}

func (p *configParser) choice(to *string, allowed ...string) func(*yaml.Node) {
	return func(v *yaml.Node) {
		var s string
		p.text(&s)(v)
		switch {
		case s == "":
		case !slices.Contains(allowed, s):
			p.errs.add(v.Line, "%q is not one of %s%s", s, strings.Join(allowed, ", "), didYouMean(s, allowed))
		default:
			*to = s
		}
	}
}

// words reads a list of single values; one value alone is a list of one.
func (p *configParser) words(at string, to *[]string) func(*yaml.Node) {
	return func(v *yaml.Node) {
		if !isSet(v) {
			return
		}
		items := v.Content
		if v.Kind != yaml.SequenceNode {
			items = []*yaml.Node{v}
		}
		*to = []string{}
		for _, item := range items {
			s, ok := p.scalar(item)
			if !ok {
				continue
			}
			if s == "" {
				p.errs.add(item.Line, "an empty word in a list")
				continue
			}
			p.lines[at+"."+s] = item.Line
			*to = append(*to, s)
		}
	}
}

func (p *configParser) size(at string, to **int64, least int64) func(*yaml.Node) {
	return func(v *yaml.Node) {
		p.parsed(at, func(s string) error {
			n, err := ParseSize(s)
			if err == nil && n < least {
				p.errs.add(v.Line, "%s is %d bytes, the least is %d", at, n, least)
			}
			*to = &n
			return err
		})(v)
	}
}

// rate is bytes per second, "auto", or "unlimited", which 0 is as well.
func (p *configParser) rate(at string, to **int64) func(*yaml.Node) {
	return p.parsed(at, func(s string) (err error) {
		var n int64
		switch s {
		case "auto":
			n = mirror.ResyncAuto
		case "unlimited":
			n = mirror.ResyncUnlimited
		default:
			if n, err = ParseSize(s); err != nil {
				return fmt.Errorf("%w; or write auto or unlimited", err)
			}
			if n == 0 {
				n = mirror.ResyncUnlimited
			}
		}
		*to = &n
		return nil
	})
}

// sizeOrOff is a size, or "off", which is stored as the number off.
func (p *configParser) sizeOrOff(at string, to **int64, least, off int64) func(*yaml.Node) {
	return func(v *yaml.Node) {
		if v.Kind == yaml.ScalarNode && v.Value == "off" {
			*to = &off
			return
		}
		p.size(at, to, least)(v)
	}
}

func (p *configParser) duration(at string, to **time.Duration, least time.Duration) func(*yaml.Node) {
	return func(v *yaml.Node) {
		p.parsed(at, func(s string) error {
			d, err := ParseDuration(s)
			if err == nil && d < least {
				p.errs.add(v.Line, "%s is %v, the least is %v", at, d, least)
			}
			*to = &d
			return err
		})(v)
	}
}

// durationOrOff is duration, or "off", which is 0.
func (p *configParser) durationOrOff(at string, to **time.Duration, least time.Duration) func(*yaml.Node) {
	return func(v *yaml.Node) {
		if v.Kind == yaml.ScalarNode && v.Value == "off" {
			*to = new(time.Duration)
			return
		}
		p.duration(at, to, least)(v)
	}
}

func join(at, key string) string {
	if at == "" {
		return key
	}
	return at + "." + key
}

func orWhole(at string) string {
	if at == "" {
		return "the config file"
	}
	return at
}
