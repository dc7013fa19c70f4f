package relay

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/walpost/walpost/checkpoint"
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
// come, which is committed there already.
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
	d.flight.deferred = true
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

// take sends a batch and notes where that leads to. Of a transaction with a row
// that can't be mapped it sends nothing, so that those before can be committed.
func (d *transactional) take(ctx context.Context, batch *replication.Batch, l *load, cut bool) error {
	if l == nil {
		d.note(batch.Segments, 0)
		d.flight.landAll(batch.Segments)
		batch.Recycle()
		return nil
	}
	messages := l.messages
	if cut {
		messages = messages[:whole(batch.Segments, len(messages))]
	}
	if len(messages) == 0 {
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
	d.note(batch.Segments, taken)
	d.events, d.bytes = d.events+taken, d.bytes+batch.Bytes
	d.flight.taken(l)
	return err
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
		if !urgent && !d.full() && d.more() {
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

func (d *transactional) full() bool {
	return d.events >= d.cfg.GroupEvents || d.bytes >= d.cfg.MaxInFlightBytes || d.aged()
}

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
	if d.events == 0 { // mere positions
		d.written = time.Now()
		return d.remember(ctx, d.at)
	}
	if err := d.write(ctx, d.at); err != nil {
		return err
	}
	d.events, d.bytes, d.own, d.written = 0, 0, 0, time.Now()
	d.since = d.written
	d.flight.reveal()
	if d.at.lsn > d.confirmedLSN {
		d.tell(d.at.lsn)
	}
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
