package kafka

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/IBM/sarama"

	"github.com/walpost/walpost/sink"
)

// session implements [sink.Session]. See the package doc for who owns what.
type session struct {
	sink   *Sink
	cfg    Config
	dialer *dialer
	settle sink.Settle
	floors *floors
	marks  *marksStore
	client sarama.Client // the event producer's

	producer sarama.AsyncProducer
	slots    freeList

	// sending is held by Send; Close takes it to be sure that nobody is about
	// to hand a message to a producer that is shut down.
	sending sync.Mutex
	topics  map[string]*topic // under sending
	spares  spares            // under sending

	// sent and settled count messages; what lies between is outstanding. moved
	// is signalled when settled has grown.
	sent    atomic.Uint64
	settled atomic.Uint64
	moved   chan struct{}

	// settling excludes a Settle in progress from the session's end, so that
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

// ended is what a call finds that comes too late.
func (s *session) ended() error {
	if err := s.Err(); err != nil {
		return err
	}
	return errClosed
}

// fail ends the session because of err, unless it has ended, and returns why it
// has. From here on nothing is settled and nothing leaves.
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
	s.err = err
	s.over.Store(true)
	close(s.done)
}

// failAtEndOf makes the end of ctx end the session, which interrupts whatever
// sarama is doing, until the function it returns is called. sarama's calls take
// no context.
func (s *session) failAtEndOf(ctx context.Context, op string) (stop func()) {
	unregister := context.AfterFunc(ctx, func() {
		_ = s.fail(fmt.Errorf("%s: %w", op, context.Cause(ctx)))
	})
	return func() { unregister() }
}

// flush waits until everything sent is settled. Only one goroutine at a time
// may: Send while it runs, Close afterwards.
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

// Close implements [sink.Session]. It may be called again and then returns what
// it returned the first time.
func (s *session) Close(ctx context.Context) error {
	s.closeOnce.Do(func() { s.closeErr = s.shutDown(ctx) })
	return s.closeErr
}

func (s *session) shutDown(ctx context.Context) error {
	failedBefore := s.over.Load()
	close(s.closing)
	stop := s.failAtEndOf(ctx, "close the session")
	s.sending.Lock() // Send has returned; when it is called again the session is over
	err := s.flush(ctx)
	stop()
	if err == nil {
		s.end(nil)
	} else {
		_ = s.fail(err)
	}
	outstanding := s.sent.Load() - s.settled.Load()
	s.sending.Unlock()
	s.tearDown(ctx)
	if err == nil || failedBefore {
		return nil
	}
	return fmt.Errorf("close the Kafka session: %d messages abandoned: %w", outstanding, err)
}

// tearDown gives everything back. No connection is needed for it and none is
// left when it returns; that sarama's goroutines have ended is awaited no longer
// than ctx allows.
func (s *session) tearDown(ctx context.Context) {
	s.dialer.cut()
	torn := make(chan struct{})
	go func() {
		defer close(torn)
		s.producer.AsyncClose() // drain ends when sarama has closed both channels
		s.workers.Wait()
		s.marks.turn <- struct{}{} // kept: a Commit has returned, none follows
		s.marks.close()
		_ = s.client.Close()
	}()
	select {
	case <-torn:
	case <-ctx.Done():
	}
}
