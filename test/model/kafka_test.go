package model

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/walpost/walpost/checkpoint"
	"github.com/walpost/walpost/outbox"
	"github.com/walpost/walpost/sink"
)

const partitions = 2

// kafka is the cluster: a topic, and the checkpoint topic.
type kafka struct {
	world *world

	logs   [partitions][]record
	marks  map[string][]byte
	stored *checkpoint.Record // the relay's mark, decoded
	floors *[partitions]int   // the sink's own mark; nil: not written yet
	epoch  int                // of the newest session
	readBy [partitions]int    // the newest session that has read what is there

	sessions []*session // open ones, and those whose bytes are still on their way
}

// record is one of a partition.
type record struct {
	event *event
	// late: it arrived after a successor of its session had read what there is.
	// No continuous sink can help it.
	late bool
	// open: it belongs to a transaction that has not ended.
	open *session
}

func newKafka(w *world) *kafka {
	marks := map[string][]byte{checkpoint.MarkName(pipeline, "0"): genesis()}
	return &kafka{world: w, marks: marks, stored: recordOf(marks)}
}

func (k *kafka) record() *checkpoint.Record { return k.stored }

func (k *kafka) shows(e *event) bool { return k.copies(e) > 0 }

func (k *kafka) copies(e *event) (n int) {
	for _, r := range k.logs[e.partition] {
		if r.event == e && r.open == nil {
			n++
		}
	}
	return n
}

// end is an instance's way to the cluster.
type end struct{ inst *instance }

func (e *end) Atomic() bool { return e.inst.world.atomic(e.inst) }

func (e *end) Marks(context.Context) (map[string][]byte, error) {
	w := e.inst.world
	w.mu.Lock()
	defer w.mu.Unlock()
	e.inst.known.before = uint64(w.kafka.record().Confirmed)
	e.inst.known.told("marks %d", w.kafka.record().Confirmed)
	return maps.Clone(w.kafka.marks), nil
}

func (e *end) Open(_ context.Context, settle sink.Settle) (sink.Session, map[string][]byte, error) {
	w := e.inst.world
	w.mu.Lock()
	defer w.mu.Unlock()
	if e.inst.dead {
		return nil, nil, errDead
	}
	k := w.kafka
	k.epoch++
	if !w.scenario.breaks.unfencedTransactions {
		k.abort(func(*session) bool { return true })
	}
	s := &session{
		inst: e.inst, kafka: k, atomic: w.atomic(e.inst), epoch: k.epoch, number: e.inst.lives, settle: settle,
		answers: make(chan answer, 100), done: make(chan struct{}), changed: make(chan struct{}), lock: make(chan struct{}, 1),
	}
	if k.floors != nil {
		s.floors.inherit(*k.floors)
	}
	k.sessions = append(k.sessions, s)
	e.inst.session = s
	r := k.record()
	e.inst.known.opening = nil
	e.inst.known.told("opened %d %v slot %d hasty %v", r.Confirmed, r.Last, e.inst.known.slot, e.inst.known.before < uint64(r.Confirmed))
	w.running.Go(s.drain)
	if w.scenario.breaks.trustSlot {
		return s, k.marksAt(e.inst.known.slot), nil
	}
	return s, maps.Clone(k.marks), nil
}

// marksAt are marks that cover no more than the slot says.
func (k *kafka) marksAt(lsn uint64) map[string][]byte {
	r := *k.record()
	r.Confirmed, r.Last = checkpoint.LSN(lsn), nil
	mark, err := r.Encode()
	if err != nil {
		panic(err)
	}
	return map[string][]byte{checkpoint.MarkName(pipeline, "0"): mark}
}

// abort ends the open transactions of some sessions.
func (k *kafka) abort(of func(*session) bool) {
	for p := range k.logs {
		k.logs[p] = slices.DeleteFunc(k.logs[p], func(r record) bool { return r.open != nil && of(r.open) })
	}
}

// outgoing is a message between the process and the log.
type outgoing struct {
	event   *event
	seq     uint64
	midTail bool // see drain.take in sink/kafka
}

// answer is what a broker says.
type answer struct {
	seqs    []uint64
	outcome sink.Outcome
	failed  error
}

// session does what the package doc of sink/kafka says.
type session struct {
	inst   *instance
	kafka  *kafka
	atomic bool
	epoch  int
	number int
	settle sink.Settle

	answers chan answer
	done    chan struct{}
	lock    chan struct{} // held during Settle, and while the session is ended

	// Under the world's mutex.
	over      bool
	err       error
	changed   chan struct{} // closed and renewed when unsettled has changed
	unsettled int
	queues    [partitions][]outgoing // handed to the network, in order
	ready     bool                   // the floors are in the mark
	floors    floors
	tails     [partitions]*tail
	fault     commitFault // of the Commit under way
}

// commitFault is what goes wrong with a Commit.
type commitFault int

const (
	noFault commitFault = iota
	commitRefused
	commitUnknown // it takes place, and its answer is lost
)

// drain is the only caller of Settle.
func (s *session) drain() {
	for {
		select {
		case <-s.done:
			return
		case a := <-s.answers:
			if a.failed != nil {
				_ = s.fail(a.failed)
				return
			}
			s.lock <- struct{}{}
			if !s.isOver() {
				s.settle(a.seqs, a.outcome)
			}
			<-s.lock
			s.landed(a.seqs)
		}
	}
}

func (s *session) isOver() bool {
	s.inst.world.mu.Lock()
	defer s.inst.world.mu.Unlock()
	return s.over
}

func (s *session) landed(seqs []uint64) {
	s.inst.world.mu.Lock()
	defer s.inst.world.mu.Unlock()
	s.unsettled -= len(seqs)
	s.inst.known.settle(seqs)
	close(s.changed)
	s.changed = make(chan struct{})
}

// fail ends the session. It waits for a Settle under way.
func (s *session) fail(err error) error {
	s.lock <- struct{}{}
	defer func() { <-s.lock }()
	s.inst.world.mu.Lock()
	defer s.inst.world.mu.Unlock()
	s.end(err)
	return s.err
}

// end is fail for those who hold the mutex.
func (s *session) end(err error) {
	if s.over {
		return
	}
	s.over, s.err = true, err
	if s.atomic && !s.inst.dead {
		s.queues = [partitions][]outgoing{} // nobody commits what would come of them
	}
	close(s.done)
}

func (s *session) Done() <-chan struct{} { return s.done }

func (s *session) Err() error {
	s.inst.world.mu.Lock()
	defer s.inst.world.mu.Unlock()
	return s.err
}

var errFenced = &lost{"kafka_unreachable"}

func (s *session) fenced() bool { return s.epoch < s.kafka.epoch }

func (s *session) Send(_ context.Context, msgs []outbox.Message) (int, error) {
	n, err := s.enqueue(msgs)
	if err != nil {
		return n, s.fail(err)
	}
	return n, nil
}

func (s *session) enqueue(msgs []outbox.Message) (int, error) {
	s.inst.world.mu.Lock()
	defer s.inst.world.mu.Unlock()
	if s.inst.dead || s.over {
		return 0, errDead
	}
	if err := s.prepare(); err != nil {
		return 0, err
	}
	var skipped []uint64
	for i := range msgs {
		e := s.inst.world.recognise(&msgs[i])
		if e == nil {
			return i, errDead
		}
		s.unsettled++
		if s.skip(e) {
			skipped = append(skipped, msgs[i].Seq)
			continue
		}
		s.queues[e.partition] = append(s.queues[e.partition], outgoing{e, msgs[i].Seq, s.tails[e.partition] != nil && !s.tails[e.partition].passed})
		if s.inst.world.scenario.breaks.settleEarly {
			s.answers <- answer{seqs: []uint64{msgs[i].Seq}}
		}
	}
	if len(skipped) > 0 {
		s.answers <- answer{seqs: skipped, outcome: sink.Duplicate}
	}
	return len(msgs), nil
}

// recognise finds the event that a message is of: bytes are published as they
// were committed, and nothing is invented.
func (w *world) recognise(m *outbox.Message) *event {
	e := w.events[string(m.ID)]
	if e == nil || m.Pos != e.pos || string(m.Key) != e.key || !bytes.Contains(m.Value, []byte(e.id)) {
		w.breach("%s at %s with key %s was never committed", m.ID, m.Pos, m.Key)
		return nil
	}
	return e
}

// prepare makes sure that the floors are in the mark before the first write.
func (s *session) prepare() error {
	if s.ready {
		return nil
	}
	if !s.floors.known {
		for p := range s.kafka.logs {
			s.floors.next[p] = len(s.kafka.logs[p])
		}
		s.floors.known = true
	}
	if !s.floors.inherited && !s.atomic {
		if s.fenced() && !s.inst.world.scenario.breaks.unfencedMarks {
			return errFenced
		}
		next := s.floors.next
		s.kafka.floors = &next
	}
	s.ready = true
	return nil
}

// take is the broker's: it appends the next message of a partition.
func (s *session) take(p int) {
	o := s.queues[p][0]
	s.queues[p] = s.queues[p][1:]
	k, w := s.kafka, s.inst.world
	r := record{event: o.event}
	if s.atomic {
		if s.fenced() && !w.scenario.breaks.unfencedTransactions {
			s.answer(answer{failed: errFenced})
			return
		}
		r.open = s
	} else {
		r.late = s.epoch < k.readBy[p]
	}
	k.logs[p] = append(k.logs[p], r)
	if w.scenario.breaks.settleEarly {
		return
	}
	if !o.midTail {
		s.floors.add(p, o.seq, len(k.logs[p]))
	}
	s.answer(answer{seqs: []uint64{o.seq}})
}

// refuse is the broker's: the next message of a partition fails for good. Those
// behind it may still arrive.
func (s *session) refuse(p int) {
	s.queues[p] = s.queues[p][1:]
	s.answer(answer{failed: &lost{"kafka_unreachable"}})
}

func (s *session) answer(a answer) {
	if !s.over && !s.inst.dead {
		s.answers <- a
	}
}

func (s *session) Commit(ctx context.Context, through uint64, marks map[string][]byte) error {
	if s.atomic {
		if err := s.flush(ctx); err != nil {
			return s.fail(err)
		}
	}
	if err := s.write(through, marks); err != nil {
		s.inst.world.mu.Lock()
		s.inst.known.failed++
		s.inst.world.mu.Unlock()
		return s.fail(err)
	}
	return nil
}

func (s *session) write(through uint64, marks map[string][]byte) error {
	w, k := s.inst.world, s.kafka
	w.mu.Lock()
	defer w.mu.Unlock()
	if s.inst.dead || s.over {
		return errDead
	}
	fault := s.fault
	s.fault = noFault
	r := recordOf(marks)
	fenced := s.fenced() && !w.scenario.breaks.unfencedMarks
	s.inst.known.note("commit %d %v", r.Confirmed, fenced || fault != noFault)
	s.inst.known.commit = fmt.Appendf(nil, "%d %v", r.Confirmed, r.Last)
	switch {
	case fenced:
		return errFenced
	case fault == commitRefused:
		if s.atomic {
			k.abort(func(of *session) bool { return of == s })
		}
		return errFenced
	}
	if old := k.record(); r.Confirmed < old.Confirmed {
		w.breach("%s moves the checkpoint back from %d to %d", s.inst.name, old.Confirmed, r.Confirmed)
	}
	maps.Copy(k.marks, marks)
	k.stored = r
	k.publish(s)
	s.floors.advance(through)
	if s.ready {
		next := s.floors.next
		k.floors = &next
	}
	w.checkAcknowledged("remembers", s.inst.name, uint64(r.Confirmed))
	if fault == commitUnknown {
		return errFenced
	}
	return nil
}

// publish ends a session's transaction.
func (k *kafka) publish(s *session) {
	for p := range k.logs {
		for i := range k.logs[p] {
			if k.logs[p][i].open == s {
				k.logs[p][i].open = nil
			}
		}
	}
}

// flush waits until everything sent is settled.
func (s *session) flush(ctx context.Context) error {
	for {
		s.inst.world.mu.Lock()
		unsettled, changed := s.unsettled, s.changed
		s.inst.world.mu.Unlock()
		if unsettled == 0 {
			return nil
		}
		select {
		case <-changed:
		case <-s.done:
			return s.Err()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Newest is asked after a promotion, and there is none.
func (s *session) Newest(context.Context, string) (outbox.Position, error) {
	return outbox.Position{}, s.fail(errDead)
}

func (s *session) Close(ctx context.Context) error {
	if s.isOver() {
		return nil
	}
	err := s.flush(ctx)
	if s.atomic {
		s.inst.world.mu.Lock()
		if !s.inst.dead {
			s.kafka.abort(func(of *session) bool { return of == s })
		}
		s.inst.world.mu.Unlock()
	}
	_ = s.fail(nil)
	if err != nil {
		return fmt.Errorf("messages abandoned: %w", err)
	}
	return nil
}
