package kafka

import (
	"fmt"
	"time"

	"github.com/IBM/sarama"
)

// watch ends a session that looks alive and is not. Under load the
// acknowledgements are the sign of life; while idle it asks for one, so that an
// outage is known before the next event comes.
type watch struct {
	s *session

	settled uint64    // as last seen
	moving  time.Time // when messages were last settled, or none outstanding

	probing  time.Time  // when the question under way was asked; zero: none is
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
		case err := <-w.answered:
			w.probing = time.Time{}
			if err != nil && !isAny(err, sarama.ErrLeaderNotAvailable) { // that is an answer too
				_ = w.s.fail(explain("probe the cluster", err))
			}
		case now := <-tick.C:
			if w.look(now) && w.probing.IsZero() && now.Sub(asked) >= w.s.cfg.ProbeInterval {
				asked = now
				w.ask(now)
			}
		}
	}
}

// look judges what has happened and reports whether the session is idle.
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

// ask fetches metadata of the checkpoint topic in a goroutine of its own. The
// marks producer's client does it, whose connections no batch can occupy. It
// ends at the latest when the session's connections are cut.
func (w *watch) ask(now time.Time) {
	w.probing = now
	w.s.workers.Go(func() {
		w.answered <- w.s.marks.client.RefreshMetadata(w.s.cfg.CheckpointTopic)
	})
}
