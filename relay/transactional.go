package relay

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/walpost/walpost/checkpoint"
	"github.com/walpost/walpost/outbox"
	"github.com/walpost/walpost/replication"
)

// transactional is the delivery into an atomic sink, the way of
// `delivery: exactly-once`. One goroutine sends and commits: whole Postgres
// transactions, with the checkpoint that covers them, in one commit of the sink.
//
// How many go into one follows from load alone. A transaction is committed as soon
// as nothing else waits to be read: caught up, each by itself, at once. While a
// commit is in progress, others gather, and make up the next. Nothing waits for a
// message to come, only for the rest of a Postgres transaction that has begun to
// come, which Postgres has committed already.
type transactional struct {
	*Pipeline

	at     point // where the sink stands, committed or not
	inside bool  // a Postgres transaction, which continues
	own    int   // events of that transaction that were sent since the last commit

	events, bytes int       // sent and not committed
	since         time.Time // of the first of them
	written       time.Time // when the checkpoint was last written
}

func newTransactional(p *Pipeline) *transactional {
	return &transactional{Pipeline: p, written: time.Now()}
}

func (d *transactional) start(life, lasting context.Context, group *errgroup.Group) {
	group.Go(func() error { return d.run(life, lasting) })
}

func (d *transactional) run(ctx, lasting context.Context) error {
	for {
		batch, l, unmappable, err := d.next(ctx)
		if err != nil {
			return err
		}
		urgent := batch.Urgent // before the batch is recycled
		if err := d.take(lasting, batch, l, unmappable != nil); err != nil {
			return err
		}
		if unmappable != nil {
			return unmappable
		}
		if err := d.commitIfDue(lasting, urgent); err != nil {
			return err
		}
	}
}

// take sends a batch and notes where that leads to. If the group is full where a
// transaction ends inside the batch, it is committed there. Of a transaction with
// a row that can't be mapped it sends nothing, so that those before can be
// committed.
func (d *transactional) take(ctx context.Context, batch *replication.Batch, l *load, cut bool) error {
	if l == nil {
		d.note(batch.Segments, 0)
		d.flight.landAll(batch.Segments)
		batch.Recycle()
		return nil
	}
	segments, messages := batch.Segments, l.messages
	if cut {
		messages = messages[:whole(segments, len(messages))]
	}
	if len(messages) == 0 {
		return nil
	}
	defer d.flight.taken(l)
	if i, n := lastEnd(segments); i > 0 && n < len(messages) && d.full(n, batch.Bytes) {
		if err := d.send(ctx, segments[:i], messages[:n]); err != nil {
			return err
		}
		if err := d.commit(ctx); err != nil {
			return err
		}
		segments, messages = segments[i:], messages[n:]
	}
	d.bytes += batch.Bytes
	return d.send(ctx, segments, messages)
}

func (d *transactional) send(ctx context.Context, segments []replication.Segment, messages []outbox.Message) error {
	if len(messages) == 0 {
		d.note(segments, 0)
		return nil
	}
	if d.events == 0 {
		d.since = time.Now()
	}
	taken, err := d.session.Send(ctx, messages)
	if taken > 0 {
		m := &messages[taken-1]
		d.at.set(m)
		d.at.after = m.Seq + 1
	}
	d.note(segments, taken)
	d.events += taken
	return err
}

// lastEnd is how many segments, with how many rows, lead to the last end of a
// transaction among them. A batch is cut where memory ends, so when the relay is
// behind, most end inside a transaction: a group must be able to end before that.
func lastEnd(segments []replication.Segment) (count, rows int) {
	n := 0
	for i := range segments {
		n += len(segments[i].Rows)
		if segments[i].End != 0 {
			count, rows = i+1, n
		}
	}
	return count, rows
}

// whole is the number of rows of those segments that are whole, if only so many
// rows are there.
func whole(segments []replication.Segment, rows int) (n int) {
	for i := range segments {
		if n+len(segments[i].Rows) > rows {
			break
		}
		n += len(segments[i].Rows)
	}
	return n
}

// note follows the segments of a batch, of whose rows so many were taken.
func (d *transactional) note(segments []replication.Segment, taken int) {
	for i := range segments {
		seg := &segments[i]
		n := min(len(seg.Rows), taken)
		if n > 0 {
			d.at.xid, d.inside, d.own = seg.XID, true, d.own+n
		}
		if taken -= n; n < len(seg.Rows) {
			return
		}
		if seg.End != 0 {
			d.at.lsn, d.inside, d.own = max(d.at.lsn, seg.End), false, 0
		}
	}
}

// commitIfDue commits what was sent when nothing is gained by waiting, or the
// limits are reached, and mere positions now and then.
func (d *transactional) commitIfDue(ctx context.Context, urgent bool) error {
	switch {
	case d.inside:
		if !d.oversized() {
			return nil
		}
		if d.cfg.StopOversized {
			return d.tooLarge()
		}
	case d.events > 0:
		if !urgent && !d.full(0, 0) && d.more() {
			return nil
		}
	case !urgent && time.Since(d.written) < d.cfg.IdleInterval:
		return nil
	}
	return d.commit(ctx)
}

// more reports whether a batch waits. The source's goroutine gets a chance to
// finish the one it is working on.
func (d *transactional) more() bool {
	if d.source.Ready() {
		return true
	}
	runtime.Gosched()
	return d.source.Ready()
}

// full reports whether no further transaction may join the group after so many
// events and bytes more. A group that ages would leave the next one too little of
// the time that it may take.
func (d *transactional) full(events, bytes int) bool {
	return d.events+events >= d.cfg.GroupEvents || d.bytes+bytes >= d.cfg.MaxInFlightBytes ||
		d.events > 0 && time.Since(d.since) >= d.cfg.TransactionTime/groupShare
}

// groupShare is the part of the time for a transaction after which a group takes
// no further ones.
const groupShare = 10

// oversized reports whether the Postgres transaction that is being sent is too
// large, or takes too long, to be committed as a whole.
func (d *transactional) oversized() bool {
	return d.own >= d.cfg.MaxTransactionEvents || d.aged()
}

// aged reports whether the sink's transaction comes near the time after which a
// coordinator would abort it.
func (d *transactional) aged() bool { return time.Since(d.since) >= d.cfg.TransactionTime }

// commit makes everything that was sent visible, together with the checkpoint,
// then confirms it.
func (d *transactional) commit(ctx context.Context) error {
	if err := d.remember(ctx, d.at, d.events > 0); err != nil {
		return err
	}
	d.events, d.bytes, d.own, d.written = 0, 0, 0, time.Now()
	d.since = d.written
	d.flight.reveal()
	return nil
}

// finish commits the whole transactions that were sent. A part of one is given
// up: the session discards it when it is closed, and it is read again.
func (d *transactional) finish(ctx context.Context) error {
	select {
	case <-d.session.Done():
		return errGone
	default:
	}
	if d.inside && d.events > 0 {
		return fmt.Errorf("the transaction to which the event at %s belongs was not read to its end", d.at.pos)
	}
	return d.commit(ctx)
}

func (d *transactional) tooLarge() error {
	return &oversizedError{commit: checkpoint.LSN(d.at.pos.Commit), xid: d.at.xid, events: d.own, limit: d.cfg.MaxTransactionEvents, time: d.cfg.TransactionTime}
}

// oversizedError stops a relay that may not split transactions.
type oversizedError struct {
	commit checkpoint.LSN
	xid    uint32
	events int
	limit  int
	time   time.Duration
}

func (e *oversizedError) Error() string {
	return fmt.Sprintf("transaction %d, which commits at %s, has more than %d events, or takes longer than %s to publish: %d are sent, and it may not be split",
		e.xid, e.commit, e.limit, e.time, e.events)
}

func (e *oversizedError) Condition() string { return "poison_event" }
func (e *oversizedError) Retryable() bool   { return false }
func (e *oversizedError) Remedy() string {
	return "raise kafka.max_transaction_events, or let it be split with kafka.oversized: split; nothing of it is visible or confirmed"
}
