package model

import (
	"context"
	"fmt"
	"sync"

	"github.com/walpost/walpost/checkpoint"
	"github.com/walpost/walpost/relay"
	"github.com/walpost/walpost/replication"
)

// postgres is the server with the slot.
type postgres struct {
	world     *world
	confirmed uint64
	durable   []uint64 // what a crash may leave of it, ascending; the last is confirmed
	holder    *source  // of the slot
}

func (p *postgres) facts() replication.Facts {
	slot := &replication.Slot{Name: pipeline, Plugin: "pgoutput", Database: "db", ConfirmedFlush: p.confirmed, RestartLSN: p.confirmed, WALStatus: "reserved"}
	if p.holder != nil {
		slot.Active, slot.HolderName = true, relay.ApplicationName(pipeline)
	}
	return replication.Facts{
		ServerVersion: 180000, SystemID: "7301", Timeline: 1, Database: "db", WALPosition: p.world.end(), WALLevel: "logical",
		Slot: slot, Publication: publication(),
	}
}

// confirm is a status update that has arrived. Positions never go back while
// the server runs.
func (p *postgres) confirm(lsn uint64) {
	if lsn > p.confirmed {
		p.confirmed = lsn
		p.durable = append(p.durable, lsn)
	}
}

// crash restarts the server with the slot as it was at one of its checkpoints.
func (p *postgres) crash(slot uint64) {
	p.confirmed, p.durable = slot, []uint64{slot}
	p.release()
}

// release ends the holder's connection. The holder need not have noticed.
func (p *postgres) release() {
	if p.holder != nil {
		p.holder.connected = false
		p.holder = nil
	}
}

// connector is an instance's way to the server.
type connector struct{ inst *instance }

func (c *connector) Dial(context.Context) (relay.Connection, replication.Facts, error) {
	w := c.inst.world
	w.mu.Lock()
	defer w.mu.Unlock()
	facts := w.pg.facts()
	c.inst.known.slot = facts.Slot.ConfirmedFlush
	c.inst.known.told("slot %d %v", facts.Slot.ConfirmedFlush, facts.Slot.Active)
	return c, facts, nil
}

func (c *connector) Look(context.Context) (replication.Facts, error) {
	return replication.Facts{}, &lost{"postgres_unreachable"}
}

func (c *connector) Close(context.Context) error { return nil }

func (c *connector) Start(context.Context) (relay.Source, error) {
	w := c.inst.world
	w.mu.Lock()
	defer w.mu.Unlock()
	if c.inst.dead {
		return nil, errDead
	}
	if w.pg.holder != nil {
		c.inst.known.told("busy")
		return nil, &lost{"slot_busy"}
	}
	s := &source{inst: c.inst, connected: true, in: make(chan *replication.Batch, 1), done: make(chan struct{})}
	for s.next < len(w.items) && w.items[s.next].end <= w.pg.confirmed {
		s.next++
	}
	w.pg.holder, c.inst.source = s, s
	return s, nil
}

// source is a replication stream.
type source struct {
	inst *instance
	in   chan *replication.Batch
	done chan struct{}
	once sync.Once

	// Under the world's mutex.
	connected bool // as the server sees it
	noticed   bool // the instance knows that it is over
	waiting   bool // in Next
	next      int  // item
	more      bool // another batch is here already
}

func (s *source) Next(ctx context.Context) (*replication.Batch, error) {
	s.wait(true)
	defer s.wait(false)
	select {
	case b := <-s.in:
		return b, nil
	case <-s.done:
		return nil, s.Err()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *source) wait(waiting bool) {
	s.inst.world.mu.Lock()
	defer s.inst.world.mu.Unlock()
	s.waiting = waiting
}

// Ready is asked by an atomic delivery that could commit.
func (s *source) Ready() bool {
	s.inst.world.mu.Lock()
	defer s.inst.world.mu.Unlock()
	return s.more
}

// yield lets Next return the next n items. more says that another batch is read
// while the relay deals with this one.
func (s *source) yield(n int, more bool) {
	s.more = more
	b := &replication.Batch{}
	for _, it := range s.inst.world.items[s.next : s.next+n] {
		seg := segment(it)
		b.Segments = append(b.Segments, seg)
		b.Rows += len(seg.Rows)
		b.WALEnd = it.end
	}
	b.Bytes = 100 * b.Rows
	s.next += n
	s.inst.known.note("read %d", n)
	s.inst.known.reads = fmt.Appendf(s.inst.known.reads, "%d %v,", n, more)
	s.in <- b
}

func segment(it item) replication.Segment {
	seg := replication.Segment{Commit: it.commit, End: it.end}
	if it.commit == 0 {
		return seg
	}
	seg.XID, seg.Time = uint32(it.commit), commitTime(it.commit)
	for i, e := range it.events {
		values := [][]byte{[]byte(e.id), []byte("offer"), []byte(e.key), []byte("type"), []byte(e.id)}
		seg.Rows = append(seg.Rows, replication.Row{Rel: relation(), Index: uint32(i), Values: values})
	}
	return seg
}

func relation() *replication.Relation {
	return &replication.Relation{OID: 4711, Schema: "public", Table: "outbox", Columns: []replication.Column{
		{Name: "id", TypeOID: 2950}, {Name: "aggregatetype", TypeOID: 1043}, {Name: "aggregateid", TypeOID: 1043}, {Name: "type", TypeOID: 1043}, {Name: "payload", TypeOID: 25},
	}}
}

// Confirm is invariants 1 and 2, whoever confirms and whether or not it still
// reaches the server.
func (s *source) Confirm(lsn uint64) {
	w := s.inst.world
	w.mu.Lock()
	defer w.mu.Unlock()
	if s.inst.dead {
		return
	}
	s.inst.known.note("confirmed %d", lsn)
	s.inst.known.confirmed = lsn
	w.checkAcknowledged("confirms", s.inst.name, lsn)
	if record := w.kafka.record(); lsn > uint64(record.Confirmed) {
		w.breach("%s confirms %d, the checkpoint stands at %d", s.inst.name, lsn, record.Confirmed)
	}
	if s.connected {
		w.pg.confirm(lsn)
	}
}

func (s *source) Done() <-chan struct{} { return s.done }

func (s *source) Err() error {
	<-s.done
	return &lost{"postgres_unreachable"}
}

// notice tells the instance that its stream is over.
func (s *source) notice() {
	s.noticed = true
	s.once.Do(func() { close(s.done) })
}

func (s *source) Close() {
	w := s.inst.world
	w.mu.Lock()
	defer w.mu.Unlock()
	if !s.inst.dead && s.connected {
		w.pg.release()
	}
	s.notice()
}

// checkAcknowledged: every event up to lsn is in Kafka, for all to see.
func (w *world) checkAcknowledged(does, who string, lsn uint64) {
	for _, it := range w.items {
		if it.end > lsn {
			return
		}
		for _, e := range it.events {
			if !w.kafka.shows(e) {
				w.breach("%s %s %d, past %s, which is not acknowledged", who, does, lsn, e.id)
			}
		}
	}
}

// checkAlways is asked after every step.
func (w *world) checkAlways() {
	if at := w.kafka.record().Confirmed; w.pg.confirmed > uint64(at) {
		w.breach("the slot is at %d, ahead of the checkpoint at %d", w.pg.confirmed, at)
	}
	if w.scenario.delivery == exactlyOnce {
		w.checkWhole()
	}
}

// checkWhole: a transaction is in Kafka wholly and once, or not at all.
func (w *world) checkWhole() {
	for _, it := range w.items {
		shown := 0
		for _, e := range it.events {
			n := w.kafka.copies(e)
			if n > 1 {
				w.breach("%s is in Kafka %d times", e.id, n)
			}
			shown += min(n, 1)
		}
		if shown > 0 && shown < len(it.events) {
			w.breach("of the transaction at %d %d of %d events are shown", it.commit, shown, len(it.events))
		}
	}
}

// delivered reports that a relay streams and that nothing is left to do.
func (w *world) delivered() bool {
	if w.pg.confirmed != w.end() || w.pg.holder == nil {
		return false
	}
	s := w.pg.holder.inst.session
	return s != nil && !s.over && s.unsettled == 0
}

// checkDelivered is asked when nothing is left to do.
func (w *world) checkDelivered() {
	last := map[string]*event{} // by key
	for _, it := range w.items {
		for _, e := range it.events {
			if !w.kafka.shows(e) {
				w.breach("%s was lost", e.id)
			}
		}
	}
	for _, log := range w.kafka.logs {
		final := map[*event]int{}
		for i, r := range log {
			if !r.late {
				final[r.event] = i
			}
		}
		clear(last)
		for i, r := range log {
			if final[r.event] != i || r.late {
				continue
			}
			if before := last[r.event.key]; before != nil && before.number > r.event.number {
				w.breach("the last %s comes after the last %s", before.id, r.event.id)
			}
			last[r.event.key] = r.event
		}
	}
}

// recordOf decodes a mark.
func recordOf(marks map[string][]byte) *checkpoint.Record {
	r, err := checkpoint.Decode(marks[checkpoint.MarkName(pipeline, "0")])
	if err != nil {
		panic(err)
	}
	return r
}
