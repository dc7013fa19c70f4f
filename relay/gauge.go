package relay

import (
	"fmt"
	"sync"
	"time"
)

// gauge is what a relay knows of itself from moment to moment. It outlives the
// pipelines that write to it and is read by whoever asks for the status.
type gauge struct {
	conditions *Conditions

	mu     sync.Mutex
	status Status
}

func newGauge(conditions *Conditions) *gauge {
	now := time.Now()
	return &gauge{conditions: conditions, status: Status{State: Starting, Since: now, Heartbeat: now}}
}

// snapshot returns the status with the conditions that hold.
func (g *gauge) snapshot() Status {
	g.mu.Lock()
	s := g.status
	g.mu.Unlock()
	s.Conditions = g.conditions.List()
	return s
}

func (g *gauge) change(f func(s *Status)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f(&g.status)
}

// turn notes that a loop has turned.
func (g *gauge) turn() { g.change(func(s *Status) { s.Heartbeat = time.Now() }) }

func (g *gauge) enter(state State) {
	g.change(func(s *Status) {
		s.Heartbeat = time.Now()
		if s.State != state {
			s.State, s.Since = state, s.Heartbeat
		}
	})
}

// server notes how far the server's WAL reaches.
func (g *gauge) server(lsn uint64) {
	g.change(func(s *Status) { s.ServerLSN = max(s.ServerLSN, lsn) })
}

// stands notes where the slot stands at the beginning of a life. That may be
// before what was confirmed last: a server that crashed goes back.
func (g *gauge) stands(lsn uint64) {
	g.change(func(s *Status) {
		s.ConfirmedLSN, s.ServerLSN = lsn, max(s.ServerLSN, lsn)
	})
}

// confirmed notes what Postgres may forget, which is progress.
func (g *gauge) confirmed(lsn uint64) {
	g.stands(lsn)
	g.change(func(s *Status) { s.LastProgress = time.Now() })
}

// fly notes what is in flight, and whether that has come to a standstill.
func (g *gauge) fly(v level, stallAfter time.Duration) {
	g.change(func(s *Status) {
		s.InFlightEvents, s.InFlightBytes = v.events, v.bytes
		if v.flowing || s.OldestUnacked.IsZero() {
			s.OldestUnacked = v.oldest // otherwise an earlier life's is still waiting
		}
		if v.progress.After(s.LastProgress) {
			s.LastProgress = v.progress
		}
	})
	if v.events > 0 && time.Since(v.waiting) >= stallAfter {
		g.conditions.Set("stalled", fmt.Errorf("%d events wait, the oldest committed at %s; none was acknowledged for %s",
			v.events, v.oldest.UTC().Format(time.RFC3339), stallAfter))
	} else if v.flowing {
		g.conditions.Clear("stalled")
	}
}

// landed notes that a life is over and nothing is in flight any more. What was
// not acknowledged goes on waiting, and a stall lasts, until the next life finds
// that events flow.
func (g *gauge) landed() {
	g.change(func(s *Status) { s.InFlightEvents, s.InFlightBytes = 0, 0 })
}
