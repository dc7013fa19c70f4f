package relay

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"
)

// continuous is the delivery into a sink that shows each event as soon as it
// holds it, the way of `delivery: idempotent`: feed sends whatever is read as it
// comes, while confirm follows behind with the settled prefix.
type continuous struct {
	*Pipeline
	urgent chan struct{} // the server waits for a confirmation; capacity 1

	sent       uint64 // messages that the session has taken; of feed
	remembered uint64 // messages that the record speaks of; of confirm
}

func newContinuous(p *Pipeline) *continuous {
	return &continuous{Pipeline: p, urgent: make(chan struct{}, 1)}
}

func (d *continuous) start(life, lasting context.Context, group *errgroup.Group) {
	group.Go(func() error { return d.feed(life, lasting) })
	group.Go(func() error { return d.confirm(life, lasting) })
}

// feed moves batches from the source into the sink. When ctx has ended it takes
// no more; what it was about to send may still be sent until lasting ends.
func (d *continuous) feed(ctx, lasting context.Context) error {
	for {
		batch, l, unmappable, err := d.next(ctx)
		if err != nil {
			return err
		}
		urgent := batch.Urgent // before the batch is recycled
		if l == nil {
			d.flight.landAll(batch.Segments)
			batch.Recycle()
		} else if err := d.send(lasting, l); err != nil {
			return err
		}
		if unmappable != nil {
			return unmappable
		}
		if urgent {
			d.hurry()
		}
	}
}

// hurry asks confirm not to wait for its interval: a server that shuts down
// waits until everything it has sent is confirmed.
func (d *continuous) hurry() {
	select {
	case d.urgent <- struct{}{}:
	default:
	}
}

func (d *continuous) send(ctx context.Context, l *load) error {
	if len(l.messages) == 0 {
		return nil // the batch's first row could not be mapped
	}
	taken, err := d.session.Send(ctx, l.messages)
	d.flight.taken(l)
	d.sent += uint64(taken) //nolint:gosec // a count
	return err
}

// ticks of a checkpoint interval.
const ticks = 4

// confirm writes the checkpoint and confirms it, at every interval in which
// events were settled, more rarely while only foreign WAL passes, and at once
// when the server is waiting for it.
func (d *continuous) confirm(ctx, lasting context.Context) error {
	tick := time.NewTicker(d.cfg.CheckpointInterval / ticks)
	defer tick.Stop()
	last := time.Now()
	for {
		urgent := false
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-d.urgent:
			urgent = true
		case <-tick.C:
		}
		if ctx.Err() != nil {
			return ctx.Err() // both may have come at once; finish decides then
		}
		if !urgent && !d.due(time.Since(last)) {
			continue
		}
		last = time.Now() // before it is written: writing takes nothing off the interval
		if err := d.rememberSettled(lasting); err != nil {
			return err
		}
	}
}

// due reports whether the checkpoint should move: for events always, for a bare
// position only now and then. The first events of a life don't wait for the
// interval to pass: a relay that is killed again and again would otherwise have
// more and more to look for in the sink.
func (d *continuous) due(since time.Duration) bool {
	since += d.cfg.CheckpointInterval / ticks / 2 // ticks are not exact
	if d.flight.safe().after > d.remembered {
		return d.remembered == 0 || since >= d.cfg.CheckpointInterval
	}
	return since >= d.cfg.IdleInterval
}

func (d *continuous) rememberSettled(ctx context.Context) error {
	at := d.flight.safe()
	err := d.remember(ctx, at, false)
	if err == nil {
		d.remembered = at.after
	}
	return err
}

// finish waits until everything that was sent is settled, then remembers and
// confirms it.
func (d *continuous) finish(ctx context.Context) error {
	if err := d.flight.settled(ctx, d.sent, d.session.Done()); err != nil {
		return err
	}
	return d.rememberSettled(ctx)
}
