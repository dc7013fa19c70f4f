package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"
)

// pulse notices that the process did not run for a while: a signal, a debugger or
// a suspended machine stopped it. A successor may work meanwhile, so what is
// queued in this process must not be sent any more.
//
// A missed beat is never made up for: once the limit is passed, it stays passed.
type pulse struct {
	limit time.Duration
	now   func() instant
	last  atomic.Pointer[instant] // beat; nil: nobody beats
}

// instant is a moment on both clocks. The monotonic one stands still while some
// machines are suspended; the wall clock may be set back meanwhile.
type instant struct{ wall, mono time.Duration }

func systemClock() func() instant {
	start := time.Now()
	return func() instant {
		now := time.Now()
		return instant{wall: time.Duration(now.UnixNano()), mono: now.Sub(start)}
	}
}

// check is an error if the last beat is too long ago. It is asked before every
// write, as any goroutine may be the first to run after a pause.
func (p *pulse) check() error {
	last := p.last.Load()
	if last == nil {
		return nil
	}
	return p.compare(*last, p.now())
}

// beat says that the process runs.
func (p *pulse) beat() error {
	now := p.now() // before the check: a pause after it makes this beat an old one
	if last := p.last.Load(); last != nil {
		if err := p.compare(*last, now); err != nil {
			return err
		}
	}
	p.last.Store(&now)
	return nil
}

func (p *pulse) compare(last, now instant) error {
	if gap := max(now.wall-last.wall, now.mono-last.mono); gap > p.limit {
		return &failure{
			op:  "publish",
			err: fmt.Errorf("this process did not run for about %s: another may have taken over, and what was queued is not sent", gap.Round(time.Millisecond)),
		}
	}
	return nil
}

// beats in the time of the limit.
const beats = 15

// guard makes d notice a pause that is longer than limit from now on, whereupon
// it is cut. The goroutine that beats ends with d; wait waits for it.
func (d *dialer) guard(limit time.Duration, clock func() instant, log *slog.Logger) {
	d.pulse.limit, d.pulse.now = limit, clock
	_ = d.pulse.beat() // the first can't be late
	d.work.Go(func() { d.beat(limit/beats, log) })
}

func (d *dialer) beat(interval time.Duration, log *slog.Logger) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := d.pulse.beat(); err != nil {
				d.cutFor(err)
			}
		case <-d.life.Done():
			if err := d.paused(); err != nil {
				log.Warn("publishing ended", "error", err.Error())
			}
			return
		}
	}
}

// alive is an error after a pause, by which d is cut.
func (d *dialer) alive() error {
	err := d.pulse.check()
	if err != nil {
		d.cutFor(err)
	}
	return err
}

// paused is why d was cut, if the reason is a pause.
func (d *dialer) paused() error {
	var why *failure
	if errors.As(context.Cause(d.life), &why) {
		return why
	}
	return nil
}

// explain returns err, or if there was a pause that, which is why err happened.
func (d *dialer) explain(err error) error {
	if pause := d.paused(); err != nil && pause != nil {
		return pause
	}
	return err
}

// writeChunk bounds what one check of the pulse lets through. A write that waits
// for room in the socket goes on after a pause.
const writeChunk = 64 << 10

// Write implements [net.Conn].
func (c *trackedConn) Write(b []byte) (int, error) {
	for n := 0; ; {
		if err := c.owner.alive(); err != nil {
			return n, err
		}
		written, err := c.Conn.Write(b[n:min(len(b), n+writeChunk)])
		n += written
		if err != nil || n == len(b) {
			return n, err
		}
	}
}
