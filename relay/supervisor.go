package relay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/walpost/walpost/checkpoint"
)

// Supervisor keeps a relay alive: it runs one pipeline after another until it
// is told to stop or finds that only a person can decide what is right.
type Supervisor struct {
	cfg        Config
	conditions *Conditions
	gauge      *gauge
	backoff    *backoff.ExponentialBackOff

	// Of the goroutine that runs, which also opens pipelines.
	accepted map[string]bool // by the condition that refused credentials lead to
	backend  uint32          // the server's process for the last stream
	failure  string          // text of the last failure that has no condition
}

// NewSupervisor checks the configuration: what is wrong with it would be wrong
// again at every attempt.
func NewSupervisor(cfg Config) (*Supervisor, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if _, err := cfg.mapper("", ""); err != nil {
		return nil, err
	}
	conditions := NewConditions(cfg.Logger)
	return &Supervisor{
		cfg: cfg, conditions: conditions, gauge: newGauge(conditions), accepted: map[string]bool{},
		backoff: backoff.NewExponentialBackOff(
			backoff.WithInitialInterval(cfg.RetryInitial),
			backoff.WithMaxInterval(cfg.RetryMax*2/3), // jitter adds up to a half
			backoff.WithMaxElapsedTime(0),
		),
	}, nil
}

// StopError says why a relay has stopped by itself.
type StopError struct {
	Name  string // of the condition
	Cause error
	Exit  int
}

func (s *StopError) Error() string { return fmt.Sprintf("stopped: %s: %v", s.Name, s.Cause) }

func (s *StopError) Unwrap() error { return s.Cause }

// Condition names the state that stopped the relay.
func (s *StopError) Condition() string { return s.Name }

// Remedy is what an operator can do.
func (s *StopError) Remedy() string {
	if own := remedyOf(s.Cause); own != "" {
		return own
	}
	return define(s.Name).remedy
}

// ExitCode is the process's.
func (s *StopError) ExitCode() int { return s.Exit }

// Status tells how the relay is doing. Safe for concurrent use.
func (s *Supervisor) Status() Status { return s.gauge.snapshot() }

// Run relays until ctx ends, which is a clean stop and returns nil even if it
// had to leave events unsettled: they are sent again by the next run. It
// returns a *StopError if it may not go on.
func (s *Supervisor) Run(ctx context.Context) error {
	s.cfg.Logger.Info("relay starting", "pipeline", s.cfg.Pipeline, "slot", s.cfg.Slot)
	defer s.gauge.enter(Stopped)
	for {
		p := newPipeline(s.cfg, s.gauge, s.hooks())
		p.former = s.backend
		err := p.Run(ctx)
		s.backend = cmp.Or(p.backend, s.backend)
		if ctx.Err() != nil {
			s.farewell(err)
			return nil
		}
		if stopped := s.judge(err); stopped != nil {
			return stopped
		}
		if !s.rest(ctx) {
			s.farewell(nil)
			return nil
		}
	}
}

func (s *Supervisor) hooks() hooks {
	return hooks{
		accepted:  func(condition string) { s.accepted[condition] = true },
		streaming: s.streaming,
		flowing:   s.flowing,
	}
}

// streaming is called by a pipeline that has opened both ends. Conditions stay
// until events are seen to flow: one that shows only when an event is sent
// would otherwise come and go with every attempt, at full speed. Those of the
// slot are over once it is held.
func (s *Supervisor) streaming() {
	s.conditions.Clear("slot_busy", "slot_foreign_holder", "server_in_recovery")
	s.gauge.enter(Streaming)
	if len(s.conditions.List()) == 0 {
		s.announce()
	}
}

// announce says from where events flow.
func (s *Supervisor) announce() {
	s.cfg.Logger.Info("relay streaming", s.standing()...)
}

// standing is what a log line says of where the relay stands.
func (s *Supervisor) standing() []any {
	attrs := []any{"pipeline", s.cfg.Pipeline}
	if lsn := s.gauge.snapshot().ConfirmedLSN; lsn != 0 {
		attrs = append(attrs, "confirmed_lsn", checkpoint.LSN(lsn).String())
	}
	return attrs
}

// flowing is called by a pipeline that works.
func (s *Supervisor) flowing() {
	s.backoff.Reset()
	if len(s.conditions.List()) > 0 {
		s.conditions.Clear(ConditionNames()...)
		s.announce()
	}
}

// judge decides between another try (nil) and a stop.
func (s *Supervisor) judge(err error) *StopError {
	name := conditionOf(err)
	def := define(name)
	if !retryable(err) || def.severity == Fatal || s.refused(name) {
		if name == "" {
			name = "error"
		} else {
			s.hold(name, err)
		}
		return &StopError{Name: name, Cause: err, Exit: def.exit}
	}
	s.cfg.Observer.Restarted(reason(name))
	if name == "" {
		s.complain(err.Error())
	} else {
		s.hold(name, err)
	}
	if isStandby(err) {
		s.gauge.enter(Standby)
	} else {
		s.gauge.enter(Starting)
	}
	return nil
}

// isStandby reports whether another instance is at work, and not merely what a
// server still keeps of this one.
func isStandby(err error) bool {
	var d *doubt
	return conditionOf(err) == "slot_busy" && (!errors.As(err, &d) || !d.own)
}

// complain logs a failure that no condition stands for, once for each text.
func (s *Supervisor) complain(text string) {
	if text != s.failure {
		s.cfg.Logger.Error("pipeline failed", "error", text)
	}
	s.failure = text
}

// refused reports whether credentials were refused that were never good: more
// likely a mistake than a rotation in progress.
func (s *Supervisor) refused(name string) bool {
	return !s.accepted[name] && (name == "postgres_auth_failed" || name == "kafka_auth_failed")
}

// hold makes one condition hold and clears the others: a relay waits for one
// thing at a time.
func (s *Supervisor) hold(name string, cause error) {
	for _, other := range ConditionNames() {
		if other != name {
			s.conditions.Clear(other)
		}
	}
	s.conditions.Set(name, cause)
}

func reason(condition string) string {
	if condition == "" {
		return "error"
	}
	return condition
}

// rest pauses between two pipelines. It returns false if ctx ended.
func (s *Supervisor) rest(ctx context.Context) bool {
	timer := time.NewTimer(s.backoff.NextBackOff())
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (s *Supervisor) farewell(err error) {
	if err != nil {
		s.cfg.Logger.Warn("relay stopped before everything in flight was acknowledged; the next start sees to the rest", "error", err.Error())
		return
	}
	s.cfg.Logger.Info("relay stopped", s.standing()...)
}
