// Package sink is the contract between the relay and whatever holds the
// published events. A new destination is one new folder below this one that
// passes the suite in sinktest.
//
// A sink does three things. It publishes messages in the order they were sent,
// per destination partition; it tells, per message, that the message is
// durable (settles it); and it keeps marks: a few small opaque values that the
// relay wants to find again after a crash, readable by a successor only as its
// latest fenced writer left them.
//
// Life of a session: Open fences every earlier session, then returns the
// marks. Send and Commit follow. The first error that leaves any message in
// doubt ends the session: Done is closed, Err tells why, nothing further is
// settled, and the relay opens a new one. Close waits until nothing of the
// session can reach the destination any more, so that a successor's messages
// are never overtaken by its predecessor's.
package sink

import (
	"context"
	"fmt"

	"github.com/walpost/walpost/outbox"
)

// Outcome is what became of a settled message.
type Outcome uint8

const (
	// Delivered: the destination acknowledged the message durably.
	Delivered Outcome = iota
	// Duplicate: the destination already held it; nothing was sent.
	Duplicate
)

// Settle is told of messages by their sequence numbers, which are ascending
// within a call and belong to one session. It is called from one goroutine of
// the session and must not block.
type Settle func(seqs []uint64, o Outcome)

// Sink opens sessions. At most one session of a Sink is open at a time.
type Sink interface {
	// Marks reads the durable marks without fencing anybody. Those of a commit
	// whose outcome is still open are not waited for. A store that was never
	// written to has none: an empty map, no error.
	Marks(ctx context.Context) (map[string][]byte, error)

	// Open fences every earlier session of the same pipeline, in whatever
	// process, then reads the marks. After it returned no predecessor can
	// change them.
	Open(ctx context.Context, settle Settle) (Session, map[string][]byte, error)
}

// Session publishes. Send and Commit may run beside each other; neither may be
// called concurrently with itself.
type Session interface {
	// Send hands over messages in order and returns how many were taken, like
	// io.Writer. The slice stays the caller's; the bytes it refers to are lent
	// until the message is settled, or for ever if the session fails. Send may
	// block while the destination is slow; bounding what is lent is the
	// caller's part.
	//
	// A *Rejected error condemns msgs[n]: the destination would never accept
	// it. Nothing of it was sent, msgs[:n] are unharmed, and the session lives
	// on. So it does where the destination answers that there is no place yet,
	// as a topic that is missing, for msgs[n] or one of its transaction: what
	// precedes it can be settled and remembered. Any other error ends the
	// session.
	Send(ctx context.Context, msgs []outbox.Message) (n int, err error)

	// Commit makes marks durable; they are when it returns nil. through says
	// how far they speak: every message with Seq < through is settled, and the
	// marks claim no other. Any error ends the session, its outcome unknown:
	// the next Open tells.
	Commit(ctx context.Context, through uint64, marks map[string][]byte) error

	// Done is closed when the session has failed or is closed.
	Done() <-chan struct{}

	// Err tells why the session failed; nil while it works and after a clean
	// Close.
	Err() error

	// Close flushes what was sent, settles it, and gives everything back. When
	// ctx ends first, the rest is abandoned: connections are cut so that
	// nothing more can leave, and nothing more is settled.
	Close(ctx context.Context) error
}

// Rejected says that one message can never be published as it is.
type Rejected struct {
	Pos outbox.Position
	ID  string // event id
	Err error  // why, in the destination's words; no key, no payload
}

func (r *Rejected) Error() string {
	return fmt.Sprintf("event %s at %s: %v", r.ID, r.Pos, r.Err)
}

func (r *Rejected) Unwrap() error { return r.Err }

// Condition names the state this error puts a relay in.
func (r *Rejected) Condition() string { return "poison_event" }

// Remedy is what an operator can do.
func (r *Rejected) Remedy() string {
	return "raise the limit that refused the event or correct the row that wrote it; nothing past it has been confirmed"
}

// Retryable is false: the same bytes would be refused again.
func (r *Rejected) Retryable() bool { return false }
