package checkpoint

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

// span returns the numbers in [from, to).
func span(from, to uint64) []uint64 {
	seqs := make([]uint64, 0, to-from)
	for seq := from; seq < to; seq++ {
		seqs = append(seqs, seq)
	}
	return seqs
}

func wantSafe(t *testing.T, tracker *Tracker, lsn, seq uint64) {
	t.Helper()
	if gotLSN, gotSeq := tracker.Safe(); gotLSN != lsn || gotSeq != seq {
		t.Errorf("Safe = LSN %d, prefix %d; want %d, %d", gotLSN, gotSeq, lsn, seq)
	}
}

func TestTrackerConfirmsWholeTransactionsInOrder(t *testing.T) {
	tracker := NewTracker()
	tracker.Add(2)
	tracker.End(100)
	if first := tracker.Add(1); first != 2 {
		t.Errorf("the third event has number %d", first)
	}
	tracker.End(200)

	tracker.Settle([]uint64{2})
	wantSafe(t, tracker, 0, 0) // acknowledged, but behind two that are not
	tracker.Settle([]uint64{0})
	wantSafe(t, tracker, 0, 1) // half a transaction
	tracker.Settle([]uint64{1})
	wantSafe(t, tracker, 200, 3)
}

func TestTrackerDoesNotConfirmATransactionThatHasNotEnded(t *testing.T) {
	tracker := NewTracker()
	tracker.Add(500)
	tracker.End(100)
	tracker.Add(500) // the next transaction, continued in a later batch
	tracker.Settle(span(0, 1000))
	wantSafe(t, tracker, 100, 1000)

	tracker.Add(1)
	tracker.End(200)
	wantSafe(t, tracker, 100, 1000)
	tracker.Settle([]uint64{1000})
	wantSafe(t, tracker, 200, 1001)
}

func TestTrackerKeepalives(t *testing.T) {
	tracker := NewTracker()
	tracker.End(50)
	wantSafe(t, tracker, 50, 0) // idle from the start

	tracker.Add(1)
	tracker.End(100)
	tracker.End(150) // a keepalive behind the event: moves its end
	tracker.End(120) // an older position is ignored
	wantSafe(t, tracker, 50, 0)
	tracker.Settle([]uint64{0})
	wantSafe(t, tracker, 150, 1)

	tracker.End(150)
	tracker.End(100)
	wantSafe(t, tracker, 150, 1)
	tracker.End(300)
	wantSafe(t, tracker, 300, 1)
}

func TestTrackerKeepalivesCostNoMemory(t *testing.T) {
	tracker := NewTracker()
	tracker.Add(1)
	for lsn := uint64(1); lsn <= 100_000; lsn++ {
		tracker.End(lsn)
	}
	if n := len(tracker.ends.entries); n != 1 {
		t.Errorf("%d ends are kept for one event", n)
	}
	tracker.Settle([]uint64{0})
	wantSafe(t, tracker, 100_000, 1)
}

func TestTrackerSettleOfWhatItDoesNotKnow(t *testing.T) {
	tracker := NewTracker()
	tracker.Settle([]uint64{0, 63, 64, 1 << 40, 1<<64 - 1})
	tracker.Add(2)
	tracker.End(100)
	wantSafe(t, tracker, 0, 0) // settled before it was added: does not count

	tracker.Settle([]uint64{0, 0, 2, 1024, 1 << 40}) // 1024 shares a bit with 0
	wantSafe(t, tracker, 0, 1)
	tracker.Settle([]uint64{0, 1})
	tracker.Settle([]uint64{0, 1})
	tracker.Settle(nil)
	wantSafe(t, tracker, 100, 2)
}

// A late second settlement of an old event must not fall on the event that now
// uses its bit.
func TestTrackerSettleAgainLongAfter(t *testing.T) {
	const ring = minWords * wordBits
	tracker := NewTracker()
	for first := range uint64(ring) {
		tracker.Add(1)
		tracker.Settle([]uint64{first})
	}
	tracker.Add(ring)
	tracker.End(100)
	tracker.Settle(span(0, ring))
	wantSafe(t, tracker, 0, ring)
	tracker.Settle(span(ring, 2*ring))
	wantSafe(t, tracker, 100, 2*ring)
}

// Growing keeps what is settled, wherever in the ring the window begins.
func TestTrackerGrowsWithItsWindow(t *testing.T) {
	const ring = minWords * wordBits
	for _, start := range []uint64{0, 1, wordBits, ring - 1, ring + wordBits + 1} {
		tracker := NewTracker()
		for first := range start {
			tracker.Add(1)
			tracker.Settle([]uint64{first})
		}
		end := start - start%wordBits + ring // fills the ring
		tracker.Add(int(end - start))
		tracker.Settle(span(start+1, end))
		tracker.Add(1)
		if n := len(tracker.settled.words); n != 2*minWords {
			t.Fatalf("%d words: the ring has not grown as this test means it to", n)
		}
		tracker.Settle([]uint64{start})
		wantSafe(t, tracker, 0, end)
	}
}

func TestTrackerAddOfNothing(t *testing.T) {
	tracker := NewTracker()
	for _, n := range []int{0, -1} {
		if first := tracker.Add(n); first != 0 || tracker.InFlight() != 0 {
			t.Errorf("Add(%d) = %d, then %d in flight", n, first, tracker.InFlight())
		}
	}
}

func TestTrackerHugeTransaction(t *testing.T) {
	const events = 1_000_000
	tracker := NewTracker()
	for range events / 1000 {
		tracker.Add(1000)
	}
	tracker.End(100)
	tracker.Settle(span(1, events))
	wantSafe(t, tracker, 0, 0)
	if n := tracker.InFlight(); n != events {
		t.Errorf("%d in flight, want %d", n, events)
	}
	tracker.Settle([]uint64{0})
	wantSafe(t, tracker, 100, events)
	if n := tracker.InFlight(); n != 0 {
		t.Errorf("%d in flight after the end", n)
	}
}

// model is the tracker as one would write it if memory and time were free.
type model struct {
	settled []bool // by event
	ends    []end
}

func (m *model) add(n int) uint64 {
	first := len(m.settled)
	m.settled = append(m.settled, make([]bool, n)...)
	return uint64(first)
}

func (m *model) settle(seqs []uint64) {
	for _, seq := range seqs {
		if seq < uint64(len(m.settled)) {
			m.settled[seq] = true
		}
	}
}

// end needs no replacement rule: of several ends at one event the highest wins.
func (m *model) end(lsn uint64) {
	m.ends = append(m.ends, end{events: uint64(len(m.settled)), lsn: lsn})
}

func (m *model) safe() (lsn, seq uint64) {
	prefix := slices.Index(m.settled, false)
	if prefix < 0 {
		prefix = len(m.settled)
	}
	for _, e := range m.ends {
		if e.events <= uint64(prefix) {
			lsn = max(lsn, e.lsn)
		}
	}
	return lsn, uint64(prefix)
}

// trackerMachine drives a tracker and the model with the same calls. Events go
// to partitions, and each partition acknowledges its own in order.
type trackerMachine struct {
	tracker    *Tracker
	model      model
	partitions [4][]uint64 // sent and not yet settled
	lsn        uint64      // of the newest end
	widest     uint64      // window so far
	lsnBefore  uint64      // what Safe returned last
	seqBefore  uint64
}

func (m *trackerMachine) addRun(t *rapid.T) {
	n := rapid.OneOf(rapid.IntRange(0, 5), rapid.IntRange(60, 70), rapid.IntRange(0, 3000)).Draw(t, "n")
	first := m.tracker.Add(n)
	if want := m.model.add(n); first != want {
		t.Fatalf("Add(%d) = %d, want %d", n, first, want)
	}
	few := rapid.IntRange(1, len(m.partitions)).Draw(t, "partitions")
	for i := range uint64(n) {
		p := int(i) % few
		m.partitions[p] = append(m.partitions[p], first+i)
	}
	_, prefix := m.model.safe()
	m.widest = max(m.widest, uint64(len(m.model.settled))-prefix)
}

// endRun ends a transaction; without a run before it, it is a keepalive.
func (m *trackerMachine) endRun(t *rapid.T) {
	m.lsn += rapid.Uint64Range(0, 50).Draw(t, "step")
	m.tracker.End(m.lsn)
	m.model.end(m.lsn)
}

func (m *trackerMachine) stalePosition(t *rapid.T) {
	lsn := rapid.Uint64Range(0, m.lsn).Draw(t, "lsn")
	m.tracker.End(lsn)
	m.model.end(lsn)
}

func (m *trackerMachine) settlePartition(t *rapid.T) {
	p := rapid.IntRange(0, len(m.partitions)-1).Draw(t, "partition")
	n := rapid.IntRange(0, len(m.partitions[p])).Draw(t, "n")
	m.settle(m.partitions[p][:n])
	m.partitions[p] = m.partitions[p][n:]
}

// settleAnything repeats, runs ahead and invents.
func (m *trackerMachine) settleAnything(t *rapid.T) {
	added := uint64(len(m.model.settled))
	seqs := rapid.SliceOfN(rapid.Uint64Range(0, added+200), 0, 20).Draw(t, "seqs")
	m.settle(seqs)
}

func (m *trackerMachine) settle(seqs []uint64) {
	m.tracker.Settle(seqs)
	m.model.settle(seqs)
}

func (m *trackerMachine) safe(t *rapid.T) {
	lsn, seq := m.tracker.Safe()
	if wantLSN, wantSeq := m.model.safe(); lsn != wantLSN || seq != wantSeq {
		t.Fatalf("Safe = LSN %d, prefix %d; want %d, %d", lsn, seq, wantLSN, wantSeq)
	}
	if lsn < m.lsnBefore || seq < m.seqBefore {
		t.Fatalf("Safe went back from LSN %d, prefix %d to %d, %d", m.lsnBefore, m.seqBefore, lsn, seq)
	}
	m.lsnBefore, m.seqBefore = lsn, seq
	if n := m.tracker.InFlight(); uint64(n) != uint64(len(m.model.settled))-seq {
		t.Fatalf("%d in flight of %d, prefix %d", n, len(m.model.settled), seq)
	}
}

// bounded: a bit for each event of the widest window, rounded up to a power of
// two; an end for each event in it, in a slice that append may have doubled and
// that is reused when half of it is gone.
func (m *trackerMachine) bounded(t *rapid.T) {
	if words := uint64(len(m.tracker.settled.words)); words > max(minWords, 2*(m.widest/wordBits+2)) {
		t.Fatalf("%d words for a window of at most %d events", words, m.widest)
	}
	if ends := uint64(cap(m.tracker.ends.entries)); ends > 4*m.widest+8 {
		t.Fatalf("room for %d ends for a window of at most %d events", ends, m.widest)
	}
}

// finish settles whatever is left: the end must then be reached.
func (m *trackerMachine) finish(t *rapid.T) {
	for _, seqs := range m.partitions {
		m.settle(seqs)
	}
	m.lsn++
	m.tracker.End(m.lsn)
	m.model.end(m.lsn)
	m.safe(t)
	if m.lsnBefore != m.lsn || m.tracker.InFlight() != 0 {
		t.Fatalf("all is settled, but LSN %d of %d is safe and %d are in flight", m.lsnBefore, m.lsn, m.tracker.InFlight())
	}
}

func trackerMatchesModel(t *rapid.T) {
	m := trackerMachine{tracker: NewTracker()}
	t.Repeat(map[string]func(*rapid.T){
		"add":              m.addRun,
		"add and end":      func(t *rapid.T) { m.addRun(t); m.endRun(t) },
		"end or keepalive": m.endRun,
		"stale position":   m.stalePosition,
		"settle partition": m.settlePartition,
		"settle anything":  m.settleAnything,
		"safe":             m.safe,
		"":                 m.bounded,
	})
	m.finish(t)
}

func TestTrackerMatchesModel(t *testing.T) { rapid.Check(t, trackerMatchesModel) }

func FuzzTrackerMatchesModel(f *testing.F) { f.Fuzz(rapid.MakeFuzz(trackerMatchesModel)) }

// One reader, and partitions that acknowledge by themselves: as the relay uses
// it. Run it with -race.
func TestTrackerConcurrently(t *testing.T) {
	const partitions, transactions, size = 4, 500, 7
	tracker := NewTracker()
	var sent [partitions]chan []uint64
	var settlers sync.WaitGroup
	for p := range sent {
		sent[p] = make(chan []uint64, 8)
		settlers.Go(func() {
			var lsn, seq uint64
			for seqs := range sent[p] {
				tracker.Settle(seqs)
				nowLSN, nowSeq := tracker.Safe()
				if nowLSN < lsn || nowSeq < seq || nowLSN*size > nowSeq {
					t.Errorf("Safe = LSN %d, prefix %d after %d, %d", nowLSN, nowSeq, lsn, seq)
				}
				lsn, seq = nowLSN, nowSeq
			}
		})
	}
	for lsn := uint64(1); lsn <= transactions; lsn++ {
		first := tracker.Add(size)
		tracker.End(lsn)
		sent[lsn%partitions] <- span(first, first+size)
	}
	for p := range sent {
		close(sent[p])
	}
	settlers.Wait()
	wantSafe(t, tracker, transactions, transactions*size)
}

// steadyFlow is one batch of a caught-up or busy pipeline: transactions of ten
// events, acknowledged by four partitions out of order, behind a window.
type steadyFlow struct {
	tracker *Tracker
	lsn     uint64
	batches [][]uint64 // in flight
	free    [][]uint64
}

const (
	flowBatch  = 500
	flowWindow = 8 // batches
)

func newSteadyFlow() *steadyFlow {
	f := &steadyFlow{tracker: NewTracker(), batches: make([][]uint64, 0, flowWindow+1)}
	for range flowWindow + 1 {
		f.free = append(f.free, make([]uint64, flowBatch))
	}
	return f
}

func (f *steadyFlow) turn() {
	seqs := f.free[len(f.free)-1]
	f.free = f.free[:len(f.free)-1]
	for i := 0; i < flowBatch; i += 10 {
		first := f.tracker.Add(10)
		f.lsn += 100
		f.tracker.End(f.lsn)
		for j := range 10 {
			at := (i+j)%4*(flowBatch/4) + (i+j)/4 // by partition
			seqs[at] = first + uint64(j)
		}
	}
	f.batches = append(f.batches, seqs)
	if len(f.batches) <= flowWindow {
		return
	}
	// The second batch is acknowledged before the first.
	f.tracker.Settle(f.batches[1])
	f.tracker.Settle(f.batches[0])
	f.free = append(f.free, f.batches[0], f.batches[1])
	f.batches = append(f.batches[:0], f.batches[2:]...)
	f.tracker.Safe()
}

func TestTrackerSteadyFlowDoesNotAllocate(t *testing.T) {
	flow := newSteadyFlow()
	for range 100 {
		flow.turn()
	}
	if allocs := testing.AllocsPerRun(1000, flow.turn); allocs != 0 {
		t.Errorf("%v allocations per batch of %d events", allocs, flowBatch)
	}
	if lsn, _ := flow.tracker.Safe(); lsn == 0 {
		t.Error("the flow confirmed nothing")
	}
}

// A pipeline that is never idle has always an end that waits.
func TestTrackerMemoryOfANeverIdleFlow(t *testing.T) {
	flow := newSteadyFlow()
	const ends = (flowWindow + 1) * flowBatch / 10
	for range 2000 {
		flow.turn()
		if n := cap(flow.tracker.ends.entries); n > 4*ends {
			t.Fatalf("room for %d ends, of which at most %d wait", n, ends)
		}
	}
	if n := len(flow.tracker.settled.words); n*wordBits > 4*(flowWindow+1)*flowBatch {
		t.Errorf("%d words for %d events", n, (flowWindow+1)*flowBatch)
	}
}

func BenchmarkTracker(b *testing.B) {
	flow := newSteadyFlow()
	b.ReportAllocs()
	for b.Loop() {
		flow.turn()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*flowBatch), "ns/event")
}

// BenchmarkTrackerWide settles a window of 20,000 events in random order.
func BenchmarkTrackerWide(b *testing.B) {
	const window = 20_000
	tracker := NewTracker()
	order := rand.New(rand.NewPCG(1, 2)).Perm(window)
	seqs := make([]uint64, window)
	b.ReportAllocs()
	for b.Loop() {
		first := tracker.Add(window)
		tracker.End(first + 1)
		for i, at := range order {
			seqs[i] = first + uint64(at)
		}
		for batch := range slices.Chunk(seqs, 500) {
			tracker.Settle(batch)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*window), "ns/event")
}
