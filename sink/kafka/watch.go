package kafka

import (
	"context"
	"fmt"
	"time"

	"github.com/IBM/sarama"
)

// watch ends a session whose cluster does not answer any more. Under load it
// looks at the acknowledgements; while idle it sends a probe from time to time,
// so that an outage is known before the next event comes. It also ends a session
// whose dialer was cut after a pause.
type watch struct {
	s *session

	settled uint64    // as last seen
	moving  time.Time // when messages were last settled, or none outstanding

	probing  time.Time  // when the outstanding probe was sent; zero: none is
	answered chan error // capacity 1: a late answer needs no reader
}

func newWatch(s *session) *watch {
	return &watch{s: s, moving: time.Now(), answered: make(chan error, 1)}
}

func (w *watch) run() {
	tick := time.NewTicker(min(w.s.cfg.ProbeInterval, w.s.cfg.ProbeTimeout, w.s.cfg.StallTimeout) / 4)
	defer tick.Stop()
	var asked time.Time
	for {
		select {
		case <-w.s.done:
			return
		case <-w.s.dialer.life.Done():
			_ = w.s.fail(context.Cause(w.s.dialer.life))
			return
		case err := <-w.answered:
			w.probing = time.Time{}
			if err != nil && !isAny(err, sarama.ErrLeaderNotAvailable) { // with that a broker has answered
				_ = w.s.fail(classify("probe the cluster", err))
			}
		case now := <-tick.C:
			if w.look(now) && w.probing.IsZero() && now.Sub(asked) >= w.s.cfg.ProbeInterval {
				asked = now
				w.ask(now)
			}
		}
	}
}

// look ends a session that has stalled and reports whether it is idle.
func (w *watch) look(now time.Time) (idle bool) {
	settled, sent := w.s.settled.Load(), w.s.sent.Load()
	idle = settled == sent
	if idle || settled != w.settled {
		w.settled, w.moving = settled, now
	}
	if stalled := now.Sub(w.moving); stalled >= w.s.cfg.StallTimeout {
		_ = w.s.fail(&failure{
			op:        "publish",
			err:       fmt.Errorf("%d messages are outstanding and none was acknowledged for %s", sent-settled, stalled.Round(time.Second)),
			condition: condUnreachable,
		})
	}
	if !w.probing.IsZero() && now.Sub(w.probing) >= w.s.cfg.ProbeTimeout {
		_ = w.s.fail(&failure{
			op:        "probe the cluster",
			err:       fmt.Errorf("no answer for %s", w.s.cfg.ProbeTimeout),
			condition: condUnreachable,
		})
	}
	return idle
}

// ask sends the probe, a metadata request for the checkpoint topic, from a
// goroutine of its own, which ends at the latest when the session's connections
// are cut. It uses the marks producer's client, on whose connections no batch of
// events can be in the way.
func (w *watch) ask(now time.Time) {
	w.probing = now
	w.s.workers.Go(func() {
		w.answered <- w.s.marks.client.RefreshMetadata(w.s.cfg.CheckpointTopic)
	})
}
