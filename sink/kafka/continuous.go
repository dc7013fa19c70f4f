package kafka

import (
	"context"
	"maps"
)

// continuous is the ledger of a continuous session: events go out at once, and
// each commit is a small transaction of the marks producer beside them.
type continuous struct{ s *session }

// connectContinuous makes the two producers of a continuous session.
func connectContinuous(cfg Config, d *dialer) (*connection, error) {
	store, err := fenceMarks(cfg, d)
	if err != nil {
		return nil, err
	}
	c := &connection{marks: store}
	if err := c.produce(cfg, cfg.eventConfig(d), "start the event producer"); err != nil {
		d.cut() // so that closing the store does not wait for the network
		store.close()
		return nil, err
	}
	return c, nil
}

func (c continuous) begin() error { return nil }

// introduce makes new floors durable before the first write. It writes only what
// is not in the mark yet.
func (c continuous) introduce(ctx context.Context) error {
	return c.write(ctx, nil, func() ([]byte, error) { return c.s.floors.advance(0) })
}

func (c continuous) taken(_, rejected int) int { return rejected }

// commit makes marks durable. If floors have moved, it writes the floors mark in
// the same transaction.
func (c continuous) commit(ctx context.Context, through uint64, marks map[string][]byte) error {
	return c.write(ctx, marks, func() ([]byte, error) { return c.s.floors.advance(through) })
}

// commitAnew makes marks durable and deletes the floors mark. It is for a session
// that sends nothing.
func (c continuous) commitAnew(ctx context.Context, marks map[string][]byte) error {
	all := map[string][]byte{}
	maps.Copy(all, marks)
	all[floorsMark] = nil // a null value deletes
	return c.write(ctx, all, func() ([]byte, error) { return nil, nil })
}

// write commits marks, and the floors mark that encode returns (nil: unchanged),
// in one transaction. It calls encode once it holds the producer, so that floors
// marks are written in the order they were encoded.
func (c continuous) write(ctx context.Context, marks map[string][]byte, encode func() ([]byte, error)) error {
	s := c.s
	defer s.failAtEndOf(ctx, "write the checkpoint")()
	select {
	case s.marks.sem <- struct{}{}:
		defer func() { <-s.marks.sem }()
	case <-s.done:
	}
	if ctx.Err() != nil {
		return s.fail(context.Cause(ctx)) // failAtEndOf may be about to
	}
	if s.over.Load() {
		return s.ended()
	}
	floors, err := encode()
	if err != nil {
		return s.fail(err)
	}
	all := withFloors(marks, floors)
	if len(all) == 0 {
		return nil
	}
	if err := s.marks.write(all); err != nil {
		return s.fail(err)
	}
	return nil
}

func (c continuous) discard() error { return nil }

func (c continuous) explain(err error) error { return err }
