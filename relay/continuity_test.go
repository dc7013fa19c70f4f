package relay

import (
	"bufio"
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/walpost/walpost/checkpoint"
	"github.com/walpost/walpost/outbox"
	"github.com/walpost/walpost/outbox/mapping"
	"github.com/walpost/walpost/replication"
)

func testExpectation() Expectation {
	return Expectation{
		Pipeline: "trainings", Slot: "trainings", Destination: "kafka-1", Tables: []mapping.Table{outboxTable()},
	}
}

func TestContinuity(t *testing.T) {
	const proven = ""
	for _, c := range []struct {
		name   string
		change func(r *checkpoint.Record, f *replication.Facts)
		want   string
		text   string // in the error
	}{
		{"all as it was", func(*checkpoint.Record, *replication.Facts) {}, proven, ""},
		{"the slot is behind", func(_ *checkpoint.Record, f *replication.Facts) { f.Slot.ConfirmedFlush = 50 }, proven, ""},
		{"the WAL ends at the checkpoint", func(r *checkpoint.Record, f *replication.Facts) { f.WALPosition = uint64(r.Confirmed) }, proven, ""},
		{"a busy slot is judged elsewhere", func(_ *checkpoint.Record, f *replication.Facts) { f.Slot.Active = true }, proven, ""},
		{"the slot's WAL is about to be removed", func(_ *checkpoint.Record, f *replication.Facts) { f.Slot.WALStatus = "unreserved" }, proven, ""},
		{"no publication fingerprint", func(r *checkpoint.Record, f *replication.Facts) { r.Publication, f.Publication.Name = "", "other" }, proven, ""},

		{"record of another pipeline", func(r *checkpoint.Record, _ *replication.Facts) { r.Pipeline = "other" }, "wrong_cluster", `pipeline "other"`},
		{"record of another slot", func(r *checkpoint.Record, _ *replication.Facts) { r.Slot = "other" }, "wrong_cluster", `slot "other"`},
		{"record of another cluster", func(r *checkpoint.Record, _ *replication.Facts) { r.SystemID = "1" }, "wrong_cluster", `"1", this is "7301"`},
		{"record of another database", func(r *checkpoint.Record, _ *replication.Facts) { r.Database = "other" }, "wrong_cluster", `database "other"`},
		{"record for another destination", func(r *checkpoint.Record, _ *replication.Facts) { r.KafkaClusterID = "kafka-2" }, "wrong_cluster", `"kafka-2", this is "kafka-1"`},

		{"intent only", func(r *checkpoint.Record, _ *replication.Facts) { r.Phase = checkpoint.Intent }, "checkpoint_missing", "has begun and not finished"},
		{"intent, no slot", func(r *checkpoint.Record, f *replication.Facts) { r.Phase, f.Slot = checkpoint.Intent, nil }, "checkpoint_missing", "has begun and not finished"},
		{"no slot", func(_ *checkpoint.Record, f *replication.Facts) { f.Slot = nil }, "slot_missing", "stands at 0/64"},
		{"slot invalidated", func(_ *checkpoint.Record, f *replication.Facts) { f.Slot.WALStatus = "lost" }, "slot_lost", "stands at 0/64"},
		{"slot ahead", func(_ *checkpoint.Record, f *replication.Facts) { f.Slot.ConfirmedFlush = startLSN + 1 }, "slot_ahead_of_checkpoint", "stands at 0/65, past the checkpoint at 0/64"},
		{"slot invalidated, and why", func(_ *checkpoint.Record, f *replication.Facts) { f.Slot.InvalidationReason = "idle_timeout" }, "slot_lost", "(idle_timeout)"},
		{"promoted behind the checkpoint", func(_ *checkpoint.Record, f *replication.Facts) {
			f.Timeline, f.History = 2, []replication.Switch{{Timeline: 1, LSN: startLSN}}
		}, proven, ""},
		{"promoted before the last event", func(r *checkpoint.Record, f *replication.Facts) {
			*r = afterEvent(startLSN-1, 0, "a", startLSN)
			f.Timeline, f.History = 2, []replication.Switch{{Timeline: 1, LSN: startLSN - 1}}
		}, "timeline_diverged", "left timeline 1 at 0/63, before what was published: event a"},
		{"promoted without the slot, before the last event", func(r *checkpoint.Record, f *replication.Facts) {
			*r = afterEvent(startLSN-1, 0, "a", startLSN)
			f.Timeline, f.History, f.Slot = 2, []replication.Switch{{Timeline: 1, LSN: startLSN - 1}}, nil
		}, "timeline_diverged", "before what was published"},
		{"promoted between the last event and the checkpoint", func(r *checkpoint.Record, f *replication.Facts) {
			*r = afterEvent(startLSN-9, 0, "a", startLSN)
			f.Timeline, f.History, f.Slot.ConfirmedFlush, f.WALPosition = 2, []replication.Switch{{Timeline: 1, LSN: startLSN - 1}}, startLSN-1, startLSN-1
		}, proven, ""},
		{"rewound WAL, no slot", func(_ *checkpoint.Record, f *replication.Facts) { f.WALPosition, f.Slot = startLSN-1, nil }, "history_diverged", "ends at 0/63"},
		{"rewound WAL", func(_ *checkpoint.Record, f *replication.Facts) { f.WALPosition = startLSN - 1 }, "history_diverged", "ends at 0/63"},

		{"no publication", func(_ *checkpoint.Record, f *replication.Facts) { f.Publication = nil }, "publication_missing", ""},
		{"no inserts published", func(_ *checkpoint.Record, f *replication.Facts) { f.Publication.Insert = false }, "publication_changed", "does not publish inserts"},
		{"table not covered", func(_ *checkpoint.Record, f *replication.Facts) { f.Publication.Tables = nil }, "publication_changed", "public.outbox"},
		{"another table as well", func(_ *checkpoint.Record, f *replication.Facts) {
			f.Publication.Tables = append(f.Publication.Tables, replication.PublishedTable{Schema: "public", Table: "orders"})
		}, "publication_changed", "also covers table public.orders"},
		{"partitions that are logged", func(_ *checkpoint.Record, f *replication.Facts) {
			f.Publication.Tables[0].Partitions = []replication.Partition{{OID: 1, Name: "outbox_1", Decoded: true}}
		}, proven, ""},
		{"a partition that is not", func(_ *checkpoint.Record, f *replication.Facts) {
			f.Publication.Tables[0].Partitions = []replication.Partition{{OID: 1, Name: "outbox_1", Decoded: true}, {OID: 2, Name: "outbox_2"}}
		}, "publication_changed", "partition outbox_2 of table public.outbox is UNLOGGED"},
		{"partitions published under their own names", func(_ *checkpoint.Record, f *replication.Facts) {
			f.Publication.Tables[0].Table = "outbox_1"
		}, "publication_changed", "publish_via_partition_root = true"},
		{"rows filtered", func(_ *checkpoint.Record, f *replication.Facts) { f.Publication.Tables[0].RowFilter = "(id > 0)" }, "publication_changed", "does not cover every row"},
		{"table made anew", func(_ *checkpoint.Record, f *replication.Facts) { f.Publication.Tables[0].OID++ }, "publication_changed", "not what it was"},
		{"published via the root", func(_ *checkpoint.Record, f *replication.Facts) { f.Publication.ViaRoot = true }, "publication_changed", "not what it was"},
	} {
		t.Run(c.name, func(t *testing.T) {
			record, facts := recordAt(startLSN), factsAt(startLSN)
			c.change(&record, &facts)
			judge(t, continuity(testExpectation(), &record, facts), c.want, c.text, false)
		})
	}
}

// judge compares an answer with the condition it should be; "" is none.
func judge(t *testing.T, err error, want, text string, retry bool) {
	t.Helper()
	if got := conditionOf(err); got != want || (err == nil) != (want == "" && text == "") {
		t.Fatalf("%v (condition %q), want condition %q", err, got, want)
	}
	if err == nil {
		return
	}
	if !strings.Contains(err.Error(), text) {
		t.Errorf("error %q does not say %q", err, text)
	}
	if retryable(err) != retry {
		t.Errorf("%v: retryable is %v", err, !retry)
	}
}

// TestSwitched: the record is of generation 2 and stands at 0x64, on timeline 3; its
// last event was committed at 0x5B.
func TestSwitched(t *testing.T) {
	at := func(generation uint32, commit uint64) outbox.Position {
		return outbox.Position{Generation: generation, Commit: commit}
	}
	left := func(lsn uint64) []replication.Switch { // each timeline, the third at lsn
		return []replication.Switch{{Timeline: 1, LSN: 10}, {Timeline: 2, LSN: 20}, {Timeline: 3, LSN: lsn}}
	}
	for _, c := range []struct {
		name     string
		timeline int32
		history  []replication.Switch
		newest   outbox.Position
		text     string // in the error; "": none
	}{
		{"the same timeline", 3, left(1)[:2], at(2, 1<<30), ""},
		{"left at the checkpoint", 4, left(startLSN), at(0, 0), ""},
		{"left later", 4, left(startLSN + 50), at(2, startLSN+49), ""},
		{"twice promoted", 5, append(left(startLSN), replication.Switch{Timeline: 4, LSN: 1 << 30}), at(0, 0), ""},
		{"what Kafka holds is of an older slot", 4, left(startLSN + 50), at(1, 1<<30), ""},

		{"left between the last event and the checkpoint", 4, left(startLSN - 1), at(0, 0), ""},
		{"left at the last event", 4, left(startLSN - 9), at(0, 0), "left timeline 3 at 0/5B, before what was published: event a"},
		{"left at an event that Kafka holds", 4, left(startLSN + 50), at(2, startLSN+50), "an event that was committed at 0/96"},
		{"left before an event that Kafka holds", 4, left(startLSN + 50), at(2, startLSN+51), "an event that was committed at 0/97"},
		{"the first switch counts, not the last", 5, append(left(startLSN-9), replication.Switch{Timeline: 4, LSN: 1 << 30}), at(0, 0), "left timeline 3 at 0/5B"},
		{"an earlier timeline", 2, left(20)[:1], at(0, 0), "on timeline 2, and the checkpoint at 0/64 was written on 3, a later one"},
		{"a branch that never was on it", 4, left(20)[:2], at(0, 0), "does not lead to timeline 3"},
		{"no history file", 4, nil, at(0, 0), "pg_wal/00000004.history"},
	} {
		t.Run(c.name, func(t *testing.T) {
			record, facts := afterEvent(startLSN-9, 0, "a", startLSN), factsAt(startLSN)
			record.Timeline, record.Generation = 3, 2
			facts.Timeline, facts.History = c.timeline, c.history
			want := "timeline_diverged"
			if c.text == "" {
				want = ""
			}
			judge(t, switched(&record, facts, c.newest), want, c.text, false)
		})
	}
}

func TestContinuityWithoutARecord(t *testing.T) {
	facts := factsAt(startLSN)
	judge(t, continuity(testExpectation(), nil, facts), "checkpoint_missing", "slot trainings exists", false)
	facts.Slot = nil
	judge(t, continuity(testExpectation(), nil, facts), "checkpoint_missing", "neither a checkpoint nor slot trainings", false)
}

func TestContinuityIsAskedTheMoreSeriousQuestionFirst(t *testing.T) {
	record, facts := recordAt(startLSN), factsAt(startLSN)
	record.SystemID, facts.Slot, facts.Publication = "1", nil, nil
	judge(t, continuity(testExpectation(), &record, facts), "wrong_cluster", "", false)
}

func TestIdentityKnowsNothingWithoutARecord(t *testing.T) {
	judge(t, identity(testExpectation(), nil, factsAt(startLSN)), "", "", false)
}

// identity must not judge what a running predecessor may still change.
func TestIdentityLooksAtNoPosition(t *testing.T) {
	record, facts := recordAt(startLSN), factsAt(1<<20)
	facts.Publication, facts.Timeline, facts.WALPosition = nil, 7, 1
	judge(t, identity(testExpectation(), &record, facts), "", "", false)
}

func TestAvailable(t *testing.T) {
	busy := func(name string) func(*replication.Facts) {
		return func(f *replication.Facts) {
			f.Slot.Active, f.Slot.HolderPID, f.Slot.HolderName, f.Slot.HolderSince = true, 4242, name, "2026-01-02"
		}
	}
	for _, c := range []struct {
		name   string
		change func(f *replication.Facts)
		want   string
		text   string
		retry  bool
	}{
		{"ready", func(*replication.Facts) {}, "", "", false},
		{"no slot is judged elsewhere", func(f *replication.Facts) { f.Slot = nil }, "", "", false},
		{"in recovery, no slot", func(f *replication.Facts) { f.InRecovery, f.Slot = true, nil }, "server_in_recovery", "it is a standby that was not promoted", true},
		{"in recovery, with a copy of the slot", func(f *replication.Facts) { f.InRecovery, f.Slot.Synced = true, true }, "server_in_recovery", "it has a copy of slot trainings", true},
		{"in recovery, with a slot of its own", func(f *replication.Facts) { f.InRecovery = true }, "server_in_recovery", "no copy of the primary's", true},
		{"slot invalidated", func(f *replication.Facts) { f.Slot.WALStatus, f.Slot.InvalidationReason = "lost", "wal_removed" }, "slot_lost", "slot trainings (wal_removed)", false},
		{"slot invalidated, before 17", func(f *replication.Facts) { f.Slot.WALStatus = "lost" }, "slot_lost", "(WAL removed)", false},
		{"slot invalidated by a conflict, before 17", func(f *replication.Facts) { f.Slot.WALStatus, f.Slot.Conflicting = "lost", true }, "slot_lost", "(conflict with recovery)", false},
		{"too old", func(f *replication.Facts) { f.ServerVersion = 130020 }, unnamed, "version 13", false},
		{"another plugin", func(f *replication.Facts) { f.Slot.Plugin = "wal2json" }, "wrong_cluster", `"wal2json"`, false},
		{"a physical slot", func(f *replication.Facts) { f.Slot.Plugin, f.Slot.Database = "", "" }, "wrong_cluster", "not pgoutput", false},
		{"a slot of another database", func(f *replication.Facts) { f.Slot.Database = "other" }, "wrong_cluster", `"other"`, false},
		{"held by a relay of this pipeline", busy("walpost/trainings"), "slot_busy", "pid 4242, connected since 2026-01-02", true},
		{"held by a relay of another pipeline", busy("walpost/other"), "slot_foreign_holder", `"walpost/other" (pid 4242`, true},
		{"held by something else", busy("pg_recvlogical"), "slot_foreign_holder", `"pg_recvlogical"`, true},
		{"held by somebody unknown", busy(""), "slot_foreign_holder", `""`, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			facts := factsAt(startLSN)
			c.change(&facts)
			judge(t, available(testExpectation(), facts), c.want, c.text, c.retry)
		})
	}
}

func TestFingerprintChangesWithWhateverDecidesTheMessages(t *testing.T) {
	seen := map[string]bool{Fingerprint([]mapping.Table{outboxTable()}): true}
	for _, change := range []func(*mapping.Table){
		func(t *mapping.Table) { t.Schema = "other" },
		func(t *mapping.Table) { t.Name = "other" },
		func(t *mapping.Table) { t.Topic = "other" },
		func(t *mapping.Table) { t.Columns.ID = "other" },
		func(t *mapping.Table) { t.Columns.Payload = "other" },
		func(t *mapping.Table) { t.Columns.AggregateID, t.Columns.Type = "type", "aggregateid" },
	} {
		table := outboxTable()
		change(&table)
		if f := Fingerprint([]mapping.Table{table}); seen[f] {
			t.Errorf("%+v has a fingerprint that was there before", table)
		} else {
			seen[f] = true
		}
	}
}

// Every condition that some package can return must be in the registry: one
// that isn't has no remedy and would never be cleared. The sources are searched
// for the ways in which the packages name them.
func TestEveryConditionInTheRepositoryIsInTheRegistry(t *testing.T) {
	patterns := []*regexp.Regexp{
		regexp.MustCompile(`\bcond[A-Z]\w*\s*= "([a-z_]+)"`),             // constants
		regexp.MustCompile(`\bcondition(?:, e\.\w+)?\s*[:=]=? *"(\w+)"`), // fields
		regexp.MustCompile(`Condition\(\) string \{ return "(\w+)"`),
		regexp.MustCompile(`\bdoubtf\("(\w+)"`),
		regexp.MustCompile(`&doubt\{"(\w+)"`),
		regexp.MustCompile(`conditions\.(?:Set|Clear)\("(\w+)"`),
	}
	found := map[string]string{}
	for _, dir := range []string{"../replication", "../sink", "../checkpoint", "../outbox", "../relay", "../internal", "../cmd"} {
		for _, file := range sources(t, dir) {
			scan(t, file, patterns, found)
		}
	}
	for name, at := range found {
		if !slices.Contains(ConditionNames(), name) {
			t.Errorf("%s names condition %q, which is not in the registry", at, name)
		}
	}
	for _, name := range []string{"slot_busy", "poison_event", "checkpoint_too_new", "postgres_unreachable", "kafka_unreachable", "history_diverged", "stalled", "publication_changed"} {
		if found[name] == "" {
			t.Errorf("%s was not found: the patterns no longer match how conditions are written", name)
		}
	}
}

// sources lists the Go files below dir that are not tests.
func sources(t *testing.T, dir string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if os.IsNotExist(err) {
			return nil
		}
		if err == nil && !entry.IsDir() && strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func scan(t *testing.T, file string, patterns []*regexp.Regexp, found map[string]string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		for _, p := range patterns {
			for _, match := range p.FindAllStringSubmatch(lines.Text(), -1) {
				found[match[1]] = file
			}
		}
	}
}
