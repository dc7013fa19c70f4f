package relay

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/walpost/walpost/outbox"
	"github.com/walpost/walpost/replication"
	"github.com/walpost/walpost/sink"
)

func withoutBars(shown string) string {
	return strings.Join(strings.Fields(strings.ReplaceAll(shown, "|", "")), " ")
}

// atomically runs a pipeline with an atomic sink.
func atomically(t *testing.T, tell func(w *world, p *Pipeline, l *life, s *fakeSession, from *fakeSource), change ...func(*Config)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.kafka.atomic = true
		p := w.pipeline(t, change...)
		l := live(p)
		from := <-w.pg.sources
		session := <-w.kafka.sessions
		synctest.Wait()
		tell(w, p, l, session, from)
		w.verify(t)
	})
}

func expectShown(t *testing.T, w *world, want string) {
	t.Helper()
	if got := w.kafka.shows(); got != want {
		t.Errorf("the sink shows %q, want %q", got, want)
	}
}

func TestTransactionalCommitsEachTransactionAtOnce(t *testing.T) {
	atomically(t, func(w *world, p *Pipeline, l *life, _ *fakeSession, from *fakeSource) {
		from.put(batch(transaction(110, "a", "b")))
		synctest.Wait()
		expectSince(t, w, "send 2", "commit 115 through 2", "confirm 115")
		from.put(batch(transaction(120, "c")))
		synctest.Wait()
		expectShown(t, w, "a b | c |")
		if last := w.kafka.record().Last; last.ID != "c" || last.XID != 120 || last.Position != (outbox.Position{Generation: 1, Commit: 120}) {
			t.Errorf("the checkpoint's last event is %+v", last)
		}
		if err := l.stop(); err != nil {
			t.Error(err)
		}
		expectSince(t, w, "send 2", "commit 115 through 2", "confirm 115", "send 1", "commit 125 through 3", "confirm 125", "session closed", "source closed")
	})
}

// A transaction that has come in part is committed when the rest has come.
func TestTransactionalWaitsForTheRestOfATransaction(t *testing.T) {
	atomically(t, func(w *world, p *Pipeline, l *life, _ *fakeSession, from *fakeSource) {
		from.put(batch(part(110, 0, rows(0, "a"))))
		elapse(p.cfg.IdleInterval)
		expectShown(t, w, "")
		from.put(batch(part(110, 0, rows(1, "b"))), batch(part(110, 115, nil)))
		synctest.Wait()
		expectShown(t, w, "a b |")
		_ = l.stop()
	})
}

// What waits while a commit is in progress makes up the next one.
func TestTransactionalGroupsWhatWaits(t *testing.T) {
	atomically(t, func(w *world, p *Pipeline, l *life, s *fakeSession, from *fakeSource) {
		gate := make(chan struct{})
		s.commitGate = gate
		from.put(batch(transaction(110, "a")))
		synctest.Wait()
		from.put(batch(transaction(120, "b")), batch(transaction(130, "c"), part(140, 0, rows(0, "d"))), batch(part(140, 145, rows(1, "e"))))
		synctest.Wait()
		close(gate)
		synctest.Wait()
		expectShown(t, w, "a | b c d e |")
		_ = l.stop()
	})
}

func TestTransactionalLimitsAGroup(t *testing.T) {
	for name, limit := range map[string]func(*Config){
		"events": func(c *Config) { c.GroupEvents = 2 },
		"bytes":  func(c *Config) { c.MaxInFlightBytes = 200 },
	} {
		t.Run(name, func(t *testing.T) {
			atomically(t, func(w *world, p *Pipeline, l *life, s *fakeSession, from *fakeSource) {
				gate := make(chan struct{})
				s.commitGate = gate
				from.put(batch(transaction(110, "a")))
				synctest.Wait()
				from.put(batch(transaction(120, "b")), batch(transaction(130, "c")), batch(transaction(140, "d")))
				close(gate)
				synctest.Wait()
				expectShown(t, w, "a | b c | d |")
				_ = l.stop()
			}, limit)
		})
	}
}

// Behind, most batches end inside a transaction. A group must end all the same, by
// its limit or its age: it would grow without end, until the transaction that
// happens to come last is taken for one that is too large.
func TestTransactionalEndsAGroupInsideABatch(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Config)
		pause  time.Duration // before each batch
		want   string
	}{
		"full":     {func(c *Config) { c.GroupEvents = 3 }, 0, "a b c | d e f |"},
		"large":    {func(c *Config) { c.MaxInFlightBytes = 350 }, 0, "a b c | d e | f |"},
		"old":      {func(*Config) {}, 16 * time.Second, "a b c | d e | f |"},
		"not full": {func(*Config) {}, 0, "a b c d e f |"},
	} {
		t.Run(name, func(t *testing.T) {
			atomically(t, func(w *world, p *Pipeline, l *life, _ *fakeSession, from *fakeSource) {
				for _, b := range []*replication.Batch{
					batch(transaction(110, "a"), part(120, 0, rows(0, "b"))),
					batch(part(120, 125, rows(1, "c")), part(130, 0, rows(0, "d"))),
					batch(part(130, 135, rows(1, "e")), part(140, 0, rows(0, "f"))),
				} {
					from.put(b)
					elapse(c.pause)
				}
				from.put(batch(part(140, 145, nil)))
				synctest.Wait()
				expectShown(t, w, c.want)
				if p.confirmedLSN != 145 || w.kafka.record().Last.ID != "f" {
					t.Errorf("confirmed %d, the checkpoint stands after %s", p.confirmedLSN, w.kafka.record().Last)
				}
				_ = l.stop()
			}, c.change, func(c *Config) { c.StopOversized = true })
		})
	}
}

// Nothing of it is lost or comes twice when the relay dies between two parts:
// resume_test.go.
func TestTransactionalSplitsWhatIsTooLarge(t *testing.T) {
	atomically(t, func(w *world, p *Pipeline, l *life, _ *fakeSession, from *fakeSource) {
		from.put(batch(transaction(110, "a")))
		synctest.Wait()
		from.put(batch(part(120, 0, rows(0, "b", "c"))))
		from.put(batch(part(120, 0, rows(2, "d"))))
		synctest.Wait()
		expectShown(t, w, "a | b c d |")
		if r := w.kafka.record(); r.Confirmed != 115 || r.Last.ID != "d" || r.Last.Position.Index != 2 || p.confirmedLSN != 115 {
			t.Errorf("the checkpoint stands at %s after %s, confirmed is %d", r.Confirmed, r.Last, p.confirmedLSN)
		}
		from.put(batch(part(120, 125, rows(3, "e"))))
		synctest.Wait()
		expectShown(t, w, "a | b c d | e |")
		_ = l.stop()
		if p.confirmedLSN != 125 {
			t.Errorf("confirmed %d", p.confirmedLSN)
		}
	}, func(c *Config) { c.MaxTransactionEvents = 3 })
}

// A transaction that fits is not split because others are committed with it.
func TestTransactionalDoesNotSplitForOthers(t *testing.T) {
	atomically(t, func(w *world, p *Pipeline, l *life, s *fakeSession, from *fakeSource) {
		gate := make(chan struct{})
		s.commitGate = gate
		from.put(batch(transaction(110, "a")))
		synctest.Wait()
		from.put(batch(transaction(120, "b", "c"), part(130, 0, rows(0, "d", "e"))), batch(part(130, 135, nil)))
		close(gate)
		synctest.Wait()
		expectShown(t, w, "a | b c d e |")
		_ = l.stop()
	}, func(c *Config) { c.MaxTransactionEvents = 3 })
}

func TestTransactionalStopsAtWhatIsTooLarge(t *testing.T) {
	atomically(t, func(w *world, p *Pipeline, l *life, _ *fakeSession, from *fakeSource) {
		from.put(batch(transaction(110, "a")))
		synctest.Wait()
		from.put(batch(part(120, 0, rows(0, "b", "c", "d"))))
		err := <-l.ended
		if conditionOf(err) != "poison_event" || retryable(err) || !strings.Contains(Remedy(err), "kafka.oversized: split") {
			t.Errorf("%v, want poison_event", err)
		}
		expectShown(t, w, "a |")
		if p.confirmedLSN != 115 {
			t.Errorf("confirmed %d", p.confirmedLSN)
		}
	}, func(c *Config) { c.MaxTransactionEvents, c.StopOversized = 3, true })
}

// A transaction that is sent slowly must not outlive the coordinator's patience.
func TestTransactionalSplitsWhatTakesTooLong(t *testing.T) {
	atomically(t, func(w *world, p *Pipeline, l *life, _ *fakeSession, from *fakeSource) {
		from.put(batch(part(110, 0, rows(0, "a"))))
		elapse(p.cfg.TransactionTime)
		from.put(batch(part(110, 0, rows(1, "b"))))
		synctest.Wait()
		expectShown(t, w, "a b |")
		_ = l.stop()
	})
}

func TestTransactionalRemembersMerePositionsNowAndThen(t *testing.T) {
	atomically(t, func(w *world, p *Pipeline, l *life, _ *fakeSession, from *fakeSource) {
		from.put(batch(keepalive(200)))
		synctest.Wait()
		expectSince(t, w)
		elapse(p.cfg.IdleInterval)
		from.put(batch(keepalive(300)))
		synctest.Wait()
		expectSince(t, w, "commit 300 through 0", "confirm 300")
		from.put(urgent(batch(keepalive(400)))) // the server is about to shut down
		synctest.Wait()
		expectSince(t, w, "commit 300 through 0", "confirm 300", "commit 400 through 0", "confirm 400")
		_ = l.stop()
	})
}

func TestTransactionalObservesWhatIsVisible(t *testing.T) {
	observer := newFakeObserver()
	atomically(t, func(w *world, p *Pipeline, l *life, s *fakeSession, from *fakeSource) {
		gate := make(chan struct{})
		s.commitGate = gate
		from.put(batch(transaction(110, "a", "b")))
		elapse(p.cfg.CheckpointInterval)
		if n := observer.settled["event.offer"]; n != 0 {
			t.Errorf("%d are said to be published before the commit", n)
		}
		if v := p.gauge.snapshot(); !v.OldestUnacked.Equal(commitTime(110)) {
			t.Errorf("the oldest that waits is of %s", v.OldestUnacked)
		}
		close(gate)
		elapse(p.cfg.CheckpointInterval)
		if n := observer.settled["event.offer"]; n != 2 {
			t.Errorf("%d are said to be published after it", n)
		}
		if v := p.gauge.snapshot(); !v.OldestUnacked.IsZero() {
			t.Errorf("something of %s waits", v.OldestUnacked)
		}
		_ = l.stop()
	}, func(c *Config) { c.Observer = observer })
}

func TestTransactionalConfirmsNothingThatWasNotCommitted(t *testing.T) {
	atomically(t, func(w *world, p *Pipeline, l *life, s *fakeSession, from *fakeSource) {
		s.commitErr = func() error { return &conditionError{name: "kafka_unreachable"} }
		from.put(batch(transaction(110, "a")))
		if err := <-l.ended; conditionOf(err) != "kafka_unreachable" {
			t.Errorf("%v", err)
		}
		expectShown(t, w, "")
		expectSince(t, w, "send 1", "session closed", "source closed")
	})
}

// What precedes the transaction of an event that can't be published is committed,
// and nothing of that transaction.
func TestTransactionalCommitsWhatPrecedesPoison(t *testing.T) {
	rejected := &sink.Rejected{Err: errors.New("too large")}
	for name, c := range map[string]struct {
		batch  []replication.Segment
		reject int // messages before it are taken; -1: all are
		want   string
	}{
		"that can't be mapped":     {[]replication.Segment{transaction(110, "a"), transaction(120, "b", poisonRow, "c")}, -1, "a |"},
		"that the sink refuses":    {[]replication.Segment{transaction(110, "a"), transaction(120, "b", "c")}, 1, "a |"},
		"that comes first":         {[]replication.Segment{transaction(110, poisonRow)}, -1, ""},
		"of a transaction in part": {[]replication.Segment{transaction(110, "a"), transaction(120, "b", "c")}, 2, ""},
	} {
		t.Run(name, func(t *testing.T) {
			atomically(t, func(w *world, p *Pipeline, l *life, s *fakeSession, from *fakeSource) {
				n := 0
				s.sendErr = func() error {
					if n++; n == c.reject+1 {
						return rejected
					}
					return nil
				}
				from.put(batch(c.batch...))
				if err := <-l.ended; err == nil || retryable(err) {
					t.Errorf("ended with %v", err)
				}
				expectShown(t, w, c.want)
			})
		})
	}
}

func TestTransactionalGivesUpWhatWasNotReadToItsEnd(t *testing.T) {
	atomically(t, func(w *world, p *Pipeline, l *life, _ *fakeSession, from *fakeSource) {
		from.put(batch(part(110, 0, rows(0, "a"))))
		elapse(time.Millisecond)
		if err := l.stop(); err == nil {
			t.Error("a transaction was left unpublished without a word")
		}
		expectShown(t, w, "")
		expectSince(t, w, "send 1", "session closed", "source closed")
	})
}
