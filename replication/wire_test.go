package replication

import (
	"encoding/binary"
	"testing"
	"time"
)

// The protocol's messages, laid out as its documentation says.

type wire []byte

func (w wire) u8(v byte) wire    { return append(w, v) }
func (w wire) u16(v int) wire    { return binary.BigEndian.AppendUint16(w, uint16(v)) }
func (w wire) u32(v int) wire    { return binary.BigEndian.AppendUint32(w, uint32(v)) }
func (w wire) u64(v uint64) wire { return binary.BigEndian.AppendUint64(w, v) }
func (w wire) str(v string) wire { return append(append(w, v...), 0) }

// commitTime is what every transaction here says of itself: one second past
// Postgres's epoch.
var commitTime = time.Date(2000, 1, 1, 0, 0, 1, 0, time.UTC)

func begin(commit uint64, xid int) wire { return wire{'B'}.u64(commit).u64(1_000_000).u32(xid) }

func commit(commit, end uint64) wire { return wire{'C'}.u8(0).u64(commit).u64(end).u64(1_000_000) }

func relation(oid int, table string, columns ...string) wire {
	w := wire{'R'}.u32(oid).str("public").str(table).u8('d').u16(len(columns))
	for i, name := range columns {
		key := byte(0)
		if i == 0 {
			key = 1
		}
		w = w.u8(key).str(name).u32(25).u32(-1)
	}
	return w
}

// null is a value that stands for NULL in insert.
const null = "\x00null"

func insert(oid int, values ...string) wire {
	w := wire{'I'}.u32(oid).u8('N').u16(len(values))
	for _, v := range values {
		if v == null {
			w = w.u8('n')
			continue
		}
		w = append(w.u8('t').u32(len(v)), v...)
	}
	return w
}

// xlogData is the body of a CopyData message that carries a change.
func xlogData(walEnd uint64, change []byte) wire {
	return append(wire{'w'}.u64(0).u64(walEnd).u64(0), change...)
}

// keepalive is the body of a CopyData message by which the server says how far
// it has come.
func keepalive(walEnd uint64, replyRequested bool) wire {
	w := wire{'k'}.u64(walEnd).u64(0)
	if replyRequested {
		return w.u8(1)
	}
	return w.u8(0)
}

// texts are a row's values, NULL as null.
func texts(values [][]byte) []string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = string(v)
		if v == nil {
			out[i] = null
		}
	}
	return out
}

// seg is what a Segment says, in a form that compares.
type seg struct {
	Commit, End uint64
	XID         uint32
	Rows        []row
}

type row struct {
	Table  string
	Index  uint32
	Values []string
}

func segments(t *testing.T, b *Batch) []seg {
	t.Helper()
	var out []seg
	rows := 0
	for _, s := range b.Segments {
		if want := (s.Commit != 0); want != s.Time.Equal(commitTime) {
			t.Errorf("segment of commit %d has time %s", s.Commit, s.Time)
		}
		g := seg{Commit: s.Commit, End: s.End, XID: s.XID}
		for _, r := range s.Rows {
			g.Rows = append(g.Rows, row{Table: r.Rel.Table, Index: r.Index, Values: texts(r.Values)})
		}
		rows += len(s.Rows)
		out = append(out, g)
	}
	if rows != b.Rows {
		t.Errorf("batch says %d rows and has %d", b.Rows, rows)
	}
	return out
}
