package relay

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/walpost/walpost/checkpoint"
	"github.com/walpost/walpost/outbox"
	"github.com/walpost/walpost/replication"
	"github.com/walpost/walpost/sink"
)

// fakePostgres is a Connector.
type fakePostgres struct {
	world   *world
	sources chan *fakeSource // as they are started

	mu       sync.Mutex
	facts    replication.Facts
	dialErr  func() error // asked at each Dial
	startErr error
}

func (p *fakePostgres) set(change func(p *fakePostgres)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(p)
}

func (p *fakePostgres) Dial(context.Context) (Connection, replication.Facts, error) {
	p.world.note("dial")
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dialErr != nil {
		if err := p.dialErr(); err != nil {
			return nil, replication.Facts{}, err
		}
	}
	return &fakeConn{p}, p.facts, nil
}

func (p *fakePostgres) Look(context.Context) (replication.Facts, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dialErr != nil {
		if err := p.dialErr(); err != nil {
			return replication.Facts{}, err
		}
	}
	return p.facts, nil
}

type fakeConn struct{ pg *fakePostgres }

func (c *fakeConn) Start(context.Context) (Source, error) {
	c.pg.world.note("start")
	c.pg.mu.Lock()
	defer c.pg.mu.Unlock()
	if c.pg.startErr != nil {
		return nil, c.pg.startErr
	}
	s := &fakeSource{world: c.pg.world, in: make(chan *replication.Batch, 1000), done: make(chan struct{})}
	c.pg.sources <- s
	return s, nil
}

func (c *fakeConn) Close(context.Context) error {
	c.pg.world.note("connection closed")
	return nil
}

// fakeSource yields what the test puts into it.
type fakeSource struct {
	world *world
	in    chan *replication.Batch
	done  chan struct{}
	once  sync.Once
	err   error
}

func (s *fakeSource) put(batches ...*replication.Batch) {
	for _, b := range batches {
		s.in <- b
	}
}

func (s *fakeSource) Next(ctx context.Context) (*replication.Batch, error) {
	select {
	case b := <-s.in:
		s.world.mu.Lock()
		defer s.world.mu.Unlock()
		s.world.read = append(s.world.read, b.Segments...)
		return b, nil
	case <-s.done:
		return nil, s.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *fakeSource) Ready() bool { return len(s.in) > 0 }

func (s *fakeSource) Confirm(lsn uint64) {
	s.world.note("confirm %d", lsn)
	s.world.checkConfirm(lsn)
	s.world.pg.set(func(p *fakePostgres) {
		slot := *p.facts.Slot
		slot.ConfirmedFlush = lsn
		p.facts.Slot = &slot
	})
}

func (s *fakeSource) Done() <-chan struct{} { return s.done }
func (s *fakeSource) Err() error            { <-s.done; return s.err }

func (s *fakeSource) fail(err error) {
	s.once.Do(func() { s.err = err; close(s.done) })
}

func (s *fakeSource) Close() {
	s.world.note("source closed")
	s.fail(errors.New("stream closed"))
}

// fakeKafka is a sink. Its marks survive its sessions.
type fakeKafka struct {
	world    *world
	sessions chan *fakeSession // as they are opened

	mu       sync.Mutex
	marks    map[string][]byte
	marksErr error
	openErr  error
	auto     bool // sessions acknowledge by themselves
	atomic   bool
	visible  []string             // ids that an atomic sink shows, commit by commit, each ended by "|"
	onOpen   func()               // at each Open, before it reads the marks
	prepare  func(s *fakeSession) // at each Open, before it returns the session
}

func (k *fakeKafka) set(change func(k *fakeKafka)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	change(k)
}

const markName = "checkpoint/trainings/0"

func (k *fakeKafka) put(r checkpoint.Record) {
	mark, err := r.Encode()
	if err != nil {
		panic(err)
	}
	k.set(func(k *fakeKafka) { k.marks[markName] = mark })
}

func (k *fakeKafka) record() *checkpoint.Record {
	k.mu.Lock()
	defer k.mu.Unlock()
	r, err := checkpoint.Decode(k.marks[markName])
	if err != nil {
		panic(err)
	}
	return r
}

func (k *fakeKafka) Atomic() bool { return k.atomic }

func (k *fakeKafka) Marks(context.Context) (map[string][]byte, error) {
	k.world.note("marks")
	k.mu.Lock()
	defer k.mu.Unlock()
	return maps.Clone(k.marks), k.marksErr
}

func (k *fakeKafka) Open(_ context.Context, settle sink.Settle) (sink.Session, map[string][]byte, error) {
	k.world.note("open")
	k.mu.Lock()
	onOpen := k.onOpen
	k.mu.Unlock()
	if onOpen != nil {
		onOpen()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.openErr != nil {
		return nil, nil, k.openErr
	}
	s := &fakeSession{kafka: k, settle: settle, auto: k.auto, done: make(chan struct{}), changed: make(chan struct{})}
	if k.prepare != nil {
		k.prepare(s)
	}
	k.sessions <- s
	return s, maps.Clone(k.marks), nil
}

// fakeSession keeps to the letter of the contract: the end of a context that a
// call was given ends the session.
type fakeSession struct {
	kafka  *fakeKafka
	settle sink.Settle
	auto   bool // acknowledge during Send
	done   chan struct{}

	sendGate, commitGate chan struct{} // nil: open; a call waits until it is closed
	sendErr, commitErr   func() error
	afterSettle          func(msgs []outbox.Message) // within Send
	newest               outbox.Position
	newestErr            error

	settling sync.Mutex
	mu       sync.Mutex
	ended    bool
	err      error
	flying   []outbox.Message // sent and not settled
	sent     []outbox.Message
	shown    int           // of sent, by an atomic commit
	changed  chan struct{} // closed and renewed when flying has changed
}

func (s *fakeSession) fail(err error) error {
	s.settling.Lock()
	defer s.settling.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ended {
		s.ended, s.err = true, err
		close(s.done)
	}
	return s.err
}

func (s *fakeSession) pass(ctx context.Context, gate chan struct{}, failure func() error) error {
	if gate != nil {
		select {
		case <-gate:
		case <-s.done:
			return s.Err()
		case <-ctx.Done():
			return s.fail(context.Cause(ctx))
		}
	}
	if ctx.Err() != nil {
		return s.fail(context.Cause(ctx))
	}
	if failure != nil {
		return failure()
	}
	return nil
}

func (s *fakeSession) Send(ctx context.Context, msgs []outbox.Message) (int, error) {
	s.kafka.world.note("send %d", len(msgs))
	for i := range msgs {
		err := s.pass(ctx, s.sendGate, s.sendErr)
		var rejected *sink.Rejected
		if err != nil && !errors.As(err, &rejected) {
			_ = s.fail(err)
		}
		if err != nil {
			return i, err
		}
		s.take(msgs[i])
	}
	if s.auto {
		s.ack(len(msgs))
	}
	if s.afterSettle != nil {
		s.afterSettle(msgs)
	}
	return len(msgs), nil
}

// take copies what it keeps: the bytes are only lent.
func (s *fakeSession) take(m outbox.Message) {
	m.ID, m.Key, m.Value, m.Headers, m.HashKey = slices.Clone(m.ID), slices.Clone(m.Key), slices.Clone(m.Value), nil, nil
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flying, s.sent = append(s.flying, m), append(s.sent, m)
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *fakeSession) outstanding() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.flying)
}

// ack settles the first n messages in flight.
func (s *fakeSession) ack(n int) { s.ackOnly(slices.Repeat([]bool{true}, n)) }

// ackOnly settles those of the first messages in flight that are picked.
func (s *fakeSession) ackOnly(picked []bool) {
	s.settling.Lock()
	defer s.settling.Unlock()
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return
	}
	var seqs []uint64
	var rest []outbox.Message
	for i, m := range s.flying {
		if i >= len(picked) || !picked[i] {
			rest = append(rest, m)
			continue
		}
		seqs = append(seqs, m.Seq)
		s.kafka.world.mu.Lock()
		m.Pos.Generation = 1 // as positionOf has it
		s.kafka.world.acked[m.Pos] = true
		s.kafka.world.mu.Unlock()
	}
	s.flying = rest
	close(s.changed)
	s.changed = make(chan struct{})
	s.mu.Unlock()
	if len(seqs) > 0 {
		s.settle(seqs, sink.Delivered)
	}
}

func (s *fakeSession) Commit(ctx context.Context, through uint64, marks map[string][]byte) error {
	if err := s.pass(ctx, s.commitGate, s.commitErr); err != nil {
		return s.fail(err)
	}
	r, err := checkpoint.Decode(marks[markName])
	if err != nil {
		return s.fail(err)
	}
	s.kafka.world.note("commit %d through %d", r.Confirmed, through)
	if s.kafka.atomic {
		s.show()
	} else {
		s.checkCommit(r, through)
	}
	s.kafka.set(func(k *fakeKafka) { maps.Copy(k.marks, marks) })
	return nil
}

// show is the part of an atomic commit that a continuous one does not have.
func (s *fakeSession) show() {
	s.ack(s.outstanding())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kafka.set(func(k *fakeKafka) {
		for _, m := range s.sent[s.shown:] {
			k.visible = append(k.visible, string(m.ID))
		}
		if len(s.sent) > s.shown {
			k.visible = append(k.visible, "|")
		}
	})
	s.shown = len(s.sent)
}

func (k *fakeKafka) shows() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return strings.Join(k.visible, " ")
}

// checkCommit judges a checkpoint: it only moves forward, speaks of settled
// events alone, and of exactly those that lie at or before it.
func (s *fakeSession) checkCommit(r *checkpoint.Record, through uint64) {
	old := s.kafka.record()
	s.mu.Lock()
	sent := slices.Clone(s.sent)
	s.mu.Unlock()
	w := s.kafka.world
	w.mu.Lock()
	defer w.mu.Unlock()
	lsn := uint64(r.Confirmed)
	if r.Confirmed < old.Confirmed || r.Confirmed == old.Confirmed && r.Timeline == old.Timeline {
		w.breach("the checkpoint went from %d to %d", old.Confirmed, r.Confirmed)
	}
	w.checkSettled("remembered", lsn)
	var last *outbox.Message
	for i, m := range sent {
		end, known := w.ends(m.Pos.Commit)
		if within := known && end <= lsn; within != (m.Seq < through) {
			w.breach("checkpoint %d speaks through %d, and event %s is number %d", lsn, through, m.Pos, m.Seq)
		} else if within {
			last = &sent[i]
		}
	}
	if last != nil && (r.Last == nil || r.Last.Position != last.Pos || r.Last.ID != string(last.ID) || r.Last.XID != uint32(last.Pos.Commit) || !r.Last.CommitTime.Equal(last.Time)) {
		w.breach("checkpoint %d names %+v as its last event, it is %s %q", lsn, r.Last, last.Pos, last.ID)
	}
}

func (s *fakeSession) Newest(context.Context, string) (outbox.Position, error) {
	return s.newest, s.newestErr
}

func (s *fakeSession) Done() <-chan struct{} { return s.done }

func (s *fakeSession) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func (s *fakeSession) Close(ctx context.Context) error {
	defer s.kafka.world.note("session closed")
	for {
		s.mu.Lock()
		flying, changed := len(s.flying), s.changed
		s.mu.Unlock()
		if flying == 0 {
			return s.fail(nil)
		}
		select {
		case <-changed:
		case <-s.done:
			return nil
		case <-ctx.Done():
			_ = s.fail(ctx.Err())
			return fmt.Errorf("%d messages abandoned: %w", flying, context.Cause(ctx))
		}
	}
}
