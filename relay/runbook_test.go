package relay

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRunbookHasASectionForEachCondition(t *testing.T) {
	text, err := os.ReadFile("../docs/runbook.md")
	if err != nil {
		t.Fatal(err)
	}
	var sections []string
	for line := range strings.Lines(string(text)) {
		if name, isSection := strings.CutPrefix(line, "## "); isSection {
			sections = append(sections, strings.TrimSpace(name))
		}
	}
	want := ConditionNames()
	slices.Sort(want)
	slices.Sort(sections)
	if d := cmp.Diff(want, sections); d != "" {
		t.Errorf("docs/runbook.md (-registry +sections):\n%s", d)
	}
}
