package model

import (
	"context"
	"strings"
	"testing"

	"github.com/walpost/walpost/relay"
	"github.com/walpost/walpost/replication"
	"github.com/walpost/walpost/sink"
)

// breaks are mistakes that the model must notice.
type breaks struct {
	settleEarly          bool // the sink settles what it has only handed over
	confirmRead          bool // the source confirms what was only read
	newestOnly           bool // the newest event in a tail stands for all before it
	partialSkip          bool // a hole is closed without what follows on its key
	forgetEarlier        bool // records of events before the first that comes again are no part of a tail
	unfencedMarks        bool // a predecessor can still write its checkpoint
	unfencedTransactions bool // a predecessor can still commit its transaction
	trustSlot            bool // the relay is told that its checkpoint covers what the slot says, and no more
}

// disguise puts what is broken outside of the model's own ends around them.
func (b breaks) disguise(c relay.Connector, s sink.Sink) (relay.Connector, sink.Sink) {
	if b.confirmRead {
		c = hasty{c}
	}
	return c, s
}

// TestMistakesAreFound: a model that accepts everything proves nothing.
func TestMistakesAreFound(t *testing.T) {
	for name, test := range map[string]struct {
		breaks   breaks
		budget   budget
		delivery delivery
		want     string // in the violation
	}{
		"confirm before the acknowledgement": {breaks{settleEarly: true}, budget{}, idempotent, "which is not acknowledged"},
		"confirm what was read":              {breaks{confirmRead: true}, budget{}, idempotent, "which is not acknowledged"},
		"newest instead of set":              {breaks{newestOnly: true}, budget{Refusals: 1}, idempotent, "which is not acknowledged"},
		"partial skip":                       {breaks{partialSkip: true}, budget{Refusals: 1}, idempotent, "comes after the last"},
		"a hole closed by two":               {breaks{forgetEarlier: true}, budget{Refusals: 1, Kills: 1}, idempotent, "comes after the last"},
		"a checkpoint that is not fenced":    {breaks{unfencedMarks: true}, budget{Zombies: 1}, idempotent, "moves the checkpoint back"},
		"a transaction that is not fenced":   {breaks{unfencedTransactions: true, unfencedMarks: true}, budget{Zombies: 1}, exactlyOnce, "times"},
		"a resumption that drops nothing":    {breaks{trustSlot: true}, budget{ServerCrashes: 1}, exactlyOnce, "times"},
	} {
		t.Run(name, func(t *testing.T) {
			s := within(scenario{delivery: test.delivery, history: twoKeys(), breaks: test.breaks, bounds: bounds{budget: test.budget}})
			r := explore(t, s)
			if got := strings.Join(r.violation, "\n"); !strings.Contains(got, test.want) {
				t.Fatalf("%s found %q, want %q", r, got, test.want)
			}
			t.Logf("found after %s:\n%s", r, r.failure())
		})
	}
}

// hasty confirms positions that were only read.
type hasty struct{ relay.Connector }

func (h hasty) Dial(ctx context.Context) (relay.Connection, replication.Facts, error) {
	c, facts, err := h.Connector.Dial(ctx)
	return hastyConnection{c}, facts, err
}

type hastyConnection struct{ relay.Connection }

func (h hastyConnection) Start(ctx context.Context) (relay.Source, error) {
	s, err := h.Connection.Start(ctx)
	if err != nil {
		return nil, err
	}
	return hastySource{s}, nil
}

type hastySource struct{ relay.Source }

func (h hastySource) Next(ctx context.Context) (*replication.Batch, error) {
	b, err := h.Source.Next(ctx)
	if err == nil {
		h.Confirm(b.Segments[len(b.Segments)-1].End)
	}
	return b, err
}
