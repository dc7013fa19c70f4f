package relay

import (
	"context"
	"time"
)

// windUp ends a life in good order, whatever ended it: what was sent is
// settled as far as the sink lets it, what is settled is remembered and
// confirmed, and the session is gone before the slot is.
func (p *Pipeline) windUp(ctx context.Context) error {
	p.gauge.turn()
	p.gauge.fly(p.flight.level(), p.cfg.StallAfter)
	err := p.delivery.finish(ctx)
	if closing := p.session.Close(ctx); err == nil {
		err = closing
	}
	p.source.Close()
	p.gauge.landed()
	return err
}

// ending is the state of a relay whose pipeline winds up: from now on nothing
// flows, and health must say so before the supervisor knows why.
func ending(asked bool) State {
	if asked {
		return Stopping
	}
	return Starting
}

// patience is how long a life may take to end. One that failed has a successor
// waiting. One that has lost the slot may have a successor at work already, in
// whose way whatever it still sends would come: it has none.
func (p *Pipeline) patience(asked, lost bool) time.Duration {
	switch {
	case lost:
		return 0
	case asked:
		return p.cfg.ShutdownTimeout
	}
	return min(3*time.Second, p.cfg.ShutdownTimeout)
}

// lostSlot reports whether the stream has ended, and with it the hold on the slot.
func (p *Pipeline) lostSlot() bool {
	select {
	case <-p.source.Done():
		return true
	default:
		return false
	}
}
