package relay

import (
	"errors"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// lines collects what is logged.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *lines) count(part string) int { return strings.Count(l.String(), part) }

func (l *lines) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

func testConditions() (*Conditions, *lines, *time.Time) {
	log, now := &lines{}, time.Unix(1_700_000_000, 0)
	c := NewConditions(log.logger())
	c.now = func() time.Time { return now }
	return c, log, &now
}

func TestConditionsLogEachChangeOnce(t *testing.T) {
	c, log, now := testConditions()
	since := *now
	c.Set("kafka_unreachable", errors.New("first"))
	*now = now.Add(1500 * time.Millisecond)
	c.Set("kafka_unreachable", errors.New("second"))
	list := c.List()
	if len(list) != 1 || list[0].Message != "second" || !list[0].Since.Equal(since) || list[0].Severity != Blocking {
		t.Errorf("%+v", list)
	}
	c.Clear("kafka_unreachable", "slot_busy")
	c.Clear("kafka_unreachable")
	if len(c.List()) != 0 {
		t.Errorf("%+v", c.List())
	}
	if log.count("condition entered") != 1 || log.count("condition cleared") != 1 || log.count("lasted=1.5s") != 1 {
		t.Errorf("logged:\n%s", log)
	}
	c.Set("kafka_unreachable", errors.New("third"))
	if log.count("condition entered") != 2 {
		t.Errorf("logged:\n%s", log)
	}
}

func TestConditionsLogWarningsAsWarnings(t *testing.T) {
	c, log, _ := testConditions()
	c.Set("wal_budget_low", errors.New("12 MB are left"))
	c.Set("slot_lost", errors.New("gone"))
	if log.count("level=WARN") != 1 || log.count("level=ERROR") != 1 {
		t.Errorf("logged:\n%s", log)
	}
}

type remedial struct{ remedy string }

func (remedial) Error() string    { return "failed" }
func (r remedial) Remedy() string { return r.remedy }

func TestConditionsPreferTheCausesOwnRemedy(t *testing.T) {
	c, _, _ := testConditions()
	c.Set("topic_missing", remedial{"create topic a"})
	c.Set("slot_lost", remedial{""})
	list := c.List()
	if list[1].Remedy != "create topic a" || list[0].Remedy != define("slot_lost").remedy {
		t.Errorf("%+v", list)
	}
}

func TestConditionsAreListedByName(t *testing.T) {
	c, _, _ := testConditions()
	for _, name := range ConditionNames() {
		c.Set(name, errors.New("it holds"))
	}
	var names []string
	for _, cond := range c.List() {
		names = append(names, cond.Name)
	}
	if !slices.IsSorted(names) || len(names) != len(ConditionNames()) {
		t.Errorf("%v", names)
	}
}

func TestConditionsMayBeChangedFromAnywhere(t *testing.T) {
	c, _, _ := testConditions()
	c.now = time.Now
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for range 100 {
				c.Set("stalled", errors.New("three events wait"))
				c.List()
				c.Clear("stalled")
			}
		})
	}
	group.Wait()
}

func TestRegistry(t *testing.T) {
	seen := map[string]bool{}
	for _, d := range registry() {
		if seen[d.name] || !regexp.MustCompile(`^[a-z]+(_[a-z]+)*$`).MatchString(d.name) {
			t.Errorf("%q is there twice or not a name", d.name)
		}
		seen[d.name] = true
		if d.remedy == "" {
			t.Errorf("%s has no remedy", d.name)
		}
		if d.severity != Warning && d.severity != Blocking && d.severity != Fatal {
			t.Errorf("%s has severity %q", d.name, d.severity)
		}
		if d.exit != ExitFailed && d.exit != ExitContinuity {
			t.Errorf("%s exits with %d", d.name, d.exit)
		}
	}
	// The names that operators rely on.
	for _, name := range []string{
		"postgres_unreachable", "kafka_unreachable", "postgres_auth_failed", "kafka_auth_failed", "topic_missing", "slot_busy", "slot_foreign_holder", "slot_missing",
		"slot_lost", "slot_ahead_of_checkpoint", "checkpoint_missing", "checkpoint_too_new", "wrong_cluster", "server_in_recovery", "history_diverged", "timeline_diverged",
		"publication_missing", "publication_changed", "kafka_lost_records", "decode_failed", "poison_event", "backpressured", "stalled", "wal_budget_low", "paused",
	} {
		if !seen[name] {
			t.Errorf("%s is missing", name)
		}
	}
}

func TestAnUnknownConditionBlocksAndIsTriedAgain(t *testing.T) {
	if d := define("no_such"); d.severity != Blocking || d.exit != ExitFailed {
		t.Errorf("%+v", d)
	}
}
