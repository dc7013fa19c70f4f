package relay

import (
	"log/slog"
	"testing"
	"time"
)

// An alert on the age of what was not acknowledged must not end with the life
// that had read it, while Kafka is still away.
func TestWhatWaitsGoesOnWaitingOverLives(t *testing.T) {
	g := newGauge(NewConditions(slog.New(slog.DiscardHandler)))
	committed := time.Now().Add(-time.Minute)
	expect := func(when string, want time.Time) {
		t.Helper()
		if got := g.snapshot().OldestUnacked; !got.Equal(want) {
			t.Errorf("%s: oldest unacknowledged event is of %s, want %s", when, got, want)
		}
	}
	g.fly(level{events: 1, oldest: committed, waiting: time.Now()}, time.Hour)
	g.landed()
	expect("after the life", committed)
	g.fly(level{events: 3, oldest: committed.Add(time.Second), waiting: time.Now()}, time.Hour)
	expect("in a life in which nothing was settled yet", committed)
	g.fly(level{flowing: true}, time.Hour)
	expect("once events flow", time.Time{})
}

// Taking the slot again and again is no progress.
func TestTheBeginningOfALifeIsNoProgress(t *testing.T) {
	g := newGauge(NewConditions(slog.New(slog.DiscardHandler)))
	g.stands(100)
	if s := g.snapshot(); s.ConfirmedLSN != 100 || !s.LastProgress.IsZero() {
		t.Errorf("%+v", s)
	}
	g.confirmed(110)
	if s := g.snapshot(); s.ConfirmedLSN != 110 || s.LastProgress.IsZero() {
		t.Errorf("%+v", s)
	}
}
