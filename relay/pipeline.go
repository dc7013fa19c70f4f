package relay

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/walpost/walpost/checkpoint"
	"github.com/walpost/walpost/replication"
	"github.com/walpost/walpost/sink"
)

// Pipeline is one life of a relay: it opens both ends, streams until something
// ends that, and winds up. It never tries again, and is run once.
type Pipeline struct {
	cfg   Config
	gauge *gauge
	hooks hooks

	source     Source
	session    sink.Session
	flight     *flight
	intake     *intake
	resumption *resumption
	delivery   delivery
	published  string // fingerprint of the publication

	// Of the goroutine that commits.
	record       checkpoint.Record // as it was last written, or read
	confirmedLSN uint64            // last given to Postgres

	flowing bool // hooks.flowing was called; of the goroutine that watches
}

// delivery is the way of events from the source into the sink, which depends on
// the kind of sink.
type delivery interface {
	// start starts the goroutines of a life. They end when life does, except for
	// what must not be interrupted, which has until lasting ends.
	start(life, lasting context.Context, group *errgroup.Group)
	// finish brings to an end what they have begun, after they have ended.
	finish(ctx context.Context) error
}

// hooks tell how far a pipeline has come.
type hooks struct {
	// accepted: a server has accepted the credentials whose refusal is the
	// named condition.
	accepted func(condition string)
	// streaming: both ends are open and continuity is proven.
	streaming func()
	// flowing: events get through, or none are there. Until then a pipeline
	// may be about to fail for what its predecessor failed for.
	flowing func()
}

func newPipeline(cfg Config, g *gauge, h hooks) *Pipeline {
	return &Pipeline{cfg: cfg, gauge: g, hooks: h}
}

// Run lives once. It returns nil only if ctx was cancelled and everything that
// had been read was settled and confirmed.
func (p *Pipeline) Run(ctx context.Context) error {
	if err := p.open(ctx); err != nil {
		if ctx.Err() != nil {
			return nil //nolint:nilerr // stopped as asked, and nothing had been read
		}
		return err
	}
	p.hooks.streaming()
	return p.stream(ctx)
}

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
	if err := p.takeSink(ctx, want, record, facts); err != nil {
		p.source.Close()
		return err
	}
	return nil
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
	return p.cfg.expect(destination), record, err
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
	if err := p.prove(want, before, marks, facts); err != nil {
		_ = session.Close(ctx)
		return err
	}
	p.session = session
	return nil
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
	p.record, p.published = *record, record.Publication
	p.record.Configuration = Fingerprint(p.cfg.Tables)
	p.intake = newIntake(mapper, record.Generation)
	p.resumption = resume(record, facts.Slot.ConfirmedFlush, p.intake)
	p.resumption.caughtUp = p.caughtUp
	if before != nil && record.Confirmed > before.Confirmed {
		p.resumption.hasty = another("the slot has moved on since it was looked at")
	}
	p.gauge.stands(facts.Slot.ConfirmedFlush)
	return nil
}

// another says that another relay was at work between looking at the slot and
// fencing it: what it did must not pass for a break in history.
func another(instead string) error {
	return &doubt{"slot_busy", "another walpost of this pipeline was at work while this one was opening: " + instead, true}
}

func (p *Pipeline) caughtUp(dropped int) {
	p.cfg.Observer.Skipped(dropped)
	p.cfg.Logger.Info("skipped the events that the checkpoint covers", "pipeline", p.cfg.Pipeline, "events", dropped)
}

// stream runs the goroutines of a life until one of them fails or ctx ends,
// then winds up. Send and Commit get a context that outlasts the life by its
// patience: interrupting them would end the session, and with it the chance to
// settle what is in flight.
func (p *Pipeline) stream(ctx context.Context) error {
	group, life := errgroup.WithContext(ctx)
	lasting, cut := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cut(nil)
	var patience *time.Timer
	p.delivery = p.chooseDelivery()
	p.delivery.start(life, lasting, group)
	group.Go(func() error { return p.monitor(life) })
	group.Go(func() error {
		err := p.watch(life) // returns when the life is over, whatever ended it
		asked := ctx.Err() != nil
		p.gauge.enter(ending(asked))
		patience = time.AfterFunc(p.patience(asked), func() { cut(context.DeadlineExceeded) })
		return err
	})
	cause := group.Wait()
	defer patience.Stop()
	if err := p.windUp(lasting); ctx.Err() != nil {
		return err
	}
	return cause
}

func (p *Pipeline) chooseDelivery() delivery {
	if p.cfg.Sink.Atomic() {
		return newTransactional(p)
	}
	return newContinuous(p)
}

// watch reports the end of either side, which a goroutine that waits for the
// other would not see. Meanwhile it takes stock: whoever else might is waiting
// for the sink just when there is something to tell.
func (p *Pipeline) watch(ctx context.Context) error {
	tick := time.NewTicker(p.cfg.CheckpointInterval)
	defer tick.Stop()
	for {
		select {
		case <-p.session.Done():
			return sessionError(p.session)
		case <-p.source.Done():
			return p.source.Err()
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			p.look()
		}
	}
}

// look takes stock of the flight.
func (p *Pipeline) look() {
	p.gauge.turn()
	v := p.flight.level()
	if v.flowing && !p.flowing {
		p.flowing = true
		p.hooks.flowing()
	}
	p.gauge.fly(v, p.cfg.StallAfter)
}

func sessionError(s sink.Session) error {
	if err := s.Err(); err != nil {
		return err
	}
	return errors.New("the sink's session was closed")
}
