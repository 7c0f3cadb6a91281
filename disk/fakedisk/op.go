package fakedisk

import "errors"

// Op names a kind of operation.
type Op string

const (
	OpCreate   Op = "create"
	OpOpen     Op = "open"
	OpRemove   Op = "remove"
	OpRename   Op = "rename"
	OpList     Op = "list"
	OpSyncDir  Op = "syncdir"
	OpLock     Op = "lock"
	OpRead     Op = "read"
	OpWrite    Op = "write" // WriteAt, WritevAt and Zero
	OpDatasync Op = "datasync"
	OpTruncate Op = "truncate"
	OpSize     Op = "size"
	OpReserve  Op = "reserve"

	// AnyOp stands for every kind.
	AnyOp Op = "any"
	// AnyChange stands for the kinds that change something or make it durable.
	AnyChange Op = "change"
)

// matches reports whether o is one of the kinds that pattern stands for.
func (o Op) matches(pattern Op) bool {
	switch pattern {
	case AnyOp:
		return true
	case AnyChange:
		return o.Changes()
	}
	return o == pattern
}

// Changes reports whether operations of this kind change something or make it
// durable.
func (o Op) Changes() bool {
	return o != OpOpen && o != OpList && o != OpLock && o != OpRead && o != OpSize && o != OpReserve
}

// ErrPowerLost is what every operation answers after [FS.Crash] or [FS.Kill].
var ErrPowerLost = errors.New("fakedisk: the power is off")

// fault is an error due at an operation to come.
type fault struct {
	pattern Op
	in      int // so many matching operations pass before it
	err     error
	forever bool
}

// Fail makes the k-th operation from now on (0 is the next) of a kind fail with
// err; the operation may have been done in part. AnyOp and AnyChange are kinds.
func (d *FS) Fail(kind Op, k int, err error) { d.addFault(fault{pattern: kind, in: k, err: err}) }

// FailFrom makes the k-th operation of a kind and all after it fail.
func (d *FS) FailFrom(kind Op, k int, err error) {
	d.addFault(fault{pattern: kind, in: k, err: err, forever: true})
}

func (d *FS) addFault(f fault) {
	d.disk.mu.Lock()
	defer d.disk.mu.Unlock()
	d.disk.faults = append(d.disk.faults, f)
}

// OnOp has hook called before every operation, with the name of its file (the
// directory's for OpList and OpSyncDir). Its error fails the operation, which
// may be done in part. The hook may use the disk. Nil ends it.
func (d *FS) OnOp(hook func(op Op, name string) error) {
	d.disk.mu.Lock()
	defer d.disk.mu.Unlock()
	d.disk.hook = hook
}

// Count is how many operations of a kind there were.
func (d *FS) Count(kind Op) (n int) {
	d.disk.mu.Lock()
	defer d.disk.mu.Unlock()
	for op, k := range d.disk.counts {
		if op.matches(kind) {
			n += k
		}
	}
	return n
}

// begin counts an operation and returns its number and the error that it is to
// fail with, with the disk locked. Every operation begins here.
func (d *disks) begin(op Op, name string) (number int, err error) {
	d.mu.Lock()
	if hook := d.hook; hook != nil {
		d.mu.Unlock()
		err = hook(op, name)
		d.mu.Lock()
	}
	d.counts[op]++
	d.number++
	if d.off {
		return d.number, ErrPowerLost
	}
	faults := d.faults[:0]
	for _, f := range d.faults {
		due := op.matches(f.pattern) && f.in <= 0
		if op.matches(f.pattern) {
			f.in--
		}
		if due && err == nil {
			err = f.err
		}
		if !due || f.forever {
			faults = append(faults, f)
		}
	}
	d.faults = faults
	return d.number, err
}
