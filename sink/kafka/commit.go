package kafka

import (
	"context"
	"fmt"
	"maps"
)

// Commit implements [sink.Session]. If floors have moved, it writes the floors
// mark in the same transaction.
func (s *session) Commit(ctx context.Context, through uint64, marks map[string][]byte) error {
	if _, taken := marks[floorsMark]; taken {
		return s.fail(fmt.Errorf("kafka session: the mark %q is the sink's own", floorsMark))
	}
	return s.writeMarks(ctx, marks, func() ([]byte, error) { return s.floors.advance(through) })
}

// commitAnew makes marks durable and deletes the floors mark. It is for a session
// that sends nothing.
func (s *session) commitAnew(ctx context.Context, marks map[string][]byte) error {
	all := map[string][]byte{}
	maps.Copy(all, marks)
	all[floorsMark] = nil // a null value deletes
	return s.writeMarks(ctx, all, func() ([]byte, error) { return nil, nil })
}

// writeMarks commits marks, and the floors mark that encode returns (nil:
// unchanged), in one transaction. It calls encode once it holds the producer, so
// that floors marks are written in the order they were encoded.
func (s *session) writeMarks(ctx context.Context, marks map[string][]byte, encode func() ([]byte, error)) error {
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
	all := make(map[string][]byte, len(marks)+1)
	maps.Copy(all, marks)
	if floors != nil {
		all[floorsMark] = floors
	}
	if len(all) == 0 {
		return nil
	}
	if err := s.marks.write(all); err != nil {
		return s.fail(err)
	}
	return nil
}
