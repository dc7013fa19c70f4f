// Package sink is the contract between the relay and whatever holds the
// published events. A new destination is one new folder below this one that
// passes the suite in sinktest.
//
// A sink does three things. It publishes messages in the order they were sent,
// per destination partition. It reports each message that is durable (settles
// it). And it keeps marks: a few small values, opaque to it, that the relay reads
// again after a crash. Once a successor has fenced a session, that session can't
// change them.
//
// There are two kinds. A continuous sink shows each message as soon as it holds
// it; Commit makes marks durable beside them. An atomic sink shows everything
// that was sent between two commits, together with the marks of the second, at
// once or never. What a session of it has sent and not committed is gone with
// the session.
//
// Life of a session: Open fences every earlier session, then returns the
// marks. Send and Commit follow. The first error after which it is unknown
// whether some message was published ends the session: Done is closed, Err
// tells why, nothing further is settled, and the relay opens a new one. Close
// waits until nothing of the session can reach the destination any more, so that
// no message of it arrives after a successor's.
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
// within a call and belong to one session. A settled message's bytes are the
// caller's again. In an atomic session it can still vanish until it is
// committed. Settle is called from one goroutine of the session and must not
// block.
type Settle func(seqs []uint64, o Outcome)

// Sink opens sessions. At most one session of a Sink is open at a time.
type Sink interface {
	// Atomic tells which kind of sink it is; always the same.
	Atomic() bool

	// Marks reads the durable marks without fencing anybody. It does not wait
	// for a commit in progress. Before the first commit there are none: an empty
	// map, no error.
	Marks(ctx context.Context) (map[string][]byte, error)

	// Open fences every earlier session of the same pipeline, in any process,
	// then reads the marks. After it returned no predecessor can change them. It
	// may take as long as ctx allows, and returns context.Cause when ctx ends.
	Open(ctx context.Context, settle Settle) (Session, map[string][]byte, error)
}

// Session publishes. Send and Commit may run beside each other; neither may be
// called concurrently with itself.
type Session interface {
	// Send takes messages in order and returns how many it took, like
	// io.Writer. The slice stays the caller's. The bytes that a taken message
	// refers to belong to the session until the message is settled, or for ever
	// if the session fails. Send may block while the destination is slow;
	// limiting what is unsettled is up to the caller.
	//
	// With an error, msgs[:n] are taken and nothing of msgs[n:] was sent. The
	// session goes on after three kinds of error, so that msgs[:n] can still be
	// settled and committed:
	//
	//   - *Rejected: the destination would never accept msgs[n]. An atomic session
	//     takes fewer: it leaves out, as far as msgs holds it, the transaction of
	//     the rejected message, so that what it took may be committed.
	//   - The destination refuses msgs[n], or a later message of the same
	//     transaction, for a reason that may pass, such as a missing topic.
	//   - ctx has ended: the error is, or wraps, context.Cause(ctx). Send may be
	//     called again with msgs[n:]. If ctx ended in the middle of a step that
	//     can't be interrupted otherwise, the session has ended instead: then
	//     Done is closed when Send returns.
	//
	// Any other error is that of a session that has ended: Done is closed, or
	// Close was called.
	Send(ctx context.Context, msgs []outbox.Message) (n int, err error)

	// Commit makes marks durable; they are when it returns nil. A nil value
	// deletes a mark. The marks cover every message with Seq < through and no
	// later one. Whoever reads them in a later session sends none of these again.
	//
	// In a continuous session the caller has found those messages settled. In an
	// atomic one they are all that were sent, none is sent while Commit runs, and
	// Commit settles those that are not yet; when it returns nil all of them are
	// visible, or become so without any further act of the session.
	//
	// Any error, the end of ctx included, ends the session. Whether the commit
	// took place is unknown then until the next Open.
	Commit(ctx context.Context, through uint64, marks map[string][]byte) error

	// Newest returns the highest position among the messages of a source that
	// predecessors have published and the marks may not cover; the zero Position
	// if there are none. It may read much, and is called before the first Send. Any
	// error ends the session.
	Newest(ctx context.Context, source string) (outbox.Position, error)

	// Done is closed when the session has failed or is closed.
	Done() <-chan struct{}

	// Err tells why the session failed; nil while it works and after a clean
	// Close.
	Err() error

	// Close waits until everything sent is settled and releases all resources.
	// An atomic session discards what is not committed.
	// When ctx ends first, the rest is abandoned: connections are closed so that
	// nothing more is sent, and nothing more is settled.
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
