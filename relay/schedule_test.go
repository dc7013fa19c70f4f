package relay

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/walpost/walpost/replication"
)

// deed is one thing that happens to a relay.
type deed struct {
	kind  int
	n     int    // of how much
	picks []bool // which messages are acknowledged
}

const (
	arrive      = iota // n batches are there to be read
	acknowledge        // some messages in flight
	wait               // n times 300 ms
	loseSink           // the session fails
	loseSource         // the stream fails, and the slot stands where it was confirmed
	crashSource        // likewise, but n confirmations are forgotten
	stop               // as asked
	deeds
)

func drawDeed(t *rapid.T) deed {
	return deed{
		kind:  rapid.SampledFrom([]int{arrive, arrive, arrive, acknowledge, acknowledge, acknowledge, wait, wait, loseSink, loseSource, crashSource, stop}).Draw(t, "deed"),
		n:     rapid.IntRange(1, 5).Draw(t, "n"),
		picks: rapid.SliceOfN(rapid.Bool(), 0, 20).Draw(t, "picks"),
	}
}

// performance runs one pipeline after another through a schedule.
type performance struct {
	t       *testing.T
	world   *world
	batches []*replication.Batch // the whole history
	slots   []uint64             // where the slot has stood, in order

	life    *life
	session *fakeSession
	source  *fakeSource
	next    int // batch
}

// begin starts a pipeline with a slot that stands at lsn.
func (p *performance) begin(lsn uint64) {
	p.world.pg.set(func(pg *fakePostgres) { pg.facts = factsAt(lsn) })
	p.life = live(p.world.pipeline(p.t, func(c *Config) { c.MaxInFlightEvents = 8 }))
	p.source, p.session = <-p.world.pg.sources, <-p.world.kafka.sessions
	synctest.Wait()
	p.next = p.seek(lsn)
}

// seek finds the batch in which the first transaction begins that ends past
// lsn. Batches begin with a transaction, or between two, where no other does.
func (p *performance) seek(lsn uint64) int {
	from := 0
	for i, b := range p.batches {
		first, last := b.Segments[0], b.Segments[len(b.Segments)-1]
		if first.Commit == 0 || len(first.Rows) > 0 && first.Rows[0].Index == 0 {
			from = i
		}
		if last.End == 0 || last.End > lsn {
			return from
		}
	}
	return len(p.batches)
}

// end waits for the pipeline to end and remembers where the slot stands.
func (p *performance) end() {
	<-p.life.ended
	p.slots = append(p.slots, p.confirmed()...)
}

// confirmed lists what this life has confirmed.
func (p *performance) confirmed() (list []uint64) {
	slot := p.slots[len(p.slots)-1]
	for _, line := range p.world.noted() {
		var lsn uint64
		if n, _ := fmt.Sscanf(line, "confirm %d", &lsn); n == 1 && lsn > slot {
			slot = lsn
			list = append(list, lsn)
		}
	}
	return list
}

func (p *performance) perform(d deed) {
	switch d.kind {
	case arrive:
		for ; d.n > 0 && p.next < len(p.batches); d.n-- {
			p.source.put(copyOf(p.batches[p.next]))
			p.next++
		}
	case acknowledge:
		p.session.ackOnly(d.picks)
	case wait:
		elapse(time.Duration(d.n) * 300 * time.Millisecond)
	case loseSink:
		_ = p.session.fail(errors.New("lost"))
		p.renew(1)
	case loseSource:
		p.source.fail(errors.New("lost"))
		p.renew(1)
	case crashSource:
		p.source.fail(errors.New("lost"))
		p.renew(d.n)
	case stop:
		p.life.cancel()
		p.session.ackOnly(d.picks)
		p.renew(1)
	}
	synctest.Wait()
}

// renew begins again from the slot's nth last position.
func (p *performance) renew(nth int) {
	p.end()
	lsn := p.slots[max(0, len(p.slots)-nth)]
	p.slots = append(p.slots[:max(0, len(p.slots)-nth)], lsn)
	p.begin(lsn)
}

// copyOf: a batch belongs to whoever takes it, its segments too.
func copyOf(b *replication.Batch) *replication.Batch { return batch(slices.Clone(b.Segments)...) }

// finish lets everything through and stops.
func (p *performance) finish() {
	p.perform(deed{kind: arrive, n: len(p.batches)})
	for len(p.source.in) > 0 || p.session.outstanding() > 0 {
		select {
		case err := <-p.life.ended:
			p.t.Errorf("the last life ended by itself: %v", err)
			return
		default:
		}
		p.session.ack(100)
		synctest.Wait()
	}
	if err := p.life.stop(); err != nil {
		p.t.Errorf("the last stop: %v", err)
	}
}

// drawHistory makes batches, the last of which ends a transaction.
func drawHistory(t *rapid.T) []*replication.Batch {
	h := history{lsn: startLSN}
	var list []*replication.Batch
	for range rapid.IntRange(1, 15).Draw(t, "batches") {
		list = append(list, h.next(t))
	}
	if h.commit != 0 {
		list = append(list, batch(part(h.commit, h.lsn+10, nil)))
	}
	return list
}

// Invariants 1 and 2, and what a checkpoint may say, are watched by the world
// at every call. Here they are tried with all that can happen in any order; in
// the end nothing is missing.
func TestInvariantsUnderRandomSchedules(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		history := drawHistory(rt)
		schedule := rapid.SliceOfN(rapid.Custom(drawDeed), 1, 40).Draw(rt, "schedule")
		w := newWorld()
		w.kafka.auto = false
		synctest.Test(t, func(t *testing.T) {
			p := &performance{t: t, world: w, batches: history, slots: []uint64{startLSN}}
			p.begin(startLSN)
			for _, d := range schedule {
				p.perform(d)
			}
			p.finish()
		})
		if len(w.broken) > 0 {
			rt.Fatalf("%q\n%q", w.broken, w.noted())
		}
		missing(rt, w, history)
	})
}

func missing(t *rapid.T, w *world, history []*replication.Batch) {
	for _, b := range history {
		for _, seg := range b.Segments {
			for _, row := range seg.Rows {
				if pos := positionOf(seg, row); !w.acked[pos] {
					t.Fatalf("event %s %q never arrived: %q", pos, row.Values[0], w.noted())
				}
			}
		}
	}
}
