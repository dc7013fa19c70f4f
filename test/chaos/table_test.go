package chaos

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// table collects the runs' results.
type table struct {
	seed uint64
	rows []*result
}

// Its place in a page.
const (
	tableBegins = "<!-- make chaos: begin -->"
	tableEnds   = "<!-- make chaos: end -->"
)

// between replaces what stands between the markers.
func between(page, text string) (string, error) {
	before, rest, begins := strings.Cut(page, tableBegins)
	_, after, ends := strings.Cut(rest, tableEnds)
	if !begins || !ends {
		return "", errors.New("the page has no place for the table: " + tableBegins + " and " + tableEnds)
	}
	return before + tableBegins + "\n" + text + tableEnds + after, nil
}

// command makes the same runs again.
func (a *table) command() string {
	if testing.Short() {
		return fmt.Sprintf("make chaos SHORT=1 SEED=%d", a.seed)
	}
	return fmt.Sprintf("make chaos SEED=%d", a.seed)
}

func (a *table) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "`%s`, on %d cores:\n\n", a.command(), runtime.NumCPU())
	b.WriteString("| Delivery | Fault, under load | Times | Events | Lost | Duplicates by requests in flight | Other duplicates | Keys out of order | Transactions torn at rest | First event after: median | longest |\n")
	b.WriteString("|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n")
	byMode := slices.Clone(a.rows)
	slices.SortStableFunc(byMode, func(x, y *result) int { return slices.Index(modes, x.mode) - slices.Index(modes, y.mode) })
	for _, x := range byMode {
		fmt.Fprintf(&b, "| %s |\n", strings.Join(x.cells(), " | "))
	}
	return b.String()
}

// broken names the first run that failed, as RUN does.
func (a *table) broken() string {
	for _, x := range a.rows {
		if x.broken {
			return x.test
		}
	}
	return "TestChaos"
}

func (x *result) cells() []string {
	cells := []string{x.mode, x.fault.name}
	if x.times == 0 {
		return append(cells, "did not come to its end", "", "", "", "", "", "", "", "")
	}
	for _, n := range []int{x.times, x.Committed, len(x.Missing), x.inFlight, x.others, len(x.LastOrder)} {
		cells = append(cells, strconv.Itoa(n))
	}
	torn := strconv.Itoa(len(x.torn))
	if x.mode != exactlyOnce {
		torn += " (not promised)"
	}
	cells = append(cells, torn)
	if len(x.recovery) == 0 {
		return append(cells, "", "")
	}
	return append(cells, figure(x.recovery[len(x.recovery)/2]), figure(x.recovery[len(x.recovery)-1]))
}

func figure(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }
