package relay

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// The layers' errors answer questions of behaviour instead of sharing types:
// which condition they put the relay in, what an operator can do, whether the
// same attempt may succeed later.
type (
	conditioner interface{ Condition() string }
	remedier    interface{ Remedy() string }
	retrier     interface{ Retryable() bool }
)

func conditionOf(err error) string {
	var c conditioner
	if errors.As(err, &c) {
		return c.Condition()
	}
	return ""
}

func remedyOf(err error) string {
	var r remedier
	if errors.As(err, &r) {
		return r.Remedy()
	}
	return ""
}

// Remedy is what an operator can do about an error: what the error itself says,
// else what its condition does; empty if neither knows.
func Remedy(err error) string {
	if own := remedyOf(err); own != "" {
		return own
	}
	return define(conditionOf(err)).remedy
}

// retryable is true unless the error says otherwise: an unknown failure is
// more often the network's than the history's.
func retryable(err error) bool {
	var r retrier
	return !errors.As(err, &r) || r.Retryable()
}

// late says that a step took longer than it may.
type late struct {
	step      string
	limit     time.Duration
	condition string
}

func (l *late) Error() string     { return fmt.Sprintf("%s: not done within %s", l.step, l.limit) }
func (l *late) Unwrap() error     { return context.DeadlineExceeded }
func (l *late) Condition() string { return l.condition }
