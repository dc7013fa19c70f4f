package kafka

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/walpost/walpost/sink"
)

// session implements [sink.Session]. See the package doc for who owns what.
type session struct {
	*connection

	sink   *Sink
	cfg    Config
	dialer *dialer
	settle sink.Settle
	floors *floors
	ledger ledger

	carriers freeList

	// sending is held by Send, and by Commit in an atomic session. Close takes
	// it, so that nobody passes a message to a producer that has been shut down.
	sending sync.Mutex
	topics  map[string]*topic // under sending
	places  []*partition      // under sending: of the messages of one Send
	spares  spares            // under sending
	skipped []uint64          // under sending: duplicates not yet handed over
	tail    *tail             // under sending: of all topics, where they make one

	// duplicates passes the sequence numbers of skipped messages to drain.
	duplicates chan []uint64

	// sent and settled count messages, skipped ones included; sent-settled are outstanding. moved is
	// signalled when settled has grown.
	sent    atomic.Uint64
	settled atomic.Uint64
	moved   chan struct{}

	// settling is held during Settle and while the session is ended, so that
	// nothing is settled once Done is closed.
	settling sync.Mutex
	over     atomic.Bool
	err      error // under settling until over, then constant
	done     chan struct{}

	closing   chan struct{}
	closeOnce sync.Once
	closeErr  error
	workers   sync.WaitGroup // drain and watch
}

// Done implements [sink.Session].
func (s *session) Done() <-chan struct{} { return s.done }

// Err implements [sink.Session].
func (s *session) Err() error {
	if !s.over.Load() {
		return nil
	}
	return s.err
}

// ended is the error of a call on a session that is over.
func (s *session) ended() error {
	if err := s.Err(); err != nil {
		return err
	}
	return errClosed
}

// fail ends the session with err, unless it has ended already, and returns the
// error it ended with. Afterwards nothing is settled and nothing is sent.
func (s *session) fail(err error) error {
	s.end(err)
	s.dialer.cut()
	return s.ended()
}

func (s *session) end(err error) {
	s.settling.Lock()
	defer s.settling.Unlock()
	if s.over.Load() {
		return
	}
	s.err = s.dialer.explain(err)
	s.over.Store(true)
	close(s.done)
}

// failAtEndOf fails the session when ctx ends before stop is called. sarama's
// calls take no context; cutting the connections is what interrupts them. If
// ctx has ended, the session is over when stop returns.
func (s *session) failAtEndOf(ctx context.Context, op string) (stop func()) {
	failed := make(chan struct{})
	unregister := context.AfterFunc(ctx, func() {
		defer close(failed)
		_ = s.fail(fmt.Errorf("%s: %w", op, context.Cause(ctx)))
	})
	return func() {
		if !unregister() {
			<-failed
		}
	}
}

// flush waits until everything sent is settled. Its caller holds sending: moved
// wakes only one waiter.
func (s *session) flush(ctx context.Context) error {
	for s.settled.Load() != s.sent.Load() {
		select {
		case <-s.moved:
		case <-s.done:
			return s.ended()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// Close implements [sink.Session]. Later calls return what the first returned.
func (s *session) Close(ctx context.Context) error {
	s.closeOnce.Do(func() { s.closeErr = s.shutDown(ctx) })
	return s.closeErr
}

func (s *session) shutDown(ctx context.Context) error {
	failedBefore := s.over.Load()
	close(s.closing)
	stop := s.failAtEndOf(ctx, "close the session")
	s.sending.Lock() // waits for Send; a later Send finds the session over
	err := s.flush(ctx)
	if err == nil {
		err = s.ledger.discard()
	}
	if err == nil {
		s.end(nil)
	} else {
		_ = s.fail(err)
	}
	stop()
	outstanding := s.sent.Load() - s.settled.Load()
	s.sending.Unlock()
	s.tearDown(ctx)
	if err == nil || failedBefore {
		return nil
	}
	return fmt.Errorf("close the Kafka session: %d messages abandoned: %w", outstanding, err)
}

// tearDown releases everything. It cuts all connections first, then waits for
// sarama's goroutines, but no longer than ctx allows.
func (s *session) tearDown(ctx context.Context) {
	s.dialer.cut()
	torn := make(chan struct{})
	go func() {
		defer close(torn)
		s.producer.AsyncClose() // drain ends when sarama has closed both channels
		s.workers.Wait()
		s.marks.sem <- struct{}{} // never released: no Commit may follow
		s.marks.close()
		_ = s.client.Close()
		s.dialer.wait()
	}()
	select {
	case <-torn:
	case <-ctx.Done():
	}
}
