package model

import (
	"flag"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/walpost/walpost/test/crash"
)

var (
	boundsFlag   = flag.String("bounds", "", "how far to explore: small, default or large; small with the race detector, unless told")
	scheduleFlag = flag.String("schedule", "", "the steps of one schedule, with semicolons between them, to take instead of exploring")
)

func TestMain(m *testing.M) {
	flag.Parse()
	debug.SetGCPercent(400)
	// Goroutines take turns anyway: on one processor that costs less.
	runtime.GOMAXPROCS(1)
	goleak.VerifyTestMain(m)
}

// essential points are those between which the world changes. To die at another
// one leaves the world as dying at the next or the last of these does.
func essential() []crash.Point {
	return []crash.Point{
		crash.BeforeMarks, crash.AfterMarks, crash.BeforeStart, crash.BeforeOpen, crash.BeforeSend,
		crash.BeforeCommit, crash.AfterCommit, crash.BeforeClose, crash.AfterClose,
	}
}

// twoKeys is a transaction in both partitions, and one after it on one of its
// keys.
func twoKeys() [][]string { return [][]string{{"a1", "b1"}, {"a2"}} }

// oneKey is the smallest history that has an order.
func oneKey() [][]string { return [][]string{{"a1"}, {"a2"}} }

// oneTransaction is the smallest history of which a part could be shown.
func oneTransaction() [][]string { return [][]string{{"a1", "b1"}} }

// faults are the budgets that are explored with each kind of delivery, and
// whether with the larger history.
func faults(d delivery) []scenario {
	few, many, zombie := twoKeys(), twoKeys(), twoKeys()
	if level() != "large" {
		zombie = oneKey()
		if d == idempotent {
			many = oneKey()
		}
	}
	return []scenario{
		{name: "kills", history: few, bounds: bounds{budget: budget{Kills: 2}}},
		{name: "server crash", history: few, bounds: bounds{budget: budget{ServerCrashes: 1, Kills: 1}}},
		{name: "zombie", history: zombie, bounds: bounds{budget: budget{Zombies: 1}, brief: level() != "large"}},
		{name: "standby", history: oneTransaction(), bounds: bounds{budget: budget{Spares: 1, Kills: 1}}},
		{name: "hole", history: many, bounds: bounds{budget: budget{Refusals: 1, Kills: 1}}},
		{name: "commit", history: many, bounds: bounds{budget: budget{CommitFaults: 1, Kills: 1}}},
		{name: "impatience", history: many, bounds: bounds{budget: budget{CommitFaults: 1, Impatience: 1}}},
	}
}

func scenarios(d delivery) []scenario {
	all := append(faults(d),
		scenario{name: "nothing happens", history: [][]string{{"a1", "b1"}, nil, {"a2"}, {}, {"b2", "c1"}, nil}, bounds: bounds{bulk: true}},
		scenario{name: "keepalives", history: [][]string{nil, {"a1"}, nil}, bounds: bounds{budget: budget{Kills: 1, ServerCrashes: 1}}})
	if d == exactlyOnce || level() == "large" {
		all = append(all,
			scenario{name: "without reductions", history: oneKey(), bounds: bounds{budget: budget{Kills: 1}, exact: true}})
	}
	if level() == "large" {
		all = append(all,
			scenario{name: "standby and zombie", history: twoKeys(), bounds: bounds{budget: budget{Spares: 1, Drops: 1}}})
	}
	for i := range all {
		all[i].delivery = d
	}
	return all
}

func TestIdempotent(t *testing.T) { checkPoints(t, exploreAll(t, scenarios(idempotent))) }

func TestExactlyOnce(t *testing.T) { checkPoints(t, exploreAll(t, scenarios(exactlyOnce))) }

// TestChangeOfDelivery: the first instance delivers in one way, its successors in
// the other.
func TestChangeOfDelivery(t *testing.T) {
	exploreAll(t, []scenario{
		{name: "to exactly once", delivery: toExactlyOnce, history: twoKeys(), bounds: bounds{budget: budget{Kills: 2}}},
		{name: "to idempotent", delivery: toIdempotent, history: twoKeys(), bounds: bounds{budget: budget{Kills: 2}}},
	})
}

// exploreAll explores scenarios in which nothing is broken. It returns how often
// an instance was killed at each point.
func exploreAll(t *testing.T, scenarios []scenario) map[crash.Point]int {
	t.Helper()
	killedAt := map[crash.Point]int{}
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			began := time.Now()
			r := explore(t, within(fewer(s)))
			t.Logf("%s in %s", r, time.Since(began).Round(time.Millisecond))
			if r.violation != nil {
				t.Error(r.failure())
			}
			for p, n := range r.killedAt {
				killedAt[p] += n
			}
		})
	}
	return killedAt
}

// checkPoints: whoever adds a point to test/crash finds out here whether the
// model reaches it.
func checkPoints(t *testing.T, killedAt map[crash.Point]int) {
	t.Helper()
	if t.Failed() || *scheduleFlag != "" {
		return
	}
	for _, p := range crash.Points() {
		if killedAt[p] == 0 {
			t.Errorf("nobody was killed at %s", p)
		}
	}
	t.Logf("kills by point: %v", killedAt)
}

// fewer leaves out of small bounds the faults and events without which each point
// is still reached.
func fewer(s scenario) scenario {
	if b := &s.bounds; level() == "small" {
		b.exact, b.brief = false, true
		if b.Kills = min(b.Kills, 1); b.Refusals+b.CommitFaults > 0 {
			b.Kills = 0
		}
		if b.Zombies > 0 {
			s.history = [][]string{{"a1"}}
		}
	}
	return s
}

// within sets a scenario's bounds to what was asked for.
func within(s scenario) scenario {
	s.bounds.stops = essential()
	if s.bounds.exact {
		s.bounds.stops = crash.Points()
	}
	switch level() {
	case "small":
		if len(s.history) == len(twoKeys()) {
			s.history = oneKey()
		}
	case "large":
		s.bounds.stops = crash.Points()
		s.history = append(s.history, []string{"b9"})
		s.bounds.bulk = true
	}
	return s
}

func level() string {
	switch {
	case *boundsFlag != "":
		return *boundsFlag
	case raceDetector:
		return "small"
	default:
		return "default"
	}
}

func schedule() []string {
	if *scheduleFlag == "" {
		return nil
	}
	return strings.Split(*scheduleFlag, ";")
}
