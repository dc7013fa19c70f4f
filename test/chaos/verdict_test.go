package chaos

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/walpost/walpost/test/harness"
)

// result is what came of a run.
type result struct {
	test   string // its name
	mode   string
	fault  fault
	times  int
	broken bool // a promise, or the run did not come to its end

	harness.Report
	punctual harness.Report // the same, less the records that came late
	inFlight int            // duplicates that are explained
	other    []string       // events with a duplicate that is not
	others   int            // how many such duplicates
	torn     []string       // events of transactions that were partly in Kafka at rest
	cut      error          // the consumer found the log cut off
	recovery []time.Duration
}

// judge compares what was read with what was written.
func (x *result) judge(r *run) {
	all, cut := r.observer.all()
	late := lateness(all, r.deaths)
	x.Report = r.load.Verify(records(all))
	x.punctual = r.load.Verify(records(slices.DeleteFunc(slices.Clone(all), late)))
	x.torn, x.cut = r.torn, cut
	x.inFlight, x.other = explain(all, late)
	x.others = x.Duplicates - x.inFlight
	x.recovery = recoveries(all, r.returns)
}

// lateness tells which records were in flight when their sender was killed, or
// stopped: their partition did not hold them yet when that was certain, which is
// before the successor took over.
func lateness(all []seen, deaths []death) func(seen) bool {
	doomed := killedBy(all, deaths)
	return func(s seen) bool {
		n, killed := doomed[s.producer]
		return killed && s.offset >= deaths[n].ends[s.place]
	}
}

// explain counts the duplicates of which one copy was late, and lists the events
// with others.
func explain(all []seen, late func(seen) bool) (inFlight int, other []string) {
	twice := copies(all)
	for _, id := range slices.Sorted(maps.Keys(twice)) {
		if slices.ContainsFunc(twice[id], late) {
			inFlight += len(twice[id]) - 1
		} else {
			other = append(other, id)
		}
	}
	return inFlight, other
}

// killedBy tells which death ended a producer: the first at which a record of it
// was there. One that had written nothing by then can't be told from its
// successor, and nothing of it is excused.
func killedBy(all []seen, deaths []death) map[int64]int {
	doomed := map[int64]int{}
	for _, s := range all {
		n, _ := slices.BinarySearchFunc(deaths, s, func(d death, s seen) int {
			if s.offset < d.ends[s.place] {
				return 1 // it was there: this death or an earlier one
			}
			return -1
		})
		if before, known := doomed[s.producer]; n < len(deaths) && (!known || n < before) {
			doomed[s.producer] = n
		}
	}
	return doomed
}

// recoveries are the times from each return to the first event after it, where
// one came before the next.
func recoveries(all []seen, returns []moment) []time.Duration {
	var times []time.Duration
	for n, back := range returns {
		from, _ := slices.BinarySearchFunc(all, back.at, func(s seen, at time.Time) int { return s.at.Compare(at) })
		first := slices.IndexFunc(all[from:], func(s seen) bool { return s.offset >= back.ends[s.place] })
		if first < 0 {
			continue
		}
		at := all[from+first].at
		if n+1 == len(returns) || at.Before(returns[n+1].at) {
			times = append(times, at.Sub(back.at))
		}
	}
	slices.Sort(times)
	return times
}

// err is nil if every promise was kept.
func (x *result) err() error {
	broken := []error{x.findings().Err(), x.cut}
	if x.times < 1 {
		broken = append(broken, errors.New("nothing was broken"))
	}
	if x.Committed == 0 {
		broken = append(broken, errors.New("nothing was written"))
	}
	if n := x.inFlight; n > 0 && x.mode == exactlyOnce {
		broken = append(broken, fmt.Errorf("%d duplicates of requests in flight", n))
	}
	if n := len(x.other); n > 0 {
		broken = append(broken, fmt.Errorf("%d duplicates that nothing excuses, of %s", x.others, some(x.other)))
	}
	if n := len(x.torn); n > 0 && x.mode == exactlyOnce {
		broken = append(broken, fmt.Errorf("%d transactions partly in Kafka at rest; missing of them: %s", n, some(x.torn)))
	}
	if err := errors.Join(broken...); err != nil {
		return fmt.Errorf("%s, %s: %w", x.mode, x.fault.name, err)
	}
	return nil
}

// findings are those that no run may have. Without transactions nothing fences a
// zombie's last requests, so that what is in order is the rest.
func (x *result) findings() harness.Report {
	report := x.Report
	if x.mode == idempotent && x.fault.zombie {
		report.FirstOrder, report.LastOrder = x.punctual.FirstOrder, x.punctual.LastOrder
	}
	return report
}

func some(ids []string) string { return strings.Join(ids[:min(len(ids), 5)], ", ") }

func (x *result) String() string {
	return fmt.Sprintf("%s; %d duplicates in flight, %d other; %d torn", x.Report, x.inFlight, x.others, len(x.torn))
}
