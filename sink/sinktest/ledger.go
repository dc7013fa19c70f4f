package sinktest

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/walpost/walpost/sink"
)

// ledger notes what a session settles.
type ledger struct {
	inside     atomic.Int32 // calls of settle under way
	concurrent atomic.Bool  // there was more than one at a time

	mu       sync.Mutex
	times    map[uint64]int // by sequence number
	skipped  int            // settled as duplicates
	next     uint64         // everything below is settled
	waiting  map[uint64]chan struct{}
	problems []string
}

func newLedger() *ledger {
	return &ledger{times: map[uint64]int{}, waiting: map[uint64]chan struct{}{}}
}

// settle is a [sink.Settle].
func (l *ledger) settle(seqs []uint64, o sink.Outcome) {
	if l.inside.Add(1) > 1 {
		l.concurrent.Store(true)
	}
	defer l.inside.Add(-1)
	l.mu.Lock()
	defer l.mu.Unlock()
	if o != sink.Delivered && o != sink.Duplicate {
		l.problems = append(l.problems, fmt.Sprintf("outcome %d is unknown", o))
	}
	if o == sink.Duplicate {
		l.skipped += len(seqs)
	}
	for i, seq := range seqs {
		if i > 0 && seqs[i-1] >= seq {
			l.problems = append(l.problems, fmt.Sprintf("%d settled before %d in one call", seqs[i-1], seq))
		}
		l.times[seq]++
	}
	for l.times[l.next] > 0 {
		l.next++
	}
	for n, reached := range l.waiting {
		if n <= l.next {
			close(reached)
			delete(l.waiting, n)
		}
	}
}

// reached is closed once every sequence number below n is settled.
func (l *ledger) reached(n uint64) <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	reached := l.waiting[n]
	if reached == nil {
		reached = make(chan struct{})
		l.waiting[n] = reached
	}
	if n <= l.next {
		close(reached)
		delete(l.waiting, n)
	}
	return reached
}

func (l *ledger) prefix() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.next
}

// count is how many messages are settled.
func (l *ledger) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.times)
}

// duplicates is how many messages were settled without being sent.
func (l *ledger) duplicates() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.skipped
}

// wrongs lists every breach of the contract of Settle.
func (l *ledger) wrongs() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	wrongs := slices.Clone(l.problems)
	if l.concurrent.Load() {
		wrongs = append(wrongs, "settled from two goroutines at once")
	}
	for seq, times := range l.times {
		if times != 1 {
			wrongs = append(wrongs, fmt.Sprintf("%d settled %d times", seq, times))
		}
	}
	return wrongs
}
