package relay

import (
	"fmt"
	"slices"

	"github.com/walpost/walpost/checkpoint"
	"github.com/walpost/walpost/outbox"
	"github.com/walpost/walpost/outbox/mapping"
	"github.com/walpost/walpost/replication"
)

// doubt is an answer of continuity: why it can't be proven, or not now.
type doubt struct {
	condition string
	text      string
	retry     bool // it may resolve itself
	own       bool // it is this relay itself that is in the way
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

	former uint32 // see Pipeline
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
		return &doubt{condition: "server_in_recovery", text: standbyText(facts.Slot), retry: true}
	case facts.ServerVersion < replication.MinServerVersion:
		return doubtf(unnamed, "the Postgres server has version %d; walpost needs 14 or newer", facts.ServerVersion/10000)
	case facts.Slot == nil:
		return nil // continuity tells whether there should be one
	case facts.Slot.Plugin != "pgoutput":
		return doubtf("wrong_cluster", "slot %s uses plugin %q, not pgoutput; give this pipeline a slot of its own (postgres.slot)", want.Slot, facts.Slot.Plugin)
	case facts.Slot.Database != facts.Database:
		return doubtf("wrong_cluster", "slot %s belongs to database %q, this is %q", want.Slot, facts.Slot.Database, facts.Database)
	case lost(facts.Slot):
		return doubtf("slot_lost", "Postgres has invalidated slot %s (%s): what it was to keep may be removed", want.Slot, lossReason(facts.Slot))
	case facts.Slot.Active:
		return holder(want, facts.Slot)
	}
	return nil
}

func standbyText(slot *replication.Slot) string {
	const text = "the Postgres server is in recovery: it is a standby that was not promoted"
	switch {
	case slot == nil:
		return text
	case slot.Synced:
		return text + "; it has a copy of slot " + slot.Name
	}
	return text + fmt.Sprintf("; its slot %s is no copy of the primary's", slot.Name)
}

func lost(slot *replication.Slot) bool {
	return slot.WALStatus == "lost" || slot.InvalidationReason != ""
}

// lossReason is the server's own word from 17 on.
func lossReason(slot *replication.Slot) string {
	switch {
	case slot.InvalidationReason != "":
		return slot.InvalidationReason
	case slot.Conflicting:
		return "conflict with recovery"
	}
	return "WAL removed"
}

func holder(want Expectation, slot *replication.Slot) error {
	if want.former != 0 && int64(slot.HolderPID) == int64(want.former) {
		return &doubt{condition: "slot_busy", retry: true, own: true,
			text: fmt.Sprintf("the server has not noticed yet that this relay's former connection is gone (pid %d), and it holds slot %s for it", slot.HolderPID, slot.Name)}
	}
	if slot.HolderName == ApplicationName(want.Pipeline) {
		return &doubt{condition: "slot_busy", text: fmt.Sprintf("slot %s is held by another walpost of this pipeline (pid %d, connected since %s)",
			slot.Name, slot.HolderPID, slot.HolderSince), retry: true}
	}
	return &doubt{condition: "slot_foreign_holder", text: fmt.Sprintf("slot %s is held by %q (pid %d, connected since %s), which is not a walpost of pipeline %s",
		slot.Name, slot.HolderName, slot.HolderPID, slot.HolderSince, want.Pipeline), retry: true}
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
	if record.Phase != checkpoint.Active {
		return doubtf("checkpoint_missing", "`walpost init` of pipeline %s has begun and not finished; run it again", want.Pipeline)
	}
	if err := descends(record, facts); err != nil {
		return err
	}
	switch {
	case slot == nil:
		return doubtf("slot_missing", "slot %s is gone; the checkpoint stands at %s", want.Slot, record.Confirmed)
	case lost(slot):
		return doubtf("slot_lost", "Postgres has invalidated slot %s (%s); the checkpoint stands at %s", want.Slot, lossReason(slot), record.Confirmed)
	case slot.ConfirmedFlush > uint64(shared(record, facts)):
		return doubtf("slot_ahead_of_checkpoint", "slot %s stands at %s, past the checkpoint at %s: somebody advanced or recreated it",
			want.Slot, checkpoint.LSN(slot.ConfirmedFlush), shared(record, facts))
	}
	return published(want, record.Publication, facts.Publication)
}

// descends checks that the server has in its past what the record was written
// about, as far as positions can tell.
func descends(record *checkpoint.Record, facts replication.Facts) error {
	if err := switched(record, facts, outbox.Position{}); err != nil {
		return err
	}
	if at := shared(record, facts); uint64(at) > facts.WALPosition {
		return doubtf("history_diverged", "the server's WAL ends at %s on timeline %d, before the checkpoint at %s: it was restored from an older state, or lost what it had not yet on disk",
			checkpoint.LSN(facts.WALPosition), facts.Timeline, at)
	}
	return nil
}

// shared is the checkpoint's position as far as it means the same on this server.
// What lies between a switch point and the checkpoint held no event, or switched
// would object.
func shared(record *checkpoint.Record, facts replication.Facts) checkpoint.LSN {
	if end, left := switchPoint(record, facts); left {
		return min(record.Confirmed, checkpoint.LSN(end))
	}
	return record.Confirmed
}

// switchPoint is where the server's history left the record's timeline, if it did.
func switchPoint(record *checkpoint.Record, facts replication.Facts) (end uint64, left bool) {
	at := slices.IndexFunc(facts.History, func(s replication.Switch) bool { return int64(s.Timeline) == int64(record.Timeline) })
	if at < 0 || int64(facts.Timeline) == int64(record.Timeline) {
		return 0, false
	}
	return facts.History[at].LSN, true
}

// switched checks that whatever was published before a promotion is also in the
// past of the server that was promoted. newest is the highest position that the
// sink holds of this pipeline, which may run ahead of the record; the zero one
// says that it doesn't.
//
// Below the switch point the WAL of both timelines is the same, at or above it
// the old one's transactions do not exist any more, and their positions will be
// used again. A commit record that begins below it ends there at the latest.
//
// The record must have taken over the new timeline before the first event of it
// is published: newest would else be mistaken for one of the old.
func switched(record *checkpoint.Record, facts replication.Facts, newest outbox.Position) error {
	was, is := int64(record.Timeline), int64(facts.Timeline)
	if was == is {
		return nil
	}
	if is < was {
		return doubtf("timeline_diverged", "the server is on timeline %d, and the checkpoint at %s was written on %d, a later one: the server was left behind at a promotion, or restored",
			is, record.Confirmed, was)
	}
	end, left := switchPoint(record, facts)
	if !left {
		return doubtf("timeline_diverged", "the server is on timeline %d, whose history (pg_wal/%08X.history) does not lead to timeline %d, on which the checkpoint at %s was written",
			is, is, was, record.Confirmed)
	}
	switch {
	case record.Last != nil && record.Last.Position.Commit >= end:
		return doubtf("timeline_diverged", "the server is on timeline %d, which left timeline %d at %s, before what was published: %s does not exist here",
			is, was, checkpoint.LSN(end), record.Last)
	case newest.Generation == record.Generation && newest.Commit >= end:
		return doubtf("timeline_diverged", "the server is on timeline %d, which left timeline %d at %s; Kafka holds an event that was committed at %s (position %s), which does not exist here",
			is, was, checkpoint.LSN(end), checkpoint.LSN(newest.Commit), newest)
	}
	return nil
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
			return doubtf("publication_changed", "publication %s does not cover every row of table %s.%s%s", pub.Name, t.Schema, t.Name, viaRootHint(pub))
		}
	}
	for _, t := range pub.Tables {
		if !slices.ContainsFunc(want.Tables, func(w mapping.Table) bool { return w.Schema == t.Schema && w.Name == t.Table }) {
			return doubtf("publication_changed", "publication %s also covers table %s.%s, which is no outbox of this pipeline", pub.Name, t.Schema, t.Table)
		}
	}
	if err := decoded(pub); err != nil {
		return err
	}
	if fingerprint != "" && fingerprint != pub.Fingerprint() {
		return doubtf("publication_changed", "publication %s, or a table in it, is not what it was when the checkpoint was written", pub.Name)
	}
	return nil
}

func viaRootHint(pub *replication.Publication) string {
	if pub.ViaRoot {
		return ""
	}
	return " (of a partitioned one only with publish_via_partition_root = true)"
}

// decoded finds partitions whose rows are not in the WAL. Postgres keeps none of
// them out of a publication, and none of their rows ever comes.
func decoded(pub *replication.Publication) error {
	for _, t := range pub.Tables {
		for _, part := range t.Partitions {
			if !part.Decoded {
				return doubtf("publication_changed", "partition %s of table %s.%s is UNLOGGED, or a foreign table: nothing that is inserted into it is ever published; "+
					"`ALTER TABLE %s SET LOGGED`, or detach it", part.Name, t.Schema, t.Table, part.Name)
			}
		}
	}
	return nil
}
