package main

import (
	"flag"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	flag.Bool("update", false, "write testdata/deps.txt, keeping its reasons")
	testscript.Main(m, map[string]func(){"walpost": main})
}

// The real program, as far as it goes without servers; what each command does
// with its flags is internal/cli's to test.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata/script"})
}
