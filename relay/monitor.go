package relay

import (
	"context"
	"time"
)

// monitor looks at the publication now and then, on a connection of its own.
// What a narrowed publication leaves out is not in the stream, and nothing in
// the stream says so; it can only be noticed, and the relay stopped, before more
// is left out. A server that can't be asked is the stream's business.
func (p *Pipeline) monitor(ctx context.Context) error {
	tick := time.NewTicker(p.cfg.MonitorInterval)
	defer tick.Stop()
	want := Expectation{Tables: p.cfg.Tables}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		facts, err := p.cfg.Source.Look(ctx)
		if err != nil {
			continue
		}
		if err := published(want, p.published, facts.Publication); err != nil {
			return err
		}
	}
}
