package relay

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/walpost/walpost/sink"
)

// A sink that has frozen holds up the commit of a checkpoint as well. That must
// not keep the relay from noticing that nothing moves, and when it is given up
// everybody must see why.
func TestPipelineSaysWhenItIsStalledInACommit(t *testing.T) {
	story(t, func(w *world, p *Pipeline) {
		w.kafka.auto = false
		w.kafka.prepare = func(s *fakeSession) { s.commitGate = make(chan struct{}) }
		l := live(p)
		session := <-w.kafka.sessions
		source := <-w.pg.sources
		source.put(batch(transaction(110, "a")))
		synctest.Wait()
		session.ack(1)
		elapse(p.cfg.CheckpointInterval) // from now on a commit is under way
		source.put(batch(transaction(120, "b")))
		elapse(p.cfg.StallAfter + 2*p.cfg.CheckpointInterval)
		if list := p.gauge.conditions.List(); len(list) != 1 || list[0].Name != "stalled" {
			t.Errorf("stalled for %s: %+v", p.cfg.StallAfter, list)
		}
		elapse(p.cfg.OpenTimeout - p.cfg.StallAfter)
		if err := <-l.ended; conditionOf(err) != "kafka_unreachable" || !retryable(err) {
			t.Errorf("given up for condition %q: %v", conditionOf(err), err)
		}
	})
}

// What doesn't answer while a pipeline opens is unreachable.
func TestPipelineNamesTheSideThatDoesNotAnswer(t *testing.T) {
	for name, freeze := range map[string]func(c *Config){
		"the destination": func(c *Config) {
			c.Destination = func(ctx context.Context) (string, error) { <-ctx.Done(); return "", context.Cause(ctx) }
		},
		"the sink's marks": func(c *Config) { c.Sink = frozen{c.Sink, true} },
		"the sink":         func(c *Config) { c.Sink = frozen{c.Sink, false} },
	} {
		t.Run(name, func(t *testing.T) {
			story(t, func(w *world, _ *Pipeline) {
				err := w.pipeline(t, freeze).Run(context.Background())
				if conditionOf(err) != "kafka_unreachable" || !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("condition %q: %v", conditionOf(err), err)
				}
			})
		})
	}
}

// frozen is a sink that does not answer.
type frozen struct {
	sink.Sink
	marks bool // nor tells its marks
}

func (f frozen) Atomic() bool { return false }

func (f frozen) Marks(ctx context.Context) (map[string][]byte, error) {
	if !f.marks {
		return f.Sink.Marks(ctx)
	}
	<-ctx.Done()
	return nil, context.Cause(ctx)
}

func (f frozen) Open(ctx context.Context, _ sink.Settle) (sink.Session, map[string][]byte, error) {
	<-ctx.Done()
	return nil, nil, context.Cause(ctx)
}
