package crash

import (
	"context"

	"github.com/walpost/walpost/outbox"
	"github.com/walpost/walpost/relay"
	"github.com/walpost/walpost/replication"
	"github.com/walpost/walpost/sink"
)

// Point is a place between a relay and one of its ends.
type Point string

// The points of a relay's life, in the order in which one life reaches them
// first.
const (
	BeforeMarks   Point = "before-marks"   // nothing is known yet
	AfterMarks    Point = "after-marks"    // the checkpoint was seen, nobody is fenced
	BeforeStart   Point = "before-start"   // connected to Postgres
	AfterStart    Point = "after-start"    // the slot is held
	BeforeOpen    Point = "before-open"    // no predecessor is fenced
	AfterOpen     Point = "after-open"     // every predecessor is fenced
	AfterNext     Point = "after-next"     // a batch was read
	BeforeSend    Point = "before-send"    // it is mapped
	AfterSend     Point = "after-send"     // it may be on its way
	BeforeSettle  Point = "before-settle"  // acknowledged, and the relay does not know
	AfterSettle   Point = "after-settle"   // acknowledged, not committed
	BeforeCommit  Point = "before-commit"  // the checkpoint is about to be written
	AfterCommit   Point = "after-commit"   // written, not confirmed to Postgres
	AfterConfirm  Point = "after-confirm"  // on its way to Postgres
	BeforeClose   Point = "before-close"   // winding up: the session is open
	AfterClose    Point = "after-close"    // the session is closed, the slot held
	AfterGiveBack Point = "after-giveback" // the slot is free
)

// Points lists them all.
func Points() []Point {
	return []Point{
		BeforeMarks, AfterMarks, BeforeStart, AfterStart, BeforeOpen, AfterOpen, AfterNext, BeforeSend, AfterSend,
		BeforeSettle, AfterSettle, BeforeCommit, AfterCommit, AfterConfirm, BeforeClose, AfterClose, AfterGiveBack,
	}
}

// Reach is told that a point was reached, in the goroutine that reached it. It
// may not return.
type Reach func(Point)

// Connector tells when the points at the source's end are reached.
func Connector(inner relay.Connector, reach Reach) relay.Connector { return connector{inner, reach} }

// Sink tells when the points at the sink's end are reached.
func Sink(inner sink.Sink, reach Reach) sink.Sink { return end{inner, reach} }

type connector struct {
	relay.Connector
	reach Reach
}

func (c connector) Dial(ctx context.Context) (relay.Connection, replication.Facts, error) {
	conn, facts, err := c.Connector.Dial(ctx)
	if err != nil {
		return nil, facts, err
	}
	return connection{conn, c.reach}, facts, nil
}

type connection struct {
	relay.Connection
	reach Reach
}

func (c connection) Start(ctx context.Context) (relay.Source, error) {
	c.reach(BeforeStart)
	s, err := c.Connection.Start(ctx)
	if err != nil {
		return nil, err
	}
	c.reach(AfterStart)
	return source{s, c.reach}, nil
}

type source struct {
	relay.Source
	reach Reach
}

func (s source) Next(ctx context.Context) (*replication.Batch, error) {
	b, err := s.Source.Next(ctx)
	if err == nil {
		s.reach(AfterNext)
	}
	return b, err
}

func (s source) Confirm(lsn uint64) {
	s.Source.Confirm(lsn)
	s.reach(AfterConfirm)
}

func (s source) Close() {
	s.Source.Close()
	s.reach(AfterGiveBack)
}

type end struct {
	sink.Sink
	reach Reach
}

func (e end) Marks(ctx context.Context) (map[string][]byte, error) {
	e.reach(BeforeMarks)
	marks, err := e.Sink.Marks(ctx)
	e.reach(AfterMarks)
	return marks, err
}

func (e end) Open(ctx context.Context, settle sink.Settle) (sink.Session, map[string][]byte, error) {
	e.reach(BeforeOpen)
	s, marks, err := e.Sink.Open(ctx, func(seqs []uint64, o sink.Outcome) {
		e.reach(BeforeSettle)
		settle(seqs, o)
		e.reach(AfterSettle)
	})
	if err != nil {
		return nil, nil, err
	}
	e.reach(AfterOpen)
	return session{s, e.reach}, marks, nil
}

type session struct {
	sink.Session
	reach Reach
}

func (s session) Send(ctx context.Context, msgs []outbox.Message) (int, error) {
	s.reach(BeforeSend)
	n, err := s.Session.Send(ctx, msgs)
	s.reach(AfterSend)
	return n, err
}

func (s session) Commit(ctx context.Context, through uint64, marks map[string][]byte) error {
	s.reach(BeforeCommit)
	err := s.Session.Commit(ctx, through, marks)
	s.reach(AfterCommit)
	return err
}

func (s session) Close(ctx context.Context) error {
	s.reach(BeforeClose)
	err := s.Session.Close(ctx)
	s.reach(AfterClose)
	return err
}
