package relay

import (
	"context"
	"fmt"
	"time"

	"github.com/walpost/walpost/checkpoint"
	"github.com/walpost/walpost/outbox"
	"github.com/walpost/walpost/outbox/mapping"
	"github.com/walpost/walpost/replication"
)

// This file is continuous delivery, the way of `delivery: idempotent`: feed
// sends whatever is read as it comes, while confirm follows behind with the
// settled prefix.

// feed moves batches from the source into the sink. When ctx has ended it takes
// no more; what it was about to send may still be sent until lasting ends.
func (p *Pipeline) feed(ctx, lasting context.Context) error {
	for {
		batch, err := p.source.Next(ctx)
		if err != nil {
			return err
		}
		p.gauge.server(batch.WALEnd)
		urgent := batch.Urgent // before the batch is recycled
		if err := p.deliver(ctx, lasting, batch); err != nil {
			return err
		}
		if urgent {
			p.hurry()
		}
	}
}

// hurry asks confirm not to wait for its interval: a server that shuts down
// waits until everything it has sent is confirmed.
func (p *Pipeline) hurry() {
	select {
	case p.urgent <- struct{}{}:
	default:
	}
}

// deliver sends a batch's events. What precedes an event that can't be mapped
// is sent all the same, and the batch stays in flight.
func (p *Pipeline) deliver(ctx, lasting context.Context, batch *replication.Batch) error {
	if batch.Rows == 0 {
		p.flight.landAll(batch.Segments)
		batch.Recycle()
		return nil
	}
	l, err := p.flight.admit(ctx, batch.Rows, batch.Bytes)
	if err != nil {
		return err
	}
	p.cfg.Observer.Read(batch.Rows)
	l.batch = batch
	unmappable := p.fill(l)
	p.flight.launch(l, batch.Segments)
	if err := p.send(lasting, l); err != nil {
		return err
	}
	return unmappable
}

func (p *Pipeline) send(ctx context.Context, l *load) error {
	if len(l.messages) == 0 {
		return nil // the batch's first row could not be mapped
	}
	taken, err := p.session.Send(ctx, l.messages)
	p.flight.taken(l)
	p.sent += uint64(taken) //nolint:gosec // a count
	return err
}

// fill maps a load's rows until one can't be mapped.
func (p *Pipeline) fill(l *load) error {
	for i := range l.batch.Segments {
		seg := &l.batch.Segments[i]
		for j := range seg.Rows {
			if err := p.mapRow(l, seg, &seg.Rows[j]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *Pipeline) mapRow(l *load, seg *replication.Segment, row *replication.Row) error {
	if row.Rel != p.table.relation {
		if err := p.planFor(row.Rel); err != nil {
			return fmt.Errorf("transaction that commits at %s: %w", checkpoint.LSN(seg.Commit), err)
		}
	}
	l.messages = append(l.messages, outbox.Message{
		Pos:  outbox.Position{Generation: p.generation, Commit: seg.Commit, Index: row.Index},
		Time: seg.Time,
	})
	if err := p.table.plan.Map(&l.messages[len(l.messages)-1], &l.arena, row.Values); err != nil {
		l.messages = l.messages[:len(l.messages)-1]
		return fmt.Errorf("row %d of the transaction that commits at %s: %w", row.Index, checkpoint.LSN(seg.Commit), err)
	}
	return nil
}

// planFor makes the plan of a table the current one. Tables may take turns from
// row to row, so each keeps its plan until it is described anew.
func (p *Pipeline) planFor(rel *replication.Relation) error {
	known := p.plans[rel.OID]
	if known.relation != rel {
		plan, err := p.mapper.Plan(rel.Schema, rel.Table, columns(rel))
		if err != nil {
			return err
		}
		known = planned{rel, plan}
		p.plans[rel.OID] = known
	}
	p.table = known
	return nil
}

func columns(rel *replication.Relation) []mapping.Column {
	cols := make([]mapping.Column, len(rel.Columns))
	for i, c := range rel.Columns {
		cols[i] = mapping.Column{Name: c.Name, TypeOID: c.TypeOID}
	}
	return cols
}

// ticks of a checkpoint interval.
const ticks = 4

// confirm writes the checkpoint and confirms it, at every interval in which
// events were settled, more rarely while only foreign WAL passes, and at once
// when the server is waiting for it.
func (p *Pipeline) confirm(ctx, lasting context.Context) error {
	tick := time.NewTicker(p.cfg.CheckpointInterval / ticks)
	defer tick.Stop()
	last := time.Now()
	for {
		urgent := false
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.urgent:
			urgent = true
		case <-tick.C:
		}
		if !urgent && !p.due(time.Since(last)) {
			continue
		}
		last = time.Now() // before it is written: writing takes nothing off the interval
		if err := p.remember(lasting); err != nil {
			return err
		}
	}
}

// due reports whether the checkpoint should move: for events always, for a bare
// position only now and then. The first events of a life don't wait for the
// interval to pass: a relay that is killed again and again would otherwise send
// the same ones for ever.
func (p *Pipeline) due(since time.Duration) bool {
	since += p.cfg.CheckpointInterval / ticks / 2 // ticks are not exact
	if p.flight.safe().after > p.remembered {
		return p.remembered == 0 || since >= p.cfg.CheckpointInterval
	}
	return since >= p.cfg.IdleInterval
}

// remember makes the settled prefix durable in the sink, then confirms it. The
// order is the invariant: the slot is never ahead of the checkpoint.
func (p *Pipeline) remember(ctx context.Context) error {
	at := p.flight.safe()
	if at.lsn == 0 || at.lsn <= p.confirmedLSN {
		return nil
	}
	// After a crash Postgres may begin before the checkpoint. Until it has
	// caught up with it, there is nothing to write.
	if at.lsn > uint64(p.record.Confirmed) {
		if err := p.write(ctx, at); err != nil {
			return err
		}
	}
	p.source.Confirm(at.lsn)
	p.confirmedLSN, p.remembered = at.lsn, at.after
	p.gauge.confirmed(at.lsn)
	return nil
}

// write commits the checkpoint, through the events it speaks of and no further:
// what is settled of a transaction that has not ended comes again after a
// crash, and the sink must be able to recognise it then.
func (p *Pipeline) write(ctx context.Context, at point) error {
	record := p.record
	record.Confirmed = checkpoint.LSN(at.lsn)
	record.WrittenAt = time.Now()
	if len(at.id) > 0 {
		record.Last = &checkpoint.Event{Position: at.pos, XID: at.xid, CommitTime: at.time, ID: string(at.id)}
	}
	mark, err := record.Encode()
	if err != nil {
		return fmt.Errorf("checkpoint at %s: %w", record.Confirmed, err)
	}
	ctx, cancel := p.bounded(ctx, "commit marks", "kafka_unreachable")
	defer cancel()
	name := checkpoint.MarkName(p.cfg.Pipeline, p.cfg.Shard)
	if err := p.session.Commit(ctx, at.after, map[string][]byte{name: mark}); err != nil {
		return fmt.Errorf("write checkpoint at %s: %w", record.Confirmed, err)
	}
	p.record = record
	return nil
}
