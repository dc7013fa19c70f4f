package relay

import (
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

// confirmed notes what Postgres may forget. It may go back: a server that
// crashed begins again before what was confirmed to it.
func (g *gauge) confirmed(lsn uint64) {
	g.change(func(s *Status) {
		s.ConfirmedLSN, s.LastProgress = lsn, time.Now()
		s.ServerLSN = max(s.ServerLSN, lsn)
	})
}

// fly notes what is in flight, and whether that has come to a standstill.
func (g *gauge) fly(v level, stallAfter time.Duration) {
	g.change(func(s *Status) {
		s.InFlightEvents, s.InFlightBytes, s.OldestUnacked = v.events, v.bytes, v.oldest
		if v.progress.After(s.LastProgress) {
			s.LastProgress = v.progress
		}
	})
	if v.events > 0 && time.Since(v.waiting) >= stallAfter {
		g.conditions.Set("stalled", errStalled)
	} else if v.flowing {
		g.conditions.Clear("stalled")
	}
}

// landed notes that nothing is in flight any more. Whether a stall is over is
// for the next pipeline to find out.
func (g *gauge) landed() {
	g.change(func(s *Status) { s.InFlightEvents, s.InFlightBytes, s.OldestUnacked = 0, 0, time.Time{} })
}
