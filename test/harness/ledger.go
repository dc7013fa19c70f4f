package harness

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// Event is what a load writes as one outbox row, and expects in Kafka.
type Event struct {
	ID    string // of the row, and in the record's header
	Key   string // of the record; its events keep their order
	Value string // of the record
}

// Ledger knows what must be in Kafka, and what must not. It is safe for
// concurrent use; whoever records a key's transactions does so in the order of
// their commits.
type Ledger struct {
	mu        sync.Mutex
	events    map[string]Event    // committed, by id
	order     map[string][]string // committed ids by key, in commit order
	whole     [][]string          // committed ids by transaction
	discarded map[string]bool     // ids that were rolled back
}

// NewLedger returns an empty one.
func NewLedger() *Ledger {
	return &Ledger{events: map[string]Event{}, order: map[string][]string{}, discarded: map[string]bool{}}
}

// Commit records events that were committed, in the order of their rows. Partial
// takes the events of one call for one transaction.
func (l *Ledger) Commit(events ...Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ids := make([]string, 0, len(events))
	for _, e := range events {
		l.events[e.ID] = e
		l.order[e.Key] = append(l.order[e.Key], e.ID)
		ids = append(ids, e.ID)
	}
	l.whole = append(l.whole, ids)
}

// Discard records events that were written and rolled back.
func (l *Ledger) Discard(events ...Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range events {
		l.discarded[e.ID] = true
	}
}

// Committed is how many events must be in Kafka.
func (l *Ledger) Committed() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.events)
}

// Discarded is how many events must not be in Kafka.
func (l *Ledger) Discarded() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.discarded)
}

// Has tells whether an event must be in Kafka.
func (l *Ledger) Has(id string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, committed := l.events[id]
	return committed
}

// Partial returns, for each transaction of which some events are published and
// some are not, one that is not. While a relay is at work there may be some;
// after it died, an exactly-once relay has left none.
func (l *Ledger) Partial(published func(id string) bool) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var partial []string
	for _, ids := range l.whole {
		missing := slices.IndexFunc(ids, func(id string) bool { return !published(id) })
		if missing >= 0 && slices.ContainsFunc(ids, published) {
			partial = append(partial, ids[missing])
		}
	}
	return partial
}

// Report is what became of the events. The lists hold event ids, or sentences
// about keys, sorted.
type Report struct {
	Committed  int
	Discarded  int
	Records    int
	Duplicates int // records of an event beyond its first

	Missing    []string // committed, and not in Kafka
	RolledBack []string // in Kafka, though rolled back
	Unknown    []string // in Kafka, and never written by this load
	Altered    []string // key or value differ from what was committed
	Split      []string // keys with events in more than one partition
	LastOrder  []string // keys whose events' last occurrences are not in commit order
	FirstOrder []string // keys whose events' first occurrences are not in commit order
}

func (r Report) String() string {
	return fmt.Sprintf("%d events committed, %d rolled back; %d records: %d missing, %d rolled back, %d unknown, %d altered, %d duplicates; keys: %d split, %d out of order",
		r.Committed, r.Discarded, r.Records, len(r.Missing), len(r.RolledBack), len(r.Unknown), len(r.Altered), r.Duplicates, len(r.Split), len(r.LastOrder)+len(r.FirstOrder))
}

// Err is nil if every committed event is there, nothing else is, and the order
// holds; duplicates are allowed.
func (r Report) Err() error {
	var errs []error
	for _, finding := range []struct {
		what string
		list []string
	}{
		{"missing", r.Missing}, {"rolled back but published", r.RolledBack}, {"unknown", r.Unknown}, {"altered", r.Altered},
		{"keys in several partitions", r.Split},
		{"last occurrences out of order", r.LastOrder}, {"first occurrences out of order", r.FirstOrder},
	} {
		if n := len(finding.list); n > 0 {
			errs = append(errs, fmt.Errorf("%d %s: %s", n, finding.what, strings.Join(finding.list[:min(n, 5)], ", ")))
		}
	}
	return errors.Join(errs...)
}

// Verify compares records with the ledger. Records of a partition must be given
// in its order, as Consume does.
func (l *Ledger) Verify(records []Record) Report {
	l.mu.Lock()
	defer l.mu.Unlock()
	report := Report{Committed: len(l.events), Discarded: len(l.discarded), Records: len(records)}
	seen := l.occurrences(records, &report)
	for id := range l.events {
		if seen[id] == nil {
			report.Missing = append(report.Missing, id)
		}
	}
	for key, ids := range l.order {
		report.judge(key, ids, seen)
	}
	report.sort()
	return report
}

// occurrence is where an event's records are.
type occurrence struct {
	partitions  map[string]bool // topic-partition
	first, last int             // index among the records
}

// occurrences sorts the records by event and reports those that are wrong by
// themselves.
func (l *Ledger) occurrences(records []Record, report *Report) map[string]*occurrence {
	seen := map[string]*occurrence{}
	for i, r := range records {
		id := r.Header("id")
		e, committed := l.events[id]
		switch {
		case l.discarded[id]:
			report.RolledBack = append(report.RolledBack, id)
			continue
		case !committed:
			report.Unknown = append(report.Unknown, id)
			continue
		case string(r.Key) != e.Key || string(r.Value) != e.Value:
			report.Altered = append(report.Altered, id)
		}
		if seen[id] == nil {
			seen[id] = &occurrence{partitions: map[string]bool{}, first: i}
		} else {
			report.Duplicates++
		}
		seen[id].last = i
		seen[id].partitions[fmt.Sprintf("%s-%d", r.Topic, r.Partition)] = true
	}
	return seen
}

// judge checks one key: a partition of its own, and commit order. Within one
// partition the index among all records grows with the offset.
func (r *Report) judge(key string, ids []string, seen map[string]*occurrence) {
	partitions := map[string]bool{}
	var first, last []int
	for _, id := range ids {
		at := seen[id]
		if at == nil {
			continue
		}
		first, last = append(first, at.first), append(last, at.last)
		for p := range at.partitions {
			partitions[p] = true
		}
	}
	if len(partitions) > 1 {
		r.Split = append(r.Split, key)
		return // there is no order between partitions
	}
	if !slices.IsSorted(last) {
		r.LastOrder = append(r.LastOrder, key)
	}
	if !slices.IsSorted(first) {
		r.FirstOrder = append(r.FirstOrder, key)
	}
}

func (r *Report) sort() {
	for _, list := range [][]string{r.Missing, r.RolledBack, r.Unknown, r.Altered, r.Split, r.LastOrder, r.FirstOrder} {
		slices.Sort(list)
	}
}
