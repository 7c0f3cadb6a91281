package scsi

// task is a command's place in the unit's task set.
type task struct{}
