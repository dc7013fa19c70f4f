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
	"encoding/hex"
	"fmt"
	"time"
)

// Headers that walpost itself writes, before any that a mapping places.
const (
	HeaderID       = "id"
	HeaderSource   = "walpost-source"
	HeaderPosition = "walpost-position"
)

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
// AppendText writes.
func (p *Position) UnmarshalText(b []byte) error {
	if len(b) != PositionLen || b[8] != '-' || b[25] != '-' {
		return fmt.Errorf("position %q: want <8 hex>-<16 hex>-<8 hex>", b)
	}
	generation, err1 := parseHex(b[:8])
	commit, err2 := parseHex(b[9:25])
	index, err3 := parseHex(b[26:])
	for _, err := range []error{err1, err2, err3} {
		if err != nil {
			return fmt.Errorf("position %q: %w", b, err)
		}
	}
	*p = Position{Generation: uint32(generation), Commit: commit, Index: uint32(index)}
	return nil
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

func parseHex(b []byte) (uint64, error) {
	var raw [8]byte
	if _, err := hex.Decode(raw[8-len(b)/2:], b); err != nil {
		return 0, err
	}
	var v uint64
	for _, c := range raw {
		v = v<<8 | uint64(c)
	}
	return v, nil
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
