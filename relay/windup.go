package relay

import (
	"context"
	"errors"
	"time"
)

// windUp ends a life in good order, whatever ended it: what was sent is
// settled as far as the sink lets it, what is settled is remembered and
// confirmed, and the session is gone before the slot is.
func (p *Pipeline) windUp(ctx context.Context) error {
	p.gauge.turn()
	p.gauge.fly(p.flight.level(), p.cfg.StallAfter)
	err := context.Cause(ctx)
	if err == nil {
		err = p.delivery.finish(ctx)
	}
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
// waiting.
func (p *Pipeline) patience(asked bool) time.Duration {
	if asked {
		return p.cfg.ShutdownTimeout
	}
	return min(3*time.Second, p.cfg.ShutdownTimeout)
}

// errSlotLost ends at once what a life still does for the sink: a successor may be
// at work, and whatever is sent would come in its way.
var errSlotLost = errors.New("the stream has ended, and with it the hold on the slot")

// lostSlot reports whether the stream has ended.
func (p *Pipeline) lostSlot() bool {
	select {
	case <-p.source.Done():
		return true
	default:
		return false
	}
}
