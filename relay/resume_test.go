package relay

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/walpost/walpost/checkpoint"
	"github.com/walpost/walpost/outbox"
	"github.com/walpost/walpost/replication"
)

// afterEvent is a record whose last event is at index of the transaction that
// commits at commit and was confirmed up to confirmed.
func afterEvent(commit uint64, index uint32, id string, confirmed uint64) checkpoint.Record {
	r := recordAt(confirmed)
	r.Last = &checkpoint.Event{
		Position: outbox.Position{Generation: 1, Commit: commit, Index: index},
		XID:      uint32(commit), CommitTime: commitTime(commit), ID: id,
	}
	return r
}

// A slot stands at 100; the checkpoint at 125 covers events up to c.
func TestResumptionDropsWhatTheCheckpointCovers(t *testing.T) {
	covered := []replication.Segment{transaction(110, "a", "b"), transaction(120, "c")}
	altered := func(change func(*replication.Segment)) replication.Segment {
		seg := transaction(120, "c")
		change(&seg)
		return seg
	}
	for name, c := range map[string]struct {
		record    checkpoint.Record
		slot      uint64
		come      []replication.Segment
		sent      string
		confirmed uint64
		condition string
	}{
		"all of it, then new ones": {
			come: append(covered, transaction(130, "d")), sent: "d", confirmed: 135,
		},
		"transactions of others and positions in between": {
			come: []replication.Segment{keepalive(104), covered[0], part(117, 118, nil), covered[1], keepalive(128)},
			sent: "", confirmed: 128,
		},
		"spread over segments": {
			come: []replication.Segment{part(110, 0, rows(0, "a")), part(110, 115, rows(1, "b")), part(120, 0, rows(0, "c")), part(120, 125, nil), transaction(130, "d")},
			sent: "d", confirmed: 135,
		},
		"the middle of a transaction that was split": {
			record: afterEvent(120, 1, "c", 115),
			come:   []replication.Segment{covered[0], transaction(120, "x", "c", "d", "e")},
			sent:   "d e", confirmed: 125,
		},
		"a slot that stands after the last event": {
			slot: 122, come: []replication.Segment{keepalive(124), transaction(130, "d")}, sent: "d", confirmed: 135,
		},
		"a checkpoint without an event": {
			record: recordAt(125), come: []replication.Segment{keepalive(120), transaction(130, "d")}, sent: "d", confirmed: 135,
		},
		"an event below a checkpoint without one": {
			record: recordAt(125), come: []replication.Segment{transaction(110, "a"), transaction(130, "d")}, condition: "history_diverged",
		},
		"a slot that was adopted since": {
			record: adopted(afterEvent(120, 0, "c", 125)), come: append(covered, transaction(130, "d")), sent: "d", confirmed: 135,
		},
		"another id in a column that the configuration names since": {
			record: remapped(afterEvent(120, 0, "c", 125)), come: []replication.Segment{covered[0], transaction(120, "z"), transaction(130, "d")},
			sent: "d", confirmed: 135,
		},
		"another id":                {come: []replication.Segment{covered[0], transaction(120, "z")}, condition: "history_diverged"},
		"another transaction id":    {come: []replication.Segment{altered(func(s *replication.Segment) { s.XID++ })}, condition: "history_diverged"},
		"another commit time":       {come: []replication.Segment{altered(func(s *replication.Segment) { s.Time = s.Time.Add(time.Second) })}, condition: "history_diverged"},
		"a row that is no event":    {come: []replication.Segment{transaction(120, poisonRow)}, condition: "history_diverged"},
		"without the last event":    {come: []replication.Segment{covered[0], transaction(130, "d")}, condition: "history_diverged"},
		"nothing, up to a position": {come: []replication.Segment{covered[0], keepalive(126)}, condition: "history_diverged"},
		"one more below the checkpoint": {
			record: afterEvent(110, 0, "a", 125), come: []replication.Segment{transaction(110, "a"), transaction(120, "c")}, condition: "history_diverged", confirmed: 115,
		},
		"one more in the last transaction": {
			come: []replication.Segment{covered[0], transaction(120, "c", "d")}, condition: "history_diverged",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if c.record.Pipeline == "" {
				c.record = afterEvent(120, 0, "c", 125)
			}
			if c.slot == 0 {
				c.slot = 100
			}
			story(t, func(w *world, p *Pipeline) {
				w.kafka.put(c.record)
				w.kafka.atomic = true // which says what was sent by when
				w.pg.facts = factsAt(c.slot)
				w.publishedBefore(c.come, c.record)
				l := live(p)
				source := <-w.pg.sources
				for _, seg := range c.come {
					source.put(batch(seg))
				}
				elapse(p.cfg.IdleInterval)
				source.put(urgent(batch()))
				synctest.Wait()
				err := l.stop()
				if c.condition != "" {
					if conditionOf(err) != c.condition || retryable(err) {
						t.Errorf("%v, want %s", err, c.condition)
					}
					if shown := w.kafka.shows(); shown != "" || w.kafka.record().Confirmed != c.record.Confirmed || p.confirmedLSN != c.confirmed {
						t.Errorf("sent %q, remembered %s, confirmed %d", shown, w.kafka.record().Confirmed, p.confirmedLSN)
					}
					return
				}
				if shown := withoutBars(w.kafka.shows()); err != nil || shown != c.sent || p.confirmedLSN != c.confirmed {
					t.Errorf("sent %q and confirmed %d, want %q and %d: %v", shown, p.confirmedLSN, c.sent, c.confirmed, err)
				}
			})
		})
	}
}

// adopted is what init makes of a record when it adopts the slot.
func adopted(r checkpoint.Record) checkpoint.Record {
	r.Generation++
	return r
}

func remapped(r checkpoint.Record) checkpoint.Record {
	r.Configuration = "another"
	return r
}

// publishedBefore notes what a predecessor has published.
func (w *world) publishedBefore(come []replication.Segment, record checkpoint.Record) {
	for _, seg := range come {
		for _, row := range seg.Rows {
			pos := positionOf(seg, row)
			if seg.Commit < uint64(record.Confirmed) || record.Last != nil && pos.Compare(record.Last.Position) <= 0 {
				w.acked[pos] = true
			}
		}
	}
}

// The facts are older than the slot's ownership. A relay that worked in between
// has moved the slot, and then the last event does not come again.
func TestResumptionDoesNotTakeAnotherRelaysWorkForADivergence(t *testing.T) {
	story(t, func(w *world, p *Pipeline) {
		w.kafka.onOpen = func() { w.kafka.put(afterEvent(120, 0, "c", 125)) }
		l := live(p)
		(<-w.pg.sources).put(batch(transaction(130, "d")))
		synctest.Wait()
		if err := <-l.ended; conditionOf(err) != "slot_busy" || !retryable(err) {
			t.Errorf("%v, want slot_busy", err)
		}
	})
}

func TestResumptionIsObserved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, observer := newWorld(), newFakeObserver()
		w.kafka.put(afterEvent(120, 0, "c", 125))
		p := w.pipeline(t, func(c *Config) { c.Observer = observer })
		l := live(p)
		(<-w.pg.sources).put(batch(transaction(110, "a", "b"), transaction(120, "c")))
		synctest.Wait()
		w.publishedBefore([]replication.Segment{transaction(110, "a", "b"), transaction(120, "c")}, *w.kafka.record())
		if observer.skipped != 3 || observer.read != 0 {
			t.Errorf("%+v", observer)
		}
		_ = l.stop()
	})
}
