package relay

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/walpost/walpost/checkpoint"
	"github.com/walpost/walpost/outbox"
	"github.com/walpost/walpost/outbox/mapping"
	"github.com/walpost/walpost/replication"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const startLSN = 100 // of the slot and the checkpoint

// world is everything around a relay: a Postgres and a Kafka that do what the
// contracts say, and a journal of what the relay does to them.
type world struct {
	pg    *fakePostgres
	kafka *fakeKafka

	mu      sync.Mutex
	journal []string
	broken  []string // invariants that were violated
	acked   map[outbox.Position]bool
	read    []replication.Segment // what was handed out, in order
}

func newWorld() *world {
	w := &world{acked: map[outbox.Position]bool{}}
	w.pg = &fakePostgres{world: w, facts: factsAt(startLSN), sources: make(chan *fakeSource, 1000)}
	w.kafka = &fakeKafka{world: w, marks: map[string][]byte{}, sessions: make(chan *fakeSession, 1000), auto: true}
	w.kafka.put(recordAt(startLSN))
	return w
}

func (w *world) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.journal = append(w.journal, fmt.Sprintf(format, args...))
}

func (w *world) noted() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.journal)
}

// count tells how often a line is in the journal.
func (w *world) count(line string) (n int) {
	for _, l := range w.noted() {
		if l == line {
			n++
		}
	}
	return n
}

func (w *world) breach(format string, args ...any) {
	w.broken = append(w.broken, fmt.Sprintf(format, args...))
}

// verify fails the test if the relay has violated an invariant.
func (w *world) verify(t *testing.T) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, b := range w.broken {
		t.Error(b)
	}
}

// checkConfirm judges a confirmation: invariants 1 and 2.
func (w *world) checkConfirm(lsn uint64) {
	record := w.kafka.record()
	w.mu.Lock()
	defer w.mu.Unlock()
	if lsn > uint64(record.Confirmed) {
		w.breach("confirmed %d while the durable checkpoint stands at %d", lsn, record.Confirmed)
	}
	w.checkSettled("confirmed", lsn)
}

func (w *world) checkSettled(what string, lsn uint64) {
	var open []outbox.Position
	var commit uint64
	for _, seg := range w.read {
		if seg.Commit != commit { // the last one may have been left unfinished by a stream that failed
			commit, open = seg.Commit, open[:0]
		}
		for _, row := range seg.Rows {
			open = append(open, positionOf(seg, row))
		}
		if seg.End == 0 || seg.End > lsn {
			continue
		}
		for _, pos := range open {
			if !w.acked[pos] {
				w.breach("%s %d, past event %s, which is not acknowledged", what, lsn, pos)
			}
		}
		open = open[:0]
	}
}

func positionOf(seg replication.Segment, row replication.Row) outbox.Position {
	return outbox.Position{Generation: 1, Commit: seg.Commit, Index: row.Index}
}

// ends tells where a transaction that was read ends; false: nowhere yet.
func (w *world) ends(commit uint64) (uint64, bool) {
	for _, seg := range w.read {
		if seg.Commit == commit && seg.End != 0 {
			return seg.End, true
		}
	}
	return 0, false
}

// fakeObserver counts.
type fakeObserver struct {
	mu        sync.Mutex
	read      int
	settled   map[string]int
	duplicate int
	skipped   int
	restarted []string
}

func newFakeObserver() *fakeObserver { return &fakeObserver{settled: map[string]int{}} }

func (o *fakeObserver) Read(n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.read += n
}

func (o *fakeObserver) Settled(topic string, n int, _ time.Duration, duplicate bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.settled[topic] += n
	if duplicate {
		o.duplicate += n
	}
}

func (o *fakeObserver) Skipped(events int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.skipped += events
}

func (o *fakeObserver) Restarted(reason string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.restarted = append(o.restarted, reason)
}

func (w *world) config() Config {
	return Config{
		Pipeline: "trainings", Slot: "trainings", Tables: []mapping.Table{outboxTable()},
		Source: w.pg, Sink: w.kafka,
		Destination: func(context.Context) (string, error) { w.note("destination"); return "kafka-1", nil },
		Logger:      slog.New(slog.DiscardHandler), Observer: newFakeObserver(),
	}
}

// pipeline makes one with the defaults filled in.
func (w *world) pipeline(t *testing.T, change ...func(*Config)) *Pipeline {
	t.Helper()
	cfg := w.config()
	for _, c := range change {
		c(&cfg)
	}
	cfg, err := cfg.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	return newPipeline(cfg, newGauge(NewConditions(cfg.Logger)), hooks{accepted: func(string) {}, streaming: func() { w.note("streaming") }, flowing: func() { w.note("flowing") }})
}

func outboxTable() mapping.Table {
	return mapping.Table{
		Schema: "public", Name: "outbox", Topic: "event.{aggregate_type}",
		Columns: mapping.Columns{ID: "id", AggregateType: "aggregatetype", AggregateID: "aggregateid", Type: "type", Payload: "payload"},
	}
}

func factsAt(lsn uint64) replication.Facts {
	return replication.Facts{
		ServerVersion: 180000, SystemID: "7301", Timeline: 1, Database: "db", WALPosition: 1 << 40, WALLevel: "logical",
		Slot: &replication.Slot{Name: "trainings", Plugin: "pgoutput", Database: "db", ConfirmedFlush: lsn, RestartLSN: lsn, WALStatus: "reserved"},
		Publication: &replication.Publication{Name: "trainings", Insert: true, Tables: []replication.PublishedTable{
			{Schema: "public", Table: "outbox", OID: 4711},
		}},
	}
}

func recordAt(lsn uint64) checkpoint.Record {
	return checkpoint.Record{
		Pipeline: "trainings", SystemID: "7301", Database: "db", Timeline: 1, Slot: "trainings",
		Publication: factsAt(lsn).Publication.Fingerprint(), Configuration: Fingerprint([]mapping.Table{outboxTable()}),
		KafkaClusterID: "kafka-1", Generation: 1, Phase: checkpoint.Active, Confirmed: checkpoint.LSN(lsn),
		WrittenAt: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	}
}

// relation is what rows of the default table look like.
var relation = &replication.Relation{OID: 4711, Schema: "public", Table: "outbox", Columns: []replication.Column{
	{Name: "id", TypeOID: 2950}, {Name: "aggregatetype", TypeOID: 1043}, {Name: "aggregateid", TypeOID: 1043}, {Name: "type", TypeOID: 1043}, {Name: "payload", TypeOID: 25},
}}

// poisonRow stands in a list of ids for a row that can't be mapped.
const poisonRow = "poison"

// rows makes rows of a transaction, the first at index from.
func rows(from int, ids ...string) []replication.Row {
	list := make([]replication.Row, len(ids))
	for i, id := range ids {
		values := [][]byte{[]byte(id), []byte("offer"), []byte("aggregate"), []byte("type"), []byte("payload")}
		if id == poisonRow {
			values[1] = nil
		}
		list[i] = replication.Row{Rel: relation, Index: uint32(from + i), Values: values}
	}
	return list
}

func commitTime(commit uint64) time.Time { return time.Unix(1_700_000_000+int64(commit), 0).UTC() }

// part is a segment of the transaction that commits at commit. Its end is 0
// where it continues. XIDs equal commit LSNs, for convenience.
func part(commit, end uint64, rows []replication.Row) replication.Segment {
	return replication.Segment{Commit: commit, End: end, XID: uint32(commit), Time: commitTime(commit), Rows: rows}
}

// transaction is a whole one; it ends 5 after its commit.
func transaction(commit uint64, ids ...string) replication.Segment {
	return part(commit, commit+5, rows(0, ids...))
}

func keepalive(lsn uint64) replication.Segment { return replication.Segment{End: lsn} }

func batch(segments ...replication.Segment) *replication.Batch {
	b := &replication.Batch{Segments: segments}
	for _, seg := range segments {
		b.Rows += len(seg.Rows)
		b.WALEnd = max(b.WALEnd, seg.Commit, seg.End)
	}
	b.Bytes = 100 * b.Rows
	return b
}

func urgent(b *replication.Batch) *replication.Batch {
	b.Urgent = true
	return b
}

// conditionError is an error as the layers make them.
type conditionError struct {
	name  string
	final bool
}

func (e *conditionError) Error() string     { return "test: " + e.name }
func (e *conditionError) Condition() string { return e.name }
func (e *conditionError) Retryable() bool   { return !e.final }
