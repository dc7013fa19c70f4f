package replication

import (
	"sync/atomic"
	"time"
)

// Column is one column of a relation as pgoutput describes it.
type Column struct {
	Name    string
	TypeOID uint32
	Key     bool // part of the replica identity
}

// Relation is a table as it was when the rows that refer to it were written.
// It is immutable: a change of the table makes a new Relation.
type Relation struct {
	OID     uint32
	Schema  string
	Table   string
	Columns []Column
}

// Row is one inserted row.
type Row struct {
	Rel    *Relation
	Index  uint32   // 0-based, among the inserted rows of the transaction
	Values [][]byte // in column order, as text; nil is NULL
}

// Segment is a run of rows of one transaction, in the order they were written.
// A transaction that does not fit into a batch is continued by the first
// segment of the next one. A segment without rows is either the end of a
// transaction whose rows came earlier (or that had none), or a position up to
// which the server had nothing for this slot (Commit is 0).
type Segment struct {
	Commit uint64    // commit LSN, from Begin; 0: no transaction
	End    uint64    // where to confirm once every row is settled; 0: continues in the next batch
	XID    uint32    // transaction id, from Begin
	Time   time.Time // commit time, from Begin
	Rows   []Row
}

// Batch is what was there to be read at one moment. Whoever takes a batch from
// a Stream owns it, and everything its rows refer to, until Recycle.
type Batch struct {
	Segments []Segment
	Bytes    int    // memory lent to the rows' values
	Rows     int    // over all segments
	WALEnd   uint64 // the server's WAL position when the batch was read
	Urgent   bool   // the server waits for a confirmation, as it does before it shuts down

	rows   []Row
	values [][]byte
	chunk  *chunk
	stream *Stream
}

// chunk is memory shared by consecutive batches: a quiet stream makes many
// batches of a row or two, and each must pin only what it uses.
type chunk struct {
	buf  []byte
	refs atomic.Int32 // batches that refer to it, and the stream while it fills it
}
