package bench

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/walpost/walpost/test/harness"
)

// report collects a benchmark's figures.
type report struct {
	Command string    `json:"command"`
	Seed    uint64    `json:"seed"`
	Machine string    `json:"machine"`
	Figures []*figure `json:"figures"`
	Ratios  []*figure `json:"ratios"`

	b      *testing.B
	name   string
	chance *rand.Rand
}

// figure is what was measured of a contestant, round by round, or how it compares
// with another.
type figure struct {
	Measurement string    `json:"measurement"`
	Contestant  string    `json:"contestant"`
	Beside      string    `json:"beside,omitempty"`
	Unit        string    `json:"unit,omitempty"`
	Goal        string    `json:"goal,omitempty"`
	Median      float64   `json:"median"`
	Rounds      []float64 `json:"rounds"`
}

func newReport(b *testing.B, name string) *report {
	b.Helper()
	r := &report{b: b, name: name, Seed: harness.Seed(*seedFlag)}
	r.chance = chance(r.Seed)
	r.Command = fmt.Sprintf("make bench RUN=%s SEED=%d", name, r.Seed)
	if testing.Short() {
		r.Command += " SHORT=1"
	}
	return r
}

// round gives every contestant its turn.
func (r *report) round(turns ...func()) {
	for _, i := range r.chance.Perm(len(turns)) {
		turns[i]()
	}
}

func (r *report) find(measurement, contestant string) *figure {
	i := slices.IndexFunc(r.Figures, func(f *figure) bool { return f.Measurement == measurement && f.Contestant == contestant })
	if i < 0 {
		return nil
	}
	return r.Figures[i]
}

// add notes a round's figure.
func (r *report) add(measurement, contestant, unit string, value float64) {
	f := r.find(measurement, contestant)
	if f == nil {
		f = &figure{Measurement: measurement, Contestant: contestant, Unit: unit}
		r.Figures = append(r.Figures, f)
	}
	f.Rounds = append(f.Rounds, value)
	r.b.Logf("%s, %s: %.4g %s", measurement, contestant, value, unit)
}

// compare divides round by round. An empty goal means that none is set.
func (r *report) compare(measurement, contestant, beside, goal string) {
	of, to := r.find(measurement, contestant), r.find(measurement, beside)
	f := &figure{Measurement: measurement, Contestant: contestant, Beside: beside, Goal: goal}
	for i := range of.Rounds {
		f.Rounds = append(f.Rounds, of.Rounds[i]/to.Rounds[i])
	}
	r.Ratios = append(r.Ratios, f)
}

// print shows the tables and writes the JSON.
func (r *report) print(w *world) {
	r.b.Helper()
	r.Machine = fmt.Sprintf("%d cores, %s/%s, %s, Postgres %s, Kafka %s, servers: %s", runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version(),
		harness.Value[string](r.b, w.pg, "show server_version"), w.broker.Version, harness.Mode(r.b))
	slices.SortStableFunc(r.Figures, func(x, y *figure) int { return strings.Compare(x.Measurement, y.Measurement) })
	for _, f := range slices.Concat(r.Figures, r.Ratios) {
		f.Median = median(f.Rounds)
	}
	fmt.Printf("\n%s\n", r.markdown())
	if *jsonFlag == "" {
		return
	}
	content, err := json.MarshalIndent(r, "", "  ")
	if err == nil {
		err = os.WriteFile(filepath.Join(*jsonFlag, r.name+".json"), append(content, '\n'), 0o600)
	}
	if err != nil {
		r.b.Error(err)
	}
}

func (r *report) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "`%s`: %d rounds; %s\n\n", r.Command, len(r.Figures[0].Rounds), r.Machine)
	b.WriteString("| Measurement | Contestant | Median | Least | Most |\n|---|---|---:|---:|---:|\n")
	for _, f := range r.Figures {
		fmt.Fprintf(&b, "| %s, %s | %s | %s |\n", f.Measurement, f.Unit, f.Contestant, f.cells())
	}
	b.WriteString("\n| Ratio | Median | Least | Most | Goal |\n|---|---:|---:|---:|---|\n")
	for _, f := range r.Ratios {
		fmt.Fprintf(&b, "| %s: %s / %s | %s | %s |\n", f.Measurement, f.Contestant, f.Beside, f.cells(), f.Goal)
	}
	return b.String()
}

func (f *figure) cells() string {
	var cells []string
	for _, v := range []float64{f.Median, slices.Min(f.Rounds), slices.Max(f.Rounds)} {
		if v >= 1000 {
			cells = append(cells, fmt.Sprintf("%.0f", v))
		} else {
			cells = append(cells, fmt.Sprintf("%.2f", v))
		}
	}
	return strings.Join(cells, " | ")
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}
