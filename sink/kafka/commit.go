package kafka

import (
	"context"
	"fmt"
	"maps"
)

// Commit implements [sink.Session]. Beside the caller's marks it writes the
// floors, where they have moved.
func (s *session) Commit(ctx context.Context, through uint64, marks map[string][]byte) error {
	if _, taken := marks[floorsMark]; taken {
		return s.fail(fmt.Errorf("kafka session: the mark %q is the sink's own", floorsMark))
	}
	return s.writeMarks(ctx, marks, func() ([]byte, error) { return s.floors.advance(through) })
}

// writeMarks commits marks and the floors that own returns (nil: unchanged) in
// one transaction. own is called when it is certain to be the next to be
// written.
func (s *session) writeMarks(ctx context.Context, marks map[string][]byte, own func() ([]byte, error)) error {
	defer s.failAtEndOf(ctx, "write the checkpoint")()
	select {
	case s.marks.turn <- struct{}{}:
		defer func() { <-s.marks.turn }()
	case <-s.done:
	}
	if s.over.Load() {
		return s.ended()
	}
	floors, err := own()
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
