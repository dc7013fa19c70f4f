package relay

import (
	"context"
	"errors"
	"time"

	"github.com/walpost/walpost/replication"
)

// monitor looks at the publication now and then, on a connection of its own.
// What a narrowed publication leaves out is not in the stream, and nothing in
// the stream says so; it can only be noticed, and the relay stopped, before more
// is left out. A server that is away is the stream's business; one that refuses to
// be asked while the stream lives is worth a line in the log.
func (p *Pipeline) monitor(ctx context.Context) error {
	tick := time.NewTicker(p.cfg.MonitorInterval)
	defer tick.Stop()
	want := Expectation{Tables: p.cfg.Tables}
	seen := attachments{}
	failures := 0
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		facts, err := p.cfg.Source.Look(ctx)
		if err == nil && !p.origin.is(facts) {
			err = errElsewhere
		}
		if err != nil {
			if failures++; failures == blindAfter {
				p.cfg.Logger.Warn("the publication can't be looked at; while that lasts an altered one is not noticed", "pipeline", p.cfg.Pipeline, "error", err.Error())
			}
			continue
		}
		failures = 0
		if err := published(want, p.publication, facts.Publication); err != nil {
			return err
		}
		if err := seen.compare(facts.Publication); err != nil {
			return err
		}
	}
}

// blindAfter is how many looks in a row may fail.
const blindAfter = 3

// errElsewhere is of a look that led to another server than the stream's.
var errElsewhere = errors.New("postgres.url leads to another server, or history, than the one whose events flow")

// origin is the server, and its history, that a life's events come from. With
// several hosts in the URL a look may lead to another.
type origin struct {
	systemID string
	timeline int32
}

func (o origin) is(facts replication.Facts) bool {
	return o == origin{facts.SystemID, facts.Timeline}
}

// attachments are the partitions that were seen, by OID, and since when each was
// attached. New ones, and ones that go, are normal life. But one that was away
// may have been written to meanwhile, and brings back rows that no stream has
// had.
type attachments map[uint32]string

func (a attachments) compare(pub *replication.Publication) error {
	for _, t := range pub.Tables {
		for _, part := range t.Partitions {
			before, known := a[part.OID]
			a[part.OID] = part.Attached
			if known && before != part.Attached {
				return doubtf("publication_changed", "partition %s of table %s.%s was detached and attached again: what was inserted into it in between is never published",
					part.Name, t.Schema, t.Table)
			}
		}
	}
	return nil
}
