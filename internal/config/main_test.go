package config

import (
	"flag"
	"os"
	"testing"
)

func updateFlag() bool { return flag.Lookup("update").Value.String() == "true" }

func TestMain(m *testing.M) {
	flag.Bool("update", false, "write the generated documents instead of comparing them")
	flag.Parse()
	os.Exit(m.Run())
}
