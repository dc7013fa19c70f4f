package relay

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/walpost/walpost/checkpoint"
	"github.com/walpost/walpost/outbox"
	"github.com/walpost/walpost/outbox/mapping"
	"github.com/walpost/walpost/replication"
)

// life is a pipeline that runs.
type life struct {
	cancel context.CancelFunc
	ended  chan error
}

func live(p *Pipeline) *life {
	ctx, cancel := context.WithCancel(context.Background())
	l := &life{cancel, make(chan error, 1)}
	go func() { l.ended <- p.Run(ctx) }()
	return l
}

func (l *life) stop() error {
	l.cancel()
	return <-l.ended
}

// elapse lets time pass, which is a bubble's, and waits until all is quiet.
func elapse(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// story runs a pipeline in a bubble, with both its ends.
func story(t *testing.T, tell func(w *world, p *Pipeline)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		tell(w, w.pipeline(t))
		w.verify(t)
	})
}

func opened() []string { return []string{"destination", "marks", "dial", "start", "open", "streaming"} }

func expectJournal(t *testing.T, w *world, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, w.noted()); diff != "" {
		t.Errorf("what happened (-want +got):\n%s", diff)
	}
}

// since returns what happened after the pipeline was streaming, but for
// "flowing".
func (w *world) since() (list []string) {
	all := w.noted()
	for _, line := range all[slices.Index(all, "streaming")+1:] {
		if line != "flowing" {
			list = append(list, line)
		}
	}
	return list
}

func expectSince(t *testing.T, w *world, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, w.since()); diff != "" {
		t.Errorf("what happened while streaming (-want +got):\n%s", diff)
	}
}

func TestPipelineOpensTheSinkFirstAndFencesLast(t *testing.T) {
	story(t, func(w *world, p *Pipeline) {
		l := live(p)
		<-w.kafka.sessions
		synctest.Wait()
		if err := l.stop(); err != nil {
			t.Error(err)
		}
		expectJournal(t, w, append(opened(), "session closed", "source closed")...)
	})
}

func TestPipelineStopsOpeningAtTheFirstObstacle(t *testing.T) {
	failure := errors.New("it is away")
	untouched := []string{"destination", "marks"}
	notStarted := append(untouched, "dial", "connection closed")
	notStreaming := append(untouched, "dial", "start", "open", "session closed", "source closed")
	record := func(change func(r *checkpoint.Record)) func(w *world, _ *Config) {
		return func(w *world, _ *Config) {
			r := recordAt(startLSN)
			change(&r)
			w.kafka.put(r)
		}
	}
	left := func(change func(r *checkpoint.Record)) func(w *world, _ *Config) {
		return func(w *world, _ *Config) {
			w.kafka.onOpen = func() { record(change)(w, nil) }
		}
	}
	facts := func(change func(f *replication.Facts)) func(w *world, _ *Config) {
		return func(w *world, _ *Config) { change(&w.pg.facts) }
	}
	for _, c := range []struct {
		name      string
		obstacle  func(w *world, cfg *Config)
		condition string
		journal   []string
	}{
		{"no destination", func(_ *world, cfg *Config) {
			cfg.Destination = func(context.Context) (string, error) { return "", failure }
		}, "", nil},
		{"no marks", func(w *world, _ *Config) { w.kafka.marksErr = failure }, "", untouched},
		{"an unreadable record", func(w *world, _ *Config) { w.kafka.marks[markName] = []byte("{}") }, "history_diverged", untouched},
		{"a newer record", func(w *world, _ *Config) { w.kafka.marks[markName] = []byte(`{"v":99}`) }, "checkpoint_too_new", untouched},
		{"Postgres is away", func(w *world, _ *Config) { w.pg.dialErr = func() error { return failure } }, "", append(untouched, "dial")},
		{"another cluster", record(func(r *checkpoint.Record) { r.SystemID = "1" }), "wrong_cluster", notStarted},
		{"in recovery", facts(func(f *replication.Facts) { f.InRecovery = true }), "server_in_recovery", notStarted},
		{"a busy slot", facts(func(f *replication.Facts) { f.Slot.Active, f.Slot.HolderName = true, "walpost/trainings" }), "slot_busy", notStarted},
		{"no slot", facts(func(f *replication.Facts) { f.Slot = nil }), "slot_missing", notStarted},
		{"no slot and no record", func(w *world, _ *Config) { w.pg.facts.Slot = nil; clear(w.kafka.marks) }, "checkpoint_missing", notStarted},
		{"the slot can't be taken", func(w *world, _ *Config) { w.pg.startErr = failure }, "", append(untouched, "dial", "start")},
		{"the sink can't be opened", func(w *world, _ *Config) { w.kafka.openErr = failure }, "", append(untouched, "dial", "start", "open", "source closed")},
		{"a slot without a record", func(w *world, _ *Config) { clear(w.kafka.marks) }, "checkpoint_missing", notStreaming},
		{"an intent", record(func(r *checkpoint.Record) { r.Phase = checkpoint.Intent }), "checkpoint_missing", notStreaming},
		{"the slot is ahead", facts(func(f *replication.Facts) { f.Slot.ConfirmedFlush++ }), "slot_ahead_of_checkpoint", notStreaming},
		{"no publication", facts(func(f *replication.Facts) { f.Publication = nil }), "publication_missing", notStreaming},
		{"a predecessor left another cluster's record", left(func(r *checkpoint.Record) { r.SystemID = "1" }), "wrong_cluster", notStreaming},
		{"a predecessor was at work while this one opened", left(func(r *checkpoint.Record) { r.Confirmed += 1 << 40 }), "slot_busy", notStreaming},
		{"a predecessor left a record before the slot", left(func(r *checkpoint.Record) { r.Confirmed-- }), "slot_ahead_of_checkpoint", notStreaming},
		{"a predecessor left an unreadable record", func(w *world, _ *Config) {
			w.kafka.onOpen = func() { w.kafka.set(func(k *fakeKafka) { k.marks[markName] = nil }) }
		}, "history_diverged", notStreaming},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld()
			p := w.pipeline(t, func(cfg *Config) { c.obstacle(w, cfg) })
			err := p.Run(t.Context())
			if err == nil || conditionOf(err) != c.condition {
				t.Errorf("%v, want condition %q", err, c.condition)
			}
			if diff := cmp.Diff(c.journal, w.noted()); diff != "" {
				t.Errorf("what happened (-want +got):\n%s", diff)
			}
		})
	}
}

// What a predecessor wrote between the first look and the fence counts.
func TestPipelineGoesOnFromWhatThePredecessorLeft(t *testing.T) {
	story(t, func(w *world, p *Pipeline) {
		w.kafka.onOpen = func() { w.kafka.put(recordAt(startLSN + 50)) }
		l := live(p)
		source := <-w.pg.sources
		source.put(batch(keepalive(startLSN + 40)))
		elapse(p.cfg.IdleInterval)
		source.put(batch(keepalive(startLSN + 60)))
		elapse(p.cfg.IdleInterval)
		if err := l.stop(); err != nil {
			t.Error(err)
		}
		expectSince(t, w, "confirm 140", "commit 160 through 0", "confirm 160", "session closed", "source closed")
	})
}

func TestPipelineCancelledWhileOpeningHasNothingToSay(t *testing.T) {
	w := newWorld()
	ctx, cancel := context.WithCancel(t.Context())
	w.pg.dialErr = func() error { cancel(); return errors.New("connect: interrupted") }
	if err := w.pipeline(t).Run(ctx); err != nil {
		t.Error(err)
	}
}

// The checkpoint is on the new timeline before the first event of it is sent.
func TestPipelineFollowsAPromotion(t *testing.T) {
	promoted := func(w *world) {
		w.pg.facts.Timeline, w.pg.facts.History = 2, []replication.Switch{{Timeline: 1, LSN: 200}}
	}
	story(t, func(w *world, p *Pipeline) {
		promoted(w)
		l := live(p)
		(<-w.pg.sources).put(batch(transaction(210, "a")))
		elapse(p.cfg.CheckpointInterval)
		if r := w.kafka.record(); r.Timeline != 2 {
			t.Errorf("the checkpoint is on timeline %d", r.Timeline)
		}
		_ = l.stop()
		expectJournal(t, w, "destination", "marks", "dial", "start", "open", "commit 100 through 0", "streaming", "send 1", "commit 215 through 1", "confirm 215", "flowing", "session closed", "source closed")
	})
	unreadable := errors.New("unreadable")
	for name, c := range map[string]struct {
		prepare func(*fakeSession)
		want    func(error) bool
	}{
		"Kafka holds what was lost":       {func(s *fakeSession) { s.newest = outbox.Position{Generation: 1, Commit: 200} }, func(err error) bool { return conditionOf(err) == "timeline_diverged" }},
		"Kafka can't be looked into":      {func(s *fakeSession) { s.newestErr = unreadable }, func(err error) bool { return errors.Is(err, unreadable) }},
		"the checkpoint can't be written": {func(s *fakeSession) { s.commitErr = func() error { return unreadable } }, func(err error) bool { return errors.Is(err, unreadable) }},
	} {
		t.Run(name, func(t *testing.T) {
			story(t, func(w *world, p *Pipeline) {
				promoted(w)
				w.kafka.prepare = c.prepare
				if err := <-live(p).ended; !c.want(err) {
					t.Error(err)
				}
				expectJournal(t, w, "destination", "marks", "dial", "start", "open", "session closed", "source closed")
			})
		})
	}
}

// It is in the checkpoints and marks of pipelines that exist.
func TestFingerprintIsWhatItWas(t *testing.T) {
	const want = "17d8b288d20db452"
	table := outboxTable()
	if got := Fingerprint([]mapping.Table{table}); got != want {
		t.Errorf("%s, it was %s", got, want)
	}
	for _, change := range []func(*mapping.Table){
		func(t *mapping.Table) { t.Schema = "other" }, func(t *mapping.Table) { t.Name = "other" }, func(t *mapping.Table) { t.Topic = "other" },
		func(t *mapping.Table) { t.Columns.ID = "other" }, func(t *mapping.Table) { t.Columns.AggregateType = "other" },
		func(t *mapping.Table) { t.Columns.AggregateID = "other" }, func(t *mapping.Table) { t.Columns.Type = "other" },
		func(t *mapping.Table) { t.Columns.Payload = "other" },
	} {
		changed := table
		change(&changed)
		if Fingerprint([]mapping.Table{changed}) == want {
			t.Errorf("the same for %+v", changed)
		}
	}
}
