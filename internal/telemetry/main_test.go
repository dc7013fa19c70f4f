package telemetry

import (
	"flag"
	"testing"

	"go.uber.org/goleak"
)

func updateFlag() bool { return flag.Lookup("update").Value.String() == "true" }

func TestMain(m *testing.M) {
	flag.Bool("update", false, "write the generated documents instead of comparing them")
	goleak.VerifyTestMain(m)
}
