package kafka

import (
	"context"
	"fmt"
	"maps"
)

// ledger is how a session commits, which is what its two kinds do differently.
type ledger interface {
	// begin is called before each message is given to the producer.
	begin() error

	// introduce is called after a topic's floors have been prepared and before
	// the first write to it: what has moved is not in the floors mark yet.
	introduce(ctx context.Context) error

	// taken is how many messages of a call are taken if msgs[rejected] is not;
	// first is where the transaction of that message begins.
	taken(first, rejected int) int

	// commit implements Session.Commit.
	commit(ctx context.Context, through uint64, marks map[string][]byte) error

	// discard gives up what is not committed. It is called once everything sent
	// is settled, for a session that works and is to be closed.
	discard() error

	// explain adds to an error of the event producer what the ledger knows.
	explain(err error) error
}

// Commit implements [sink.Session].
func (s *session) Commit(ctx context.Context, through uint64, marks map[string][]byte) error {
	if _, taken := marks[floorsMark]; taken {
		return s.fail(fmt.Errorf("kafka session: the mark %q is the sink's own", floorsMark))
	}
	return s.ledger.commit(ctx, through, marks)
}

// withFloors adds the floors mark; nil is an unchanged one.
func withFloors(marks map[string][]byte, floors []byte) map[string][]byte {
	all := make(map[string][]byte, len(marks)+1)
	maps.Copy(all, marks)
	if floors != nil {
		all[floorsMark] = floors
	}
	return all
}
