package scsi

import "github.com/lockstep-storage/lockstep/block"

// A Nexus is one initiator port's use of a unit through one target port.
type Nexus struct {
	unit    *Unit
	session block.Session
}

// Execute carries commands out. It may block while the device is out of credit,
// as block.Session.Submit does. The caller keeps the slice, not the commands.
func (n *Nexus) Execute(cmds []*Command) {
	for _, c := range cmds {
		if c.Out != nil {
			c.Out.Unref()
			c.Out = nil
		}
		c.Status = Busy
		c.Done.CommandDone(c)
	}
}

// Manage carries out a task management function; tag is for AbortTask alone.
// What it names and the device has not got yet is cancelled; done is called, from
// any goroutine, once the rest has ended as well: each with TaskAborted. It must
// not block. found says whether AbortTask found the command.
func (n *Nexus) Manage(f Function, tag uint64, done func(found bool)) { done(false) }

// Close ends the nexus. When it returns nothing that the device had not ordered
// will take effect; what it had ordered still ends (Wait). A RESERVE(6) of the
// nexus is released. It is safe to call twice.
func (n *Nexus) Close() { n.session.Close() }

// Wait blocks until every command of a closed nexus has ended.
func (n *Nexus) Wait() {}
