package main

import (
	"fmt"
	"strconv"
	"time"
)

// summary is what came of a demo. Events are counted once, whatever the number
// of records they came in.
type summary struct {
	transactions int // committed
	rollbacks    int

	committed  int // events of committed transactions
	rolledBack int // events of those rolled back
	delivered  int // of the committed
	lost       int // committed and never arrived
	leaked     int // rolled back, and arrived all the same
	repeats    int // further records of events that had arrived
	foreign    int // records of no event of ours
	keys       int
	disordered int // events out of the commit order of their key

	// p50 and p99 are from commit to arrival, of the events that did not meet
	// the kill; overdue counts those that did.
	p50, p99 time.Duration
	overdue  int

	killed   bool
	restored bool          // an event that was committed after the kill arrived
	outage   time.Duration // from the kill to that event
}

// holds says whether walpost has kept what it promises. An event that comes
// twice is no breach: it carries the same id.
func (s summary) holds() bool {
	return s.lost == 0 && s.leaked == 0 && s.foreign == 0 && s.disordered == 0
}

// line is one line of the summary as it is shown.
type line struct {
	label, value, remark string
	bad                  bool
}

func (s summary) lines() []line {
	lines := []line{
		{label: "committed", value: number(s.committed), remark: "events in " + counted(s.transactions, "transaction")},
		{label: "rolled back", value: number(s.rolledBack), remark: s.rollbackRemark(), bad: s.leaked > 0},
		{label: "delivered", value: number(s.delivered)},
		{label: "lost", value: number(s.lost), bad: s.lost > 0},
		{label: "came twice", value: number(s.repeats), remark: s.repeatsRemark()},
		{label: "out of order", value: number(s.disordered), remark: "over " + counted(s.keys, "key"), bad: s.disordered > 0},
	}
	if s.foreign > 0 {
		lines = append(lines, line{label: "unknown", value: number(s.foreign), remark: "records that the application knows nothing of", bad: true})
	}
	lines = append(lines,
		line{label: "latency p50", value: millis(s.p50), remark: "commit to consumer" + s.latencyRemark()},
		line{label: "latency p99", value: millis(s.p99)},
	)
	return append(lines, s.killLines()...)
}

func (s summary) rollbackRemark() string {
	if s.leaked > 0 {
		return fmt.Sprintf("events in %s, and %s of them arrived", counted(s.rollbacks, "transaction"), number(s.leaked))
	}
	return fmt.Sprintf("events in %s; none arrived", counted(s.rollbacks, "transaction"))
}

func (s summary) repeatsRemark() string {
	const skip = "with the same id: consumers can skip"
	switch {
	case s.repeats == 0:
		return ""
	case s.killed:
		return "after the kill, " + skip
	}
	return skip
}

func (s summary) latencyRemark() string {
	if !s.killed {
		return ""
	}
	return fmt.Sprintf(", but for %s that met the kill", number(s.overdue))
}

func (s summary) killLines() []line {
	if !s.restored {
		return nil
	}
	return []line{{label: "back after", value: millis(s.outage), remark: "from the kill to the first event committed after it"}}
}

// counted is "1 event", "2 events".
func counted(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return number(n) + " " + what
}

// number groups thousands: 12,345.
func number(n int) string {
	digits := strconv.Itoa(n)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// millis has one digit below 100 ms, where it tells something.
func millis(d time.Duration) string {
	ms := float64(d) / float64(time.Millisecond)
	switch {
	case ms < 0.1:
		return "<0.1 ms"
	case ms < 100:
		return fmt.Sprintf("%.1f ms", ms)
	}
	return number(int(ms+0.5)) + " ms"
}
