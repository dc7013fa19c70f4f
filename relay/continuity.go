package relay

import (
	"fmt"
	"slices"

	"github.com/walpost/walpost/checkpoint"
	"github.com/walpost/walpost/outbox/mapping"
	"github.com/walpost/walpost/replication"
)

// doubt is an answer of continuity: why it can't be proven, or not now.
type doubt struct {
	condition string
	text      string
	retry     bool // it may resolve itself
}

func (d *doubt) Error() string     { return d.text }
func (d *doubt) Condition() string { return d.condition }
func (d *doubt) Retryable() bool   { return d.retry }
func (d *doubt) ExitCode() int     { return define(d.condition).exit }

// unnamed is the condition of a server that can't be used and says nothing about
// history: a mistake in the set-up, exit code 1.
const unnamed = ""

func doubtf(condition, format string, args ...any) error {
	return &doubt{condition: condition, text: fmt.Sprintf(format, args...)}
}

// Expectation is what a relay takes itself to be: a checkpoint and a server that
// say otherwise are somebody else's.
type Expectation struct {
	Pipeline    string
	Slot        string
	Destination string // what the sink publishes to
	Tables      []mapping.Table
}

// Identity checks that the record was written for this pipeline and this
// database; a nil record belongs to nobody. Like the two below it is pure, and
// is for those who act on a checkpoint without running a pipeline.
func (e Expectation) Identity(record *checkpoint.Record, facts replication.Facts) error {
	return identity(e, record, facts)
}

// Continuity checks that reading on from the slot continues what the record says
// was done.
func (e Expectation) Continuity(record *checkpoint.Record, facts replication.Facts) error {
	return continuity(e, record, facts)
}

// Published checks that the publication lets through every event, and nothing
// that is none.
func (e Expectation) Published(pub *replication.Publication) error {
	return published(e, "", pub)
}

// identity checks that the record was written for this pipeline and this
// database. It is asked before anybody is fenced, so it judges only what no
// running predecessor changes.
func identity(want Expectation, record *checkpoint.Record, facts replication.Facts) error {
	if record == nil {
		return nil
	}
	for _, c := range []struct{ what, found, want string }{
		{"pipeline", record.Pipeline, want.Pipeline},
		{"slot", record.Slot, want.Slot},
		{"Postgres cluster (system identifier)", record.SystemID, facts.SystemID},
		{"database", record.Database, facts.Database},
		{"Kafka cluster", record.KafkaClusterID, want.Destination},
	} {
		if c.found != c.want {
			return doubtf("wrong_cluster", "the checkpoint belongs to %s %q, this is %q", c.what, c.found, c.want)
		}
	}
	return nil
}

// available checks what the server must offer before the slot can be taken,
// whatever the checkpoint says.
func available(want Expectation, facts replication.Facts) error {
	switch {
	case facts.InRecovery:
		return &doubt{"server_in_recovery", "the Postgres server is in recovery: it is a standby, or not promoted yet", true}
	case facts.ServerVersion < replication.MinServerVersion:
		return doubtf(unnamed, "the Postgres server has version %d; walpost needs 14 or newer", facts.ServerVersion/10000)
	case facts.Slot == nil:
		return nil // continuity tells whether there should be one
	case facts.Slot.Plugin != "pgoutput":
		return doubtf("wrong_cluster", "slot %s uses plugin %q, not pgoutput; give this pipeline a slot of its own (postgres.slot)", want.Slot, facts.Slot.Plugin)
	case facts.Slot.Database != facts.Database:
		return doubtf("wrong_cluster", "slot %s belongs to database %q, this is %q", want.Slot, facts.Slot.Database, facts.Database)
	case facts.Slot.Active:
		return holder(want, facts.Slot)
	}
	return nil
}

func holder(want Expectation, slot *replication.Slot) error {
	if slot.HolderName == ApplicationName(want.Pipeline) {
		return &doubt{"slot_busy", fmt.Sprintf("slot %s is held by another walpost of this pipeline (pid %d, connected since %s)",
			slot.Name, slot.HolderPID, slot.HolderSince), true}
	}
	return &doubt{"slot_foreign_holder", fmt.Sprintf("slot %s is held by %q (pid %d, connected since %s), which is not a walpost of pipeline %s",
		slot.Name, slot.HolderName, slot.HolderPID, slot.HolderSince, want.Pipeline), true}
}

// continuity decides whether reading on from the slot continues what the
// record says was done: nil means that every event since has been, or will be,
// read. It is a pure function of the two; facts must be older than the record.
func continuity(want Expectation, record *checkpoint.Record, facts replication.Facts) error {
	slot := facts.Slot
	switch {
	case record == nil && slot == nil:
		return doubtf("checkpoint_missing", "there is neither a checkpoint nor slot %s: pipeline %s was never initialised here", want.Slot, want.Pipeline)
	case record == nil:
		return doubtf("checkpoint_missing", "slot %s exists, but there is no checkpoint for pipeline %s", want.Slot, want.Pipeline)
	}
	if err := identity(want, record, facts); err != nil {
		return err
	}
	switch {
	case record.Phase != checkpoint.Active:
		return doubtf("checkpoint_missing", "`walpost init` of pipeline %s has begun and not finished; run it again", want.Pipeline)
	case slot == nil:
		return doubtf("slot_missing", "slot %s is gone; the checkpoint stands at %s", want.Slot, record.Confirmed)
	case slot.WALStatus == "lost":
		return doubtf("slot_lost", "Postgres has invalidated slot %s and removed WAL it needed; the checkpoint stands at %s", want.Slot, record.Confirmed)
	case slot.ConfirmedFlush > uint64(record.Confirmed):
		return doubtf("slot_ahead_of_checkpoint", "slot %s stands at %s, past the checkpoint at %s: somebody advanced or recreated it",
			want.Slot, checkpoint.LSN(slot.ConfirmedFlush), record.Confirmed)
	case int64(facts.Timeline) != int64(record.Timeline):
		return doubtf("timeline_diverged", "the server is on timeline %d, the checkpoint was written on %d at %s", facts.Timeline, record.Timeline, record.Confirmed)
	case uint64(record.Confirmed) > facts.WALPosition:
		return doubtf("history_diverged", "the server's WAL ends at %s, before the checkpoint at %s: it was restored from an older state",
			checkpoint.LSN(facts.WALPosition), record.Confirmed)
	}
	return published(want, record.Publication, facts.Publication)
}

// published checks that the publication lets every event through, as it did
// when the record was written. An empty fingerprint is not compared.
func published(want Expectation, fingerprint string, pub *replication.Publication) error {
	if pub == nil {
		return doubtf("publication_missing", "the publication does not exist")
	}
	if !pub.Insert {
		return doubtf("publication_changed", "publication %s does not publish inserts", pub.Name)
	}
	for _, t := range want.Tables {
		if !pub.Covers(t.Schema, t.Name) {
			return doubtf("publication_changed", "publication %s does not cover every row of table %s.%s", pub.Name, t.Schema, t.Name)
		}
	}
	for _, t := range pub.Tables {
		if !slices.ContainsFunc(want.Tables, func(w mapping.Table) bool { return w.Schema == t.Schema && w.Name == t.Table }) {
			return doubtf("publication_changed", "publication %s also covers table %s.%s, which is no outbox of this pipeline", pub.Name, t.Schema, t.Table)
		}
	}
	if fingerprint != "" && fingerprint != pub.Fingerprint() {
		return doubtf("publication_changed", "publication %s, or a table in it, is not what it was when the checkpoint was written", pub.Name)
	}
	return nil
}
