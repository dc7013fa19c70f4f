package relay

import (
	"context"

	"github.com/walpost/walpost/checkpoint"
	"github.com/walpost/walpost/replication"
)

// This file opens both ends of a life.

// open opens both ends in the order that doc.go explains.
func (p *Pipeline) open(ctx context.Context) error {
	want, record, err := p.askSink(ctx)
	if err != nil {
		return err
	}
	facts, err := p.takeSlot(ctx, want, record)
	if err != nil {
		return err
	}
	err = p.takeSink(ctx, want, record, facts)
	if err == nil {
		err = p.follow(ctx, facts)
	}
	if err != nil {
		p.abandon(ctx)
	}
	return err
}

// abandon closes what was opened. Nothing was sent.
func (p *Pipeline) abandon(ctx context.Context) {
	if p.session != nil {
		_ = p.session.Close(ctx)
	}
	p.source.Close()
}

// askSink finds out what can be known without touching Postgres or fencing
// anybody. While the sink can't be reached, that is all that is tried.
func (p *Pipeline) askSink(ctx context.Context) (Expectation, *checkpoint.Record, error) {
	p.gauge.turn()
	ctx, cancel := p.bounded(ctx, "look at the sink", "kafka_unreachable")
	defer cancel()
	destination, err := p.cfg.Destination(ctx)
	if err != nil {
		return Expectation{}, nil, err
	}
	marks, err := p.cfg.Sink.Marks(ctx)
	if err != nil {
		return Expectation{}, nil, err
	}
	p.hooks.accepted("kafka_auth_failed")
	record, err := p.decode(marks)
	want := p.cfg.expect(destination)
	want.former = p.former
	return want, record, err
}

// bounded gives a step its time. One that takes longer has failed because the
// side it talks to can't be reached.
func (p *Pipeline) bounded(ctx context.Context, step, condition string) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, p.cfg.OpenTimeout, &late{step, p.cfg.OpenTimeout, condition})
}

func (c Config) expect(destination string) Expectation {
	return Expectation{Pipeline: c.Pipeline, Slot: c.Slot, Destination: destination, Tables: c.Tables}
}

// ApplicationName is what relays of a pipeline call themselves to Postgres.
func ApplicationName(pipeline string) string { return "walpost/" + pipeline }

func (p *Pipeline) decode(marks map[string][]byte) (*checkpoint.Record, error) {
	mark, found := marks[checkpoint.MarkName(p.cfg.Pipeline, p.cfg.Shard)]
	if !found {
		return nil, nil
	}
	return checkpoint.Decode(mark)
}

// takeSlot connects to Postgres and starts streaming, if the server is the
// right one, and usable.
func (p *Pipeline) takeSlot(ctx context.Context, want Expectation, record *checkpoint.Record) (replication.Facts, error) {
	p.gauge.turn()
	ctx, cancel := p.bounded(ctx, "take the slot", "postgres_unreachable")
	defer cancel()
	conn, facts, err := p.cfg.Source.Dial(ctx)
	if err != nil {
		return facts, err
	}
	p.hooks.accepted("postgres_auth_failed")
	p.gauge.server(facts.WALPosition)
	err = identity(want, record, facts)
	if err == nil {
		err = available(want, facts)
	}
	if err == nil && facts.Slot == nil {
		err = continuity(want, record, facts)
	}
	if err != nil {
		_ = conn.Close(ctx)
		return facts, err
	}
	p.backend = facts.BackendPID
	p.source, err = conn.Start(ctx)
	return facts, err
}

// takeSink fences every predecessor, and judges continuity by what they left.
func (p *Pipeline) takeSink(ctx context.Context, want Expectation, before *checkpoint.Record, facts replication.Facts) error {
	p.gauge.turn()
	ctx, cancel := p.bounded(ctx, "open the sink", "kafka_unreachable")
	defer cancel()
	p.flight = newFlight(p.cfg)
	session, marks, err := p.cfg.Sink.Open(ctx, p.flight.settle)
	if err != nil {
		return err
	}
	p.session = session
	return p.prove(want, before, marks, facts)
}

func (p *Pipeline) prove(want Expectation, before *checkpoint.Record, marks map[string][]byte, facts replication.Facts) error {
	record, err := p.decode(marks)
	if err != nil {
		return err
	}
	if err := continuity(want, record, facts); err != nil {
		if before != nil && record != nil && record.Confirmed > before.Confirmed {
			return another(err.Error()) // the facts are older than the slot's ownership
		}
		return err
	}
	mapper, err := p.cfg.mapper(record.SystemID, record.Database)
	if err != nil {
		return err
	}
	p.record, p.publication = *record, record.Publication
	p.record.Confirmed = shared(record, facts)
	p.origin = origin{facts.SystemID, facts.Timeline}
	p.record.Configuration = Fingerprint(p.cfg.Tables)
	p.intake = newIntake(mapper, record.Generation)
	p.resumption = &resumption{identify: p.intake.identify, caughtUp: p.caughtUp, remapped: record.Configuration != p.record.Configuration}
	p.resumption.begin(&p.record, facts.Slot.ConfirmedFlush)
	if before != nil && record.Confirmed > before.Confirmed {
		p.resumption.hasty = another("the slot has moved on since it was looked at")
	}
	p.gauge.stands(facts.Slot.ConfirmedFlush)
	return nil
}

// another says that another relay was at work between looking at the slot and
// fencing it: what it did must not pass for a break in history.
func another(instead string) error {
	return &doubt{condition: "slot_busy", text: "another walpost of this pipeline was at work while this one was opening: " + instead, retry: true}
}

func (p *Pipeline) caughtUp(dropped int) {
	p.cfg.Observer.Skipped(dropped)
	p.cfg.Logger.Info("skipped the events that the checkpoint covers", "pipeline", p.cfg.Pipeline, "events", dropped)
}

// follow makes the checkpoint follow the server to another timeline, if nothing
// was published that does not exist there. It is written before the first event of the
// new timeline is sent, which would pass for one of the old otherwise. Looking at
// what was published may take long; the sink sees to it that it gets on.
func (p *Pipeline) follow(ctx context.Context, facts replication.Facts) error {
	if int64(p.record.Timeline) == int64(facts.Timeline) {
		return nil
	}
	newest, err := p.session.Newest(ctx, p.cfg.source(p.record.SystemID, p.record.Database))
	if err != nil {
		return err
	}
	if err := switched(&p.record, facts, newest); err != nil {
		return err
	}
	p.cfg.Logger.Info("the server was promoted; nothing published is missing there", "pipeline", p.cfg.Pipeline, "timeline", facts.Timeline, "before", p.record.Timeline)
	p.record.Timeline = uint32(facts.Timeline) //nolint:gosec // positive
	return p.write(ctx, point{})
}
