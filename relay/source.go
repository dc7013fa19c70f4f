package relay

import (
	"context"

	"github.com/walpost/walpost/replication"
)

// Connector leads to the database whose events are relayed.
type Connector interface {
	Dial(ctx context.Context) (Connection, replication.Facts, error)
	// Look asks for the facts and keeps nothing open.
	Look(ctx context.Context) (replication.Facts, error)
}

// Connection is connected and does not stream yet.
type Connection interface {
	// Start takes the slot. Success or not, the Connection is used up.
	Start(ctx context.Context) (Source, error)
	Close(ctx context.Context) error
}

// Source yields batches in commit order. *replication.Stream documents what
// each method promises.
type Source interface {
	Next(ctx context.Context) (*replication.Batch, error)
	Ready() bool
	Confirm(lsn uint64)
	Done() <-chan struct{}
	Err() error
	Close()
}

// Postgres is the Connector for a replication slot.
func Postgres(cfg replication.Config) Connector { return postgres{cfg} }

type postgres struct{ cfg replication.Config }

func (p postgres) Dial(ctx context.Context) (Connection, replication.Facts, error) {
	conn, facts, err := replication.Dial(ctx, p.cfg)
	if err != nil {
		return nil, facts, err
	}
	return connection{conn}, facts, nil
}

func (p postgres) Look(ctx context.Context) (replication.Facts, error) {
	return replication.Look(ctx, p.cfg)
}

type connection struct{ *replication.Conn }

func (c connection) Start(ctx context.Context) (Source, error) {
	stream, err := c.Conn.Start(ctx)
	if err != nil {
		return nil, err
	}
	return stream, nil
}
