package replication

import (
	"fmt"
	"sync"
	"time"

	"github.com/walpost/walpost/replication/pgoutput"
)

const (
	chunkSize   = 256 << 10
	keptChunks  = 32
	keptBatches = 32
	// What a row occupies besides its bytes: Row, and a slice header a column.
	rowOverhead, valueOverhead = 56, 24
)

// assembler turns changes into batches. It belongs to the stream's goroutine.
type assembler struct {
	stream    *Stream
	maxRows   int
	relations map[uint32]*Relation

	// The transaction being received; commit is 0 between transactions.
	commit uint64
	xid    uint32
	time   time.Time
	index  uint32

	batch *Batch // under assembly; nil: nothing yet
	spans []span // its segments, as ranges of its rows
	chunk *chunk // being filled; shared with earlier batches
	used  int    // of chunk
}

// span is a segment whose rows are still growing.
type span struct {
	segment  Segment
	from, to int
	idle     bool // tells of a position only; the next such one may replace it
}

// full reports whether the batch must leave before anything is added.
func (a *assembler) full() bool { return a.batch != nil && len(a.batch.rows) >= a.maxRows }

// change takes one pgoutput message. It returns false if the batch has no room
// for the row it holds.
func (a *assembler) change(msg []byte, walEnd uint64) (bool, error) {
	kind, err := pgoutput.KindOf(msg)
	if err != nil {
		return true, decodeError(a.commit, err)
	}
	switch kind {
	case pgoutput.KindInsert:
		taken, err := a.insert(msg)
		if err != nil {
			return true, decodeError(a.commit, err)
		}
		if taken {
			a.batch.WALEnd = max(a.batch.WALEnd, walEnd)
		}
		return taken, nil
	case pgoutput.KindBegin:
		err = a.begin(msg)
	case pgoutput.KindCommit:
		err = a.end(msg)
	case pgoutput.KindRelation:
		err = a.relation(msg)
	default:
		// Updates and deletes of outbox rows, and what surrounds them, are not
		// events; a kind that the protocol doesn't have is a disagreement.
		if !kind.Known() {
			err = fmt.Errorf("unknown message kind %q", byte(kind))
		}
	}
	if err != nil {
		err = decodeError(a.commit, err)
	}
	return true, err
}

func (a *assembler) begin(msg []byte) error {
	b, err := pgoutput.DecodeBegin(msg)
	if err != nil {
		return err
	}
	if a.commit != 0 {
		return fmt.Errorf("transaction %d begins inside another", b.XID)
	}
	a.commit, a.xid, a.time, a.index = b.CommitLSN, b.XID, b.Time, 0
	return nil
}

func (a *assembler) end(msg []byte) error {
	c, err := pgoutput.DecodeCommit(msg)
	if err != nil {
		return err
	}
	if a.commit != c.CommitLSN {
		return fmt.Errorf("commit at %s ends a transaction that began with %s", FormatLSN(c.CommitLSN), FormatLSN(a.commit))
	}
	b := a.open()
	b.WALEnd = max(b.WALEnd, c.EndLSN)
	if n := len(a.spans); n > 0 && a.spans[n-1].segment.End == 0 {
		a.spans[n-1].segment.End = c.EndLSN
	} else {
		a.passed(Segment{Commit: a.commit, End: c.EndLSN, XID: a.xid, Time: a.time}, a.index == 0)
	}
	a.commit = 0
	return nil
}

// passed adds a segment without rows. A run of idle ones says no more than its
// highest, so that a quiet outbox in a busy database costs nothing. The end of
// a transaction whose rows left with earlier batches is not idle: somebody
// waits for it.
func (a *assembler) passed(seg Segment, idle bool) {
	rows := len(a.batch.rows)
	if n := len(a.spans); n > 0 && idle && a.spans[n-1].idle {
		if last := &a.spans[n-1].segment; seg.End > last.End {
			*last = seg
		}
		return
	}
	a.spans = append(a.spans, span{segment: seg, from: rows, to: rows, idle: idle})
}

// keepalive notes how far the server has come. Between transactions that is a
// position to confirm in its turn, though it may repeat an older one; inside
// one it is only news.
func (a *assembler) keepalive(walEnd uint64, urgent bool) {
	b := a.open()
	b.WALEnd = max(b.WALEnd, walEnd)
	b.Urgent = b.Urgent || urgent
	if a.commit == 0 && walEnd != 0 {
		a.passed(Segment{End: walEnd}, true)
	}
}

func (a *assembler) relation(msg []byte) error {
	d, err := pgoutput.DecodeRelation(msg)
	if err != nil {
		return err
	}
	rel := &Relation{OID: d.OID, Schema: d.Schema, Table: d.Table, Columns: make([]Column, len(d.Columns))}
	for i, c := range d.Columns {
		rel.Columns[i] = Column{Name: c.Name, TypeOID: c.TypeOID, Key: c.Key}
	}
	a.relations[d.OID] = rel
	return nil
}

// insert adds a row: one copy of its message into the batch's memory, which
// its values then refer to.
func (a *assembler) insert(msg []byte) (bool, error) {
	oid, err := pgoutput.InsertOID(msg)
	if err != nil {
		return true, err
	}
	rel := a.relations[oid]
	switch {
	case rel == nil:
		return true, fmt.Errorf("insert into relation %d, which was not described", oid)
	case a.commit == 0:
		return true, fmt.Errorf("insert into %s.%s outside a transaction", rel.Schema, rel.Table)
	}
	b := a.open()
	dst := a.room(len(msg))
	if dst == nil {
		return false, nil
	}
	copy(dst, msg)
	first := len(b.values)
	if b.values, err = pgoutput.AppendInsert(b.values, dst); err != nil {
		return true, err
	}
	values := b.values[first:len(b.values):len(b.values)]
	if len(values) != len(rel.Columns) {
		return true, fmt.Errorf("insert into %s.%s has %d values for %d columns", rel.Schema, rel.Table, len(values), len(rel.Columns))
	}
	a.addRow(Row{Rel: rel, Index: a.index, Values: values})
	b.Bytes += len(msg) + rowOverhead + valueOverhead*len(values)
	a.index++
	return true, nil
}

func (a *assembler) addRow(r Row) {
	b := a.batch
	if n := len(a.spans); n == 0 || a.spans[n-1].segment.End != 0 {
		seg := Segment{Commit: a.commit, XID: a.xid, Time: a.time}
		a.spans = append(a.spans, span{segment: seg, from: len(b.rows), to: len(b.rows)})
	}
	b.rows = append(b.rows, r)
	a.spans[len(a.spans)-1].to++
}

// room returns n bytes of the batch's memory, or nil if the batch must leave
// first: the values of one batch lie in one chunk.
func (a *assembler) room(n int) []byte {
	b := a.batch
	if a.chunk == nil || len(a.chunk.buf)-a.used < n {
		if len(b.rows) > 0 {
			return nil
		}
		a.releaseChunk()
		a.chunk, a.used = a.stream.memory.chunk(n), 0
	}
	if b.chunk == nil {
		b.chunk = a.chunk
		a.chunk.refs.Add(1)
	}
	dst := a.chunk.buf[a.used : a.used+n : a.used+n]
	a.used += n
	return dst
}

func (a *assembler) releaseChunk() {
	if a.chunk != nil {
		a.stream.memory.release(a.chunk)
		a.chunk = nil
	}
}

func (a *assembler) open() *Batch {
	if a.batch == nil {
		a.batch = a.stream.memory.batch()
		a.batch.stream = a.stream
	}
	return a.batch
}

// take ends the assembly of the current batch. Nil: there is nothing to tell.
func (a *assembler) take() *Batch {
	b := a.batch
	if b == nil {
		return nil
	}
	for _, s := range a.spans {
		s.segment.Rows = b.rows[s.from:s.to:s.to]
		b.Segments = append(b.Segments, s.segment)
	}
	b.Rows = len(b.rows)
	a.batch, a.spans = nil, a.spans[:0]
	if a.chunk != nil && len(a.chunk.buf) > chunkSize {
		a.releaseChunk() // it is used up, and the next row may be days away
	}
	return b
}

// memory keeps batches and chunks for reuse. Batches come back from whichever
// goroutine recycles them.
type memory struct {
	mu      sync.Mutex
	chunks  []*chunk
	batches []*Batch
}

// chunk returns one of at least n bytes, held once.
func (m *memory) chunk(n int) *chunk {
	c := m.reuse(n)
	if c == nil {
		c = &chunk{buf: make([]byte, max(n, chunkSize))}
	}
	c.refs.Store(1)
	return c
}

func (m *memory) reuse(n int) *chunk {
	m.mu.Lock()
	defer m.mu.Unlock()
	last := len(m.chunks) - 1
	if n > chunkSize || last < 0 {
		return nil
	}
	c := m.chunks[last]
	m.chunks = m.chunks[:last]
	return c
}

func (m *memory) release(c *chunk) {
	if c.refs.Add(-1) > 0 || len(c.buf) > chunkSize {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.chunks) < keptChunks {
		m.chunks = append(m.chunks, c)
	}
}

func (m *memory) batch() *Batch {
	m.mu.Lock()
	defer m.mu.Unlock()
	last := len(m.batches) - 1
	if last < 0 {
		return &Batch{}
	}
	b := m.batches[last]
	m.batches = m.batches[:last]
	return b
}

// Recycle gives the batch and everything its rows refer to back to the stream.
// Nothing of it may be used afterwards. A batch that is dropped instead, or was
// not made by a stream, goes to the garbage collector.
func (b *Batch) Recycle() {
	if b.stream == nil {
		return
	}
	m := &b.stream.memory
	if b.chunk != nil {
		m.release(b.chunk)
	}
	clear(b.rows)
	clear(b.values)
	*b = Batch{Segments: b.Segments[:0], rows: b.rows[:0], values: b.values[:0]}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.batches) < keptBatches {
		m.batches = append(m.batches, b)
	}
}
