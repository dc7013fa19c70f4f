package relay

import (
	"fmt"

	"github.com/walpost/walpost/checkpoint"
	"github.com/walpost/walpost/outbox"
	"github.com/walpost/walpost/replication"
)

// resumption drops, at the beginning of a life, the events that the checkpoint
// covers. Postgres yields them again when the relay died between writing the
// checkpoint and confirming it, and after a crash of its own, which sets the slot
// back to where it was last saved.
//
// A position alone proves nothing: a server that was restored from an older state
// gives the same positions to other events. So the last event that the
// checkpoint covers must be read again exactly as it was. Until then nothing is
// sent and nothing confirmed; if it doesn't come, history has diverged.
type resumption struct {
	identify func(*replication.Segment, *replication.Row) (string, error)
	caughtUp func(dropped int) // last was read again
	remapped bool              // the configuration is another: the id may be, too
	hasty    error             // what a divergence may be instead; nil: nothing

	covered    uint64            // the checkpoint's position
	generation uint32            // of the checkpoint
	last       *checkpoint.Event // that the checkpoint covers, of whatever generation; nil: none
	due        bool              // last is still to be read again
	over       bool              // everything that comes is new
	dropped    int
}

// begin is for a slot that stands at confirmed.
func (r *resumption) begin(record *checkpoint.Record, confirmed uint64) {
	r.covered, r.generation, r.last = uint64(record.Confirmed), record.Generation, record.Last
	// A slot stands between transactions: at or before a commit LSN, the
	// transaction is yet to come.
	r.due = r.last != nil && confirmed <= r.last.Position.Commit
}

// trim removes from a batch what the checkpoint covers.
func (r *resumption) trim(b *replication.Batch) error {
	if r.over {
		return nil
	}
	kept, rows := b.Segments[:0], 0
	for _, seg := range b.Segments {
		keep, err := r.pass(&seg)
		if err != nil {
			return err
		}
		if keep {
			kept, rows = append(kept, seg), rows+len(seg.Rows)
		}
	}
	b.Segments, b.Rows = kept, rows
	return nil
}

// pass removes a segment's covered rows and reports whether anything is left.
func (r *resumption) pass(seg *replication.Segment) (keep bool, err error) {
	due := r.due
	covered, err := r.rows(seg)
	if err != nil {
		return false, err
	}
	seg.Rows = seg.Rows[covered:]
	r.dropped += covered
	if due && !r.due {
		r.caughtUp(r.dropped)
	}
	if len(seg.Rows) > 0 {
		r.over = seg.Commit >= r.covered
		return true, nil
	}
	if r.due && r.last.Position.Commit < seg.End && r.covered < seg.End {
		return false, r.diverged("the server has nothing more below %s, and %s did not come", checkpoint.LSN(seg.End), r.last)
	}
	return seg.End != 0 && !r.due, nil
}

// rows tells how many of a segment's rows are covered: the first ones.
func (r *resumption) rows(seg *replication.Segment) (covered int, err error) {
	for i := range seg.Rows {
		known, err := r.knows(seg, &seg.Rows[i])
		if err != nil || !known {
			return covered, err
		}
		covered++
	}
	return covered, nil
}

// knows reports whether the checkpoint covers a row.
func (r *resumption) knows(seg *replication.Segment, row *replication.Row) (bool, error) {
	pos := outbox.Position{Generation: r.generation, Commit: seg.Commit, Index: row.Index}
	if r.last == nil {
		// The checkpoint covers no event of this slot, so there was none below it.
		if seg.Commit < r.covered {
			return false, r.diverged("an event at %s comes, below the checkpoint at %s, where there was none", pos, checkpoint.LSN(r.covered))
		}
		return false, nil
	}
	last := r.last.Position
	last.Generation = r.generation // an adopted slot yields the same event as of another one
	order := pos.Compare(last)
	switch {
	case order < 0:
		return true, nil
	case order == 0:
		return true, r.recognise(seg, row)
	case r.due:
		return false, r.diverged("an event at %s comes, and %s did not", pos, r.last)
	case seg.Commit < r.covered:
		return false, r.diverged("an event at %s comes, which is below the checkpoint at %s, but after %s", pos, checkpoint.LSN(r.covered), r.last)
	}
	return false, nil
}

// recognise checks that the row at the last event's position is that event.
func (r *resumption) recognise(seg *replication.Segment, row *replication.Row) error {
	id := r.last.ID
	if !r.remapped {
		var err error
		if id, err = r.identify(seg, row); err != nil {
			return r.diverged("in place of %s stands a row that is no event: %v", r.last, err)
		}
	}
	if id != r.last.ID || seg.XID != r.last.XID || !seg.Time.Equal(r.last.CommitTime) {
		return r.diverged("in place of %s stands event %s of transaction %d", r.last, id, seg.XID)
	}
	r.due = false
	return nil
}

func (r *resumption) diverged(format string, args ...any) error {
	if r.hasty != nil {
		return r.hasty
	}
	return doubtf("history_diverged", "the history that Postgres yields is not the one the checkpoint was written for: %s", fmt.Sprintf(format, args...))
}
