// Package config reads walpost's configuration file.
//
// One table (keys.go) describes every key: where it stands, what it accepts,
// its default and what it means. The check of a file, the defaults, the hints
// about unknown keys and docs/configuration.md all come from it, so none can
// disagree with another.
//
// A file is read in three steps: parsed into a tree in which `${VAR}` is
// already expanded (tree.go), checked against the table while the Config is
// filled (check.go), then checked as a whole. Every problem of a file is
// reported at once, each with its line.
//
// Only cmd, internal/cli and internal/app import this package: each layer has
// a Config of its own.
package config

import (
	"fmt"
	"time"
)

// Values of Kafka.Delivery.
const (
	DeliveryIdempotent  = "idempotent"
	DeliveryExactlyOnce = "exactly-once"
)

// Values of Kafka.Oversized: what becomes of a Postgres transaction that is larger
// than MaxTransactionEvents.
const (
	OversizedSplit = "split"
	OversizedStop  = "stop"
)

// Values of Config.OnStop: what a relay does that has stopped for a condition
// that only a person can clear.
const (
	OnStopExit = "exit" // end with the condition's exit code
	OnStopHold = "hold" // release the slot and keep HTTP up, showing the condition
)

// Config is a whole configuration, checked and with every default filled in.
// Printing it, in whatever way, shows no secret.
type Config struct {
	Version         int
	Pipeline        string
	Postgres        Postgres
	Outbox          Outbox
	Kafka           Kafka
	Limits          Limits
	OnPoison        string
	OnStop          string // OnStopExit or OnStopHold
	ShutdownTimeout time.Duration
	HTTP            HTTP
	Log             Log
}

// Postgres says where events come from.
type Postgres struct {
	URL         DSN
	Password    Secret // overrides the URL's; not configured: the URL's, or libpq's ways
	Slot        string
	Publication string
}

// Outbox says which table holds events and how a row becomes a message.
type Outbox struct {
	Table   Table
	Columns Columns
	Topic   string // may contain {aggregate_type}
}

// Columns are the names of the outbox table's columns, as Postgres stores them.
type Columns struct {
	ID            string
	AggregateType string
	AggregateID   string
	Type          string
	Payload       string
}

// Kafka says where events go.
type Kafka struct {
	Brokers         []string // host:port
	Delivery        string   // DeliveryIdempotent or DeliveryExactlyOnce
	ClientID        string
	Checkpoint      Checkpoint
	MaxMessageBytes int
	Topics          Topics

	// Of DeliveryExactlyOnce.
	GroupEvents          int
	MaxTransactionEvents int
	Oversized            string // OversizedSplit or OversizedStop
	TransactionTimeout   time.Duration
}

// Checkpoint says where the pipeline remembers how far it has come.
type Checkpoint struct {
	Topic           string
	TransactionalID string
}

// Topics says how event topics come to be.
type Topics struct {
	Create            bool
	Partitions        int               // -1: the broker's default
	ReplicationFactor int               // -1: the broker's default
	Config            map[string]string // topic-level settings
	AllowCompacted    bool
}

// Limits bound the memory held by events that Kafka has not acknowledged.
type Limits struct {
	MaxInFlightEvents int
	MaxInFlightBytes  int
}

// HTTP serves health and metrics.
type HTTP struct {
	Listen string // host:port; empty: no HTTP
}

// Log says what is logged and how.
type Log struct {
	Level  string // debug, info, warn, error
	Format string // auto, text, json
}

// String shows the configuration without its secrets.
func (c *Config) String() string {
	type plain Config // without this method, or it would call itself
	return fmt.Sprintf("%+v", plain(*c))
}
