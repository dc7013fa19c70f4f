package relay

import (
	"context"
	"fmt"

	"github.com/walpost/walpost/checkpoint"
	"github.com/walpost/walpost/outbox"
	"github.com/walpost/walpost/outbox/mapping"
	"github.com/walpost/walpost/replication"
)

// intake turns what the source yields into messages: what both ways of delivery
// begin with. It belongs to the goroutine that feeds the sink.
type intake struct {
	generation uint32 // of the slot
	mapper     *mapping.Mapper
	plans      map[uint32]planned // by the table's OID
	table      planned            // of the last row
}

// planned is how a table is mapped as it was described last.
type planned struct {
	relation *replication.Relation
	plan     *mapping.Plan
}

func newIntake(mapper *mapping.Mapper, generation uint32) *intake {
	return &intake{generation: generation, mapper: mapper, plans: map[uint32]planned{}}
}

// next reads a batch and drops what the checkpoint covers. What is left has
// a place in the flight, if it has rows: it is in the load, whose messages may be
// sent. What precedes a row that can't be mapped is in it as well, and
// unmappable says why; the rest of the batch stays in flight.
func (p *Pipeline) next(ctx context.Context) (batch *replication.Batch, l *load, unmappable, err error) {
	if batch, err = p.source.Next(ctx); err != nil {
		return nil, nil, nil, err
	}
	p.gauge.server(batch.WALEnd)
	if err := p.resumption.trim(batch); err != nil {
		return nil, nil, nil, err
	}
	if batch.Rows == 0 {
		return batch, nil, nil, nil
	}
	if l, err = p.flight.admit(ctx, batch.Rows, batch.Bytes); err != nil {
		return nil, nil, nil, err
	}
	p.cfg.Observer.Read(batch.Rows)
	l.batch = batch
	unmappable = p.intake.fill(l)
	p.flight.launch(l, batch.Segments)
	return batch, l, unmappable, nil
}

// fill maps a load's rows until one can't be mapped.
func (in *intake) fill(l *load) error {
	for i := range l.batch.Segments {
		seg := &l.batch.Segments[i]
		for j := range seg.Rows {
			if err := in.mapRow(l, seg, &seg.Rows[j]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (in *intake) mapRow(l *load, seg *replication.Segment, row *replication.Row) error {
	if row.Rel != in.table.relation {
		if err := in.planFor(row.Rel); err != nil {
			return fmt.Errorf("transaction that commits at %s: %w", checkpoint.LSN(seg.Commit), err)
		}
	}
	l.messages = append(l.messages, outbox.Message{
		Pos:  outbox.Position{Generation: in.generation, Commit: seg.Commit, Index: row.Index},
		Time: seg.Time,
	})
	if err := in.table.plan.Map(&l.messages[len(l.messages)-1], &l.arena, row.Values); err != nil {
		l.messages = l.messages[:len(l.messages)-1]
		return fmt.Errorf("row %d of the transaction that commits at %s: %w", row.Index, checkpoint.LSN(seg.Commit), err)
	}
	return nil
}

// identify returns the id of the event in a row.
func (in *intake) identify(seg *replication.Segment, row *replication.Row) (string, error) {
	var l load
	if err := in.mapRow(&l, seg, row); err != nil {
		return "", err
	}
	return string(l.messages[0].ID), nil
}

// planFor makes the plan of a table the current one. Tables may take turns from
// row to row, so each keeps its plan until it is described anew.
func (in *intake) planFor(rel *replication.Relation) error {
	known := in.plans[rel.OID]
	if known.relation != rel {
		plan, err := in.mapper.Plan(rel.Schema, rel.Table, columns(rel))
		if err != nil {
			return err
		}
		known = planned{rel, plan}
		in.plans[rel.OID] = known
	}
	in.table = known
	return nil
}

func columns(rel *replication.Relation) []mapping.Column {
	cols := make([]mapping.Column, len(rel.Columns))
	for i, c := range rel.Columns {
		cols[i] = mapping.Column{Name: c.Name, TypeOID: c.TypeOID}
	}
	return cols
}
