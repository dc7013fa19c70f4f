package main

import (
	"flag"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const (
	depsFile  = "testdata/deps.txt"
	separator = " — "
)

func updateFlag() bool { return flag.Lookup("update").Value.String() == "true" }

// Every module that is linked into the production binary is there for a reason
// that somebody wrote down. What only demos and tests need never gets in.
func TestDependencies(t *testing.T) {
	linked, reasons := linkedModules(t), readReasons(t)
	if updateFlag() {
		writeReasons(t, linked, reasons)
		reasons = readReasons(t)
	}
	for _, module := range linked {
		if reasons[module] == "" {
			t.Errorf("%s is linked into walpost without a reason; give it one in %s, or don't import it", module, depsFile)
		}
	}
	for _, module := range slices.Sorted(maps.Keys(reasons)) {
		if !slices.Contains(linked, module) {
			t.Errorf("%s is no longer linked into walpost; run this test with -update", module)
		}
	}
}

func linkedModules(t *testing.T) []string {
	t.Helper()
	list := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Path}}{{end}}{{end}}", ".")
	list.Env = append(os.Environ(), "GOOS=linux", "GOARCH=amd64") // the list is the same wherever it is made
	var stderr strings.Builder
	list.Stderr = &stderr
	out, err := list.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	modules := strings.Fields(string(out))
	slices.Sort(modules)
	return slices.Compact(modules)
}

func readReasons(t *testing.T) map[string]string {
	t.Helper()
	raw, err := os.ReadFile(depsFile)
	if err != nil && !updateFlag() {
		t.Fatal(err)
	}
	reasons := map[string]string{}
	for line := range strings.Lines(string(raw)) {
		module, reason, _ := strings.Cut(strings.TrimSpace(line), strings.TrimSpace(separator))
		reasons[strings.TrimSpace(module)] = strings.TrimSpace(reason)
	}
	return reasons
}

func writeReasons(t *testing.T, modules []string, reasons map[string]string) {
	t.Helper()
	var b strings.Builder
	for _, module := range modules {
		b.WriteString(strings.TrimSpace(module+separator+reasons[module]) + "\n")
	}
	if err := os.WriteFile(depsFile, []byte(b.String()), 0o644); err != nil { // #nosec G306 -- a list to be read
		t.Fatal(err)
	}
}
