package relay

import (
	"context"
	"fmt"
	"time"

	"github.com/walpost/walpost/checkpoint"
)

// remember makes a position durable in the sink, then confirms it to Postgres. The
// order is the invariant: the slot is never ahead of the checkpoint. Where nothing
// has moved it does nothing, unless the sink holds something that is to be shown.
func (p *Pipeline) remember(ctx context.Context, at point, show bool) error {
	// After a crash Postgres may begin before the checkpoint. Until it has
	// caught up with it, there is nothing to write.
	if show || at.lsn > uint64(p.record.Confirmed) {
		if err := p.write(ctx, at); err != nil {
			return err
		}
	}
	if at.lsn > p.confirmedLSN {
		p.source.Confirm(at.lsn)
		p.confirmedLSN = at.lsn
		p.gauge.confirmed(at.lsn)
	}
	return nil
}

// write commits the checkpoint, through the events it speaks of and no further:
// what is settled of a transaction that has not ended comes again after a
// crash, and the sink must be able to recognise it then.
func (p *Pipeline) write(ctx context.Context, at point) error {
	record := p.record
	record.Confirmed = max(record.Confirmed, checkpoint.LSN(at.lsn))
	record.WrittenAt = time.Now()
	if len(at.id) > 0 {
		record.Last = &checkpoint.Event{Position: at.pos, XID: at.xid, CommitTime: at.time, ID: string(at.id)}
	}
	mark, err := record.Encode()
	if err != nil {
		return fmt.Errorf("checkpoint at %s: %w", record.Confirmed, err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, p.cfg.CommitTimeout, &late{"commit marks", p.cfg.CommitTimeout, "kafka_unreachable"})
	defer cancel()
	name := checkpoint.MarkName(p.cfg.Pipeline, p.cfg.Shard)
	if err := p.session.Commit(ctx, at.after, map[string][]byte{name: mark}); err != nil {
		return fmt.Errorf("write checkpoint at %s: %w", record.Confirmed, err)
	}
	p.record = record
	return nil
}
