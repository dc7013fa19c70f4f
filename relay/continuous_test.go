package relay

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/walpost/walpost/outbox"
	"github.com/walpost/walpost/replication"
)

func TestPipelineRemembersThenConfirms(t *testing.T) {
	story(t, func(w *world, p *Pipeline) {
		l := live(p)
		source := <-w.pg.sources
		source.put(batch(transaction(110, "a", "b"), transaction(120, "c")), batch(transaction(130, "d")))
		elapse(p.cfg.CheckpointInterval)
		expectSince(t, w, "send 3", "send 1", "commit 135 through 4", "confirm 135")
		if last := w.kafka.record().Last; last == nil || last.ID != "d" || last.XID != 130 || last.Position != (outbox.Position{Generation: 1, Commit: 130}) {
			t.Errorf("the checkpoint's last event is %+v", last)
		}
		if err := l.stop(); err != nil {
			t.Error(err)
		}
		expectSince(t, w, "send 3", "send 1", "commit 135 through 4", "confirm 135", "session closed", "source closed")
	})
}

// A relay that is killed again and again gets on all the same.
func TestPipelineRemembersTheFirstEventsOfALifeSooner(t *testing.T) {
	story(t, func(w *world, p *Pipeline) {
		l := live(p)
		source := <-w.pg.sources
		source.put(batch(transaction(110, "a")))
		elapse(p.cfg.CheckpointInterval / ticks)
		source.put(batch(transaction(120, "b")))
		elapse(p.cfg.CheckpointInterval / 2)
		expectSince(t, w, "send 1", "commit 115 through 1", "confirm 115", "send 1")
		elapse(p.cfg.CheckpointInterval / 2)
		expectSince(t, w, "send 1", "commit 115 through 1", "confirm 115", "send 1", "commit 125 through 2", "confirm 125")
		_ = l.stop()
	})
}

func TestPipelineObserves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, observer := newWorld(), newFakeObserver()
		p := w.pipeline(t, func(c *Config) { c.Observer = observer })
		l := live(p)
		(<-w.pg.sources).put(batch(transaction(110, "a", "b"), transaction(120, "c")))
		elapse(p.cfg.CheckpointInterval)
		if observer.read != 3 || observer.settled["event.offer"] != 3 {
			t.Errorf("observed %+v", observer)
		}
		if s := p.gauge.snapshot(); s.ConfirmedLSN != 125 || s.ServerLSN != w.pg.facts.WALPosition || s.InFlightEvents != 0 {
			t.Errorf("%+v", s)
		}
		_ = l.stop()
	})
}

func TestPipelineConfirmsNothingThatACheckpointFailedFor(t *testing.T) {
	story(t, func(w *world, p *Pipeline) {
		w.kafka.prepare = func(s *fakeSession) {
			s.commitErr = func() error { return &conditionError{name: "kafka_unreachable"} }
		}
		l := live(p)
		(<-w.pg.sources).put(batch(transaction(110, "a")))
		elapse(p.cfg.CheckpointInterval)
		if err := <-l.ended; conditionOf(err) != "kafka_unreachable" {
			t.Errorf("%v", err)
		}
		expectSince(t, w, "send 1", "session closed", "source closed")
	})
}

func TestPipelineConfirmsForeignWALAtTheIdleInterval(t *testing.T) {
	story(t, func(w *world, p *Pipeline) {
		l := live(p)
		source := <-w.pg.sources
		source.put(batch(keepalive(200)), batch(part(210, 220, nil)))
		elapse(p.cfg.IdleInterval - time.Millisecond)
		expectSince(t, w)
		elapse(time.Millisecond)
		expectSince(t, w, "commit 220 through 0", "confirm 220")
		_ = l.stop()
	})
}

// A server that shuts down waits for it.
func TestPipelineConfirmsAtOnceWhenTheServerWaits(t *testing.T) {
	story(t, func(w *world, p *Pipeline) {
		l := live(p)
		(<-w.pg.sources).put(urgent(batch(transaction(190, "a"), keepalive(200))))
		synctest.Wait()
		expectSince(t, w, "send 1", "commit 200 through 1", "confirm 200")
		_ = l.stop()
	})
}

func TestPipelineNeverConfirmsPastAnOpenTransaction(t *testing.T) {
	story(t, func(w *world, p *Pipeline) {
		l := live(p)
		source := <-w.pg.sources
		source.put(batch(transaction(110, "a"), part(120, 0, rows(0, "b"))), urgent(batch(part(120, 0, rows(1, "c")))))
		elapse(3 * p.cfg.IdleInterval)
		expectSince(t, w, "send 2", "send 1", "commit 115 through 1", "confirm 115")
		source.put(batch(part(120, 125, nil)))
		elapse(p.cfg.CheckpointInterval)
		expectSince(t, w, "send 2", "send 1", "commit 115 through 1", "confirm 115", "commit 125 through 3", "confirm 125")
		_ = l.stop()
	})
}

func TestPipelineNeverConfirmsPastAnUnsettledEvent(t *testing.T) {
	story(t, func(w *world, p *Pipeline) {
		w.kafka.auto = false
		l := live(p)
		session := <-w.kafka.sessions
		(<-w.pg.sources).put(urgent(batch(transaction(110, "a"), transaction(120, "b"), transaction(130, "c"), keepalive(140))))
		synctest.Wait()
		session.ackOnly([]bool{true, false, true})
		elapse(p.cfg.IdleInterval)
		expectSince(t, w, "send 3", "commit 115 through 1", "confirm 115")
		session.ack(1)
		elapse(p.cfg.CheckpointInterval)
		expectSince(t, w, "send 3", "commit 115 through 1", "confirm 115", "commit 140 through 3", "confirm 140")
		_ = l.stop()
	})
}

// Postgres loses confirmations when it crashes, the checkpoint stays.
func TestPipelineWritesNoCheckpointWhileTheSlotCatchesUp(t *testing.T) {
	story(t, func(w *world, p *Pipeline) {
		w.kafka.put(recordAt(120))
		l := live(p)
		source := <-w.pg.sources
		source.put(batch(keepalive(115)))
		elapse(p.cfg.IdleInterval)
		source.put(batch(keepalive(120)))
		elapse(p.cfg.IdleInterval)
		source.put(batch(transaction(130, "b")))
		elapse(p.cfg.CheckpointInterval)
		expectSince(t, w, "confirm 115", "confirm 120", "send 1", "commit 135 through 1", "confirm 135")
		_ = l.stop()
	})
}

func TestPipelineBoundsWhatIsInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.kafka.auto = false
		p := w.pipeline(t, func(c *Config) { c.MaxInFlightEvents = 3 })
		l := live(p)
		session := <-w.kafka.sessions
		(<-w.pg.sources).put(batch(transaction(110, "a", "b")), batch(transaction(120, "c", "d")), batch(transaction(130, "e")))
		synctest.Wait()
		expectSince(t, w, "send 2")
		session.ack(2)
		synctest.Wait()
		expectSince(t, w, "send 2", "send 2", "send 1")
		session.ack(3)
		if err := l.stop(); err != nil {
			t.Error(err)
		}
		w.verify(t)
	})
}

// A sink may look at what it was given until Send returns, whatever was settled
// meanwhile and however often the settled prefix is looked at.
func TestPipelineLeavesTheMessagesToSendUntilItReturns(t *testing.T) {
	story(t, func(w *world, p *Pipeline) {
		var seen []string
		w.kafka.prepare = func(s *fakeSession) {
			s.afterSettle = func(msgs []outbox.Message) {
				<-time.After(2 * p.cfg.CheckpointInterval)
				for _, m := range msgs {
					seen = append(seen, string(m.ID))
				}
			}
		}
		l := live(p)
		(<-w.pg.sources).put(batch(transaction(110, "a", "b")))
		elapse(3 * p.cfg.CheckpointInterval)
		if !slices.Equal(seen, []string{"a", "b"}) {
			t.Errorf("the sink saw %q", seen)
		}
		expectSince(t, w, "send 2", "commit 115 through 2", "confirm 115")
		_ = l.stop()
	})
}

// Rows of a table that changes under way are mapped by what they were written
// with.
func TestPipelinePlansEachDescriptionOfATable(t *testing.T) {
	story(t, func(w *world, p *Pipeline) {
		l := live(p)
		changed := *relation
		changed.Columns = append(slices.Clone(relation.Columns), replication.Column{Name: "note", TypeOID: 25})
		second := transaction(120, "b")
		second.Rows[0].Rel, second.Rows[0].Values = &changed, append(second.Rows[0].Values, []byte("note"))
		session := <-w.kafka.sessions
		(<-w.pg.sources).put(batch(transaction(110, "a"), second, transaction(130, "c")))
		synctest.Wait()
		var ids []string
		for _, m := range session.sent {
			ids = append(ids, string(m.ID))
		}
		if !slices.Equal(ids, []string{"a", "b", "c"}) {
			t.Errorf("sent %q", ids)
		}
		_ = l.stop()
	})
}

// Tables that take turns are not planned for each row.
func TestPipelineMapsWithoutAllocating(t *testing.T) {
	other := *relation
	other.OID, other.Table = 4712, "other"
	w := newWorld()
	p := w.pipeline(t, func(c *Config) {
		second := outboxTable()
		second.Name = "other"
		c.Tables = append(c.Tables, second)
	})
	mapper, err := p.cfg.mapper("7301", "db")
	if err != nil {
		t.Fatal(err)
	}
	in := newIntake(mapper, 1)
	b := batch(transaction(110, "a", "b", "c", "d"))
	b.Segments[0].Rows[1].Rel, b.Segments[0].Rows[3].Rel = &other, &other
	l := &load{batch: b}
	allocations := testing.AllocsPerRun(1000, func() {
		l.messages = l.messages[:0]
		l.arena.Reset()
		if err := in.fill(l); err != nil {
			t.Fatal(err)
		}
	})
	if allocations != 0 || len(l.messages) != 4 {
		t.Errorf("%v allocations for %d messages", allocations, len(l.messages))
	}
}

func TestPipelineSaysWhenItIsStalled(t *testing.T) {
	story(t, func(w *world, p *Pipeline) {
		w.kafka.auto = false
		l := live(p)
		session := <-w.kafka.sessions
		elapse(3 * p.cfg.StallAfter) // idle is not stalled
		(<-w.pg.sources).put(batch(transaction(110, "a")))
		elapse(p.cfg.StallAfter - 2*p.cfg.CheckpointInterval)
		if list := p.gauge.conditions.List(); len(list) != 0 {
			t.Errorf("too early: %+v", list)
		}
		elapse(3 * p.cfg.CheckpointInterval)
		if list := p.gauge.conditions.List(); len(list) != 1 || list[0].Name != "stalled" {
			t.Errorf("stalled for %s: %+v", p.cfg.StallAfter, list)
		}
		if s := p.gauge.snapshot(); s.InFlightEvents != 1 || !s.OldestUnacked.Equal(commitTime(110)) {
			t.Errorf("%+v", s)
		}
		session.ack(1)
		elapse(p.cfg.CheckpointInterval)
		if list := p.gauge.conditions.List(); len(list) != 0 {
			t.Errorf("it flows again: %+v", list)
		}
		_ = l.stop()
	})
}

func TestPipelineIsFlowingOnceItIsSeenToWork(t *testing.T) {
	for name, c := range map[string]struct {
		read, ack bool
		want      int
	}{
		"nothing to send":      {false, false, 1},
		"sent and not settled": {true, false, 0},
		"settled":              {true, true, 1},
	} {
		t.Run(name, func(t *testing.T) {
			story(t, func(w *world, p *Pipeline) {
				w.kafka.auto = false
				l := live(p)
				session := <-w.kafka.sessions
				if c.read {
					(<-w.pg.sources).put(batch(transaction(110, "a")))
				}
				synctest.Wait()
				if c.ack {
					session.ack(1)
				}
				if w.count("flowing") != 0 {
					t.Error("it can't be known yet")
				}
				elapse(3 * p.cfg.CheckpointInterval)
				if n := w.count("flowing"); n != c.want {
					t.Errorf("flowing was told %d times, want %d", n, c.want)
				}
				_ = session.fail(nil)
				<-l.ended
			})
		})
	}
}
