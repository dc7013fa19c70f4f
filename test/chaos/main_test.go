// Package chaos breaks what walpost runs on, and walpost itself, under load and
// over and over, and then counts what a consumer finds: what is lost, what comes
// twice, what is out of order, which transactions are torn. The table it prints
// is what docs/guarantees.md promises.
//
// A scene is a set of servers. A run is one delivery mode and one kind of fault
// on them, with a database, topics and a pipeline of its own. All that is random
// in it is drawn from the seed before it begins: the load's transactions (but for
// the ids), the faults, when they strike and for how long. The same seed makes
// the same plan. What is not repeated is what the machine decides: how fast
// everything goes, so which event a fault strikes.
//
//	make chaos                       the long form; prints its seed
//	make chaos SHORT=1               the form that .ci/run takes
//	make chaos SEED=7 RUN=TestChaos/plain/idempotent/zombie
package chaos

import (
	"flag"
	"testing"

	"github.com/walpost/walpost/test/harness"
)

var (
	seedFlag   = flag.Uint64("seed", 0, "of everything random; 0: a new one")
	updateFlag = flag.Bool("update", false, "write the table into docs/guarantees.md")
)

func TestMain(m *testing.M) { harness.Main(m, harness.SaramaMetrics()) }
