package scsi

import "slices"

// Unit attentions: additional sense codes and qualifiers.
const (
	powerOn                = 0x2900
	resetOccurred          = 0x2903
	modeChanged            = 0x2a01
	reservationsPreempted  = 0x2a03
	reservationsReleased   = 0x2a04
	registrationsPreempted = 0x2a05
	accessStateChanged     = 0x2a06
	capacityChanged        = 0x2a09
	commandsCleared        = 0x2f00
)

// attentions are the unit attention conditions that a nexus has not yet been told
// of, each once. The unit's mutex guards them.
type attentions struct{ codes []uint16 }

func (a *attentions) add(code uint16) {
	if !slices.Contains(a.codes, code) {
		a.codes = append(a.codes, code)
	}
}

// take gives the oldest, which is told of now.
func (a *attentions) take() (uint16, bool) {
	if len(a.codes) == 0 {
		return 0, false
	}
	code := a.codes[0]
	a.codes = slices.Delete(a.codes, 0, 1)
	return code, true
}
