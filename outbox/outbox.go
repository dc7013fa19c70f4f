// Package outbox says what an event is: where it stands in the history of its
// database (Position) and what is published of it (Message).
//
// Every other package may import this one, so it imports nothing but the
// standard library and holds no behaviour beyond the text form of a position.
//
// Terms:
//
//   - An event is one row inserted into an outbox table.
//   - Its position is the commit LSN of its transaction and its index among the
//     mapped events of that transaction, within a generation of the slot.
//   - Its source is the database cluster, database, pipeline and shard it was
//     read by. A position means nothing without its source: two slots may give
//     the same position to different rows.
package outbox

import (
	"fmt"
	"strings"
	"time"
)

// Headers that walpost itself writes, before any that a mapping places.
const (
	HeaderID       = "id"
	HeaderSource   = "walpost-source"
	HeaderPosition = "walpost-position"
)

// Source is what a position counts in: equal positions of one source are the
// same event, equal positions of two sources have nothing to do with each
// other.
type Source struct {
	SystemID string // of the database cluster, as IDENTIFY_SYSTEM reports it
	Database string
	Pipeline string
	Shard    string
}

// String is the value of HeaderSource: the four parts with slashes between
// them. It is unambiguous as long as the pipeline's and the shard's names hold
// no slash: the database's name may.
func (s Source) String() string {
	return strings.Join([]string{s.SystemID, s.Database, s.Pipeline, s.Shard}, "/")
}

// PositionLen is the length of a position's text form.
const PositionLen = 8 + 1 + 16 + 1 + 8

// Position orders the events of one source.
type Position struct {
	Generation uint32 // grows by one whenever the slot is made anew
	Commit     uint64 // commit LSN, from the transaction's Begin message
	Index      uint32 // 0-based, among the mapped events of the transaction
}

// Compare returns -1, 0 or +1 as p is before, at or after q.
func (p Position) Compare(q Position) int {
	switch {
	case p.Generation != q.Generation:
		return order(p.Generation < q.Generation)
	case p.Commit != q.Commit:
		return order(p.Commit < q.Commit)
	case p.Index != q.Index:
		return order(p.Index < q.Index)
	}
	return 0
}

func order(less bool) int {
	if less {
		return -1
	}
	return 1
}

// AppendText appends <generation 8 hex>-<commit 16 hex>-<index 8 hex>, which
// sorts as text the way positions do. It never fails.
func (p Position) AppendText(b []byte) ([]byte, error) {
	b = appendHex(b, uint64(p.Generation), 8)
	b = append(b, '-')
	b = appendHex(b, p.Commit, 16)
	b = append(b, '-')
	return appendHex(b, uint64(p.Index), 8), nil
}

// MarshalText implements [encoding.TextMarshaler].
func (p Position) MarshalText() ([]byte, error) {
	return p.AppendText(make([]byte, 0, PositionLen))
}

// UnmarshalText implements [encoding.TextUnmarshaler]; it accepts only what
// AppendText writes, so that two texts are equal exactly when their positions
// are.
func (p *Position) UnmarshalText(b []byte) error {
	if len(b) != PositionLen || b[8] != '-' || b[25] != '-' {
		return notAPosition(b)
	}
	generation, ok1 := parseHex(b[:8])
	commit, ok2 := parseHex(b[9:25])
	index, ok3 := parseHex(b[26:])
	if !ok1 || !ok2 || !ok3 {
		return notAPosition(b)
	}
	*p = Position{Generation: uint32(generation), Commit: commit, Index: uint32(index)} //nolint:gosec // 8 hex digits each
	return nil
}

func notAPosition(b []byte) error {
	return fmt.Errorf("position %.64q: want <8 hex>-<16 hex>-<8 hex>, in lower case", b)
}

func (p Position) String() string {
	b, _ := p.MarshalText()
	return string(b)
}

func appendHex(b []byte, v uint64, digits int) []byte {
	const alphabet = "0123456789abcdef"
	for shift := 4 * (digits - 1); shift >= 0; shift -= 4 {
		b = append(b, alphabet[v>>shift&0xf])
	}
	return b
}

// parseHex reads up to 16 lower-case digits. encoding/hex would take upper case
// too.
func parseHex(b []byte) (v uint64, ok bool) {
	for _, c := range b {
		switch {
		case '0' <= c && c <= '9':
			v = v<<4 | uint64(c-'0')
		case 'a' <= c && c <= 'f':
			v = v<<4 | uint64(c-'a'+10)
		default:
			return 0, false
		}
	}
	return v, true
}

// Header is one record header. Keys are shared between messages: nobody may
// write to them.
type Header struct {
	Key   []byte
	Value []byte // nil is a null header value
}

// Message is one event as it is published. Its byte slices are lent: they
// belong to the batch the event was read in and stay valid until the message
// is settled.
type Message struct {
	Seq  uint64    // number within the session, without gaps, given by the relay
	Pos  Position  // where the event stands
	Time time.Time // commit time at the source

	ID      []byte // event id as text
	Key     []byte // nil: null key
	Value   []byte // nil: tombstone
	HashKey []byte // the bytes that decide the partition where Partition is -1

	Topic     string
	Partition int32 // -1: decided by HashKey
	Headers   []Header
}
