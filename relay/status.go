package relay

import (
	"slices"
	"time"
)

// State is where a relay's life stands.
type State string

const (
	Starting  State = "starting"  // no pipeline streams yet, or again
	Streaming State = "streaming" // events flow as they are committed
	Standby   State = "standby"   // another walpost of this pipeline holds the slot
	Stopping  State = "stopping"  // asked to stop; settling what was sent
	Stopped   State = "stopped"   // ended, as asked or for a fatal condition
)

// States lists them all.
func States() []State { return []State{Starting, Streaming, Standby, Stopping, Stopped} }

// Status is a snapshot of a relay for health pages and metrics. LSNs are
// absolute positions in bytes; 0 is unknown.
type Status struct {
	State          State
	Since          time.Time // of State
	Heartbeat      time.Time // when the relay's loops last turned
	ServerLSN      uint64    // the newest WAL position the server has told of
	ConfirmedLSN   uint64    // what Postgres may forget
	InFlightEvents int       // read, not yet in the settled prefix
	InFlightBytes  int
	OldestUnacked  time.Time // commit time of the oldest such event; zero: none
	LastProgress   time.Time // when an event was last settled or a position last confirmed
	Conditions     []Condition
}

// Ready reports whether events flow, or would if this instance had to take
// over, leaving the excluded conditions out of account.
func (s Status) Ready(exclude ...string) bool {
	if s.State != Streaming && s.State != Standby {
		return false
	}
	return len(s.Obstacles(exclude...)) == 0
}

// Obstacles are the conditions that make the relay not ready. A standby's
// slot_busy is its normal state and none.
func (s Status) Obstacles(exclude ...string) []Condition {
	var list []Condition
	for _, c := range s.Conditions {
		if c.Severity == Warning || slices.Contains(exclude, c.Name) || s.State == Standby && c.Name == "slot_busy" {
			continue
		}
		list = append(list, c)
	}
	return list
}

// Observer is told what a relay does, once per batch. Its methods are called
// from the path of the events: they must not block and should not allocate.
type Observer interface {
	// Read: events rows were read from Postgres.
	Read(events int)
	// Settled: n events of one topic and one transaction are in Kafka,
	// sinceCommit after their transaction's commit time (never negative).
	// duplicate says they were there already.
	Settled(topic string, n int, sinceCommit time.Duration, duplicate bool)
	// Skipped: events that the checkpoint covers were read again and dropped.
	Skipped(events int)
	// Restarted: a pipeline ended for the named reason (a condition, or
	// "error") and another will be started.
	Restarted(reason string)
}
