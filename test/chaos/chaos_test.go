package chaos

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"testing"
	"time"
)

// modes are the values of kafka.delivery.
var modes = []string{idempotent}

const (
	idempotent  = "idempotent"
	exactlyOnce = "exactly-once"
)

// TestChaos runs every kind of fault in every mode, and prints the table.
func TestChaos(t *testing.T) {
	seed := seed()
	t.Logf("seed %d", seed)
	var table table
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			w := newWorld(t, mode)
			for _, f := range faults() {
				t.Run(f.name, func(t *testing.T) { table.add(t, seed, f, w) })
			}
		})
	}
	fmt.Printf("\n%s\n", table.markdown(seed, testing.Short()))
	if t.Failed() {
		t.Logf("a promise was broken; once more: make chaos SEED=%d%s RUN=%s", seed, shortArgument(), table.broken())
	}
	if *updateFlag && !t.Failed() {
		table.write(t, seed)
	}
}

// shortArgument repeats the form.
func shortArgument() string {
	if testing.Short() {
		return " SHORT=1"
	}
	return ""
}

// chanceOf is the randomness of one run, the same whichever others are made.
func chanceOf(seed uint64, mode, fault string) *rand.Rand {
	name := fnv.New64a()
	_, _ = name.Write([]byte(mode + "/" + fault)) // never fails
	return rand.New(rand.NewPCG(seed, name.Sum64()))
}

// add makes a run and remembers what came of it. A run that does not come to its
// end leaves a row that says so.
func (a *table) add(t *testing.T, seed uint64, f fault, w *world) {
	t.Helper()
	row := &result{mode: w.mode, fault: f, broken: true}
	a.rows = append(a.rows, row)
	chance := chanceOf(seed, w.mode, f.name)
	r := w.newRun(t, chance.Uint64())
	began := time.Now()
	plan := f.plan(chance, f.times(testing.Short()))
	for n, s := range plan {
		f.strike(r, s)
		t.Logf("%s, %s: %d of %d: %s", w.mode, f.name, n+1, len(plan), s)
	}
	r.finish(row)
	row.times, row.broken = len(plan), false
	t.Logf("%s, %s: %s; %s", w.mode, f.name, row, time.Since(began).Round(time.Second))
	if err := row.err(); err != nil {
		row.broken = true
		t.Error(err)
	}
}

const guarantees = "../../docs/guarantees.md"

func (a *table) write(t *testing.T, seed uint64) {
	t.Helper()
	if testing.Short() || len(a.rows) < len(modes)*len(faults()) {
		t.Fatalf("%s shows the long form and every run, or nothing", guarantees)
	}
	page, err := os.ReadFile(guarantees)
	if err != nil {
		t.Fatal(err)
	}
	changed, err := between(string(page), a.markdown(seed, false))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(guarantees, []byte(changed), 0o600); err != nil { // keeps the mode of a file that exists
		t.Fatal(err)
	}
}
