package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// golden compares what is on the screen with testdata/<name>.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

// performance is a whole demo on a screen.
func performance(s *screen) {
	start := time.Date(2026, 5, 4, 9, 30, 0, 0, time.UTC)
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	offer := event{kind: "OfferRejectedEvent", key: "OFF-1042"}
	order := event{kind: "OrderRejectedEvent", key: "ORD-20084"}
	show := func(e event, ms int, latency time.Duration) {
		topic := map[string]string{offer.kind: "outbox.event.offer", order.kind: "outbox.event.order"}[e.kind]
		s.delivered(delivery{event: e, topic: topic, partition: 2, at: at(ms), latency: latency})
	}

	s.title(15 * time.Second)
	s.busy("Postgres", "fetching Postgres %s, once", "18.6.0")
	s.step("Postgres", "port 25432, /usr/lib/postgresql/18/bin", 1234*time.Millisecond)
	s.step("Kafka", "in this process, 127.0.0.1:39092", time.Millisecond)
	s.columns(100)
	show(offer, 10, 900*time.Microsecond)
	show(order, 100, time.Millisecond)     // too soon
	show(offer, 600, time.Millisecond)     // the same kind again
	show(order, 700, 20*time.Microsecond)  // the other one
	show(order, 1700, 12*time.Millisecond) // the same for want of the other
	s.rolledBack("OFF-1100", at(1800))
	s.rolledBack("OFF-1100", at(1900)) // too soon
	s.died(at(2000), 4711, 1)
	show(order, 2645, 640*time.Millisecond)
	s.revived(at(2650), 4712, 640*time.Millisecond)
}

func TestScreen(t *testing.T) {
	good := summary{transactions: 1274, committed: 2496, rollbacks: 67, rolledBack: 134, delivered: 2496, repeats: 106, keys: 652,
		p50: 640 * time.Microsecond, p99: 12 * time.Millisecond, overdue: 64, killed: true, restored: true, outage: 640 * time.Millisecond}
	bad := summary{transactions: 1, committed: 2, rollbacks: 1, rolledBack: 1, delivered: 1, lost: 1, leaked: 1, foreign: 1, disordered: 1, keys: 1, killed: true}
	tests := []struct {
		file   string
		colour bool
		show   func(*screen)
	}{
		{"plain.txt", false, func(s *screen) { performance(s); s.summary(good) }},
		{"colour.txt", true, func(s *screen) { performance(s); s.summary(good) }},
		{"failed.txt", false, func(s *screen) { s.summary(bad) }},
		{"interrupted.txt", false, func(s *screen) {
			s.summary(summary{transactions: 1, committed: 1, delivered: 1, keys: 1, p50: 12 * time.Millisecond, p99: 123456 * time.Millisecond})
		}},
		{"left.txt", false, func(s *screen) { s.title(time.Minute); s.leave() }},
	}
	for _, tt := range tests {
		t.Run(tt.file, func(t *testing.T) {
			var out bytes.Buffer
			tt.show(newScreen(&out, tt.colour))
			golden(t, tt.file, out.Bytes())
			if !tt.colour {
				fits(t, out.String())
			}
		})
	}
}

// fits checks that the screen needs no more than a terminal's 80 columns.
func fits(t *testing.T, text string) {
	t.Helper()
	for line := range strings.Lines(text) {
		if line = strings.TrimSuffix(line, "\n"); len(line) > 80 {
			t.Errorf("%d columns: %s", len(line), line)
		}
		if strings.HasSuffix(line, " ") {
			t.Errorf("blanks at the end: %q", line)
		}
	}
}

func TestColourIsForTerminalsThatWantIt(t *testing.T) {
	terminal, err := os.Open(os.DevNull) // a character device, as terminals are
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	file, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	tests := []struct {
		name, noColor, term string
		out                 *os.File
		want                bool
	}{
		{"terminal", "", "xterm", terminal, true},
		{"NO_COLOR", "1", "xterm", terminal, false},
		{"dumb terminal", "", "dumb", terminal, false},
		{"file", "", "xterm", file, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("NO_COLOR", tt.noColor)
			t.Setenv("TERM", tt.term)
			if got := colourful(tt.out); got != tt.want {
				t.Errorf("%t, want %t", got, tt.want)
			}
		})
	}
}
