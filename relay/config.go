package relay

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/walpost/walpost/outbox"
	"github.com/walpost/walpost/outbox/mapping"
	"github.com/walpost/walpost/sink"
)

// Config is what a relay needs to know. Zero values of the fields from
// MaxInFlightEvents on mean the defaults named.
type Config struct {
	Pipeline string
	Shard    string // of the pipeline; "0" where it has one
	Slot     string
	Tables   []mapping.Table

	Source Connector
	Sink   sink.Sink
	// Destination identifies what the sink publishes to; a checkpoint written
	// for another one is not believed.
	Destination func(context.Context) (string, error)

	Logger   *slog.Logger
	Observer Observer

	// MaxInFlightEvents and MaxInFlightBytes bound what is read and not yet
	// settled; 20,000 and 32 MiB. A single larger batch is let through alone.
	MaxInFlightEvents int
	MaxInFlightBytes  int
	// GroupEvents is from how many events on no further Postgres transaction joins
	// the others in one commit of an atomic sink; 20,000.
	GroupEvents int
	// MaxTransactionEvents is the size from which on a Postgres transaction is
	// not committed as a whole to an atomic sink; 100,000.
	MaxTransactionEvents int
	// TransactionTime is how long a commit of an atomic sink may be put off; 30 s.
	// A Postgres transaction that takes longer counts as too large.
	TransactionTime time.Duration
	// StopOversized makes the relay stop at a Postgres transaction that is too
	// large, instead of committing it in parts.
	StopOversized bool
	// OpenTimeout bounds each step of opening a pipeline; 15 s.
	OpenTimeout time.Duration
	// CommitTimeout bounds a commit of the sink; 30 s. It leaves the sink time to
	// find out by itself what is wrong.
	CommitTimeout time.Duration
	// ShutdownTimeout bounds winding up; 20 s.
	ShutdownTimeout time.Duration
	// CheckpointInterval is how often the checkpoint is written and confirmed
	// while events flow; 1 s. It bounds what a successor reads again after a crash,
	// not latency.
	CheckpointInterval time.Duration
	// IdleInterval is the same while only WAL of others passes; 5 s.
	IdleInterval time.Duration
	// StallAfter is how long events may wait without any being settled before
	// the relay calls itself stalled; 10 s.
	StallAfter time.Duration
	// MonitorInterval is how often the publication is looked at while events
	// flow; 10 s. An altered one shows in nothing that the stream yields.
	MonitorInterval time.Duration
	// RetryInitial and RetryMax bound the pause between two pipelines: 50 ms
	// at first, then longer up to 500 ms, jittered.
	RetryInitial, RetryMax time.Duration
}

func (c Config) withDefaults() (Config, error) {
	if c.Pipeline == "" || c.Slot == "" || len(c.Tables) == 0 || c.Source == nil || c.Sink == nil || c.Destination == nil || c.Logger == nil || c.Observer == nil {
		return c, errors.New("relay: Pipeline, Slot, Tables, Source, Sink, Destination, Logger and Observer are needed")
	}
	if c.Shard == "" {
		c.Shard = "0"
	}
	setDefault(&c.MaxInFlightEvents, 20_000)
	setDefault(&c.MaxInFlightBytes, 32<<20)
	setDefault(&c.GroupEvents, 20_000)
	setDefault(&c.MaxTransactionEvents, 100_000)
	setDefault(&c.TransactionTime, 30*time.Second)
	setDefault(&c.OpenTimeout, 15*time.Second)
	setDefault(&c.CommitTimeout, 30*time.Second)
	setDefault(&c.ShutdownTimeout, 20*time.Second)
	setDefault(&c.CheckpointInterval, time.Second)
	setDefault(&c.IdleInterval, 5*time.Second)
	setDefault(&c.StallAfter, 10*time.Second)
	setDefault(&c.MonitorInterval, 10*time.Second)
	setDefault(&c.RetryInitial, 50*time.Millisecond)
	setDefault(&c.RetryMax, 500*time.Millisecond)
	return c, nil
}

// mapper fails for tables that can't be mapped whatever the database is.
func (c Config) mapper(systemID, database string) (*mapping.Mapper, error) {
	return mapping.New(mapping.Config{Source: c.source(systemID, database), Tables: c.Tables})
}

// source is what every message says it comes from.
func (c Config) source(systemID, database string) string {
	return outbox.Source{SystemID: systemID, Database: database, Pipeline: c.Pipeline, Shard: c.Shard}.String()
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Fingerprint changes with whatever decides which rows become which messages. It
// is kept in Kafka: with a field that a table doesn't use it must stay what it
// was, or a new version of walpost would take itself for a change of routing.
func Fingerprint(tables []mapping.Table) string {
	h := sha256.New()
	for _, t := range tables {
		for _, field := range [][2]string{
			{"schema", t.Schema}, {"table", t.Name}, {"topic", t.Topic},
			{"id", t.Columns.ID}, {"aggregate_type", t.Columns.AggregateType}, {"aggregate_id", t.Columns.AggregateID},
			{"type", t.Columns.Type}, {"payload", t.Columns.Payload},
		} {
			if field[1] != "" {
				_, _ = fmt.Fprintf(h, "%s=%q\n", field[0], field[1])
			}
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}
