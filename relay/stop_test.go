package relay

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/walpost/walpost/checkpoint"
	"github.com/walpost/walpost/outbox"
	"github.com/walpost/walpost/replication"
)

func TestSupervisorStopsWhereOnlyAPersonCanDecide(t *testing.T) {
	for _, c := range []struct {
		name     string
		obstacle func(w *world)
		exit     int
	}{
		{"checkpoint_missing", func(w *world) { clear(w.kafka.marks) }, ExitContinuity},
		{"slot_missing", func(w *world) { w.pg.facts.Slot = nil }, ExitContinuity},
		{"slot_lost", func(w *world) { w.pg.facts.Slot.WALStatus = "lost" }, ExitContinuity},
		{"wrong_cluster", func(w *world) { w.pg.facts.SystemID = "1" }, ExitContinuity},
		{"checkpoint_too_new", func(w *world) { w.kafka.marks[markName] = []byte(`{"v":99}`) }, ExitContinuity},
		{"history_diverged", func(w *world) { w.pg.facts.WALPosition = 1 }, ExitContinuity},
		{"publication_missing", func(w *world) { w.pg.facts.Publication = nil }, ExitContinuity},
		{"error", func(w *world) { w.pg.facts.ServerVersion = 120000 }, ExitFailed},
		{"kafka_lost_records", func(w *world) { w.kafka.openErr = away("kafka_lost_records")() }, ExitContinuity},
		{"kafka_unreachable", func(w *world) { w.kafka.openErr = &conditionError{"kafka_unreachable", true} }, ExitFailed},
		{"error", func(w *world) { w.kafka.openErr = &conditionError{"", true} }, ExitFailed},
		{"poison_event", func(w *world) {
			w.kafka.onOpen = func() {
				source := <-w.pg.sources
				source.put(batch(transaction(110, poisonRow)))
			}
		}, ExitFailed},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				c.obstacle(w)
				o := operate(t, w)
				var stopped *StopError
				if err := <-o.ended; !errors.As(err, &stopped) || stopped.ExitCode() != c.exit || stopped.Condition() != c.name {
					t.Fatalf("%v, want %s and exit %d", err, c.name, c.exit)
				}
				if c.name == "error" {
					o.expect(t, Stopped)
					return
				}
				o.expect(t, Stopped, c.name)
				o.expectLog(t, 1, 0, o.log.count("relay streaming"))
				if stopped.Remedy() == "" || len(o.observer.restarted) != 0 || o.Status().Ready() {
					t.Errorf("%+v, restarts %q", stopped, o.observer.restarted)
				}
			})
		})
	}
}

func TestSupervisorStopsForCredentialsThatWereNeverGood(t *testing.T) {
	for name, refuse := range map[string]func(w *world, err func() error){
		"postgres_auth_failed": func(w *world, err func() error) { w.pg.dialErr = err },
		"kafka_auth_failed":    func(w *world, err func() error) { w.kafka.marksErr = err() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				refuse(w, away(name))
				o := operate(t, w)
				var stopped *StopError
				if err := <-o.ended; !errors.As(err, &stopped) || stopped.Exit != ExitFailed || stopped.Name != name {
					t.Error(err)
				}
			})
		})
	}
}

// A password that was good is probably being rotated, whether or not events
// have flowed since.
func TestSupervisorKnowsCredentialsToBeGoodBeforeItStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.pg.facts.Slot.Active, w.pg.facts.Slot.HolderName = true, "walpost/trainings"
		o := operate(t, w)
		elapse(time.Second)
		o.expect(t, Standby, "slot_busy")
		w.pg.set(func(p *fakePostgres) { p.dialErr = away("postgres_auth_failed") })
		elapse(time.Minute)
		o.expect(t, Starting, "postgres_auth_failed")
		o.mustStop(t)
	})
}

// A password that was good is probably being rotated.
func TestSupervisorKeepsTryingCredentialsThatWereGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		o := operate(t, w)
		source := <-w.pg.sources
		synctest.Wait()
		w.pg.set(func(p *fakePostgres) { p.dialErr = away("postgres_auth_failed") })
		source.fail(away("postgres_unreachable")())
		elapse(time.Minute)
		o.expect(t, Starting, "postgres_auth_failed")
		w.pg.set(func(p *fakePostgres) { p.dialErr = nil })
		elapse(2 * time.Second)
		o.expect(t, Streaming)
		o.mustStop(t)
	})
}

// What the server keeps of a connection that broke off is no other instance: this
// one is not the standby of anybody, and not ready.
func TestSupervisorIsNotItsOwnStandby(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.pg.facts.BackendPID = 4242
		o := operate(t, w)
		source := <-w.pg.sources
		synctest.Wait()
		w.pg.set(func(p *fakePostgres) {
			slot := *p.facts.Slot
			slot.Active, slot.HolderName, slot.HolderPID = true, "walpost/trainings", 4242
			p.facts.Slot, p.facts.BackendPID = &slot, 4243
		})
		source.fail(away("postgres_unreachable")())
		elapse(time.Minute)
		o.expect(t, Starting, "slot_busy")
		if o.Status().Ready() {
			t.Error("ready, and nobody relays")
		}
		w.pg.set(func(p *fakePostgres) {
			slot := *p.facts.Slot
			slot.HolderPID = 4299 // a real one has taken over
			p.facts.Slot = &slot
		})
		elapse(time.Second)
		o.expect(t, Standby, "slot_busy")
		o.mustStop(t)
	})
}

func TestSupervisorStandsBy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		hold := func(name string) {
			w.pg.set(func(p *fakePostgres) {
				p.facts = factsAt(startLSN)
				p.facts.Slot.Active, p.facts.Slot.HolderName = name != "", name
			})
		}
		hold("walpost/trainings")
		o := operate(t, w)
		elapse(time.Minute)
		o.expect(t, Standby, "slot_busy")
		since := o.Status().Since
		if !o.Status().Ready() || len(o.Status().Obstacles()) != 0 {
			t.Errorf("a standby that is not ready: %+v", o.Status())
		}
		hold("pg_recvlogical")
		elapse(time.Second)
		o.expect(t, Starting, "slot_foreign_holder")
		if o.Status().Ready() || len(o.Status().Obstacles()) != 1 || !o.Status().Since.After(since) {
			t.Errorf("%+v", o.Status())
		}
		hold("walpost/trainings")
		elapse(time.Second)
		o.expect(t, Standby, "slot_busy")
		hold("")
		<-w.pg.sources
		synctest.Wait()
		o.expect(t, Streaming)
		if !o.Status().Ready() {
			t.Error("not ready right after taking over")
		}
		o.expectLog(t, 3, 3, 1)
		o.mustStop(t)
	})
}

func TestSupervisorStopsAsAskedDuringAnOutage(t *testing.T) {
	for name, leave := range map[string]func(w *world, cancel func()){
		"between two attempts": func(w *world, cancel func()) {
			w.kafka.marksErr = away("kafka_unreachable")()
			time.AfterFunc(time.Second, cancel)
		},
		"in an attempt": func(w *world, cancel func()) {
			w.pg.dialErr = func() error { cancel(); return away("postgres_unreachable")() }
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				ready := make(chan struct{})
				var o *operation
				leave(w, func() { <-ready; o.cancel() })
				o = operate(t, w)
				close(ready)
				if err := <-o.ended; err != nil {
					t.Error(err)
				}
				if o.log.count("in flight") != 0 || o.log.count("relay stopped") != 1 {
					t.Errorf("nothing was in flight:\n%s", o.log)
				}
			})
		})
	}
}

func TestSupervisorSaysWhatItHadToLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.kafka.auto = false
		o := operate(t, w)
		(<-w.pg.sources).put(batch(transaction(110, "a")))
		elapse(time.Second)
		o.mustStop(t)
		if o.log.count("before everything in flight was acknowledged") != 1 {
			t.Errorf("logged:\n%s", o.log)
		}
	})
}

// A stall that ends the session is one state, not two.
func TestSupervisorKeepsAStallBeyondItsSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.kafka.auto = false
		o := operate(t, w)
		session := <-w.kafka.sessions
		(<-w.pg.sources).put(batch(transaction(110, "a")))
		elapse(15 * time.Second)
		o.expect(t, Streaming, "stalled")
		_ = session.fail(away("stalled")())
		(<-w.pg.sources).put(batch(transaction(110, "a")))
		elapse(5 * time.Second)
		o.expect(t, Streaming, "stalled")
		o.expectLog(t, 1, 0, 1)
		(<-w.kafka.sessions).ack(1)
		elapse(2 * time.Second)
		o.expect(t, Streaming)
		o.expectLog(t, 1, 1, 2)
		o.mustStop(t)
	})
}

func TestNewSupervisorRefusesWhatCannotWork(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"no pipeline": func(c *Config) { c.Pipeline = "" },
		"no slot":     func(c *Config) { c.Slot = "" },
		"no table":    func(c *Config) { c.Tables = nil },
		"no source":   func(c *Config) { c.Source = nil },
		"no sink":     func(c *Config) { c.Sink = nil },
		"no logger":   func(c *Config) { c.Logger = nil },
		"no observer": func(c *Config) { c.Observer = nil },
		"a topic that can't be": func(c *Config) {
			table := outboxTable()
			table.Topic = "{no_such}"
			c.Tables[0] = table
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := newWorld().config()
			change(&cfg)
			if _, err := NewSupervisor(cfg); err == nil {
				t.Error("no error")
			}
		})
	}
}

func TestStopErrorSaysWhatAndWhatToDo(t *testing.T) {
	cause := &checkpoint.TooNewError{Version: 9}
	err := &StopError{Name: "checkpoint_too_new", Cause: cause, Exit: ExitContinuity}
	if !errors.Is(err, cause) || !strings.Contains(err.Error(), "checkpoint_too_new") || err.Remedy() != cause.Remedy() {
		t.Errorf("%v; remedy %q", err, err.Remedy())
	}
	if plain := (&StopError{Name: "slot_lost", Cause: errors.New("gone")}); plain.Remedy() != define("slot_lost").remedy {
		t.Errorf("remedy %q", plain.Remedy())
	}
}

// The gauge may be asked at any time, while pipelines come and go.
func TestStatusIsSafeForConcurrentUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.kafka.prepare = func(s *fakeSession) {
			s.afterSettle = func([]outbox.Message) { _ = s.fail(errors.New("again")) }
		}
		o := operate(t, w)
		for i := range uint64(20) {
			(<-w.pg.sources).put(batch(transaction(110+10*i, "a")))
			_ = o.Status()
		}
		o.mustStop(t)
	})
}

var _ Connector = Postgres(replication.Config{})
