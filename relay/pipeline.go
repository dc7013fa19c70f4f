package relay

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/walpost/walpost/checkpoint"
	"github.com/walpost/walpost/sink"
)

// Pipeline is one life of a relay: it opens both ends, streams until something
// ends that, and winds up. It never tries again, and is run once.
type Pipeline struct {
	cfg   Config
	gauge *gauge
	hooks hooks

	source      Source
	session     sink.Session
	flight      *flight
	intake      *intake
	resumption  *resumption
	delivery    delivery
	origin      origin
	publication string // its fingerprint

	// Of the goroutine that commits.
	record       checkpoint.Record // as it was last written, or read
	confirmedLSN uint64            // last given to Postgres

	former  uint32 // the server's process for this relay's stream before this life; 0: none
	backend uint32 // the same of this life
	flowing bool   // hooks.flowing was called; of the goroutine that watches
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
		if p.lostSlot() {
			cut(errSlotLost)
		}
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
