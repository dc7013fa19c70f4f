package telemetry

import (
	"math"
	"slices"
	"sync/atomic"
	"time"
)

// histogram counts durations. Prometheus's own takes one observation a call;
// here n events share one latency, and a transaction of a million rows must
// not cost a million calls.
type histogram struct {
	bounds []float64 // upper bounds in seconds, ascending
	counts []atomic.Uint64
	sum    atomic.Uint64 // bits of a float64, seconds
}

func newHistogram(bounds []float64) *histogram {
	return &histogram{bounds: bounds, counts: make([]atomic.Uint64, len(bounds)+1)}
}

// observe counts n events of one duration.
func (h *histogram) observe(d time.Duration, n uint64) {
	seconds := d.Seconds()
	i, _ := slices.BinarySearch(h.bounds, seconds)
	h.counts[i].Add(n)
	added := seconds * float64(n)
	for {
		old := h.sum.Load()
		if h.sum.CompareAndSwap(old, math.Float64bits(math.Float64frombits(old)+added)) {
			return
		}
	}
}

// snapshot returns the counts cumulatively by upper bound. The total is that
// of the buckets, so the three agree even beside observe.
func (h *histogram) snapshot() (total uint64, sum float64, buckets map[float64]uint64) {
	buckets = make(map[float64]uint64, len(h.bounds))
	for i, bound := range h.bounds {
		total += h.counts[i].Load()
		buckets[bound] = total
	}
	total += h.counts[len(h.bounds)].Load()
	return total, math.Float64frombits(h.sum.Load()), buckets
}

// latencyBounds reach from an event that found everything idle to one that
// waited an hour for a broker.
func latencyBounds() []float64 {
	return []float64{
		0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
		1, 2.5, 5, 10, 30, 60, 300, 900, 3600,
	}
}
