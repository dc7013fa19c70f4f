package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/walpost/walpost/checkpoint"
	"github.com/walpost/walpost/internal/config"
	"github.com/walpost/walpost/migrations"
	"github.com/walpost/walpost/relay"
	"github.com/walpost/walpost/replication"
	"github.com/walpost/walpost/sink/kafka"
)

// slotTimeout bounds making a slot, which waits for open transactions.
const slotTimeout = 30 * time.Second

// Init prepares a pipeline, and is safe to repeat: intent, table, publication,
// slot, genesis record, in this order. The order is what makes it safe: a slot
// without a record stops `walpost run`, and the intent tells a repeated Init
// that a slot it finds is its own.
func Init(ctx context.Context, cfg *config.Config, opts InitOptions, out io.Writer) error {
	steps, err := migrations.Render(migrationParams(cfg))
	if err != nil {
		return fmt.Errorf("init: %w", err)
	}
	if opts.PrintSQL {
		return printSQL(out, steps)
	}
	sink, err := kafkaSink(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	i := &initialisation{cfg: cfg, opts: opts, out: out, sink: sink, steps: steps}
	return advise(i.run(ctx))
}

// advise adds the remedy of an error's condition where the error has none of
// its own. What init itself refuses says in its text what to do.
func advise(err error) error {
	var own *refused
	if remedy := relay.Remedy(err); err != nil && remedy != "" && !errors.As(err, &own) {
		return &advised{err, remedy}
	}
	return err
}

// advised is an error and what an operator can do about it.
type advised struct {
	error
	remedy string
}

func (a *advised) Unwrap() error  { return a.error }
func (a *advised) Remedy() string { return a.remedy }

// initialisation is one run of Init.
type initialisation struct {
	cfg   *config.Config
	opts  InitOptions
	out   io.Writer
	sink  *kafka.Sink
	steps []migrations.Step

	destination string
	record      *checkpoint.Record // as found; nil: none
}

func (i *initialisation) run(ctx context.Context) error {
	if err := i.findRecord(ctx); err != nil {
		return err
	}
	facts, err := i.facts(ctx)
	if err != nil {
		return err
	}
	step, err := i.decide(facts)
	if err != nil {
		return err
	}
	if step == alreadyDone {
		if err := i.expectation().Continuity(i.record, facts); err != nil {
			return fmt.Errorf("init: %w", err)
		}
	}
	if i.opts.DryRun {
		i.say("dry run: nothing was changed; next: %s", step.describe(i.cfg))
		return nil
	}
	if step == alreadyDone {
		return i.finish(ctx, facts)
	}
	if err := i.writeIntent(ctx, facts); err != nil {
		return err
	}
	if err := i.provision(ctx, facts); err != nil {
		return err
	}
	return i.begin(ctx, step)
}

// step is what remains to be done about the slot.
type step int

const (
	alreadyDone step = iota
	makeSlot
	adoptSlot
)

func (s step) describe(cfg *config.Config) string {
	switch s {
	case makeSlot:
		return fmt.Sprintf("make what is missing of table %s, publication %s and slot %s, then write the checkpoint", cfg.Outbox.Table, cfg.Postgres.Publication, cfg.Postgres.Slot)
	case adoptSlot:
		return fmt.Sprintf("adopt slot %s at its confirmed position and write the checkpoint", cfg.Postgres.Slot)
	default:
		return "nothing, the pipeline is initialised"
	}
}

// decide is pure: what is there, and what was asked for, say what to do. A
// checkpoint that is somebody else's is replaced only by whoever says so: its
// relay would be fenced and lose its place.
func (i *initialisation) decide(facts replication.Facts) (step, error) {
	if err := i.expectation().Identity(i.record, facts); err != nil && !i.opts.AdoptSlot {
		return 0, refusal("wrong_cluster", "%v; give this pipeline a name of its own, or, if this is what became of that one, make a slot and say `walpost init --adopt-slot`", err)
	}
	active := i.record != nil && i.record.Phase == checkpoint.Active
	switch slot := facts.Slot; {
	case slot == nil && i.opts.AdoptSlot:
		return 0, refusal("slot_missing", "there is no slot %s to adopt", i.cfg.Postgres.Slot)
	case slot == nil && active && i.opts.Existing == "":
		return 0, refusal("slot_missing", "slot %s is gone, and the checkpoint stands at %s: rows that were not published before it went are in no WAL that can be read any more. "+
			"`walpost init --existing=ignore` makes a new slot, as generation %d, and leaves those rows unpublished", i.cfg.Postgres.Slot, i.record.Confirmed, i.record.Generation+1)
	case slot == nil:
		return makeSlot, nil
	case slot.Active:
		return 0, refusal("slot_busy", "slot %s is held by %q (pid %d); stop it first", slot.Name, slot.HolderName, slot.HolderPID)
	case i.opts.AdoptSlot:
		return adoptSlot, nil
	case active:
		return alreadyDone, nil
	case i.record != nil: // an intent: an earlier init made the slot and got no further
		return adoptSlot, nil
	default:
		return 0, refusal("checkpoint_missing", "slot %s exists, and no `walpost init` of pipeline %s has made it; `walpost init --adopt-slot` starts from its position", slot.Name, i.cfg.Pipeline)
	}
}

// refused is an answer of decide.
type refused struct{ condition, text string }

func (r *refused) Error() string     { return "init: " + r.text }
func (r *refused) Condition() string { return r.condition }
func (r *refused) ExitCode() int     { return relay.ExitContinuity }

func refusal(condition, format string, args ...any) error {
	return &refused{condition, fmt.Sprintf(format, args...)}
}

func (i *initialisation) findRecord(ctx context.Context) error {
	var err error
	if i.destination, err = i.sink.ClusterID(ctx); err != nil {
		return fmt.Errorf("init: %w", err)
	}
	if !i.opts.DryRun {
		if err := i.sink.EnsureCheckpointTopic(ctx); err != nil {
			return fmt.Errorf("init: %w", err)
		}
		i.say("checkpoint topic %s: ready", i.cfg.Kafka.Checkpoint.Topic)
	}
	marks, err := i.sink.Marks(ctx)
	if err != nil {
		return fmt.Errorf("init: %w", err)
	}
	mark, found := marks[checkpoint.MarkName(i.cfg.Pipeline, shard)]
	if !found {
		return nil
	}
	i.record, err = checkpoint.Decode(mark)
	var unreadable *checkpoint.UnreadableError
	if errors.As(err, &unreadable) && i.opts.AdoptSlot {
		i.say("checkpoint: unreadable, replaced as asked (%v)", unreadable.Err)
		return nil
	}
	return err
}

func (i *initialisation) expectation() relay.Expectation {
	return relay.Expectation{Pipeline: i.cfg.Pipeline, Slot: i.cfg.Postgres.Slot, Destination: i.destination, Tables: tables(i.cfg)}
}

func (i *initialisation) facts(ctx context.Context) (replication.Facts, error) {
	conn, facts, err := replication.Dial(ctx, replicationConfig(i.cfg))
	if err != nil {
		return facts, fmt.Errorf("init: %w", err)
	}
	_ = conn.Close(ctx)
	if facts.InRecovery {
		return facts, refusal("server_in_recovery", "the Postgres server is in recovery; init needs the primary")
	}
	if facts.WALLevel != "logical" {
		return facts, fmt.Errorf("init: wal_level is %q; set wal_level = logical in postgresql.conf and restart Postgres", facts.WALLevel)
	}
	return facts, nil
}

// begin takes or makes the slot and writes the genesis record.
func (i *initialisation) begin(ctx context.Context, step step) error {
	conn, facts, err := replication.Dial(ctx, replicationConfig(i.cfg))
	if err != nil {
		return fmt.Errorf("init: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if err := i.expectation().Published(facts.Publication); err != nil {
		return refusal("publication_changed", "%v; `walpost init --print-sql` shows how the publication is made", err)
	}
	var position uint64
	if step == adoptSlot {
		position, err = i.adopt(facts)
	} else {
		position, err = i.makeSlot(ctx, conn)
	}
	if err != nil {
		return err
	}
	return i.writeGenesis(ctx, facts, step, position)
}

// inherit makes a new record take over what the one before says. A slot that is
// adopted may be behind it, when Postgres has crashed: what it covers is not
// published again.
func (i *initialisation) inherit(record *checkpoint.Record, facts replication.Facts, step step) {
	old := i.record
	if old == nil || old.Phase != checkpoint.Active {
		return
	}
	record.Generation = old.Generation + 1
	if step == adoptSlot && old.Timeline == record.Timeline && i.expectation().Identity(old, facts) == nil {
		record.Confirmed, record.Last = max(record.Confirmed, old.Confirmed), old.Last
	}
}

func (i *initialisation) adopt(facts replication.Facts) (uint64, error) {
	slot := facts.Slot
	if slot == nil || slot.Plugin != "pgoutput" || slot.ConfirmedFlush == 0 {
		return 0, refusal("slot_missing", "slot %s is not a logical slot of plugin pgoutput with a position", i.cfg.Postgres.Slot)
	}
	i.say("slot %s: adopted at %s", slot.Name, checkpoint.LSN(slot.ConfirmedFlush))
	if facts.LacksFailover() {
		i.say("slot %s: standbys get no copy of it, so a promotion leaves it behind; on a replication connection, `ALTER_REPLICATION_SLOT %s (FAILOVER true)` changes that", slot.Name, slot.Name)
	}
	return slot.ConfirmedFlush, nil
}

// makeSlot makes the slot, and takes it back if rows are older than it and
// nobody has said what is to become of them.
func (i *initialisation) makeSlot(ctx context.Context, conn *replication.Conn) (uint64, error) {
	bounded, cancel := context.WithTimeout(ctx, slotTimeout)
	defer cancel()
	created, err := conn.CreateSlot(bounded)
	if err != nil {
		return 0, fmt.Errorf("init: %w", err)
	}
	if err := i.judgeExisting(ctx, created.Snapshot); err != nil {
		return 0, errors.Join(err, conn.DropSlot(context.WithoutCancel(ctx)))
	}
	i.say("slot %s: created at %s", i.cfg.Postgres.Slot, checkpoint.LSN(created.ConsistentPoint))
	return created.ConsistentPoint, nil
}

func (i *initialisation) writeIntent(ctx context.Context, facts replication.Facts) error {
	if i.record != nil && i.record.Phase == checkpoint.Active {
		return nil // it stays the better record until the new one is there
	}
	record := i.newRecord(facts)
	record.Phase = checkpoint.Intent
	return i.write(ctx, record)
}

func (i *initialisation) writeGenesis(ctx context.Context, facts replication.Facts, step step, position uint64) error {
	record := i.newRecord(facts)
	record.Phase = checkpoint.Active
	record.Confirmed = checkpoint.LSN(position)
	record.Publication = facts.Publication.Fingerprint()
	i.inherit(&record, facts, step)
	if err := i.write(ctx, record); err != nil {
		return err
	}
	i.say("checkpoint: written at %s, generation %d", record.Confirmed, record.Generation)
	i.say("pipeline %s is initialised; `walpost run` starts it", i.cfg.Pipeline)
	return nil
}

func (i *initialisation) newRecord(facts replication.Facts) checkpoint.Record {
	return checkpoint.Record{
		Pipeline: i.cfg.Pipeline, SystemID: facts.SystemID, Database: facts.Database, Timeline: uint32(facts.Timeline), //nolint:gosec // never negative
		Slot: i.cfg.Postgres.Slot, Configuration: relay.Fingerprint(tables(i.cfg)), KafkaClusterID: i.destination,
		Generation: 1, WrittenAt: time.Now(),
	}
}

func (i *initialisation) write(ctx context.Context, record checkpoint.Record) error {
	mark, err := record.Encode()
	if err != nil {
		return fmt.Errorf("init: %w", err)
	}
	name := checkpoint.MarkName(i.cfg.Pipeline, shard)
	if err := i.sink.WriteMarks(ctx, map[string][]byte{name: mark}); err != nil {
		return fmt.Errorf("init: write checkpoint: %w", err)
	}
	return nil
}

// finish is what a repeated Init of a complete pipeline does: look.
func (i *initialisation) finish(ctx context.Context, facts replication.Facts) error {
	conn, err := i.connect(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if err := i.checkTable(ctx, conn); err != nil {
		return err
	}
	i.say("slot %s: exists, confirmed %s", facts.Slot.Name, checkpoint.LSN(facts.Slot.ConfirmedFlush))
	i.say("checkpoint: exists, confirmed %s, generation %d", i.record.Confirmed, i.record.Generation)
	i.say("pipeline %s is initialised; nothing to do", i.cfg.Pipeline)
	return nil
}

func (i *initialisation) say(format string, args ...any) {
	_, _ = fmt.Fprintf(i.out, format+"\n", args...)
}
