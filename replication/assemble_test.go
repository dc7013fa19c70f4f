package replication

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/walpost/walpost/replication/pgoutput"
)

// newAssembler returns one without a connection, which it needs none of.
func newAssembler(maxRows int) *assembler {
	return &assembler{stream: &Stream{}, maxRows: maxRows, relations: map[uint32]*Relation{}}
}

// feed plays the stream's loop: it hands changes over and takes a batch
// whenever one must leave, and at the end.
func feed(t *testing.T, a *assembler, changes ...wire) []*Batch {
	t.Helper()
	var batches []*Batch
	for _, c := range changes {
		for range 2 {
			if a.full() {
				batches = append(batches, a.take())
			}
			taken, err := a.change(c, 0)
			if err != nil {
				t.Fatalf("change %q: %v", c[0], err)
			}
			if taken {
				break
			}
			batches = append(batches, a.take())
		}
	}
	if b := a.take(); b != nil {
		batches = append(batches, b)
	}
	return batches
}

func all(t *testing.T, batches []*Batch) [][]seg {
	t.Helper()
	var out [][]seg
	for _, b := range batches {
		out = append(out, segments(t, b))
	}
	return out
}

func TestTransactionsBecomeSegments(t *testing.T) {
	a := newAssembler(100)
	got := all(t, feed(t, a,
		begin(0x10, 7), relation(1, "outbox", "id", "payload"), insert(1, "a", null), insert(1, "", "x"), commit(0x10, 0x20),
		begin(0x30, 8), insert(1, "c", "y"), commit(0x30, 0x40),
	))
	want := [][]seg{{
		{Commit: 0x10, End: 0x20, XID: 7, Rows: []row{{"outbox", 0, []string{"a", null}}, {"outbox", 1, []string{"", "x"}}}},
		{Commit: 0x30, End: 0x40, XID: 8, Rows: []row{{"outbox", 0, []string{"c", "y"}}}},
	}}
	if d := cmp.Diff(want, got); d != "" {
		t.Fatal(d)
	}
	rel := a.relations[1]
	if d := cmp.Diff(&Relation{OID: 1, Schema: "public", Table: "outbox", Columns: []Column{{"id", 25, true}, {"payload", 25, false}}}, rel); d != "" {
		t.Fatal(d)
	}
}

func TestTransactionOverSeveralBatches(t *testing.T) {
	a := newAssembler(2)
	got := all(t, feed(t, a,
		relation(1, "outbox", "id"),
		begin(0x10, 7), insert(1, "a"), insert(1, "b"), insert(1, "c"), insert(1, "d"), commit(0x10, 0x20),
		begin(0x30, 8), insert(1, "e"), commit(0x30, 0x40),
	))
	want := [][]seg{
		{{Commit: 0x10, XID: 7, Rows: []row{{"outbox", 0, []string{"a"}}, {"outbox", 1, []string{"b"}}}}},
		{{Commit: 0x10, XID: 7, Rows: []row{{"outbox", 2, []string{"c"}}, {"outbox", 3, []string{"d"}}}}},
		{{Commit: 0x10, End: 0x20, XID: 7}, {Commit: 0x30, End: 0x40, XID: 8, Rows: []row{{"outbox", 0, []string{"e"}}}}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Fatal(d)
	}
}

func TestEmptyTransactionsAndKeepalivesCoalesce(t *testing.T) {
	a := newAssembler(100)
	for i := range uint64(1000) {
		mustChange(t, a, begin(i*3+1, 7))
		mustChange(t, a, commit(i*3+1, i*3+2))
		a.keepalive(i*3+3, false)
	}
	b := a.take()
	if d := cmp.Diff([]seg{{End: 3000}}, segments(t, b)); d != "" {
		t.Fatal(d)
	}
	if b.WALEnd != 3000 || b.Bytes != 0 || b.Urgent {
		t.Errorf("batch = %+v", b)
	}
}

// A transaction's end is told even if a keepalive follows at once: its rows
// left with an earlier batch, and whoever took them waits for that end.
func TestEndOfContinuedTransactionIsNotCoalesced(t *testing.T) {
	a := newAssembler(1)
	first := feed(t, a, relation(1, "outbox", "id"), begin(0x10, 7), insert(1, "a"))
	mustChange(t, a, commit(0x10, 0x20))
	a.keepalive(0x28, false)
	mustChange(t, a, begin(0x30, 8))
	mustChange(t, a, commit(0x30, 0x38))
	got := all(t, append(first, a.take()))
	want := [][]seg{
		{{Commit: 0x10, XID: 7, Rows: []row{{"outbox", 0, []string{"a"}}}}},
		{{Commit: 0x10, End: 0x20, XID: 7}, {Commit: 0x30, End: 0x38, XID: 8}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Fatal(d)
	}
}

func TestPositionsStayInTheirPlace(t *testing.T) {
	a := newAssembler(100)
	a.keepalive(0x08, false)
	for _, c := range []wire{relation(1, "outbox", "id"), begin(0x10, 7), insert(1, "a"), commit(0x10, 0x20)} {
		mustChange(t, a, c)
	}
	a.keepalive(0x28, true)
	for _, c := range []wire{begin(0x30, 8), insert(1, "b"), commit(0x30, 0x40)} {
		mustChange(t, a, c)
	}
	b := a.take()
	want := []seg{
		{End: 0x08},
		{Commit: 0x10, End: 0x20, XID: 7, Rows: []row{{"outbox", 0, []string{"a"}}}},
		{End: 0x28},
		{Commit: 0x30, End: 0x40, XID: 8, Rows: []row{{"outbox", 0, []string{"b"}}}},
	}
	if d := cmp.Diff(want, segments(t, b)); d != "" {
		t.Fatal(d)
	}
	if !b.Urgent || b.WALEnd != 0x40 {
		t.Errorf("Urgent %t, WALEnd %#x", b.Urgent, b.WALEnd)
	}
}

func TestKeepaliveInsideTransactionIsNoPosition(t *testing.T) {
	a := newAssembler(100)
	mustChange(t, a, begin(0x10, 7))
	a.keepalive(0x99, true)
	b := a.take()
	if len(b.Segments) != 0 || b.WALEnd != 0x99 || !b.Urgent {
		t.Fatalf("batch = %+v", b)
	}
	mustChange(t, a, relation(1, "outbox", "id"))
	mustChange(t, a, insert(1, "a"))
	a.keepalive(0x9a, false)
	if d := cmp.Diff([]seg{{Commit: 0x10, XID: 7, Rows: []row{{"outbox", 0, []string{"a"}}}}}, segments(t, a.take())); d != "" {
		t.Fatal(d)
	}
}

// Postgres repeats older positions at times.
func TestLowerKeepaliveDoesNotHideAHigherEnd(t *testing.T) {
	a := newAssembler(100)
	mustChange(t, a, begin(0x10, 7))
	mustChange(t, a, commit(0x10, 0x20))
	a.keepalive(0x08, false)
	got := segments(t, a.take())
	if len(got) == 0 || got[0].End != 0x20 {
		t.Fatalf("segments = %+v, want the end at 0x20", got)
	}
}

// A segment whose End is 0 is one that continues: a keepalive must not make
// it, or the next rows would join it.
func TestKeepaliveAtZero(t *testing.T) {
	a := newAssembler(100)
	a.keepalive(0, false)
	got := all(t, feed(t, a, relation(1, "outbox", "id"), begin(0x10, 7), insert(1, "a"), commit(0x10, 0x20)))
	want := [][]seg{{{Commit: 0x10, End: 0x20, XID: 7, Rows: []row{{"outbox", 0, []string{"a"}}}}}}
	if d := cmp.Diff(want, got); d != "" {
		t.Fatal(d)
	}
}

func TestNothingToTell(t *testing.T) {
	a := newAssembler(100)
	got := feed(t, a, relation(1, "outbox", "id"), begin(0x10, 7), wire{'U', 1}, wire{'D', 1}, wire{'T', 1}, wire{'M', 1}, wire{'Y', 1}, wire{'O', 1})
	if len(got) != 0 {
		t.Fatalf("batches = %+v", got)
	}
}

func TestRelationChangeMidStream(t *testing.T) {
	a := newAssembler(100)
	b := feed(t, a,
		relation(1, "outbox", "id"), begin(0x10, 7), insert(1, "a"), commit(0x10, 0x20),
		relation(1, "outbox", "id", "added"), begin(0x30, 8), insert(1, "b", "new"), commit(0x30, 0x40),
	)[0]
	before, after := b.Segments[0].Rows[0], b.Segments[1].Rows[0]
	if len(before.Rel.Columns) != 1 || len(before.Values) != 1 {
		t.Errorf("the old row has %d columns, %d values", len(before.Rel.Columns), len(before.Values))
	}
	if len(after.Rel.Columns) != 2 || after.Rel.Columns[1].Name != "added" || string(after.Values[1]) != "new" {
		t.Errorf("the new row has %+v, %q", after.Rel.Columns, after.Values)
	}
}

func TestDisagreementsAreDecodeErrors(t *testing.T) {
	rel, open := relation(1, "outbox", "id", "payload"), begin(0x1000000AB, 7)
	for name, tc := range map[string]struct {
		changes []wire
		want    string
	}{
		"undescribed relation":  {[]wire{open, insert(9, "a")}, "insert into relation 9, which was not described"},
		"outside a transaction": {[]wire{rel, insert(1, "a", "b")}, "insert into public.outbox outside a transaction"},
		"too few values":        {[]wire{rel, open, insert(1, "a")}, "has 1 values for 2 columns"},
		"too many values":       {[]wire{rel, open, insert(1, "a", "b", "c")}, "has 3 values for 2 columns"},
		"nested begin":          {[]wire{open, begin(0x50, 9)}, "transaction 9 begins inside another"},
		"other commit":          {[]wire{open, commit(0x99, 0xaa)}, "commit at 0/99 ends a transaction that began with 1/AB"},
		"commit without begin":  {[]wire{commit(0x99, 0xaa)}, "commit at 0/99 ends a transaction that began with 0/0"},
		"unknown kind":          {[]wire{open, {'Z'}}, `unknown message kind 'Z'`},
		"streaming kind":        {[]wire{{'S', 0, 0, 0, 1}}, `unknown message kind 'S'`},
		"empty":                 {[]wire{{}}, "empty"},
		"short begin":           {[]wire{open[:5]}, "ends early"},
		"short commit":          {[]wire{open, commit(1, 2)[:5]}, "ends early"},
		"short relation":        {[]wire{rel[:9]}, "ends early"},
		"short insert":          {[]wire{rel, open, insert(1, "a", "b")[:12]}, "ends early"},
		"torn insert":           {[]wire{rel, open, insert(1, "a", "b")[:3]}, "ends early"},
		"unchanged TOAST":       {[]wire{rel, open, wire{'I'}.u32(1).u8('N').u16(1).u8('u')}, pgoutput.ErrUnchangedTOAST.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAssembler(100)
			for _, c := range tc.changes[:len(tc.changes)-1] {
				mustChange(t, a, c)
			}
			taken, err := a.change(tc.changes[len(tc.changes)-1], 0)
			wantCondition(t, err, "decode_failed")
			if !taken || retryable(err) || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("taken %t, retryable %t, %v; want %q", taken, retryable(err), err, tc.want)
			}
		})
	}
}

func TestDecodeErrorSaysWhereAndShowsNoValue(t *testing.T) {
	a := newAssembler(100)
	mustChange(t, a, relation(1, "outbox", "id", "payload"))
	mustChange(t, a, begin(0x1000000AB, 7))
	_, err := a.change(insert(1, "s3cret"), 0)
	if err == nil || !strings.Contains(err.Error(), "commits at 1/AB") || strings.Contains(err.Error(), "s3cret") {
		t.Fatalf("error = %v", err)
	}
}

func TestRowTooLargeForAChunk(t *testing.T) {
	a := newAssembler(100)
	large := strings.Repeat("x", 3*chunkSize)
	batches := feed(t, a, relation(1, "outbox", "id"), begin(0x10, 7), insert(1, "a"), insert(1, large), insert(1, "b"), commit(0x10, 0x20))
	var got []string
	for _, b := range batches {
		for _, s := range b.Segments {
			for _, r := range s.Rows {
				got = append(got, string(r.Values[0]))
			}
		}
	}
	if d := cmp.Diff([]string{"a", large, "b"}, got); d != "" {
		t.Fatal("rows differ")
	}
	for _, b := range batches {
		b.Recycle()
	}
	for _, c := range a.stream.memory.chunks {
		if len(c.buf) > chunkSize {
			t.Errorf("a chunk of %d bytes was kept", len(c.buf))
		}
	}
}

// A stream may go quiet after a large row for days.
func TestLargeRowIsNotPinnedOnceRecycled(t *testing.T) {
	a := newAssembler(100)
	for _, b := range feed(t, a, relation(1, "outbox", "id"), begin(0x10, 7), insert(1, strings.Repeat("x", 3*chunkSize)), commit(0x10, 0x20)) {
		b.Recycle()
	}
	if a.chunk != nil && len(a.chunk.buf) > chunkSize {
		t.Fatalf("the assembler holds a chunk of %d bytes", len(a.chunk.buf))
	}
}

func TestBatchEndsWithItsChunk(t *testing.T) {
	a := newAssembler(1000)
	value := strings.Repeat("x", chunkSize/4-64)
	batches := feed(t, a, relation(1, "outbox", "id"), begin(0x10, 7),
		insert(1, value), insert(1, value), insert(1, value), insert(1, value), insert(1, value), commit(0x10, 0x20))
	if len(batches) != 2 || batches[0].Rows != 4 || batches[1].Rows != 1 {
		t.Fatalf("%d batches, the first of %d rows", len(batches), batches[0].Rows)
	}
	for _, b := range batches {
		if b.Bytes > chunkSize+b.Rows*(rowOverhead+valueOverhead) {
			t.Errorf("%d bytes in a batch", b.Bytes)
		}
	}
}

// Batches of one row, as a caught-up stream makes them, pin the memory of
// their rows and little more.
func TestSmallBatchesShareAChunk(t *testing.T) {
	const n, size = 5000, 300
	a := newAssembler(1024)
	mustChange(t, a, relation(1, "outbox", "id"))
	value := strings.Repeat("x", size)
	chunks := map[*chunk]bool{}
	for i := range uint64(n) {
		batches := feed(t, a, begin(i*2+1, 7), insert(1, value), commit(i*2+1, i*2+2))
		if len(batches) != 1 || batches[0].Rows != 1 {
			t.Fatalf("%d batches", len(batches))
		}
		chunks[batches[0].chunk] = true // held: nothing is recycled
	}
	pinned := 0
	for c := range chunks {
		pinned += len(c.buf)
	}
	if limit := n*(size+20) + 2*chunkSize; pinned > limit {
		t.Fatalf("%d live batches of one row pin %d bytes, want at most %d", n, pinned, limit)
	}
}

func TestKeptMemoryIsBounded(t *testing.T) {
	a := newAssembler(1)
	mustChange(t, a, relation(1, "outbox", "id"))
	value := strings.Repeat("x", chunkSize/2)
	var batches []*Batch
	for i := range uint64(3 * keptBatches) {
		batches = append(batches, feed(t, a, begin(i*2+1, 7), insert(1, value), commit(i*2+1, i*2+2))...)
	}
	for _, b := range batches {
		b.Recycle()
		b.Recycle() // the second does nothing
	}
	if m := &a.stream.memory; len(m.batches) > keptBatches || len(m.chunks) > keptChunks {
		t.Fatalf("%d batches and %d chunks are kept", len(m.batches), len(m.chunks))
	}
	seen := map[*Batch]bool{}
	for _, b := range a.stream.memory.batches {
		if seen[b] {
			t.Fatal("a batch is kept twice")
		}
		seen[b] = true
	}
	(&Batch{}).Recycle() // not made by a stream
}

// Whatever order batches come back in, none that is still out changes.
func TestRecycleNeverTouchesALiveBatch(t *testing.T) {
	type lent struct {
		batch *Batch
		want  string
	}
	rapid.Check(t, func(rt *rapid.T) {
		a := newAssembler(rapid.IntRange(1, 6).Draw(rt, "batch rows"))
		mustChange(t, a, relation(1, "outbox", "id", "payload"))
		size := rapid.OneOf(rapid.IntRange(0, 50), rapid.IntRange(chunkSize/3, chunkSize/2), rapid.Just(chunkSize+1))
		var live []lent
		var lsn uint64
		take := func() {
			if b := a.take(); b != nil {
				live = append(live, lent{b, render(b)})
			}
		}
		check := func() {
			for _, l := range live {
				if render(l.batch) != l.want {
					rt.Fatalf("a live batch has changed")
				}
			}
		}
		put := func(c wire) {
			if a.full() {
				take()
			}
			for {
				taken, err := a.change(c, lsn)
				if err != nil {
					rt.Fatalf("change: %v", err)
				}
				if taken {
					return
				}
				take()
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"transaction": func(rt *rapid.T) {
				lsn += 2
				put(begin(lsn, 7))
				for i, n := range rapid.SliceOfN(size, 0, 4).Draw(rt, "sizes") {
					fill := string(rune('a' + (int(lsn)+i)%26))
					put(insert(1, fmt.Sprint(lsn, i), strings.Repeat(fill, n)))
				}
				put(commit(lsn, lsn+1))
			},
			"keepalive": func(*rapid.T) { lsn += 2; a.keepalive(lsn, false) },
			"take":      func(*rapid.T) { take() },
			"recycle": func(rt *rapid.T) {
				if len(live) == 0 {
					return
				}
				i := rapid.IntRange(0, len(live)-1).Draw(rt, "which")
				live[i].batch.Recycle()
				live = append(live[:i], live[i+1:]...)
			},
			"": func(*rapid.T) { check() },
		})
	})
}

// render sums up everything a batch says.
func render(b *Batch) string {
	var out bytes.Buffer
	_, _ = fmt.Fprintln(&out, b.Bytes, b.Rows, b.WALEnd, b.Urgent)
	for _, s := range b.Segments {
		_, _ = fmt.Fprintln(&out, s.Commit, s.End, s.XID, s.Time.UnixMicro())
		for _, r := range s.Rows {
			_, _ = fmt.Fprint(&out, r.Rel.Table, r.Index)
			for _, v := range r.Values {
				_, _ = fmt.Fprintf(&out, " %d:%08x", len(v), crc32.ChecksumIEEE(v))
			}
		}
	}
	return out.String()
}

func TestSteadyStateDoesNotAllocate(t *testing.T) {
	const rows = 100
	a := newAssembler(rows)
	mustChange(t, a, relation(1, "outbox", "id", "payload"))
	open, end, ins := begin(0x10, 7), commit(0x10, 0x20), insert(1, "id", strings.Repeat("x", 300))
	perBatch := testing.AllocsPerRun(200, func() {
		mustChange(t, a, open)
		for range rows {
			if taken, err := a.change(ins, 1); err != nil {
				t.Fatal(err)
			} else if !taken { // the chunk is full
				a.take().Recycle()
				mustChange(t, a, ins)
			}
			if a.full() {
				a.take().Recycle()
			}
		}
		mustChange(t, a, end)
		a.take().Recycle()
	})
	if perBatch != 0 {
		t.Fatalf("%.2f allocations for %d rows", perBatch, rows)
	}
}

func mustChange(t *testing.T, a *assembler, change wire) {
	t.Helper()
	if taken, err := a.change(change, 0); err != nil || !taken {
		t.Fatalf("change %q: taken %t, %v", change[0], taken, err)
	}
}

func BenchmarkAssemble(b *testing.B) {
	a := newAssembler(1024)
	ins := insert(1, "0b5a9c2e-0000-4000-8000-000000000000", "order", "k42", "OrderCreated", strings.Repeat("x", 300))
	for _, c := range []wire{relation(1, "outbox", "id", "aggregatetype", "aggregateid", "type", "payload"), begin(0x10, 7)} {
		if _, err := a.change(c, 0); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		taken, err := a.change(ins, 1)
		if err != nil {
			b.Fatal(err)
		}
		if !taken || a.full() {
			a.take().Recycle()
		}
	}
}
