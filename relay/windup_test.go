package relay

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/walpost/walpost/replication"
	"github.com/walpost/walpost/sink"
)

func TestPipelineDrainsWhenItIsStopped(t *testing.T) {
	story(t, func(w *world, p *Pipeline) {
		w.kafka.auto = false
		l := live(p)
		session := <-w.kafka.sessions
		(<-w.pg.sources).put(batch(transaction(110, "a"), transaction(120, "b")))
		synctest.Wait()
		l.cancel()
		elapse(p.cfg.ShutdownTimeout / 2)
		if state := p.gauge.snapshot().State; state != Stopping {
			t.Errorf("state %s while it winds up", state)
		}
		session.ack(1)
		elapse(time.Millisecond)
		expectSince(t, w, "send 2")
		session.ack(1)
		if err := <-l.ended; err != nil {
			t.Error(err)
		}
		expectSince(t, w, "send 2", "commit 125 through 2", "confirm 125", "session closed", "source closed")
	})
}

// Interrupting Send or Commit would end the session, so stopping waits for
// them.
func TestPipelineStopsCleanlyFromWithinASend(t *testing.T) {
	story(t, func(w *world, p *Pipeline) {
		gate := make(chan struct{})
		w.kafka.prepare = func(s *fakeSession) { s.sendGate = gate }
		l := live(p)
		(<-w.pg.sources).put(batch(transaction(110, "a")))
		synctest.Wait()
		l.cancel()
		elapse(time.Second)
		if state := p.gauge.snapshot().State; state != Stopping {
			t.Errorf("state %s while it winds up", state)
		}
		close(gate)
		if err := <-l.ended; err != nil {
			t.Error(err)
		}
		expectSince(t, w, "send 1", "commit 115 through 1", "confirm 115", "session closed", "source closed")
	})
}

func TestPipelineStopsCleanlyFromWithinACheckpoint(t *testing.T) {
	story(t, func(w *world, p *Pipeline) {
		gate := make(chan struct{})
		w.kafka.prepare = func(s *fakeSession) { s.commitGate = gate }
		l := live(p)
		source := <-w.pg.sources
		source.put(batch(transaction(110, "a")))
		elapse(p.cfg.CheckpointInterval)
		source.put(batch(transaction(120, "b")))
		synctest.Wait()
		l.cancel()
		synctest.Wait()
		close(gate)
		if err := <-l.ended; err != nil {
			t.Error(err)
		}
		expectSince(t, w, "send 1", "send 1", "commit 115 through 1", "confirm 115", "commit 125 through 2", "confirm 125", "session closed", "source closed")
	})
}

// During an outage of the sink nothing is settled and nothing is lost: it comes
// again.
func TestPipelineGivesUpDrainingInTime(t *testing.T) {
	for name, prepare := range map[string]func(s *fakeSession){
		"no acknowledgement": func(*fakeSession) {},
		"no room in Send":    func(s *fakeSession) { s.sendGate = make(chan struct{}) },
		"no checkpoint":      func(s *fakeSession) { s.auto, s.commitGate = true, make(chan struct{}) },
	} {
		t.Run(name, func(t *testing.T) {
			story(t, func(w *world, p *Pipeline) {
				w.kafka.auto, w.kafka.prepare = false, prepare
				l := live(p)
				(<-w.pg.sources).put(batch(transaction(110, "a")))
				synctest.Wait()
				began := time.Now()
				if err := l.stop(); err == nil {
					t.Error("no error, and not everything is settled")
				}
				if took := time.Since(began); took > p.cfg.ShutdownTimeout {
					t.Errorf("took %s", took)
				}
				expectSince(t, w, "send 1", "session closed", "source closed")
			})
		})
	}
}

func TestPipelineEndsWithItsSession(t *testing.T) {
	story(t, func(w *world, p *Pipeline) {
		w.kafka.auto = false
		l := live(p)
		session := <-w.kafka.sessions
		(<-w.pg.sources).put(batch(transaction(110, "a"), transaction(120, "b")))
		synctest.Wait()
		session.ack(1)
		_ = session.fail(&conditionError{name: "kafka_unreachable"})
		if err := <-l.ended; conditionOf(err) != "kafka_unreachable" {
			t.Error(err)
		}
		expectSince(t, w, "send 2", "session closed", "source closed")
	})
}

func TestPipelineEndsWithASendThatFails(t *testing.T) {
	story(t, func(w *world, p *Pipeline) {
		w.kafka.auto = false
		calls := 0
		w.kafka.prepare = func(s *fakeSession) {
			s.sendErr = func() error {
				if calls++; calls == 3 {
					return &conditionError{name: "topic_missing"}
				}
				return nil
			}
		}
		l := live(p)
		(<-w.pg.sources).put(batch(transaction(110, "a", "b", "c", "d")))
		if err := <-l.ended; conditionOf(err) != "topic_missing" {
			t.Error(err)
		}
		expectSince(t, w, "send 4", "session closed", "source closed")
	})
}

func TestPipelineEndsWithASessionThatClosesByItself(t *testing.T) {
	story(t, func(w *world, p *Pipeline) {
		l := live(p)
		_ = (<-w.kafka.sessions).fail(nil)
		if err := <-l.ended; err == nil {
			t.Error("no error")
		}
	})
}

// With the stream goes the slot, and somebody else may hold it at once: what was
// sent is given up, and looked for later.
func TestPipelineGivesUpWhenItsStreamFails(t *testing.T) {
	story(t, func(w *world, p *Pipeline) {
		w.kafka.auto = false
		l := live(p)
		source, session := <-w.pg.sources, <-w.kafka.sessions
		source.put(batch(transaction(110, "a")))
		synctest.Wait()
		source.fail(&conditionError{name: "postgres_unreachable"})
		synctest.Wait()
		if err := <-l.ended; conditionOf(err) != "postgres_unreachable" {
			t.Error(err)
		}
		session.ack(1)
		expectSince(t, w, "send 1", "session closed", "source closed")
	})
}

func TestPipelineNoticesAFailedStreamWhileSendBlocks(t *testing.T) {
	story(t, func(w *world, p *Pipeline) {
		w.kafka.prepare = func(s *fakeSession) { s.sendGate = make(chan struct{}) }
		l := live(p)
		source := <-w.pg.sources
		source.put(batch(transaction(110, "a")))
		synctest.Wait()
		source.fail(&conditionError{name: "postgres_unreachable"})
		began := time.Now()
		synctest.Wait()
		if state := p.gauge.snapshot().State; state != Starting {
			t.Errorf("state %s while it winds up", state)
		}
		if err := <-l.ended; conditionOf(err) != "postgres_unreachable" {
			t.Error(err)
		}
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("took %s: a successor waits", took)
		}
		expectSince(t, w, "send 1", "session closed", "source closed")
	})
}

func TestPipelineStopsAtARowThatCannotBeMapped(t *testing.T) {
	for _, c := range []struct {
		name     string
		segments []replication.Segment
		want     []string
		row      string
	}{
		{
			"after others of its transaction",
			[]replication.Segment{transaction(110, "a"), transaction(120, "b", poisonRow, "c"), transaction(130, "d"), keepalive(140)},
			[]string{"send 2", "commit 115 through 1", "confirm 115"}, "row 1 of the transaction that commits at 0/78",
		},
		{
			"first of its transaction",
			[]replication.Segment{transaction(110, "a"), transaction(120, poisonRow)},
			[]string{"send 1", "commit 115 through 1", "confirm 115"}, "row 0 of the transaction that commits at 0/78",
		},
		{
			"first, after the end of an earlier transaction",
			[]replication.Segment{keepalive(110), transaction(120, poisonRow)},
			[]string{"commit 110 through 0", "confirm 110"}, "row 0 of the transaction that commits at 0/78",
		},
		{
			"first of all",
			[]replication.Segment{transaction(120, poisonRow, "a"), keepalive(130)},
			nil, "row 0 of the transaction that commits at 0/78",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			story(t, func(w *world, p *Pipeline) {
				l := live(p)
				(<-w.pg.sources).put(batch(c.segments...), batch(transaction(200, "z")))
				err := <-l.ended
				if conditionOf(err) != "poison_event" || retryable(err) || !strings.Contains(err.Error(), c.row) || !strings.Contains(err.Error(), poisonRow) {
					t.Errorf("%v (condition %q)", err, conditionOf(err))
				}
				expectSince(t, w, append(c.want, "session closed", "source closed")...)
			})
		})
	}
}

func TestPipelineStopsAtATableThatIsNotConfigured(t *testing.T) {
	story(t, func(w *world, p *Pipeline) {
		l := live(p)
		foreign := transaction(120, "b")
		foreign.Rows[0].Rel = &replication.Relation{Schema: "public", Table: "other", Columns: relation.Columns}
		(<-w.pg.sources).put(batch(transaction(110, "a"), foreign))
		if err := <-l.ended; conditionOf(err) != "publication_changed" || !strings.Contains(err.Error(), "public.other") || !strings.Contains(err.Error(), "0/78") {
			t.Error(err)
		}
		expectSince(t, w, "send 1", "commit 115 through 1", "confirm 115", "session closed", "source closed")
	})
}

func TestPipelineStopsAtAnEventThatIsRejected(t *testing.T) {
	story(t, func(w *world, p *Pipeline) {
		calls := 0
		w.kafka.auto = false
		w.kafka.prepare = func(s *fakeSession) {
			s.sendErr = func() error {
				if calls++; calls == 3 {
					return &sink.Rejected{ID: "c", Err: errors.New("too large")}
				}
				return nil
			}
		}
		l := live(p)
		session := <-w.kafka.sessions
		(<-w.pg.sources).put(batch(transaction(110, "a"), transaction(120, "b", "c"), transaction(130, "d")))
		synctest.Wait()
		session.ack(2)
		if err := <-l.ended; conditionOf(err) != "poison_event" || retryable(err) {
			t.Error(err)
		}
		expectSince(t, w, "send 4", "commit 115 through 1", "confirm 115", "session closed", "source closed")
	})
}
