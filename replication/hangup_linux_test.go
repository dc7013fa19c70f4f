package replication

import (
	"slices"
	"testing"
	"time"
)

// With the session goes the slot. It must be noticed although the receiver is
// busy, no status update is due, and data that nobody has read yet stands before
// the end.
func TestTheEndOfASessionIsNoticedWhileTheReceiverIsBusy(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.prelude = slices.Concat(described(), transaction(0x200, 0x208, "a"))
	stream, p := open(t, s, every(time.Hour))
	for lsn := uint64(0x220); lsn < 0x20000; lsn += 0x20 {
		p.put(t, transaction(lsn, lsn+8, "b"))
	}
	_ = p.conn.Close()
	wantCondition(t, ended(t, stream), "postgres_unreachable")
}
