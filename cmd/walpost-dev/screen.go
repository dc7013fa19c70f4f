package main

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// Colours, as of ECMA-48.
const (
	bold   = "1"
	dim    = "2"
	red    = "31"
	green  = "32"
	yellow = "33"
)

// How much of the traffic is shown: as much as can be read.
const (
	eventEvery    = 500 * time.Millisecond
	rollbackEvery = 4 * time.Second
)

const clock = "15:04:05.000"

// broken is the rule of the business that rolls transactions back.
const broken = "somebody has paid: no event"

// screen shows the demo, in 80 columns. Several goroutines may use it.
type screen struct {
	out    io.Writer
	colour bool

	mu           sync.Mutex
	lastEvent    time.Time
	lastKind     string
	lastRollback time.Time
}

func newScreen(out io.Writer, colour bool) *screen {
	return &screen{out: out, colour: colour}
}

func (s *screen) printf(format string, args ...any) {
	_, _ = fmt.Fprintf(s.out, format, args...) // nobody is left to tell
}

// paint colours text on a terminal.
func (s *screen) paint(code, text string) string {
	if !s.colour || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (s *screen) title(duration time.Duration) {
	s.printf("\n  %s  %s of traffic, and one kill -9 in the middle\n\n", s.paint(bold, "walpost demo"), duration)
}

// step tells of a part that has started.
func (s *screen) step(name, what string, took time.Duration) {
	s.printf("  %s  %-54s %s\n", s.paint(bold, fmt.Sprintf("%-11s", name)), what, s.paint(dim, fmt.Sprintf("%5.1f s", took.Seconds())))
}

// busy tells of something that takes a while.
func (s *screen) busy(name, format string, args ...any) {
	s.printf("  %s  %s\n", s.paint(bold, fmt.Sprintf("%-11s", name)), s.paint(dim, fmt.Sprintf(format, args...)))
}

// columns heads the table of events.
func (s *screen) columns(rate int) {
	s.printf("\n  About %d transactions a second reject offers and orders, each together with\n"+
		"  its events. Some of them, as the consumer meets them; the latency counts from\n"+
		"  the answer to COMMIT, which an event can overtake:\n\n", rate)
	s.printf("%s\n", s.paint(dim, row("TIME", "EVENT", "KEY", "TOPIC/PARTITION", "LATENCY")))
}

func row(when, event, key, place, latency string) string {
	return fmt.Sprintf("  %-12s  %-18s  %-9s  %-20s  %9s", when, event, key, place, latency)
}

// remark is a row that is no event.
func remark(at time.Time, what, text string) string {
	return fmt.Sprintf("  %-12s  %-18s  %s", at.Format(clock), what, text)
}

// delivered shows some of the events: kinds in turn, and not more than can be
// read.
func (s *screen) delivered(d delivery) {
	s.mu.Lock()
	defer s.mu.Unlock()
	since := d.at.Sub(s.lastEvent)
	if since < eventEvery || d.kind == s.lastKind && since < 2*eventEvery {
		return
	}
	s.lastEvent, s.lastKind = d.at, d.kind
	place := fmt.Sprintf("%s/%d", d.topic, d.partition)
	s.printf("%s\n", row(d.at.Format(clock), d.kind, d.key, place, millis(d.latency)))
}

// rolledBack shows some of the transactions that publish nothing.
func (s *screen) rolledBack(key string, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at.Sub(s.lastRollback) < rollbackEvery {
		return
	}
	s.lastRollback = at
	s.printf("%s\n", s.paint(dim, remark(at, "rolled back", fmt.Sprintf("%-9s  %s", key, broken))))
}

// died tells of the kill.
func (s *screen) died(at time.Time, pid, underWay int) {
	s.news(at, "RELAY KILLED", fmt.Sprintf("kill -9 %d, with %s under way", pid, counted(underWay, "event")))
}

// revived tells of the first event after it.
func (s *screen) revived(at time.Time, pid int, outage time.Duration) {
	s.news(at, "RELAY IS BACK", fmt.Sprintf("pid %d, %s after the kill", pid, millis(outage)))
}

func (s *screen) news(at time.Time, what, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.printf("%s\n", s.paint(yellow, remark(at, what, text)))
}

// leave is for whoever stops the demo before there is anything to show.
func (s *screen) leave() { s.printf("\n  Stopped before the first event.\n\n") }

// summary ends the show.
func (s *screen) summary(sum summary) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.printf("\n")
	for _, l := range sum.lines() {
		s.printf("  %s\n", s.summaryLine(l))
	}
	if sum.holds() {
		s.printf("\n  %s\n\n", s.paint(green, "Every committed event arrived, in order; no other did."))
		return
	}
	s.printf("\n  %s\n\n", s.paint(red, "This is not what walpost promises."))
}

func (s *screen) summaryLine(l line) string {
	code := bold
	if l.bad {
		code = red
	}
	text := fmt.Sprintf("%-13s%s", l.label, s.paint(code, fmt.Sprintf("%9s", l.value)))
	if l.remark == "" {
		return text
	}
	return text + "  " + s.paint(dim, l.remark)
}
