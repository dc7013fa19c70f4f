package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/walpost/walpost/test/harness"
)

// This file is what tests see of a relay from outside: its metrics, its health
// and its log.

// series are the samples of one scrape, without the labels that all have.
type series map[string]float64

// scrape reads /metrics.
func scrape(t *testing.T, relay *harness.Relay) series {
	t.Helper()
	s, err := scraped(relay)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func scraped(relay *harness.Relay) (series, error) {
	code, body, err := relay.Get("/metrics")
	if err != nil || code != http.StatusOK {
		return nil, errors.Join(fmt.Errorf("scrape: code %d", code), err)
	}
	s := series{}
	for line := range strings.Lines(body) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		at := strings.LastIndexByte(line, ' ')
		value, err := strconv.ParseFloat(line[at+1:], 64)
		if err != nil {
			return nil, fmt.Errorf("scrape: %q: %w", line, err)
		}
		s[bare(line[:at])] += value
	}
	return s, nil
}

// bare removes the labels pipeline and shard. No value in these tests holds a
// comma or a brace.
func bare(name string) string {
	name, labels, found := strings.Cut(strings.TrimSuffix(name, "}"), "{")
	if !found {
		return name
	}
	var kept []string
	for label := range strings.SplitSeq(labels, ",") {
		if !strings.HasPrefix(label, "pipeline=") && !strings.HasPrefix(label, "shard=") {
			kept = append(kept, label)
		}
	}
	if len(kept) == 0 {
		return name
	}
	return name + "{" + strings.Join(kept, ",") + "}"
}

// sum adds up a metric over its labels.
func (s series) sum(name string) float64 {
	total := 0.0
	for k, v := range s {
		if k == name || strings.HasPrefix(k, name+"{") {
			total += v
		}
	}
	return total
}

// sample is one look at a relay.
type sample struct {
	at        time.Time
	live      bool
	ready     bool    // to deliver, not just to take over
	said      string  // by /readyz
	published float64 // events acknowledged by Kafka, as the relay counts them
	events    float64 // in flight
	bytes     float64 // in flight
	rss       int     // resident memory, KiB
}

// sampler looks at a relay ten times a second.
type sampler struct {
	relay *harness.Relay
	stop  chan struct{}
	done  sync.WaitGroup
	once  sync.Once

	mu      sync.Mutex
	samples []sample
}

func startSampler(t *testing.T, relay *harness.Relay) *sampler {
	s := &sampler{relay: relay, stop: make(chan struct{})}
	s.done.Go(s.run)
	t.Cleanup(func() { s.end() })
	return s
}

func (s *sampler) run() {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-s.relay.Done():
			return
		case <-tick.C:
			s.look()
		}
	}
}

func (s *sampler) look() {
	live, _, _ := s.relay.Get("/livez")
	ready, said, err := s.relay.Get("/readyz?verbose")
	metrics, scrapeErr := scraped(s.relay)
	if err != nil || scrapeErr != nil {
		return // it has just ended
	}
	taken := sample{
		at: time.Now(), live: live == http.StatusOK, ready: ready == http.StatusOK && !strings.Contains(said, "state standby"), said: said,
		published: metrics.sum("walpost_events_published_total"),
		events:    metrics["walpost_in_flight_events"], bytes: metrics["walpost_in_flight_bytes"],
		rss: rss(s.relay.Pid()),
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.samples = append(s.samples, taken)
}

// end stops sampling and returns what was seen.
func (s *sampler) end() samples {
	s.once.Do(func() {
		close(s.stop)
		s.done.Wait()
	})
	return s.samples
}

// rss is a process's resident memory in KiB; 0 if it is gone.
func rss(pid int) int {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		if rest, found := strings.CutPrefix(line, "VmRSS:"); found {
			kib, _ := strconv.Atoi(strings.Fields(rest)[0])
			return kib
		}
	}
	return 0
}

type samples []sample

// between are the samples taken after from and before to.
func (s samples) between(from, to time.Time) samples {
	var in samples
	for _, x := range s {
		if x.at.After(from) && x.at.Before(to) {
			in = append(in, x)
		}
	}
	return in
}

// most is the largest value of a quantity.
func (s samples) most(of func(sample) float64) float64 {
	top := 0.0
	for _, x := range s {
		top = max(top, of(x))
	}
	return top
}

// longest is the length of the longest run of samples for which the comparison
// with the sample before holds.
func (s samples) longest(holds func(before, now sample) bool) int {
	run, best := 0, 0
	for i := 1; i < len(s); i++ {
		run++
		if !holds(s[i-1], s[i]) {
			run = 0
		}
		best = max(best, run)
	}
	return best
}

// The bounds of truth, in samples of a tenth of a second, while events are
// written all the time.
const (
	// Ready though nothing is acknowledged. Kafka: 10 s until a standstill is
	// called one, a second to notice. Postgres: four status intervals of 3.3 s
	// until a silent server is given up.
	vainWithoutKafka, vainWithoutPostgres = 120, 150
	// Not ready though events are acknowledged: while opening, and until the
	// next look, once a second.
	timid = 30
)

// truthful checks that health and progress told the same story. vain is how
// many samples in a row may say ready though nothing is acknowledged.
func (s samples) truthful(t *testing.T, vain int) {
	t.Helper()
	moved := func(before, now sample) bool { return now.published > before.published }
	idle := s.longest(func(before, now sample) bool { return now.ready && !moved(before, now) })
	shy := s.longest(func(before, now sample) bool { return !now.ready && moved(before, now) })
	t.Logf("health: %d samples; longest run of ready without progress %d, of progress without ready %d", len(s), idle, shy)
	if idle > vain {
		t.Errorf("/readyz said ready for %d samples in a row in which nothing was acknowledged, more than %d", idle, vain)
	}
	if shy > timid {
		t.Errorf("/readyz said not ready for %d samples in a row in which events were acknowledged, more than %d", shy, timid)
	}
	s.neverRashlyReady(t)
	for _, x := range s {
		if !x.live {
			t.Errorf("/livez failed at %s: nothing outside the relay may make it", x.at)
			break
		}
	}
}

// neverRashlyReady checks that a relay which has said not ready did not say
// ready again before anything was acknowledged.
func (s samples) neverRashlyReady(t *testing.T) {
	t.Helper()
	since := -1 // first sample of the run that is not ready
	for i, x := range s {
		switch {
		case !x.ready && since < 0:
			since = i
		case x.ready && since >= 0:
			if x.published <= s[since].published {
				t.Errorf("/readyz was ready again at %s, with nothing acknowledged since it said: %s", x.at, s[since].said)
			}
			since = -1
		}
	}
}

// logLine is a line of the relay's JSON log.
type logLine struct {
	Time      time.Time
	Level     string
	Msg       string
	Condition string
	Error     string
}

// logLines parses the log; every line must be JSON.
func logLines(t *testing.T, relay *harness.Relay) []logLine {
	t.Helper()
	var lines []logLine
	for text := range strings.Lines(relay.Log()) {
		var line logLine
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			t.Fatalf("log line %q: %v", text, err)
		}
		lines = append(lines, line)
	}
	return lines
}

// logged are the lines of a window of time.
func logged(lines []logLine, from, to time.Time) []logLine {
	var in []logLine
	for _, l := range lines {
		if l.Time.After(from) && l.Time.Before(to) {
			in = append(in, l)
		}
	}
	return in
}

// changes counts how often a condition was entered and cleared.
func changes(lines []logLine, condition string) (entered, cleared int) {
	for _, l := range lines {
		if l.Condition != condition {
			continue
		}
		switch l.Msg {
		case "condition entered":
			entered++
		case "condition cleared":
			cleared++
		}
	}
	return entered, cleared
}

// once checks that a condition came and went exactly once.
func once(t *testing.T, lines []logLine, condition string) {
	t.Helper()
	if entered, cleared := changes(lines, condition); entered != 1 || cleared != 1 {
		t.Errorf("%s was entered %d times and cleared %d times, want once each: %v", condition, entered, cleared, lines)
	}
}
