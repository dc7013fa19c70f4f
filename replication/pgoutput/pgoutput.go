// Package pgoutput decodes the messages of Postgres's built-in logical decoding
// plugin, protocol version 1: whole transactions in commit order.
//
// It is pure: bytes in, values out, no I/O, no state. Whatever bytes it is
// given, it returns a value or an error and never panics. Decoded tuples alias
// the message they were decoded from.
//
// The format is described in the chapter "Logical Replication Message Formats"
// of the Postgres documentation.
package pgoutput

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// Kind is the first byte of a message.
type Kind byte

// The kinds that protocol version 1 knows.
const (
	KindBegin    Kind = 'B'
	KindCommit   Kind = 'C'
	KindOrigin   Kind = 'O'
	KindRelation Kind = 'R'
	KindType     Kind = 'Y'
	KindInsert   Kind = 'I'
	KindUpdate   Kind = 'U'
	KindDelete   Kind = 'D'
	KindTruncate Kind = 'T'
	KindMessage  Kind = 'M'
)

// Known reports whether the kind belongs to protocol version 1.
func (k Kind) Known() bool {
	switch k {
	case KindBegin, KindCommit, KindOrigin, KindRelation, KindType, KindInsert,
		KindUpdate, KindDelete, KindTruncate, KindMessage:
		return true
	}
	return false
}

// ErrUnchangedTOAST says that a tuple leaves a large value out because an
// update did not change it. It is legal in updates only.
var ErrUnchangedTOAST = errors.New("unchanged TOAST value in an inserted row")

// Begin opens a transaction.
type Begin struct {
	CommitLSN uint64    // where the transaction's commit record starts
	Time      time.Time // commit time
	XID       uint32
}

// Commit ends a transaction.
type Commit struct {
	CommitLSN uint64 // equals Begin's
	EndLSN    uint64 // just past the commit record: what a client confirms
	Time      time.Time
}

// Column describes one column of a relation.
type Column struct {
	Key     bool // part of the replica identity
	Name    string
	TypeOID uint32
	TypeMod int32
}

// Relation describes a table before the first change that refers to it, and
// again after every change of its definition.
type Relation struct {
	OID             uint32
	Schema          string // empty: pg_catalog
	Table           string
	ReplicaIdentity byte
	Columns         []Column
}

// KindOf returns the kind of a message. An empty message is an error.
func KindOf(msg []byte) (Kind, error) {
	if len(msg) == 0 {
		return 0, errors.New("empty pgoutput message")
	}
	return Kind(msg[0]), nil
}

// DecodeBegin decodes a Begin message.
func DecodeBegin(msg []byte) (Begin, error) {
	r, err := open(msg, KindBegin)
	if err != nil {
		return Begin{}, err
	}
	b := Begin{CommitLSN: r.uint64(), Time: pgTime(r.uint64()), XID: r.uint32()}
	return b, r.close("Begin")
}

// DecodeCommit decodes a Commit message.
func DecodeCommit(msg []byte) (Commit, error) {
	r, err := open(msg, KindCommit)
	if err != nil {
		return Commit{}, err
	}
	r.byte() // flags, unused
	c := Commit{CommitLSN: r.uint64(), EndLSN: r.uint64(), Time: pgTime(r.uint64())}
	return c, r.close("Commit")
}

// DecodeRelation decodes a Relation message.
func DecodeRelation(msg []byte) (Relation, error) {
	r, err := open(msg, KindRelation)
	if err != nil {
		return Relation{}, err
	}
	rel := Relation{OID: r.uint32(), Schema: r.string(), Table: r.string(), ReplicaIdentity: r.byte()}
	for n := int(r.uint16()); n > 0 && !r.short; n-- {
		rel.Columns = append(rel.Columns, Column{
			Key: r.byte()&1 != 0, Name: r.string(), TypeOID: r.uint32(), TypeMod: int32(r.uint32()), //nolint:gosec // -1 is sent as all ones
		})
	}
	return rel, r.close("Relation")
}

// InsertOID returns the relation an Insert message refers to, without decoding
// the rest.
func InsertOID(msg []byte) (uint32, error) {
	r, err := open(msg, KindInsert)
	if err != nil {
		return 0, err
	}
	oid := r.uint32()
	if r.short {
		return 0, errShort("Insert")
	}
	return oid, nil
}

// AppendInsert decodes an Insert message's tuple and appends one element per
// column to values: nil for NULL, otherwise the value's text (or, where the
// stream was started with binary, its binary form), aliasing msg.
func AppendInsert(values [][]byte, msg []byte) ([][]byte, error) {
	r, err := open(msg, KindInsert)
	if err != nil {
		return values, err
	}
	r.uint32()
	if tag := r.byte(); tag != 'N' && !r.short {
		return values, fmt.Errorf("pgoutput Insert: tuple tag %q, want 'N'", tag)
	}
	for n := int(r.uint16()); n > 0; n-- {
		switch kind := r.byte(); {
		case r.short:
			return values, errShort("Insert")
		case kind == 'n':
			values = append(values, nil)
		case kind == 't', kind == 'b':
			v := r.bytes(int(r.uint32()))
			if r.short {
				return values, errShort("Insert")
			}
			values = append(values, v)
		case kind == 'u':
			return values, ErrUnchangedTOAST
		default:
			return values, fmt.Errorf("pgoutput Insert: unknown column kind %q", kind)
		}
	}
	return values, r.close("Insert")
}

// reader walks a message. After running past its end it yields zeros, and
// short is true.
type reader struct {
	b     []byte
	short bool
}

func open(msg []byte, want Kind) (reader, error) {
	kind, err := KindOf(msg)
	if err != nil {
		return reader{}, err
	}
	if kind != want {
		return reader{}, fmt.Errorf("pgoutput message %q, want %q", byte(kind), byte(want))
	}
	return reader{b: msg[1:]}, nil
}

func (r *reader) bytes(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.short, r.b = true, nil
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) byte() byte {
	if v := r.bytes(1); v != nil {
		return v[0]
	}
	return 0
}

func (r *reader) uint16() uint16 {
	if v := r.bytes(2); v != nil {
		return binary.BigEndian.Uint16(v)
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if v := r.bytes(4); v != nil {
		return binary.BigEndian.Uint32(v)
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if v := r.bytes(8); v != nil {
		return binary.BigEndian.Uint64(v)
	}
	return 0
}

func (r *reader) string() string {
	i := bytes.IndexByte(r.b, 0)
	if i < 0 {
		r.short, r.b = true, nil
		return ""
	}
	s := string(r.b[:i])
	r.b = r.b[i+1:]
	return s
}

// close checks that the message was read wholly and held nothing more: bytes
// that nobody asked for mean that the two sides disagree about the protocol.
func (r *reader) close(what string) error {
	if r.short {
		return errShort(what)
	}
	if len(r.b) > 0 {
		return fmt.Errorf("pgoutput %s: %d bytes too many", what, len(r.b))
	}
	return nil
}

func errShort(what string) error {
	return fmt.Errorf("pgoutput %s: message ends early", what)
}

// pgTime converts microseconds since 2000-01-01T00:00:00Z, as Postgres counts.
func pgTime(micros uint64) time.Time {
	const epoch = 946_684_800 * 1_000_000              // 2000-01-01 in microseconds since 1970
	return time.UnixMicro(int64(micros) + epoch).UTC() //nolint:gosec // a signed number on the wire
}
