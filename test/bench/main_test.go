// Package bench measures walpost beside what it is compared with, on real servers:
// the relay is the production binary, in a process of its own, and time ends where
// a read_committed consumer has the record.
//
// A benchmark consists of rounds, one for each iteration that -benchtime asks for.
// In a round every contestant has its turn, in an order drawn from the seed, so
// that what the machine does meanwhile meets all of them. What counts are ratios
// within a round, and the median over the rounds. Nothing here passes or fails by
// time.
//
//	make bench                       every benchmark, as Markdown and JSON
//	make bench SHORT=1 RUN=Latency   a quick form, for development
package bench

import (
	"flag"
	"math/rand/v2"
	"testing"

	"github.com/walpost/walpost/test/harness"
)

var (
	seedFlag = flag.Uint64("seed", 0, "of the contestants' order and of what is written; 0: a new one")
	jsonFlag = flag.String("json", "", "directory for NAME.json with every figure; empty: none")
)

func TestMain(m *testing.M) { harness.Main(m, harness.SaramaMetrics()) }

// chance is all that is random in a benchmark.
func chance(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0)) }

// short is a where the quick form was asked for, else b.
func short(a, b int) int {
	if testing.Short() {
		return a
	}
	return b
}
