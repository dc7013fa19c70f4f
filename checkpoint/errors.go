package checkpoint

import "fmt"

// TooNewError says that a later version of walpost wrote the record.
type TooNewError struct {
	Version int64 // of the record
}

func (e *TooNewError) Error() string {
	return fmt.Sprintf("checkpoint record has version %d, this walpost knows %d", e.Version, Version)
}

// Condition names the state this error puts a relay in.
func (*TooNewError) Condition() string { return "checkpoint_too_new" }

// Remedy is what an operator can do.
func (*TooNewError) Remedy() string {
	return "run the walpost that wrote the checkpoint, or a later one"
}

// Retryable is false: the record stays what it is.
func (*TooNewError) Retryable() bool { return false }

// UnreadableError says that the record is damaged or was not written by
// walpost.
//
// Its condition is history_diverged: nothing proves any longer that this
// database's history is the one that was published. It is not
// checkpoint_missing, whose remedy is to begin anew: there is a record, and
// beginning anew beside it would skip or repeat events silently.
type UnreadableError struct {
	Err error // what is wrong with it
}

func (e *UnreadableError) Error() string {
	return fmt.Sprintf("checkpoint record is unreadable: %v", e.Err)
}

func (e *UnreadableError) Unwrap() error { return e.Err }

// Condition names the state this error puts a relay in.
func (*UnreadableError) Condition() string { return "history_diverged" }

// Remedy is what an operator can do.
func (*UnreadableError) Remedy() string {
	return "the checkpoint is damaged or something else writes to its place: find out what, then see the runbook; don't delete it"
}

// Retryable is false: the record stays what it is.
func (*UnreadableError) Retryable() bool { return false }
