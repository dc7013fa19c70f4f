package relay

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// operation is a supervisor at work.
type operation struct {
	*life
	*Supervisor
	log      *lines
	observer *fakeObserver
}

func operate(t *testing.T, w *world, change ...func(*Config)) *operation {
	t.Helper()
	log, observer := &lines{}, newFakeObserver()
	cfg := w.config()
	cfg.Logger, cfg.Observer = log.logger(), observer
	for _, c := range change {
		c(&cfg)
	}
	s, err := NewSupervisor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	o := &operation{&life{cancel, make(chan error, 1)}, s, log, observer}
	go func() { o.ended <- s.Run(ctx) }()
	return o
}

func (o *operation) names() (names []string) {
	for _, c := range o.Status().Conditions {
		names = append(names, c.Name)
	}
	return names
}

func (o *operation) expect(t *testing.T, state State, conditions ...string) {
	t.Helper()
	if s := o.Status(); s.State != state || !slices.Equal(o.names(), conditions) {
		t.Errorf("state %s with conditions %q, want %s with %q", s.State, o.names(), state, conditions)
	}
}

// expectLog counts the changes of state in the log.
func (o *operation) expectLog(t *testing.T, entered, cleared, streaming int) {
	t.Helper()
	e, c, s := o.log.count("condition entered"), o.log.count("condition cleared"), o.log.count("relay streaming")
	if e != entered || c != cleared || s != streaming {
		t.Errorf("entered %d, cleared %d, streaming %d; want %d, %d, %d in\n%s", e, c, s, entered, cleared, streaming, o.log)
	}
}

func (o *operation) mustStop(t *testing.T) {
	t.Helper()
	if err := o.stop(); err != nil {
		t.Error(err)
	}
	if s := o.Status().State; s != Stopped {
		t.Errorf("state %s after the end", s)
	}
}

func away(name string) func() error {
	return func() error { return &conditionError{name: name} }
}

func TestSupervisorTriesUntilTheServersAreBack(t *testing.T) {
	for name, c := range map[string]struct {
		leave, back func(w *world)
	}{
		"postgres_unreachable": {
			func(w *world) {
				w.pg.set(func(p *fakePostgres) { p.dialErr = away("postgres_unreachable") })
			},
			func(w *world) { w.pg.set(func(p *fakePostgres) { p.dialErr = nil }) },
		},
		"kafka_unreachable": {
			func(w *world) { w.kafka.set(func(k *fakeKafka) { k.marksErr = away("kafka_unreachable")() }) },
			func(w *world) { w.kafka.set(func(k *fakeKafka) { k.marksErr = nil }) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				c.leave(w)
				o := operate(t, w)
				elapse(time.Minute)
				o.expect(t, Starting, name)
				o.expectLog(t, 1, 0, 0)
				if n := w.count("destination"); n < 60 || n > 60*10 {
					t.Errorf("%d attempts in a minute", n)
				}
				if o.Status().Ready(name) {
					t.Error("ready, and nothing streams")
				}
				attempts := w.count("destination")
				c.back(w)
				elapse(time.Second)
				if n := w.count("destination") - attempts; n != 1 {
					t.Errorf("%d more attempts within the second", n)
				}
				elapse(time.Second)
				o.expect(t, Streaming)
				o.expectLog(t, 1, 1, 1)
				if !o.Status().Ready() {
					t.Error("not ready")
				}
				if len(o.observer.restarted) != attempts || o.observer.restarted[0] != name {
					t.Errorf("restarts %d, attempts %d", len(o.observer.restarted), attempts)
				}
				o.mustStop(t)
			})
		})
	}
}

func TestSupervisorPausesLongerEachTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		var at []time.Time
		w.pg.dialErr = func() error { at = append(at, time.Now()); return away("postgres_unreachable")() }
		o := operate(t, w)
		elapse(10 * time.Second)
		first, last := at[1].Sub(at[0]), at[len(at)-1].Sub(at[len(at)-2])
		if first > 75*time.Millisecond || last < 150*time.Millisecond || last > 500*time.Millisecond {
			t.Errorf("first pause %s, last %s", first, last)
		}
		o.mustStop(t)
	})
}

func TestSupervisorGoesOnWhenAPipelineEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		o := operate(t, w)
		source := <-w.pg.sources
		source.put(batch(transaction(110, "a")))
		elapse(2 * time.Second)
		o.expect(t, Streaming)
		w.pg.set(func(p *fakePostgres) { p.dialErr = away("postgres_unreachable") })
		source.fail(away("postgres_unreachable")())
		elapse(5 * time.Second)
		o.expect(t, Starting, "postgres_unreachable")
		w.pg.set(func(p *fakePostgres) { p.dialErr = nil; p.facts = factsAt(115) })
		(<-w.pg.sources).put(batch(transaction(120, "b")))
		elapse(2 * time.Second)
		o.expect(t, Streaming)
		if s := o.Status(); s.ConfirmedLSN != 125 || s.InFlightEvents != 0 {
			t.Errorf("%+v", s)
		}
		o.expectLog(t, 1, 1, 2)
		o.mustStop(t)
		w.verify(t)
	})
}

// What shows only when an event is sent must not come and go with every
// attempt: both ends can be opened all the while.
func TestSupervisorKeepsAConditionUntilEventsFlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.kafka.prepare = func(s *fakeSession) { s.sendErr = away("topic_missing") }
		var attempts int
		w.kafka.onOpen = func() { attempts++ }
		o := operate(t, w)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { // Postgres sends it again to each
			for ctx.Err() == nil {
				select {
				case source := <-w.pg.sources:
					source.put(batch(transaction(110, "a")))
				case <-ctx.Done():
				}
			}
		}()
		elapse(time.Minute)
		o.expectLog(t, 1, 0, 1)
		if !slices.Equal(o.names(), []string{"topic_missing"}) || o.Status().Ready() {
			t.Errorf("conditions %q", o.names())
		}
		if attempts > 60*5 {
			t.Errorf("%d attempts in a minute: they are not paced", attempts)
		}
		w.kafka.set(func(k *fakeKafka) { k.prepare = nil })
		elapse(3 * time.Second)
		o.expect(t, Streaming)
		o.expectLog(t, 1, 1, 2)
		o.mustStop(t)
		cancel()
		synctest.Wait()
		w.verify(t)
	})
}

func TestSupervisorPacesFailuresOfNoCondition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.kafka.prepare = func(s *fakeSession) { _ = s.fail(errors.New("for some reason")) }
		o := operate(t, w)
		elapse(time.Minute)
		if n := len(o.observer.restarted); n < 60 || n > 60*5 || o.observer.restarted[0] != "error" {
			t.Errorf("%d restarts in a minute, for %q", n, o.observer.restarted[0])
		}
		if o.log.count("for some reason") == 0 {
			t.Error("the log does not say why")
		}
		o.mustStop(t)
	})
}

func TestSupervisorShowsOneConditionAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.kafka.marksErr = away("kafka_unreachable")()
		w.pg.dialErr = away("postgres_unreachable")
		o := operate(t, w)
		elapse(time.Second)
		o.expect(t, Starting, "kafka_unreachable")
		w.kafka.set(func(k *fakeKafka) { k.marksErr = nil })
		elapse(time.Second)
		o.expect(t, Starting, "postgres_unreachable")
		o.expectLog(t, 2, 1, 0)
		o.mustStop(t)
	})
}
