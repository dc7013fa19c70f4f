package checkpoint

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/walpost/walpost/outbox"
)

// Version is the layout that Encode writes. It changes with every change of
// the fields, additions included: an older walpost that rewrote a record would
// drop what it doesn't know.
const Version = 1

// MarkName is the key of a shard's record among the opaque marks that a sink
// keeps for the relay. Marks of other kinds must not begin with "checkpoint/".
func MarkName(pipeline, shard string) string {
	return "checkpoint/" + pipeline + "/" + shard
}

// Phase says how far `walpost init` has come.
type Phase string

const (
	// Intent says that init has begun to make the slot, which may exist or not.
	// Nothing was read from it: init may finish, run must not start.
	Intent Phase = "intent"
	// Active says that the slot exists and belongs to the pipeline.
	Active Phase = "active"
)

// Record is what is remembered of one shard of a pipeline: enough for a
// successor to go on, and to prove that it may. It is durable before the same
// position is confirmed to Postgres, so the slot is never ahead of it.
//
// What a sink needs for its own duplicate detection, such as the offset from
// which a topic must be read again, is not here: the sink keeps it as a mark of
// its own beside this one.
type Record struct {
	Pipeline string `json:"pipeline"`

	// Where the events come from. SystemID and Timeline are those of
	// IDENTIFY_SYSTEM; the id is text because it needs all 64 bits.
	SystemID string `json:"system_id"`
	Database string `json:"database"`
	Timeline uint32 `json:"timeline"`
	Slot     string `json:"slot"`

	// Fingerprints of what decides which rows are events, where they go and
	// what they look like there. Opaque here; may be empty only in an Intent.
	Publication   string `json:"publication_fingerprint"`
	Configuration string `json:"configuration_fingerprint"`

	// KafkaClusterID as the brokers report it; empty where they report none.
	KafkaClusterID string `json:"kafka_cluster_id"`

	// Generation is 1 for a pipeline's first slot and grows by one whenever
	// the slot is made anew.
	Generation uint32 `json:"generation"`
	Phase      Phase  `json:"phase"`

	// Confirmed is the position that may be confirmed to Postgres. In an
	// Intent it may be 0.
	Confirmed LSN `json:"confirmed_lsn"`

	// Last is the last event of the settled prefix; nil before the first.
	Last *Event `json:"last_event"`

	WrittenAt time.Time `json:"written_at"`
}

// Event is what is remembered of an event to recognise it when Postgres sends
// it again.
type Event struct {
	Position   outbox.Position `json:"position"`
	XID        uint32          `json:"xid"`
	CommitTime time.Time       `json:"commit_time"`
	ID         string          `json:"id"`
}

// String names the event to a person.
func (e *Event) String() string {
	return fmt.Sprintf("event %s of transaction %d at %s, the last one that the checkpoint covers", e.ID, e.XID, e.Position)
}

// versioned is a record as it is written.
type versioned struct {
	V int64 `json:"v"`
	Record
}

func recordFields() []string {
	return []string{
		"v", "pipeline", "system_id", "database", "timeline", "slot",
		"publication_fingerprint", "configuration_fingerprint", "kafka_cluster_id",
		"generation", "phase", "confirmed_lsn", "last_event", "written_at",
	}
}

func eventFields() []string {
	return []string{"position", "xid", "commit_time", "id"}
}

// Encode returns the record as JSON. Times are written in UTC. A record that
// Decode would refuse is an error, so that none is ever stored.
func (r Record) Encode() ([]byte, error) {
	r.WrittenAt = r.WrittenAt.UTC()
	if r.Last != nil {
		last := *r.Last
		last.CommitTime = last.CommitTime.UTC()
		r.Last = &last
	}
	if err := r.validate(); err != nil {
		return nil, fmt.Errorf("encode checkpoint record: %w", err)
	}
	b, err := json.Marshal(versioned{V: Version, Record: r})
	if err != nil {
		return nil, fmt.Errorf("encode checkpoint record: %w", err)
	}
	return b, nil
}

// Decode reads what Encode wrote. Its errors are *TooNewError and
// *UnreadableError. It is strict: a field too many, too few or without a
// meaningful value makes the record unreadable, for a guess about where to go
// on from is worse than a stop.
func Decode(b []byte) (*Record, error) {
	var version struct {
		V *int64 `json:"v"`
	}
	if err := json.Unmarshal(b, &version); err != nil {
		return nil, &UnreadableError{Err: err}
	}
	if version.V != nil && *version.V > Version {
		return nil, &TooNewError{Version: *version.V}
	}
	r, err := decodeCurrent(b)
	if err != nil {
		return nil, &UnreadableError{Err: err}
	}
	return r, nil
}

func decodeCurrent(b []byte) (*Record, error) {
	var record versioned
	if err := unmarshalExactly(b, &record, recordFields()); err != nil {
		return nil, err
	}
	if record.V != Version {
		return nil, fmt.Errorf("v is %d, and no version has written that", record.V)
	}
	if err := record.validate(); err != nil {
		return nil, err
	}
	return &record.Record, nil
}

// UnmarshalJSON is as strict about an event's fields as Decode is about the
// record's.
func (e *Event) UnmarshalJSON(b []byte) error {
	type plain Event // without this method
	if err := unmarshalExactly(b, (*plain)(e), eventFields()); err != nil {
		return fmt.Errorf("last_event: %w", err)
	}
	return nil
}

// unmarshalExactly refuses an object whose fields are not exactly those named.
// encoding/json by itself takes absent fields for zero and unknown or
// differently capitalised ones for good.
func unmarshalExactly(b []byte, into any, fields []string) error {
	var object map[string]json.RawMessage
	if err := json.Unmarshal(b, &object); err != nil {
		return err
	}
	for _, name := range fields {
		if _, found := object[name]; !found {
			return fmt.Errorf("field %q is missing", name)
		}
		delete(object, name)
	}
	if len(object) > 0 {
		return fmt.Errorf("field %.40q is unknown", slices.Min(slices.Collect(maps.Keys(object))))
	}
	return json.Unmarshal(b, into)
}

func (r *Record) validate() error {
	for _, field := range r.mandatory() {
		if field.absent {
			return fmt.Errorf("%s is missing or zero", field.name)
		}
	}
	for _, text := range []string{r.Pipeline, r.SystemID, r.Database, r.Slot, r.Publication, r.Configuration, r.KafkaClusterID} {
		if !utf8.ValidString(text) {
			return fmt.Errorf("%.40q is not valid UTF-8", text)
		}
	}
	if r.Phase != Intent && r.Phase != Active {
		return fmt.Errorf("phase %.40q: want %q or %q", r.Phase, Intent, Active)
	}
	if r.Last == nil {
		return nil
	}
	return r.Last.validate(r.Generation)
}

// meaningful is false for the zero time, and for those few that can be read
// with an offset but not be written in UTC (RFC 3339 has four-digit years).
func meaningful(t time.Time) bool {
	year := t.UTC().Year()
	return !t.IsZero() && year >= 0 && year <= 9999
}

type mandatoryField struct {
	name   string
	absent bool
}

func (r *Record) mandatory() []mandatoryField {
	active := r.Phase == Active
	return []mandatoryField{
		{"pipeline", r.Pipeline == ""},
		{"system_id", r.SystemID == ""},
		{"database", r.Database == ""},
		{"timeline", r.Timeline == 0},
		{"slot", r.Slot == ""},
		{"generation", r.Generation == 0},
		{"written_at", !meaningful(r.WrittenAt)},
		{"publication_fingerprint", active && r.Publication == ""},
		{"configuration_fingerprint", active && r.Configuration == ""},
		{"confirmed_lsn", active && r.Confirmed == 0},
	}
}

// validate checks an event of a record of the given generation. It may stem
// from an earlier one: the slot was made anew since.
func (e *Event) validate(generation uint32) error {
	switch {
	case e.Position.Generation == 0 || e.Position.Generation > generation:
		return fmt.Errorf("last_event: position %s is not of generation 1 to %d", e.Position, generation)
	case e.Position.Commit == 0:
		return errors.New("last_event: position has no commit LSN")
	case e.XID == 0:
		return errors.New("last_event: xid is missing or zero")
	case !meaningful(e.CommitTime):
		return errors.New("last_event: commit_time is missing or zero")
	case e.ID == "":
		return errors.New("last_event: id is missing or empty")
	case !utf8.ValidString(e.ID):
		return errors.New("last_event: id is not valid UTF-8")
	}
	return nil
}
