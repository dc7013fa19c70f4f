package sinktest

import (
	"context"
	"testing"

	"github.com/walpost/walpost/outbox"
	"github.com/walpost/walpost/sink"
)

// Harness is what the suite needs to know about one kind of sink. Its functions
// fail the test when they can't do their part.
type Harness struct {
	// Process returns the sink of one more process of the named pipeline, ready
	// to be opened. Processes of one pipeline share its marks.
	Process func(t *testing.T, pipeline string) sink.Sink

	// Topic makes an empty topic with that many partitions and returns its
	// name, which no other call has returned.
	Topic func(t *testing.T, partitions int32) string

	// Published returns everything a consumer of the topic finds now, each
	// partition's records in order, of an atomic sink what is committed. What
	// was settled, or committed, is among it, or will soon be.
	Published func(t *testing.T, topic string) []Record

	// Poison changes a message into one that the destination would never
	// accept, in as many ways as there are, by name.
	Poison map[string]func(m *outbox.Message)
}

// Record is a message as a consumer gets it.
type Record struct {
	Partition int32
	Key       []byte // nil: null
	Value     []byte // nil: null
	Headers   []Header
}

// Header is a record's header.
type Header struct {
	Key   string
	Value []byte // nil: null
}

// Run runs the suite; each story gets a harness of its own. All sinks it makes
// are of one kind.
func Run(t *testing.T, harness func(t *testing.T) Harness) {
	t.Helper()
	told := stories()
	if harness(t).Process(t, "kind").Atomic() {
		told = append(told, atomicStories()...)
	} else {
		told = append(told, continuousStories()...)
	}
	for _, story := range told {
		t.Run(story.name, func(t *testing.T) { story.tell(t, harness(t)) })
	}
}

type story struct {
	name string
	tell func(t *testing.T, h Harness)
}

func stories() []story {
	return []story{
		{"messages of a partition keep their order", orderPerPartition},
		{"every message is settled exactly once", settledOnce},
		{"what is settled, or committed, is published", settledIsPublished},
		{"what is null, empty or binary stays so", payloadsUnaltered},
		{"the hash key decides the partition", partitionByHashKey},
		{"an explicit partition is obeyed", partitionExplicit},
		{"a rejected message is condemned alone", rejectedAlone},
		{"marks are found again", marksRoundTrip},
		{"marks can be read beside a session", marksBesideSession},
		{"there are no marks before the first", marksOfNothing},
		{"a new session fences the old one", fencing},
		{"pipelines keep their own marks", pipelinesApart},
		{"close settles everything", closeSettles},
		{"close gives up when its context has ended", closeAbandons},
		{"a closed session takes nothing", closedTakesNothing},
		{"a session can follow another", sessionAfterSession},
		{"a successor does not publish what its predecessor published", successorSkips},
		{"the newest of what a predecessor published is known", newestKnown},
		{"a search whose context has ended ends the session", newestEndedContext},
		{"an ended context takes nothing and harms nothing", sendEndedContext},
		{"a context that ends under way keeps what was taken", sendContextEnds},
		{"a commit whose context has ended ends the session", commitEndedContext},
	}
}

func continuousStories() []story {
	return []story{
		{"commit and send run beside each other", commitBesideSend},
	}
}

func atomicStories() []story {
	return []story{
		{"nothing is visible before the commit", invisibleBeforeCommit},
		{"messages and marks become visible together", visibleTogether},
		{"a commit settles what was sent", commitSettles},
		{"what is not committed is gone", uncommittedIsGone},
		{"a fenced session publishes nothing", fencedPublishesNothing},
		{"a rejection leaves whole transactions", rejectedLeavesWhole},
		{"a commit needs no message and no mark", commitOfLittle},
	}
}

// process is one process's open session.
type process struct {
	sink.Session
	sink    sink.Sink
	settled *ledger
	seq     uint64 // of the next message
}

// open opens a session of one more process of a pipeline, closed at the test's
// end, and returns it with the marks it found.
func open(t *testing.T, h Harness, pipeline string) (*process, map[string][]byte) {
	t.Helper()
	return openOn(t, h.Process(t, pipeline))
}

func openOn(t *testing.T, s sink.Sink) (*process, map[string][]byte) {
	t.Helper()
	p := &process{sink: s, settled: newLedger()}
	session, marks, err := s.Open(t.Context(), p.settled.settle)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	p.Session = session
	t.Cleanup(func() {
		// t's own context has ended by now; after a failure or an earlier Close
		// this only makes sure that everything is given back.
		if err := session.Close(context.Background()); err != nil && session.Err() == nil {
			t.Errorf("close: %v", err)
		}
	})
	return p, marks
}

// send sends messages after giving them sequence numbers, and fails the test
// unless all are taken.
func (p *process) send(t *testing.T, msgs ...outbox.Message) {
	t.Helper()
	p.number(msgs)
	if n, err := p.Send(t.Context(), msgs); err != nil || n != len(msgs) {
		t.Fatalf("send: %d of %d taken: %v", n, len(msgs), err)
	}
}

func (p *process) number(msgs []outbox.Message) {
	for i := range msgs {
		msgs[i].Seq = p.seq
		p.seq++
	}
}

// awaitSettled waits until all sequence numbers below n are settled.
func (p *process) awaitSettled(t *testing.T, n uint64) {
	t.Helper()
	select {
	case <-p.settled.reached(n):
	case <-p.Done():
		t.Fatalf("the session ended: %v", p.Err())
	}
}

// show makes the messages with sequence numbers below n visible, which are all
// that were sent: it waits until they are settled, and commits in an atomic
// session.
func (p *process) show(t *testing.T, n uint64) {
	t.Helper()
	p.awaitSettled(t, n)
	if p.sink.Atomic() {
		p.commit(t, nil)
	}
}

func (p *process) commit(t *testing.T, marks map[string][]byte) {
	t.Helper()
	if err := p.Commit(t.Context(), p.settled.prefix(), marks); err != nil {
		t.Fatalf("commit: %v", err)
	}
}

// await returns what a consumer finds once it finds n records.
func (h Harness) await(t *testing.T, topic string, n int) []Record {
	t.Helper()
	for {
		found := h.Published(t, topic)
		if len(found) >= n {
			return found
		}
		if t.Context().Err() != nil {
			t.Fatalf("a consumer finds %d of %d", len(found), n)
		}
	}
}
