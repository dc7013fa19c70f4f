package relay

import (
	"slices"
	"testing"
)

func TestStatusReady(t *testing.T) {
	holds := func(name string, severity Severity) Condition { return Condition{Name: name, Severity: severity} }
	for _, c := range []struct {
		name    string
		status  Status
		exclude []string
		want    bool
	}{
		{"streaming", Status{State: Streaming}, nil, true},
		{"starting", Status{State: Starting}, nil, false},
		{"stopping", Status{State: Stopping}, nil, false},
		{"stopped", Status{State: Stopped}, nil, false},
		{"streaming with a warning", Status{State: Streaming, Conditions: []Condition{holds("wal_budget_low", Warning)}}, nil, true},
		{"stalled", Status{State: Streaming, Conditions: []Condition{holds("stalled", Blocking)}}, nil, false},
		{"stalled, excluded", Status{State: Streaming, Conditions: []Condition{holds("stalled", Blocking)}}, []string{"stalled"}, true},
		{"standby", Status{State: Standby, Conditions: []Condition{holds("slot_busy", Blocking)}}, nil, true},
		{"slot_busy without standing by", Status{State: Streaming, Conditions: []Condition{holds("slot_busy", Blocking)}}, nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.status.Ready(c.exclude...); got != c.want {
				t.Errorf("ready is %v", got)
			}
		})
	}
	if !slices.Contains(States(), Stopping) || len(States()) != 5 {
		t.Errorf("%v", States())
	}
}
