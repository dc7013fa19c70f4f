package replication

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// Stream reads from a slot that it owns. Next is for one goroutine at a time;
// Confirm may be called from any.
type Stream struct {
	cfg    Config
	pg     *pgconn.PgConn
	frames *frames

	// Shared with callers.
	out       chan *Batch   // what was read; closed never
	wake      chan struct{} // a confirmation waits to be sent
	closing   chan struct{} // Close was called
	done      chan struct{} // the goroutine has ended and err is set
	closed    atomic.Bool
	confirmed atomic.Uint64 // what to confirm
	memory    memory
	err       error

	// The goroutine's own.
	assembler  assembler
	lastHeard  time.Time // when the server last sent anything
	statusDue  time.Time
	told       uint64 // by the last status update
	toldAt     time.Time
	statusBuf  [statusFrame]byte
	pingOnIdle bool // nothing was heard since the last status update
}

const (
	statusFrame  = 1 + 4 + 1 + 3*8 + 8 + 1
	closeTimeout = 3 * time.Second
	answerPause  = 50 * time.Millisecond

	// pulseInterval is within how long, about, the end of a session is noticed while
	// its receiver is busy. A standby asks for the slot every 50 to 500 ms.
	pulseInterval = 100 * time.Millisecond
)

var errClosed = errors.New("stream closed")

// newStream takes the connection over. The goroutine it starts is the only one
// that reads from it or writes to it until it ends, which done tells.
func newStream(c *Conn) *Stream {
	s := &Stream{
		cfg: c.cfg, pg: c.pg, frames: c.frames,
		out: make(chan *Batch, 1), wake: make(chan struct{}, 1),
		closing: make(chan struct{}), done: make(chan struct{}),
		lastHeard: time.Now(),
	}
	s.confirmed.Store(c.start)
	s.assembler = assembler{stream: s, maxRows: c.cfg.BatchRows, relations: map[uint32]*Relation{}}
	go s.run()
	return s
}

// Next returns what was read since the last call, waiting for something if
// there is nothing. It never waits for more. The batch is the caller's until
// its Recycle.
func (s *Stream) Next(ctx context.Context) (*Batch, error) {
	select {
	case b := <-s.out:
		return b, nil
	default:
	}
	select {
	case b := <-s.out:
		return b, nil
	case <-s.done:
		return s.left()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Ready reports whether Next would return a batch at once.
func (s *Stream) Ready() bool { return len(s.out) > 0 }

// left returns what a stream that has ended had still read, and then its error.
func (s *Stream) left() (*Batch, error) {
	select {
	case b := <-s.out:
		return b, nil
	default:
		return nil, s.err
	}
}

// Done is closed when the stream has ended.
func (s *Stream) Done() <-chan struct{} { return s.done }

// Err tells why the stream ended, once Done is closed.
func (s *Stream) Err() error {
	<-s.done
	return s.err
}

// Confirm lets Postgres forget everything before lsn. It returns at once; the
// update is sent by the stream's goroutine. A lower position than one
// confirmed earlier is ignored.
func (s *Stream) Confirm(lsn uint64) {
	for {
		old := s.confirmed.Load()
		if lsn <= old {
			return
		}
		if s.confirmed.CompareAndSwap(old, lsn) {
			break
		}
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
	s.interrupt()
}

// Confirmed is the position that was last given to Confirm, or the slot's.
func (s *Stream) Confirmed() uint64 { return s.confirmed.Load() }

// interrupt makes a blocked read return. The goroutine sets its deadline
// before it looks at wake and closing, so an interrupt between the two is not
// lost.
func (s *Stream) interrupt() { _ = s.pg.Conn().SetReadDeadline(time.Unix(1, 0)) }

// Close sends the last confirmation, ends the session, and returns once the
// server has let the slot go, or after 3 s. It returns no error: what was
// confirmed may or may not have arrived, as always.
func (s *Stream) Close() {
	if s.closed.CompareAndSwap(false, true) {
		close(s.closing)
		s.interrupt()
	}
	<-s.done
}

func (s *Stream) run() {
	defer close(s.done)
	err := s.loop()
	if errors.Is(err, errClosed) {
		s.leave()
	}
	_ = s.pg.Conn().Close()
	s.err = classify("stream from slot "+s.cfg.Slot, err)
}

// loop moves batches from the connection to out until something fails. What
// was read before a failure goes out before it: otherwise a change that can't
// be decoded would hold up the good ones before it at every attempt.
func (s *Stream) loop() error {
	for {
		err := s.fill()
		if b := s.assembler.take(); b != nil {
			if undelivered := s.deliver(b); err == nil {
				err = undelivered
			}
		}
		if err != nil {
			return err
		}
	}
}

// fill waits for the server to say something, then decodes all that has
// arrived, up to a full batch.
func (s *Stream) fill() error {
	for !s.frames.ready() {
		if err := s.await(); err != nil {
			return err
		}
	}
	s.heard()
	for s.frames.ready() && !s.assembler.full() {
		kind, body, err := s.frames.peek()
		if err != nil {
			return err
		}
		taken, err := s.handle(kind, body)
		if err != nil {
			return err
		}
		if !taken {
			return nil // the batch has no room for it; it stays for the next
		}
		s.frames.skip()
	}
	return nil
}

// await reads until a whole message is buffered, or until there is something
// else to do, and does that.
func (s *Stream) await() error {
	if err := s.pg.Conn().SetReadDeadline(s.nextDeadline()); err != nil {
		return err
	}
	select {
	case <-s.closing:
		return errClosed
	case <-s.wake:
		return s.sendStatus(false)
	default:
	}
	received := s.frames.received
	_, _, err := s.frames.peek()
	if s.frames.received != received {
		s.heard() // part of a message is a sign of life as well
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return s.onTime()
	}
	return err
}

func (s *Stream) heard() { s.lastHeard, s.pingOnIdle = time.Now(), false }

func (s *Stream) nextDeadline() time.Time {
	if s.statusDue.IsZero() {
		s.statusDue = time.Now().Add(s.cfg.StatusInterval)
	}
	return s.statusDue
}

// onTime keeps the session alive from both ends: the server hears of us at
// every interval, and when it has been silent for one it is asked to answer.
// A connection whose other end is gone without a word is found that way.
func (s *Stream) onTime() error {
	if time.Now().Before(s.statusDue) {
		return nil // woken for another reason
	}
	if silent := time.Since(s.lastHeard); silent > 3*s.cfg.StatusInterval {
		return fmt.Errorf("no sign of life from the server for %s", silent.Round(time.Millisecond))
	}
	ping := s.pingOnIdle
	s.pingOnIdle = true
	return s.sendStatus(ping)
}

// deliver hands a batch over. While the receiver is busy, nothing is read. But a
// server that has ended the session, and so has given the slot away, must not go
// unnoticed: somebody else may read from it already. What it says of that stands
// behind data that has no room. So it is told our status often: if nobody is
// there any more, its kernel answers by resetting the connection.
func (s *Stream) deliver(b *Batch) error {
	select {
	case s.out <- b:
		return nil
	default:
	}
	pulse := time.NewTicker(min(pulseInterval, s.cfg.StatusInterval))
	defer pulse.Stop()
	for {
		select {
		case s.out <- b:
			return nil
		case <-s.closing:
			return errClosed
		case <-s.wake:
		case <-pulse.C:
			if hungUp(s.pg.Conn()) {
				return errors.New("the server closed the connection")
			}
		}
		if err := s.sendStatus(false); err != nil {
			return err
		}
		// Nothing is read here, so silence means nothing.
		s.lastHeard = time.Now()
	}
}

// handle acts on one protocol message. It returns false, and has done nothing,
// if the batch under assembly has no room for it.
func (s *Stream) handle(kind byte, body []byte) (bool, error) {
	switch kind {
	case 'd':
		return s.copyData(body)
	case 'N':
		return true, noticed(body)
	case 'E':
		return true, serverError(body)
	case 'c', 'C': // the latter where the server shuts down
		return true, errors.New("the server ended the stream")
	case 'S', 'A':
		return true, nil
	}
	return true, fmt.Errorf("unexpected message type %q", kind)
}

func (s *Stream) copyData(body []byte) (bool, error) {
	switch {
	case len(body) > 25 && body[0] == 'w':
		return s.assembler.change(body[25:], binary.BigEndian.Uint64(body[9:]))
	case len(body) == 18 && body[0] == 'k':
		urgent := body[17] == 1
		s.assembler.keepalive(binary.BigEndian.Uint64(body[1:]), urgent)
		if urgent {
			return true, s.answer()
		}
		return true, nil
	}
	return true, decodeError(s.assembler.commit, fmt.Errorf("replication message of %d bytes is neither data nor a keepalive", len(body)))
}

// noticed fails on the one notice that means data is being lost: newer
// servers skip a publication that is missing, and say so only here.
func noticed(body []byte) error {
	var n pgproto3.NoticeResponse
	if err := n.Decode(body); err != nil {
		return err
	}
	if n.Code == "55000" {
		return &Error{Op: "stream", Cause: errors.New(n.Message), condition: "publication_missing", final: true}
	}
	return nil
}

func serverError(body []byte) error {
	var e pgproto3.ErrorResponse
	if err := e.Decode(body); err != nil {
		return err
	}
	return pgconn.ErrorResponseToPgError(&e)
}
