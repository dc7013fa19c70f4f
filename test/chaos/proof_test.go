package chaos

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/walpost/walpost/test/crash"
	"github.com/walpost/walpost/test/harness"
)

// These are the verifier's own proof: a flaw is planted in a history, and the
// verdict must find it. That a ledger finds what is lost, altered, out of order
// or torn has a test beside it.

func faults() []fault {
	var all []fault
	for _, s := range scenes() {
		all = append(all, s.faults...)
	}
	return all
}

var here = place{"t", 0}

func written(producer, offset int64, id string) seen {
	return seen{place: here, offset: offset, producer: producer, id: id}
}

// TestDuplicatesAreExcusedOnlyInFlight: producer 1 is killed when the partition
// ends at 2, producer 2 when it ends at 4.
func TestDuplicatesAreExcusedOnlyInFlight(t *testing.T) {
	deaths := []death{{offsets{here: 2}}, {offsets{here: 4}}}
	for name, test := range map[string]struct {
		log      []seen
		inFlight int
		other    []string
	}{
		"none": {log: []seen{written(1, 0, "a"), written(2, 2, "b"), written(3, 4, "c")}},
		"the successor has not looked": {
			log:   []seen{written(1, 0, "a"), written(1, 1, "b"), written(2, 2, "b")},
			other: []string{"b"},
		},
		"arrived before the successor's": {
			log:      []seen{written(1, 0, "a"), written(1, 2, "b"), written(2, 3, "b")},
			inFlight: 1,
		},
		"arrived after the successor's": {
			log:      []seen{written(1, 0, "a"), written(2, 2, "b"), written(1, 3, "b")},
			inFlight: 1,
		},
		"in flight at the second death": {
			log:      []seen{written(1, 0, "a"), written(2, 3, "b"), written(2, 4, "c"), written(3, 5, "c")},
			inFlight: 1,
		},
		"of the successor itself": {
			log:   []seen{written(1, 0, "a"), written(2, 2, "b"), written(2, 3, "b")},
			other: []string{"b"},
		},
		"of a sender that nobody had seen alive": {
			log:   []seen{written(1, 2, "a"), written(2, 3, "a")},
			other: []string{"a"},
		},
		"one of several": {
			log:      []seen{written(1, 0, "a"), written(1, 1, "b"), written(1, 2, "c"), written(2, 3, "b"), written(3, 4, "c"), written(3, 5, "c")},
			inFlight: 2, other: []string{"b"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			inFlight, other := explain(test.log, lateness(test.log, deaths))
			if inFlight != test.inFlight || !cmp.Equal(other, test.other) {
				t.Errorf("%d in flight, other %v; want %d and %v", inFlight, other, test.inFlight, test.other)
			}
		})
	}
}

// TestBrokenPromisesAreErrors: each flaw is one in the modes and under the faults
// that promise its absence, and in no other.
func TestBrokenPromisesAreErrors(t *testing.T) {
	flaws := map[string]struct {
		plant   func(*result)
		allowed string // "mode" or "mode, zombies"
	}{
		"lost":                  {plant: func(x *result) { x.Missing = []string{"a"} }},
		"rolled back":           {plant: func(x *result) { x.RolledBack = []string{"a"} }},
		"unknown":               {plant: func(x *result) { x.Unknown = []string{"a"} }},
		"altered":               {plant: func(x *result) { x.Altered = []string{"a"} }},
		"split key":             {plant: func(x *result) { x.Split = []string{"k"} }},
		"last out of order":     {plant: func(x *result) { x.LastOrder = []string{"k"} }, allowed: "idempotent, zombies"},
		"without the late ones": {plant: func(x *result) { x.LastOrder, x.punctual.LastOrder = []string{"k"}, []string{"k"} }},
		"first out of order":    {plant: func(x *result) { x.FirstOrder = []string{"k"} }, allowed: "idempotent, zombies"},
		"duplicate":             {plant: func(x *result) { x.other, x.others = []string{"a"}, 1 }},
		"duplicate, in flight":  {plant: func(x *result) { x.inFlight = 1 }, allowed: "idempotent"},
		"torn transaction":      {plant: func(x *result) { x.torn = []string{"a"} }, allowed: "idempotent"},
		"log cut off":           {plant: func(x *result) { x.cut = errors.New("offset 7 became 3") }},
		"nothing was written":   {plant: func(x *result) { x.Committed = 0 }},
		"nothing was broken":    {plant: func(x *result) { x.times = 0 }},
	}
	for name, flaw := range flaws {
		for _, mode := range []string{idempotent, exactlyOnce} {
			for _, f := range faults() {
				x := &result{mode: mode, fault: f, times: 1, Report: harness.Report{Committed: 1}}
				if err := x.err(); err != nil {
					t.Fatalf("nothing is wrong, but: %v", err)
				}
				flaw.plant(x)
				allowed := flaw.allowed == mode || f.zombie && flaw.allowed == mode+", zombies"
				if err := x.err(); (err == nil) != allowed {
					t.Errorf("%s, in mode %s under %s: %v", name, mode, f.name, err)
				}
			}
		}
	}
}

// TestRecoveryEndsWithTheFirstNewEvent: what was there already is none, and what
// comes after the next fault says nothing of this one.
func TestRecoveryEndsWithTheFirstNewEvent(t *testing.T) {
	start := time.Unix(0, 0)
	at := func(seconds int, offset int64) seen {
		return seen{place: here, offset: offset, at: start.Add(time.Duration(seconds) * time.Second)}
	}
	back := func(seconds int, end int64) moment {
		return moment{at: start.Add(time.Duration(seconds) * time.Second), ends: offsets{here: end}}
	}
	log := []seen{at(1, 0), at(11, 1), at(13, 2), at(14, 3), at(30, 4)}
	got := recoveries(log, []moment{back(10, 2), back(20, 4), back(25, 4)})
	if want := []time.Duration{3 * time.Second, 5 * time.Second}; !cmp.Equal(got, want) {
		t.Errorf("recoveries %v, want %v", got, want)
	}
}

// TestSeedsMakePlans: the same seed the same one, another seed another one, and
// each crash point is in it.
func TestSeedsMakePlans(t *testing.T) {
	for _, f := range faults() {
		plan := func(seed uint64) string {
			var text strings.Builder
			for _, s := range f.plan(chanceOf(seed, idempotent, f.name), f.long) {
				text.WriteString(s.String() + "\n")
			}
			return text.String()
		}
		if once, again := plan(1), plan(1); once != again || once == plan(2) {
			t.Errorf("%s: plans of one seed differ, or of two do not", f.name)
		}
	}
	planned := map[crash.Point]bool{}
	for _, s := range points(chanceOf(1, idempotent, ""), 1) {
		planned[s.point] = true
	}
	for _, point := range crash.Points() {
		if !planned[point] {
			t.Errorf("nobody dies at %s", point)
		}
	}
}

func TestTableKeepsToItsPlace(t *testing.T) {
	page := "before\n" + tableBegins + "\nold\n" + tableEnds + "\nafter\n"
	changed, err := between(page, "new\n")
	if want := "before\n" + tableBegins + "\nnew\n" + tableEnds + "\nafter\n"; err != nil || changed != want {
		t.Errorf("%q, %v; want %q", changed, err, want)
	}
	for _, without := range []string{"", tableBegins, tableEnds, tableEnds + tableBegins} {
		if _, err := between(without, "new"); err == nil {
			t.Errorf("%q has no place for a table, but none is missed", without)
		}
	}
}
