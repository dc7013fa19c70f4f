package main

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// story plays into a ledger, on a clock that it moves itself.
type story struct {
	ledger *ledger
	start  time.Time
	shown  []string
}

func newStory() *story {
	s := &story{start: time.Date(2026, 5, 4, 9, 30, 0, 0, time.UTC)}
	s.ledger = newLedger(func(d delivery) { s.shown = append(s.shown, d.id+" "+d.latency.String()) })
	return s
}

// at is a moment of the story.
func (s *story) at(ms int) time.Time { return s.start.Add(time.Duration(ms) * time.Millisecond) }

// commit is a transaction with one event, whose id is the key and a letter.
func (s *story) commit(ms int, ids ...string) {
	events := events(ids)
	s.ledger.announce(events)
	s.ledger.commit(s.at(ms), events)
}

func events(ids []string) []event {
	var list []event
	for _, id := range ids {
		list = append(list, event{id: id, kind: "OfferRejectedEvent", key: id[:1]})
	}
	return list
}

func (s *story) arrive(ms int, ids ...string) {
	for _, id := range ids {
		s.ledger.arrive(sighting{id: id, topic: "outbox.event.offer", at: s.at(ms)})
	}
}

func TestSummary(t *testing.T) {
	tests := []struct {
		name  string
		tell  func(*story)
		want  summary
		holds bool
	}{
		{"everything arrives once", func(s *story) {
			s.commit(0, "1a", "2a")
			s.commit(1, "1b")
			s.arrive(3, "1a", "2a", "1b")
		}, summary{transactions: 2, committed: 3, delivered: 3, keys: 2, p50: 3 * time.Millisecond, p99: 3 * time.Millisecond}, true},

		{"one is lost", func(s *story) {
			s.commit(0, "1a")
			s.commit(1, "1b")
			s.arrive(2, "1b")
		}, summary{transactions: 2, committed: 2, delivered: 1, lost: 1, keys: 1, p50: time.Millisecond, p99: time.Millisecond}, false},

		{"a rolled back one stays away", func(s *story) {
			s.ledger.announce(events([]string{"1a"}))
			s.ledger.rollBack(events([]string{"1a"}))
		}, summary{rollbacks: 1, rolledBack: 1}, true},

		{"a rolled back one arrives", func(s *story) {
			s.ledger.announce(events([]string{"1a"}))
			s.arrive(0, "1a")
			s.ledger.rollBack(events([]string{"1a"}))
		}, summary{rollbacks: 1, rolledBack: 1, leaked: 1}, false},

		{"a record of nobody's", func(s *story) { s.arrive(0, "9z") }, summary{foreign: 1}, false},

		{"the record overtakes the answer to COMMIT", func(s *story) {
			s.ledger.announce(events([]string{"1a"}))
			s.arrive(1, "1a")
			s.ledger.commit(s.at(2), events([]string{"1a"}))
		}, summary{transactions: 1, committed: 1, delivered: 1, keys: 1}, true},

		{"a run is sent again", func(s *story) {
			s.commit(0, "1a", "1b")
			s.arrive(1, "1a", "1b", "1a", "1b")
		}, summary{transactions: 1, committed: 2, delivered: 2, repeats: 2, keys: 1, p50: time.Millisecond, p99: time.Millisecond}, true},

		{"first arrivals out of order", func(s *story) {
			s.commit(0, "1a", "1b")
			s.arrive(1, "1b", "1a", "1b")
		}, summary{transactions: 1, committed: 2, delivered: 2, repeats: 1, keys: 1, disordered: 1, p50: time.Millisecond, p99: time.Millisecond}, false},

		{"last arrivals out of order", func(s *story) {
			s.commit(0, "1a", "1b")
			s.arrive(1, "1a", "1b", "1a")
		}, summary{transactions: 1, committed: 2, delivered: 2, repeats: 1, keys: 1, disordered: 1, p50: time.Millisecond, p99: time.Millisecond}, false},

		{"the order of two keys is nobody's business", func(s *story) {
			s.commit(0, "1a", "2a")
			s.arrive(1, "2a", "1a")
		}, summary{transactions: 1, committed: 2, delivered: 2, keys: 2, p50: time.Millisecond, p99: time.Millisecond}, true},

		{"the kill counts in no quantile", func(s *story) {
			s.commit(0, "1a")
			s.arrive(2, "1a")
			s.commit(9, "1b") // under way at the kill
			s.ledger.kill(s.at(10))
			s.commit(20, "1c") // while there is no relay
			s.arrive(500, "1b")
			s.arrive(510, "1c")
			s.commit(520, "1d")
			s.arrive(524, "1d")
		}, summary{transactions: 4, committed: 4, delivered: 4, keys: 1, p50: 2 * time.Millisecond, p99: 4 * time.Millisecond,
			overdue: 2, killed: true, restored: true, outage: 500 * time.Millisecond}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newStory()
			tt.tell(s)
			got := s.ledger.summarise()
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(summary{})); diff != "" {
				t.Errorf("summary (-want +got):\n%s", diff)
			}
			if got.holds() != tt.holds {
				t.Errorf("holds is %t, want %t", got.holds(), tt.holds)
			}
		})
	}
}

func TestEachDeliveryIsToldOnce(t *testing.T) {
	s := newStory()
	s.commit(0, "1a")
	s.arrive(2, "1a", "1a")
	s.ledger.announce(events([]string{"1b"}))
	s.arrive(5, "1b", "1b")
	s.ledger.commit(s.at(6), events([]string{"1b"}))
	if diff := cmp.Diff([]string{"1a 2ms", "1b 0s"}, s.shown); diff != "" {
		t.Errorf("deliveries (-want +got):\n%s", diff)
	}
}

func TestKillTellsWhatIsUnderWay(t *testing.T) {
	s := newStory()
	s.commit(0, "1a", "2a")
	s.arrive(1, "2a")
	if got := s.ledger.kill(s.at(2)); got != 1 {
		t.Errorf("%d events under way, want 1", got)
	}
}

func TestAwait(t *testing.T) {
	s := newStory()
	ctx, cancel := context.WithCancel(context.Background())
	reached := make(chan bool)
	go func() { reached <- s.ledger.await(ctx, s.ledger.somethingUnderWay) }()
	s.commit(0, "1a")
	if !<-reached {
		t.Error("the commit was not noticed")
	}
	go func() { reached <- s.ledger.await(ctx, s.ledger.nothingUnderWay) }()
	cancel()
	if <-reached {
		t.Error("an event under way was overlooked")
	}
}

func TestQuantile(t *testing.T) {
	var hundred []time.Duration
	for i := range 100 {
		hundred = append(hundred, time.Duration(i+1))
	}
	tests := []struct {
		sorted []time.Duration
		q      float64
		want   time.Duration
	}{
		{nil, 0.5, 0},
		{hundred[:1], 0.5, 1},
		{hundred[:1], 0.99, 1},
		{hundred[:2], 0.5, 1},
		{hundred, 0.5, 50},
		{hundred, 0.99, 99},
	}
	for _, tt := range tests {
		if got := quantile(tt.sorted, tt.q); got != tt.want {
			t.Errorf("quantile %v of %d: %d, want %d", tt.q, len(tt.sorted), got, tt.want)
		}
	}
}
