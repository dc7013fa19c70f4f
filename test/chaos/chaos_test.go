package chaos

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/walpost/walpost/test/harness"
)

// modes are the values of kafka.delivery.
var modes = []string{idempotent, exactlyOnce}

const (
	idempotent  = "idempotent"
	exactlyOnce = "exactly-once"
)

// TestChaos makes every run, and prints the table.
func TestChaos(t *testing.T) {
	all := &table{seed: harness.Seed(*seedFlag)}
	t.Logf("seed %d", all.seed)
	defer all.print(t)
	for _, s := range scenes() {
		t.Run(s.name, func(t *testing.T) {
			w := s.world(t)
			for _, mode := range modes {
				t.Run(mode, func(t *testing.T) {
					for _, f := range s.faults {
						t.Run(f.name, func(t *testing.T) { all.add(t, w, mode, f) })
					}
				})
			}
		})
	}
}

// chanceOf is the randomness of one run, the same whichever others are made.
func chanceOf(seed uint64, mode, fault string) *rand.Rand {
	name := fnv.New64a()
	_, _ = name.Write([]byte(mode + "/" + fault)) // never fails
	return rand.New(rand.NewPCG(seed, name.Sum64()))
}

// add makes a run and keeps what came of it. A run that does not come to its end
// leaves a row that says so.
func (a *table) add(t *testing.T, w *world, mode string, f fault) {
	t.Helper()
	row := &result{test: t.Name(), mode: mode, fault: f, broken: true}
	a.rows = append(a.rows, row)
	chance := chanceOf(a.seed, mode, f.name)
	r := w.newRun(t, mode, chance.Uint64())
	began := time.Now()
	plan := f.plan(chance, f.times(testing.Short()))
	for n, s := range plan {
		f.strike(r, s)
		t.Logf("%s, %s: %d of %d: %s", mode, f.name, n+1, len(plan), s)
	}
	r.finish(row)
	row.times, row.broken = len(plan), false
	t.Logf("%s, %s: %s; %s", mode, f.name, row, time.Since(began).Round(time.Second))
	if err := row.err(); err != nil {
		row.broken = true
		t.Error(err)
	}
}

// print shows the table, and how to see the first failure again.
func (a *table) print(t *testing.T) {
	t.Helper()
	fmt.Printf("\n%s\n", a.markdown())
	if t.Failed() {
		t.Logf("a promise was broken; once more: %s RUN=%s", a.command(), a.broken())
	} else if *updateFlag {
		a.write(t)
	}
}

const guarantees = "../../docs/guarantees.md"

func (a *table) write(t *testing.T) {
	t.Helper()
	if testing.Short() || len(a.rows) < a.complete() {
		t.Fatalf("%s shows the long form and every run, or nothing", guarantees)
	}
	page, err := os.ReadFile(guarantees)
	if err != nil {
		t.Fatal(err)
	}
	changed, err := between(string(page), a.markdown())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(guarantees, []byte(changed), 0o600); err != nil { // the page is there: it keeps its mode
		t.Fatal(err)
	}
}

// complete is how many rows there are if no run is left out.
func (a *table) complete() int {
	n := 0
	for _, s := range scenes() {
		n += len(modes) * len(s.faults)
	}
	return n
}
